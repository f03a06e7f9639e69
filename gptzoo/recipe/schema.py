"""What a recipe is: plain frozen dataclasses. Every default that is not a component's own stands here, once.

The defaults are GPT-2 (124M). A component is a `Part`; its options' defaults stand in its constructor.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from gptzoo.registry import InSlot


@dataclass(frozen=True)
class Bounds:
    """The limits of a number: `Annotated[int, Bounds(low=1)]`.

    Args:
        low: The smallest value.
        above: A value that it must exceed.
        high: The largest value.
        below: A value that it must stay under.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None

    def admits(self, number: float) -> bool:
        """Whether a number lies within."""
        return (
            (self.low is None or number >= self.low)
            and (self.above is None or number > self.above)
            and (self.high is None or number <= self.high)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        said = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
        return " and ".join(f"{word} {limit}" for word, limit in said.items() if limit is not None)


Count = Annotated[int, Bounds(low=1)]
CountOrZero = Annotated[int, Bounds(low=0)]


@dataclass(frozen=True)
class Part:
    """A component and all its options.

    Args:
        slot: The slot in which it stands.
        name: Its registered name, never an alias.
        options: Every option, defaults included. An option that is itself a component is a `Part` or None.
    """

    slot: str
    name: str
    options: dict[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class LayerRecipe:
    """The parts of one layer."""

    attention: Part
    kernel: Part
    position: Part
    mlp: Part
    norm: Part
    block: Part


LAYER_SLOTS = tuple(each.name for each in fields(LayerRecipe))
"""The slots that an entry of `layers` may set."""


@dataclass(frozen=True)
class ModelRecipe:
    """The model, `model:` in a recipe.

    Args:
        n_layer: Layers.
        n_head: Query heads.
        n_embd: Width of the residual stream.
        head_dim: Width of a head; null is n_embd // n_head.
        context_length: Most tokens it is trained to see.
        vocab_size: Entries of the vocabulary; `auto` is the tokenizer's.
        dropout: Probability.
        bias: Whether linear layers and norms add one.
        layers: The parts of each layer, unrolled. A slot that all layers fill alike is also the model's own; one that
            no layer takes from the model is the default there.
    """

    n_layer: Annotated[int, Bounds(low=1, high=1000)] = 12
    n_head: Count = 12
    n_embd: Count = 768
    head_dim: Count | None = None
    context_length: Count = 1024
    vocab_size: Count | Literal["auto"] = "auto"
    dropout: Annotated[float, Bounds(low=0, below=1)] = 0.0
    bias: bool = True
    attention: Part = Part("attention", "multi_head")
    kernel: Part = Part("kernel", "auto")
    position: Part = Part("position", "learned")
    norm: Part = Part("norm", "layernorm")
    mlp: Part = Part("mlp", "gelu")
    block: Part = Part("block", "pre")
    head: Part = Part("head", "tied")
    init: Part = Part("init", "gpt2")
    layers: tuple[LayerRecipe, ...] = ()


@dataclass(frozen=True)
class InitFrom:
    """Weights to start from, `train.init_from`; a string is short for the path.

    Args:
        path: A run or a checkpoint.
        partial: Take what fits, by name and shape, and leave the rest as initialised.
    """

    path: str
    partial: bool = False


@dataclass(frozen=True)
class TrainRecipe:
    """The training, `train:` in a recipe.

    Args:
        steps: Optimizer updates.
        batch_size: Sequences per step over all micro-batches.
        micro_batch_size: Sequences per backward; null is batch_size.
        learning_rate: The peak.
        optimizer: A part.
        schedule: A part: the factor on the learning rate.
        precision: Of the forward and backward pass.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        compile: Whether to compile the model.
        clip: Largest norm of the gradient; null does not clip.
        eval_every: Steps; 0 evaluates only at the end.
        eval_sequences: Sequences in an evaluation.
        eval_problems: Problems to solve in an evaluation, for data that has some.
        save_every: Steps; 0 saves only at the end.
        keep: Checkpoints kept besides the best.
        sample_every: Steps; 0 never samples.
        sample_tokens: Tokens per sample.
        sample_prompts: What samples begin with; the end token unless given.
        log_every: Steps.
        loggers: Parts that receive the metrics.
        init_from: Weights to start from.
    """

    steps: Count = 1000
    batch_size: Count = 12
    micro_batch_size: Count | None = None
    learning_rate: Annotated[float, Bounds(above=0)] = 6e-4
    optimizer: Part = Part("optimizer", "adamw")
    schedule: Part = Part("schedule", "cosine")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str = "auto"
    compile: bool = False
    clip: Annotated[float, Bounds(above=0)] | None = 1.0
    eval_every: CountOrZero = 250
    eval_sequences: Count = 64
    eval_problems: CountOrZero = 0
    save_every: CountOrZero = 500
    keep: Count = 2
    sample_every: CountOrZero = 0
    sample_tokens: Count = 64
    sample_prompts: list[str] = field(default_factory=list)
    log_every: Count = 10
    loggers: tuple[Annotated[Part, InSlot("logger")], ...] = ()
    init_from: InitFrom | None = None


@dataclass(frozen=True)
class Recipe:
    """A whole recipe, typed.

    Args:
        name: The run's name.
        seed: Of the weights, the data order and dropout.
        model: The model.
        data: A part; its option `tokenizer` is a part too.
        train: The training.
    """

    name: str
    seed: CountOrZero = 0
    model: ModelRecipe = ModelRecipe()
    data: Part = Part("data", "python_source", {"tokenizer": Part("tokenizer", "byte")})
    train: TrainRecipe = TrainRecipe()
