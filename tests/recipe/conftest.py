"""A zoo of small classes without tensors, and a folder to write recipes into."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from gptzoo.errors import GPTZooError
from gptzoo.recipe.compose import compose
from gptzoo.recipe.schema import Recipe
from gptzoo.recipe.typed import typed
from gptzoo.registry import InSlot, Owner, Zoo

NormOption = Annotated[Callable[[int], object], InSlot("norm")]


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class MultiHead:
    def __init__(self, dims: object, n_kv_head: int | None = None, scale: float = 1.0) -> None: ...


class Grouped:
    def __init__(self, dims: object, n_kv_head: int | None = None, qk_norm: NormOption | None = None) -> None: ...


class Sliding:
    def __init__(self, dims: object, window: int = 256, scale: float = 2.0) -> None: ...


class Needy:
    def __init__(self, dims: object, width: int) -> None: ...


class Rich:
    def __init__(
        self,
        dims: object,
        sizes: list[int] = [1, 2],  # noqa: B006
        pair: tuple[float, float] = (0.9, 0.95),
        rates: dict[str, float] = {},  # noqa: B006
        colour: Colour = Colour.RED,
        folder: Path = Path("data"),
        mode: Literal["tanh", "none", 3] = "tanh",
        either: int | str = 1,
        norms: tuple[NormOption, ...] = (),
        inner: NormOption = "layernorm",  # type: ignore[assignment]
    ) -> None: ...


class Plain:
    def __init__(self) -> None: ...


class Norm:
    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True) -> None: ...


class Kernel:
    def __init__(self, backend: Literal["auto", "flash"] = "auto") -> None: ...


class Text:
    def __init__(
        self, tokenizer: object, context_length: int, path: str = "plays.txt", documents: bool = False
    ) -> None: ...


def positioned(dims: object, rotate_dim: int, theta: float = 1e4) -> object:
    """A position may be a function."""
    return (dims, rotate_dim, theta)


def filled() -> Zoo:
    """A zoo with every default and some rivals."""
    zoo = Zoo()
    core = zoo.registering(Owner("core", "core"))
    core.attention("multi_head", MultiHead, aliases=["mha"])
    core.attention("grouped_query", Grouped, aliases=["gqa"])
    core.attention("sliding_window", Sliding)
    for name in ("naive", "sdpa", "flash"):
        core.kernel(name, Kernel)
    core.position("learned", Plain)
    core.position("rope", positioned)
    core.position("none", Plain)
    core.norm("layernorm", Norm)
    core.norm("rmsnorm", Norm)
    core.mlp("gelu", Plain)
    core.mlp("needy", Needy)
    core.mlp("rich", Rich)
    core.block("pre", Plain)
    core.head("tied", Plain)
    core.init("gpt2", Plain)
    core.optimizer("adamw", Plain)
    core.schedule("cosine", Plain)
    core.data("python_source", Plain)
    core.data("text", Text)
    core.tokenizer("byte", Plain)
    core.tokenizer("gpt2", Plain)
    core.logger("jsonl", Plain)
    core.commit()
    return zoo


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    return filled()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory beside an empty folder of shipped recipes."""
    (tmp_path / "work").mkdir()
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


class Bench:
    """Writes recipes, and composes and types them."""

    def __init__(self, folder: Path, zoo: Zoo) -> None:
        self.folder, self.zoo = folder, zoo

    def write(self, name: str, text: str) -> str:
        path = self.folder / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return name

    def ship(self, name: str, text: str) -> str:
        path = self.folder / "recipes" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return name

    def tree(self, recipe: Any, overrides: Any = ()) -> dict[str, Any]:
        return compose(recipe, overrides, shipped=self.folder / "recipes").tree

    def typed(self, recipe: Any, overrides: Any = ()) -> Recipe:
        return typed(compose(recipe, overrides, shipped=self.folder / "recipes", defer=True), self.zoo)

    def refusal(self, recipe: Any, overrides: Any = ()) -> list[str]:
        """The lines of the error."""
        with pytest.raises(GPTZooError) as caught:
            self.typed(recipe, overrides)
        assert caught.value.exit_code == 2
        return caught.value.lines

    def refused(self, text: str, overrides: Any = ()) -> list[str]:
        """The lines of the error for a recipe's text, in `a.yaml`."""
        return self.refusal(self.write("a.yaml", text), overrides)


@pytest.fixture
def bench(folder: Path, zoo: Zoo) -> Bench:
    return Bench(folder, zoo)
