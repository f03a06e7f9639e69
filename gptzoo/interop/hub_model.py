"""Any composition as a model of the hub: its recipe in `config.json`, its weights beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from gptzoo.building import Plan, build_model, plan
from gptzoo.interop.exporting import new_folder
from gptzoo.interop.pretrained import TOKENIZER
from gptzoo.model import Model
from gptzoo.recipe.typed import as_mapping


class HubModel(nn.Module, PyTorchModelHubMixin, library_name="gptzoo", tags=["gptzoo"]):
    """A model with the methods of `PyTorchModelHubMixin`: `save_pretrained`, `from_pretrained`, `push_to_hub`.

    Args:
        recipe: With the size of its vocabulary.
    """

    def __init__(self, recipe: dict) -> None:
        super().__init__()
        self.model = build_model(plan(recipe, training=False))

    def forward(self, tokens: Tensor, pos: Tensor | None = None, doc: Tensor | None = None) -> Tensor:
        """int64 (B, T) -> logits (B, T, vocab_size)."""
        return self.model(tokens, pos, doc)


def write_hub_model(model: Model, made: Plan, folder: Path) -> None:
    """Write any model as a folder that `HubModel.from_pretrained` and `gptzoo.from_pretrained` read.

    Raises:
        GPTZooError: The folder exists or cannot be written.
    """
    recipe = portable(made)
    if model.tokenizer is None:
        del recipe["data"]  # a default that this model has never seen
    shell = HubModel(recipe)
    shell.model = model
    need = sum(parameter.nbytes for parameter in model.parameters())
    with new_folder(folder, need) as made_folder:
        shell.save_pretrained(made_folder)
        if model.tokenizer is not None and model.tokenizer.learned:
            (made_folder / TOKENIZER).mkdir()
            model.tokenizer.save(made_folder / TOKENIZER)


def portable(made: Plan) -> dict[str, object]:
    """The part of a recipe that is the model's, for any machine: without data, training and the choice of a kernel."""
    recipe = as_mapping(made.recipe)
    model = recipe["model"]
    assert isinstance(model, dict)
    model.pop("kernel", None)
    for layer in model.get("layers", ()):
        layer.pop("kernel", None)
    data = recipe["data"]
    tokenizer = data["tokenizer"] if isinstance(data, Mapping) else "byte"
    return {"name": recipe["name"], "model": model, "data": {"tokenizer": tokenizer}}
