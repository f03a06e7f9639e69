"""The next token: which ones are admitted, and the draw among them. Pure functions of logits and generators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gptzoo.errors import GPTZooError, NotFinite


def choose(
    logits: Tensor,
    generators: Sequence[torch.Generator],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Draw a token for each row: (B, V) -> int64 (B,) on the CPU.

    Args:
        logits: Scores of the next token.
        generators: One per row, on the CPU: a row's draw does not depend on the rows beside it. Each gives one number.
        temperature: As for `filter_logits`, like the rest.

    Raises:
        NotFinite: A row's logits are.
    """
    admitted = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    mass = admitted.softmax(-1).cumsum(-1)
    total = mass[:, -1:].contiguous()
    share = torch.stack([torch.rand(1, dtype=torch.float64, generator=generator) for generator in generators])
    token = torch.searchsorted(mass, share * total, right=True)  # `right`: a token of no mass is never met
    last = torch.searchsorted(mass, total)  # where rounding would carry `share * total` past the end
    return torch.minimum(token, last)[:, 0]


def filter_logits(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Scores (..., V) with -inf for what is not admitted, float64 on the CPU, in the order of the arguments.

    Args:
        logits: Scores of the next token (..., V). -inf is a token that cannot come.
        temperature: Scores are divided by it. 0 admits the best token alone.
        top_k: Admit the k best; the smaller number wins a tie.
        top_p: Admit the fewest best tokens whose probabilities sum to at least this, arXiv:1904.09751, section 3.1.
        min_p: Admit tokens of at least this share of the best one's probability, arXiv:2407.01082, section 3.

    Raises:
        NotFinite: A row has NaN, +inf or nothing but -inf.
    """
    scores = logits.detach().cpu().double()
    best = scores.amax(-1, keepdim=True)
    if not bool(best.isfinite().all()):
        raise NotFinite(
            "the model's scores for the next token are not finite. Its weights are damaged or its training diverged: "
            "use an earlier checkpoint."
        )
    scores = scores - best  # now at most 0, so that no temperature, however small, gives NaN or +inf
    if temperature == 0:
        return _keep_best(scores, 1)
    scores = scores / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        scores = _keep_best(scores, top_k)
    if top_p is not None and top_p < 1:
        scores = _keep_nucleus(scores, top_p)
    if min_p is not None and min_p > 0:
        scores = scores.masked_fill(scores < math.log(min_p), -torch.inf)
    return scores


def penalised(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Scores (B, V) in which tokens that a row holds already are less likely.

    A score above 0 is divided by the penalty, one below 0 multiplied by it.

    Source: CTRL, arXiv:1909.05858, section 4.1, where every score is divided; a negative one would gain by that, and is
    multiplied here as it is in transformers.

    Args:
        logits: Scores of the next token; not changed.
        seen: The tokens of each row, its prompt included.
        penalty: 1 changes nothing; below 1 favours what was seen.
    """
    if penalty == 1:
        return logits
    logits = logits.clone()
    for row, tokens in zip(logits, seen, strict=True):
        index = torch.tensor(sorted(set(tokens)), device=logits.device)
        scores = row[index]
        row[index] = torch.where(scores > 0, scores / penalty, scores * penalty)
    return logits


def _keep_best(scores: Tensor, k: int) -> Tensor:
    """Exactly k, ties or not."""
    least = scores.topk(k, dim=-1).values[..., -1:]
    above, ties = scores > least, scores == least
    room = k - above.sum(-1, keepdim=True)
    return scores.masked_fill(~(above | (ties & (ties.cumsum(-1) <= room))), -torch.inf)


def _keep_nucleus(scores: Tensor, p: float) -> Tensor:
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    before = F.pad(ordered.softmax(-1).cumsum(-1)[..., :-1], (1, 0))
    dropped = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, before >= p)
    return scores.masked_fill(dropped, -torch.inf)


def problems_of(
    vocab_size: int,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float = 1.0,
) -> list[GPTZooError]:
    """What is wrong with the options, each named as on the command line."""
    found = []
    if not (math.isfinite(temperature) and temperature >= 0):
        what = f"{temperature} is not a finite number of at least 0. 0 always takes the likeliest token."
        found.append(GPTZooError(what, "--temperature"))
    if top_k is not None and top_k < 1:
        found.append(GPTZooError(f"{top_k} is below 1. Leave it out to admit every token.", "--top-k"))
    if top_k is not None and top_k > vocab_size:
        what = f"{top_k} is above the size of the vocabulary, {vocab_size}. Leave it out to admit every token."
        found.append(GPTZooError(what, "--top-k"))
    if top_p is not None and not 0 < top_p <= 1:
        what = f"{top_p} is not above 0 and at most 1. Leave it out to admit every token."
        found.append(GPTZooError(what, "--top-p"))
    if min_p is not None and not 0 <= min_p <= 1:
        what = f"{min_p} is not between 0 and 1. Leave it out to admit every token."
        found.append(GPTZooError(what, "--min-p"))
    if not (math.isfinite(repetition_penalty) and repetition_penalty > 0):
        what = f"{repetition_penalty} is not a finite number above 0. 1 changes nothing, 1.2 is usual."
        found.append(GPTZooError(what, "--repetition-penalty"))
    return found
