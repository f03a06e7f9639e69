"""Parts that make sense only beside certain others, and say so: `goes_with = {"model.head": "mup"}`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gptzoo.errors import GPTZooError
from gptzoo.recipe.schema import LAYER_SLOTS, Part, Recipe
from gptzoo.registry import Zoo


def company_problems(recipe: Recipe, zoo: Zoo, where: Callable[[str], str]) -> Iterator[GPTZooError]:
    """Parts that do not stand beside what they `goes_with`, or disagree with it about an option that both have."""
    said: set[str] = set()
    for key, part in _parts(recipe):
        wanted = zoo.get(part.slot, part.name).goes_with if part.name != "auto" else {}
        for other, value in wanted.items():
            for what in _company_problems(recipe, key, part, other, value):
                if what not in said:
                    yield GPTZooError(what, where(other))
                said.add(what)


def _company_problems(recipe: Recipe, key: str, part: Part, other: str, value: object) -> Iterator[str]:
    slot, option = ".".join(other.split(".")[:2]), other.split(".")[2:]
    for found in (each for place, each in _parts(recipe) if place == slot):
        stands = found.options.get(option[0]) if option else found.name
        if stands != value:
            instead = f"not {'null' if stands is None else stands}"
            if option and option[0] not in found.options:
                instead = f"{found.slot} {found.name!r} has no such option"
            yield f"{part.slot} {part.name!r} goes with {other} {value}, {instead}."
        elif not option and key < slot:  # once for each pair
            for name in part.options.keys() & found.options.keys():
                if part.options[name] != found.options[name]:
                    yield (
                        f"{part.slot} {part.name!r} has {name} {part.options[name]} and {found.slot} {found.name!r} "
                        f"{found.options[name]}: they go together. Give both the same."
                    )


def _parts(recipe: Recipe) -> Iterator[tuple[str, Part]]:
    """The parts of model and training, each with its key; a layer's under the key that the model's would have."""
    for layer in recipe.model.layers:
        yield from ((f"model.{slot}", getattr(layer, slot)) for slot in LAYER_SLOTS)
    yield from (("model.head", recipe.model.head), ("model.init", recipe.model.init))
    yield from (("train.optimizer", recipe.train.optimizer), ("train.schedule", recipe.train.schedule))
