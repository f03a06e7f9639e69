"""Laws of norms, MLPs, blocks and heads: the parts around the attention."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from gptzoo.model import Model
from gptzoo.testing.law import law
from gptzoo.testing.places import Case, cases
from gptzoo.testing.subject import VOCABULARY, Around, Sizes, Subject, speak_up
from gptzoo.testing.tolerance import close, equal, finite
from gptzoo.testing.whole import logits


@dataclass(frozen=True)
class Vectors:
    """Vectors of some width."""

    width: int
    count: int
    seed: int

    def draw(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """(count, width), unit normal."""
        g = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.count, self.width, generator=g, dtype=torch.float64).to(dtype)


def _vectors(subject: Subject) -> st.SearchStrategy[Vectors]:
    return st.builds(Vectors, st.sampled_from([8, 2, 5, 64, 384]), st.integers(1, 5), st.integers(0, 5))


def _norm(subject: Subject, width: int, seed: int = 0, *, loud: bool = True) -> nn.Module:
    built = subject.construct(width)
    assert isinstance(built, nn.Module), "a norm is a torch module"
    if loud:
        speak_up(built, seed)
    return built.double().to(subject.device)


@law("norm", cases=_vectors)
def a_norm_takes_each_token_alone(subject: Subject, vectors: Vectors) -> None:
    norm, x = _norm(subject, vectors.width, vectors.seed), vectors.draw().to(subject.device)
    with torch.no_grad():
        out = norm(x)
        assert out.shape == x.shape and out.dtype == x.dtype, f"{tuple(x.shape)} became {tuple(out.shape)} {out.dtype}"
        for i in range(vectors.count):
            close(norm(x[i]), out[i], "a token on its own")
        close(norm(x[None, :, None]), out[None, :, None], "tokens in more dimensions")


@law("norm", cases=_vectors, applies=lambda s: s.claims("scale_invariant"))
def a_norm_does_not_see_the_scale(subject: Subject, vectors: Vectors) -> None:
    norm, x = _norm(subject, vectors.width, vectors.seed), 1e4 * vectors.draw().to(subject.device)
    with torch.no_grad():
        close(norm(1000 * x), norm(x), "a vector and a thousand times as much", 1e-6)


@law("norm", cases=_vectors, applies=lambda s: s.claims("eps_inside_root") and "eps" in s.part.options)
def eps_stands_inside_the_root(subject: Subject, vectors: Vectors) -> None:
    """Then 1 / gain^2 is a straight line in the mean square, whose value at 0 is eps over the square of the weight."""
    subject = subject.with_options(eps=0.3)
    norm = _norm(subject, 64, loud=False)
    x = torch.cat((vectors.draw().flatten(), torch.randn(64, generator=torch.Generator().manual_seed(9))))[:64].double()
    x = (x - x.mean()) / (x - x.mean()).square().mean().sqrt()
    squares = torch.tensor([0.01, 0.5, 2.0], dtype=torch.float64)
    with torch.no_grad():
        outs = torch.stack([norm((m.sqrt() * x).to(subject.device)).cpu() for m in squares])
    inverse = squares / outs.square().mean(-1)
    slope = (inverse[2] - inverse[1]) / (squares[2] - squares[1])
    close(inverse[0], inverse[1] + slope * (squares[0] - squares[1]), "1 / gain^2 at a small mean square", 1e-6)
    close(inverse[0] - slope * squares[0], 0.3 * slope, "its value at 0", 1e-6)


@law("norm", cases=_vectors)
def a_norm_survives_zeros_and_large_half_numbers(subject: Subject, vectors: Vectors) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        norm = _norm(subject, vectors.width, loud=False).to(dtype)
        large = (6e4 * vectors.draw(torch.float32).sign()).to(dtype).to(subject.device)
        for x in (torch.zeros_like(large), large):
            x.requires_grad_()
            out = norm(x)
            finite(out, f"{dtype} of {'zeros' if not x.any() else 'numbers of 60,000'}")
            assert out.dtype == dtype, f"{dtype} became {out.dtype}"
            (gradient,) = torch.autograd.grad(out.float().sum(), x)
            finite(gradient, f"the gradient in {dtype}")
    exact, low = _norm(subject, vectors.width, loud=False), _norm(subject, vectors.width, loud=False).float()
    if subject.claims("scale_invariant"):
        x = (3e3 * vectors.draw()).to(torch.float16).to(subject.device)
        with torch.no_grad():
            close(low.half()(x).double(), exact(x.double()), "statistics in half precision", 4e-3)


# MLPs


def _model_cases(subject: Subject):  # type: ignore[no-untyped-def]  # a search strategy
    return cases(subject, training=False)


def _outputs(model: Model, kind: str, run) -> list[Tensor]:  # type: ignore[no-untyped-def]
    found: list[Tensor] = []
    module = getattr(model.layers[0], kind)
    handle = module.register_forward_hook(lambda _m, _i, out: found.append(out))
    try:
        with torch.no_grad():
            run()
    finally:
        handle.remove()
    return found


@law("mlp", cases=_model_cases, share=0.5)
def an_mlp_takes_each_token_alone(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    g = torch.Generator().manual_seed(case.seed)
    x = torch.randn(case.batch, case.length, case.sizes.n_embd, dtype=torch.float64, generator=g).to(subject.device)
    order = torch.randperm(case.length, generator=g).to(subject.device)
    mlp = model.layers[0].mlp
    with torch.no_grad():
        straight = mlp(x, model.context(tokens))  # type: ignore[operator]
        shuffled = mlp(x[:, order], model.context(tokens[:, order]))  # type: ignore[operator]
    assert straight.shape == x.shape, f"{tuple(x.shape)} became {tuple(straight.shape)}"
    close(shuffled, straight[:, order], "tokens in another order")


@law("mlp", cases=_model_cases, share=0.5)
def without_its_down_projection_an_mlp_is_silent(subject: Subject, case: Case) -> None:
    """What writes into the residual stream is called `down`: inits and optimizers know it by that name."""
    model = subject.model(case.sizes, case.around, seed=case.seed, fresh=True)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if ".mlp." in path and "down" in path.split("."):
                parameter.zero_()
    tokens = subject.tokens(case.batch, case.length, case.seed)
    (out,) = _outputs(model, "mlp", lambda: logits(model, tokens, case.places))
    assert not out.any(), "with every parameter of `down` at zero it still writes into the stream"


@law("mlp", "attention", "block", cases=_model_cases, share=0.5)
def losses_that_a_part_adds_are_finite_scalars(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed, dtype=torch.float32)
    tokens, at = subject.tokens(case.batch, case.length, case.seed), case.places
    losses = model.hidden(tokens, at.pos, at.doc)[1]
    for name, value in losses.items():
        assert value.ndim == 0, f"the loss {name!r} has shape {tuple(value.shape)}"
        finite(value, f"the loss {name!r}")
        assert value.requires_grad, f"the loss {name!r} has no gradient"


# Blocks


@law("block", cases=_model_cases, applies=lambda s: s.claims("identity_when_silent"), share=0.5)
def a_block_whose_parts_are_silent_is_the_identity(subject: Subject, case: Case) -> None:
    around = replace(case.around, position="none")  # none is added to the embedding
    model = subject.model(case.sizes, around, seed=case.seed, fresh=True)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if {"o", "down"} & set(path.split(".")):
                parameter.zero_()
        tokens = subject.tokens(case.batch, case.length, case.seed)
        hidden, _ = model.hidden(tokens, case.places.pos, case.places.doc)
        close(hidden, model.norm_f(model.wte(tokens)), "the stream behind blocks that write nothing")


@law("block", cases=_model_cases, share=0.5)
def a_block_uses_its_attention_and_its_mlp(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    for kind in ("attention", "mlp"):
        called = _outputs(model, kind, lambda: logits(model, tokens, case.places))
        assert len(called) == 1, f"its {kind} is called {len(called)} times in a forward"


# Heads


@law("head", cases=_model_cases, share=0.5)
def a_head_scores_every_token_of_the_vocabulary(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    with torch.no_grad():
        out = logits(model, tokens, case.places)
    assert out.shape == (case.batch, case.length, VOCABULARY), f"logits have shape {tuple(out.shape)}"


@law("head", cases=_model_cases)
def the_loss_is_that_of_the_logits(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens, targets = (subject.tokens(case.batch, case.length, case.seed + i) for i in (0, 1))
    targets = torch.where(tokens % 3 == 0, -100, targets)
    loss = model.loss(tokens, targets)
    out = logits(model, tokens)
    expected = F.cross_entropy(out.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    close(loss.total, expected, "the loss", 1e-9)
    assert int(loss.tokens) == int((targets != -100).sum()), "masked targets are counted"
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss.total, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        strict=True,
    ):
        if theirs is not None:
            assert ours is not None, "a parameter gets no gradient from the loss"
            close(ours, theirs, "a gradient of the loss", 1e-8)


@law("head", cases=_model_cases, share=0.3)
def what_is_tied_stays_tied(subject: Subject, case: Case) -> None:
    """Where the head scores with the embedding, it still does after moves, casts, loading and copying."""
    import copy

    model = subject.model(case.sizes, case.around, seed=case.seed, fresh=True)
    tied = not any(p.shape == model.wte.weight.shape for p in model.head.parameters())
    if not tied:
        return
    copied = copy.deepcopy(model).float().double()
    copied.load_state_dict(model.state_dict())
    g = torch.Generator().manual_seed(case.seed)
    x = torch.randn(2, case.sizes.n_embd, dtype=torch.float64, generator=g).to(subject.device)
    with torch.no_grad():
        before = copied.head(x).clone()
        equal(before, model.head(x), "scores of a copy")
        copied.wte.weight.mul_(0.5)
        assert not torch.equal(copied.head(x), before), "the head of a copy has left its embedding"
        equal(model.head(x), before, "scores of the original after its copy's embedding changed")


@law("head", cases=_model_cases, share=0.2)
def the_first_loss_is_that_of_guessing(subject: Subject, case: Case) -> None:
    sizes = Sizes(4, 8, 32, 2)
    model = subject.model(sizes, Around("none", "auto"), seed=case.seed, loud=False, dtype=torch.float32)
    tokens, targets = (subject.tokens(8, 32, case.seed + i) for i in (0, 1))
    with torch.no_grad():
        loss = float(model.loss(tokens, targets).total) / targets.numel()
    guess = float(torch.tensor(VOCABULARY).log())
    assert abs(loss / guess - 1) < 0.03, f"a fresh model's loss is {loss:.3f}, that of guessing {guess:.3f}"
