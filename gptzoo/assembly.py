"""From a typed part to the object it names: one constructor call, with the refusals of constructors made readable."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable

from torch import nn

from gptzoo.errors import GPTZooError
from gptzoo.files import canonical_json
from gptzoo.recipe.schema import Part
from gptzoo.registry import Zoo


def construct(part: Part, zoo: Zoo, *wiring: object, where: str = "") -> object:
    """Call the component's constructor with its wiring and its options.

    Args:
        part: The component, typed.
        zoo: Where its name is looked up.
        wiring: What the model knows, in the order of the slot's wiring.
        where: The place in a recipe, for the message.

    Raises:
        GPTZooError: The constructor refused an option (ValueError), or has a bug; the plugin is named.
    """
    entry = zoo.get(part.slot, part.name, where)
    options = {name: _nested(value, zoo, where) for name, value in part.options.items() if name not in WITH_THE_MODEL}
    try:
        return entry.factory(*wiring, **options)
    except GPTZooError:
        raise
    except ValueError as error:
        raise GPTZooError(f"{part.slot} {part.name!r}: {error}.".replace("..", "."), where) from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise GPTZooError(
            f"{part.slot} {part.name!r} of plugin {entry.owner} failed to build: {type(error).__name__}: {error} "
            f"({frame.filename}:{frame.lineno}).",
            where,
        ) from error


WITH_THE_MODEL = ("tokenizer", "shared")
"""Keys that stand among a part's options in a recipe, but belong to whoever puts the part in its place."""


def factory(part: Part, zoo: Zoo, where: str = "") -> Callable[..., object]:
    """A component's constructor that waits for its wiring; norms are marked, so that their weights get the role."""
    made = functools.partial(construct, part, zoo, where=where)
    return functools.partial(_norm, made) if part.slot == "norm" else made


def _norm(made: Callable[..., object], size: int) -> nn.Module:
    norm = made(size)
    assert isinstance(norm, nn.Module)
    norm.is_norm = True  # type: ignore[assignment]
    return norm


def _nested(value: object, zoo: Zoo, where: str) -> object:
    return factory(value, zoo, where) if isinstance(value, Part) else value


def identity_of(part: Part) -> str:
    """Equal for parts of equal name and options."""
    return canonical_json(as_plain(part))


def as_plain(part: Part) -> dict[str, object]:
    """The part as a recipe writes it: `name` and its options."""
    options = {k: as_plain(v) if isinstance(v, Part) else v for k, v in part.options.items()}
    return {"name": part.name, **options}
