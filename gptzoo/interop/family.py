"""What a family of architectures is: one table for its weights, one function for each direction of its description."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gptzoo.contracts import Dims
from gptzoo.interop.composition import Composition
from gptzoo.interop.config import Config
from gptzoo.interop.weights import Weight

NEVER = re.compile(r"(?!)")


@dataclass(frozen=True)
class Family:
    """One architecture of transformers, both ways.

    Args:
        model_type: As `config.json` has it.
        architecture: transformers' class that has a head.
        prefix: What that class puts before the names of all but the head.
        embedding: The embedding's name there, without the prefix.
        heads: Names of a head of its own; the first one is written.
        weights: The name map of a model of these sizes, the head apart.
        model_of: Its config as the `model` of a recipe. It reports what no recipe can express.
        config_of: A composition as its config. What does not fit there is left out, and `model_of` shows it.
        constants: Names of constants that older versions stored with the weights.
    """

    model_type: str
    architecture: str
    prefix: str
    embedding: str
    heads: tuple[str, ...]
    weights: Callable[[Dims], Sequence[Weight]]
    model_of: Callable[[Config], dict[str, object]]
    config_of: Callable[[Composition], dict[str, object]]
    constants: re.Pattern[str] = NEVER

    def table(self, dims: Dims) -> list[Weight]:
        """The name map with the head."""
        return [*self.weights(dims), Weight(self.heads[0], ("head.lm_head.weight",))]

    def full_name(self, name: str) -> str:
        """A name as a file of a model with a head has it."""
        return name if name in self.heads else self.prefix + name


GELU: Mapping[str, str] = {
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh",
    "gelu": "none",
    "gelu_python": "none",
}
"""transformers' names for GELU -> how it is approximated."""

GATED: Mapping[str, dict[str, object]] = {
    "silu": {"name": "swiglu"},
    "swish": {"name": "swiglu"},
    "gelu_pytorch_tanh": {"name": "geglu", "approximate": "tanh"},
    "gelu_new": {"name": "geglu", "approximate": "tanh"},
    "gelu": {"name": "geglu", "approximate": "none"},
}
"""transformers' names for the activation of a gated MLP -> that MLP."""


def activation_of(composition: Composition, known: Mapping[str, str | dict[str, object]]) -> str:
    """transformers' name for what the MLP does; the first known one if none does it."""
    name = composition.name("mlp")
    approximate = composition.option("mlp", "approximate", "")
    for theirs, ours in known.items():
        wanted = ours if isinstance(ours, dict) else {"name": "gelu", "approximate": ours}
        if wanted["name"] == name and wanted.get("approximate", "") == approximate:
            return theirs
    return next(iter(known))


def head_of(config: Config, *, tied: bool) -> str:
    """`tied` or `untied`, as the config says, or else as the architecture has it."""
    return "tied" if config.flag("tie_word_embeddings", tied) else "untied"
