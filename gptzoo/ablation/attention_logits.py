"""The largest attention logit of a trained model, layer by layer: what grows before a training becomes unstable.

Fused kernels show no scores, so the model runs once more over the first batch of its evaluation, with a kernel that
looks at the scores and then lets the model's own kernel do the work.

Source: Wortsman et al., arXiv:2309.14322, section 3.1.1: too high a learning rate shows in attention logits that grow.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from gptzoo.ablation.ledger import LOGITS
from gptzoo.building import Plan, build_model
from gptzoo.contracts import BiasFunction, Data, Kernel, Mask, Where
from gptzoo.evaluation import batches_of, evaluating
from gptzoo.files import canonical_json, write_atomically
from gptzoo.model import Model
from gptzoo.parts.kernels import scores
from gptzoo.precision import autocast
from gptzoo.runs import RunDirectory
from gptzoo.transfer import load_weights


class Recorder(Kernel):
    """A kernel that notes the largest score that any query gives to a key it may see, as softmax gets it, less a bias.

    Scores are taken row by row: all of them at once would need what fused kernels avoid.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.name = kernel, kernel.name
        self.largest: float | None = None

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        where: Where,
        mask: Mask,
        bias: BiasFunction | Tensor | None = None,
        scale: float,
        softcap: float | None = None,
        dropout: float = 0.0,
        return_lse: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        allowed = where.dense_mask(mask).expand(len(q), 1, q.shape[2], k.shape[2])
        for row in range(len(q)):
            s = scores(q[row, None], k[row, None], scale, softcap).detach()
            top = float(s.masked_fill(~allowed[row], -torch.inf).max())
            if math.isfinite(top):  # a row of padding sees no key
                self.largest = top if self.largest is None else max(self.largest, top)
        options = {"dropout": dropout, "return_lse": return_lse}
        return self.kernel(q, k, v, where=where, mask=mask, bias=bias, scale=scale, softcap=softcap, **options)  # type: ignore[arg-type]


def largest_logits(model: Model, data: Data, *, sequences: int, batch_size: int, precision: str) -> list[float | None]:
    """For each layer the largest logit over the first batch of the validation split.

    None for an attention that mixes without a kernel: it has no such scores, or shows them to nobody.

    Args:
        model: Left as it was.
        data: Tokenized for it.
        sequences: Rows of an evaluation.
        batch_size: Rows of a batch.
        precision: As in its evaluations.
    """
    batch = next(batches_of(data, "val", min(sequences, data.sequences("val")), batch_size))
    kernels, device = list(model.kernels), model.wte.weight.device
    recorders = [kernel and Recorder(kernel) for kernel in kernels]
    model.kernels = list(recorders)
    pos, doc = (None, None) if batch.plain else (batch.pos.to(device), batch.doc.to(device))
    try:
        with evaluating(model), autocast(device.type, precision):
            model.hidden(batch.tokens.to(device), pos, doc)
    finally:
        model.kernels = kernels
    return [None if recorder is None else recorder.largest for recorder in recorders]


def write_logits(folder: Path, made: Plan, data: Data) -> None:
    """Measure a run that is done, from its last checkpoint, and write `logits.json` beside it.

    Args:
        folder: Of the run.
        made: Its recipe, the size of its vocabulary known.
        data: Of the run.

    Raises:
        GPTZooError: The file cannot be written.
    """
    checkpoint, train = RunDirectory.at(folder, lock=False).latest(), made.recipe.train
    if checkpoint is None:
        return
    model = build_model(made)
    load_weights(model, checkpoint.model, source=str(folder))
    size = train.micro_batch_size or train.batch_size
    said: dict[str, object] = {"step": checkpoint.step}
    try:
        said["largest"] = largest_logits(
            model.to(made.device), data, sequences=train.eval_sequences, batch_size=size, precision=train.precision
        )
    except Exception as error:  # a stranger's attention may ask its kernel for more; its run is done all the same
        said["trouble"] = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    write_atomically(folder / LOGITS, f"{canonical_json(said)}\n".encode())
