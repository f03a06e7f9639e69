"""Models that others made: the folders that transformers writes for GPT-2."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gptzoo.building import Overrides, Plan, build_model, build_tokenizer, plan, with_vocab_size
from gptzoo.errors import GPTZooError, any_of, raise_all
from gptzoo.model import Model
from gptzoo.transfer import load_weights, misfits

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

GELU = MappingProxyType(
    {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_python_tanh": "tanh", "gelu": "none", "gelu_python": "none"}
)
"""transformers' names for GELU -> how it is approximated."""

INEXPRESSIBLE = MappingProxyType(
    {
        "scale_attn_by_inverse_layer_idx": "divides the scores of each layer by its number",
        "reorder_and_upcast_attn": "computes the scores in float32 in any precision",
        "add_cross_attention": "adds a second attention to each block",
    }
)
"""Switches of transformers' GPT-2 that no recipe can express, and what they do."""

BLOCK = MappingProxyType(
    {
        "ln_1": ("norm_1",),
        "attn.c_attn": ("attention.q", "attention.k", "attention.v"),
        "attn.c_proj": ("attention.o",),
        "ln_2": ("norm_2",),
        "mlp.c_fc": ("mlp.up",),
        "mlp.c_proj": ("mlp.down",),
    }
)
"""A block's modules in transformers -> ours."""

OUTSIDE = MappingProxyType(
    {
        "wte.weight": "wte.weight",
        "wpe.weight": "positions.0.wpe.weight",
        "ln_f.weight": "norm_f.weight",
        "ln_f.bias": "norm_f.bias",
    }
)
"""The weights outside of the blocks."""

GPT2_MERGES = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"
"""sha256 of the 50,000 merges of GPT-2's tokenizer, one per line."""

_MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # constants that older versions stored with the weights
_MAX_LAYERS = 1000  # a recipe's limit


def from_pretrained(
    folder: str | os.PathLike[str],
    /,
    *,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    overrides: Overrides = (),
    **more: object,
) -> Model:
    """A GPT-2 from a folder that transformers' `save_pretrained` wrote: `from_pretrained("gpt2-medium")`.

    It comes ready to generate: in evaluation mode, on the device of `train.device`, without dropout, with GPT-2's
    tokenizer if the folder uses it, else with `tokenizer` None unless `data.tokenizer` is given.

    Args:
        folder: With `config.json` and `model.safetensors`, or its parts and their index.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        dtype: Of the weights; float32 unless given.
        overrides: Recipe keys, dotted, as pairs of raw YAML or a mapping: `{"model.kernel": "naive"}`.
        more: The same, as keywords.

    Raises:
        GPTZooError: The folder holds no sound GPT-2, or one that no recipe can express.
    """
    mapping, tensors = read_pretrained(folder)
    made = plan(mapping, more or overrides, plugins=plugins, folders=folders, training=False)
    model = build_model(made).to(dtype)  # before the weights come, so that float64 ones stay whole
    load_weights(model, tensors, source=str(folder))
    _add_tokenizer(model, made)
    return model.to(made.device).eval()


def read_pretrained(folder: str | os.PathLike[str]) -> tuple[dict[str, object], dict[str, Tensor]]:
    """A GPT-2 that transformers wrote, as a recipe and its weights by their names here.

    Raises:
        GPTZooError: The folder holds no sound GPT-2, or one that no recipe can express.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GPTZooError("there is no such folder. Name one that transformers' save_pretrained wrote.", str(folder))
    config = _Config(folder / CONFIG)
    tensors = _named_plainly(_read_tensors(folder), folder)
    _take_the_head(config, tensors)
    if problem := misfits(config.layout(), tensors):
        raise GPTZooError(f"its weights do not fit its {CONFIG}: {problem}.", str(folder))
    recipe: dict[str, object] = {"name": config.name, "model": config.model()}
    if config.vocab_size == 50257 and _uses_gpt2_tokenizer(folder):
        recipe["data"] = {"tokenizer": "gpt2"}
    return recipe, dict(_canonical(tensors))


def _add_tokenizer(model: Model, made: Plan) -> None:
    """The recipe's tokenizer, if it names one: the default belongs to data that this model has never seen."""
    data = made.composed.tree.get("data")
    if not isinstance(data, Mapping) or "tokenizer" not in data:
        return
    tokenizer = build_tokenizer(made)
    if tokenizer.learned:
        raise GPTZooError("it has to learn from a corpus, and there is none here.", made.where("data.tokenizer"))
    with_vocab_size(made, tokenizer)  # refuses one that is too large
    model.tokenizer = tokenizer


# -- config.json -----------------------------------------------------------------------------------------------------


class _Config:
    """transformers' GPT2Config, as far as it decides what the model computes; defaults are GPT2Config's.

    Raises:
        GPTZooError: It is no GPT-2's, or one that no recipe can express; all problems at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = _read_json(path)
        self.problems: list[GPTZooError] = []
        self.require_gpt2()
        self.vocab_size = self.count("vocab_size", 50257)
        self.n_positions = self.count("n_positions", 1024)
        self.n_embd = self.count("n_embd", 768)
        self.n_layer = self.count("n_layer", 12, high=_MAX_LAYERS)
        self.n_head = self.count("n_head", 12)
        self.n_inner = self.count("n_inner", 4 * self.n_embd)
        self.activation = self.one_of("activation_function", "gelu_new", GELU)
        self.eps = self.positive("layer_norm_epsilon", 1e-5)
        self.scaled = self.flag("scale_attn_weights", True)
        self.tied = self.flag("tie_word_embeddings", True)
        for key, what in INEXPRESSIBLE.items():
            if self.flag(key, False):
                self.report(key, f"true {what}, which no recipe can express.")
        if self.n_embd % self.n_head:
            self.report("n_head", f"{self.n_head} does not divide n_embd {self.n_embd}.")
        raise_all(self.problems)

    @property
    def name(self) -> str:
        """The folder's, made fit for a run's."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", self.path.absolute().parent.name).strip("-")[:100] or "gpt2"

    def model(self) -> dict[str, object]:
        """The `model` of a recipe."""
        scale = {} if self.scaled else {"scale": 1.0}
        hidden = {} if self.n_inner == 4 * self.n_embd else {"hidden": self.n_inner}
        return {
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "n_embd": self.n_embd,
            "context_length": self.n_positions,
            "vocab_size": self.vocab_size,
            "attention": {"name": "multi_head", **scale},
            "position": "learned",
            "norm": {"name": "layernorm", "eps": self.eps},
            "mlp": {"name": "gelu", "approximate": GELU[self.activation], **hidden},
            "block": "pre",
            "head": "tied",
        }

    def layout(self) -> dict[str, Tensor]:
        """The weights that the files must hold, on the meta device; Conv1D stores its matrix as (in, out)."""
        embd, inner = self.n_embd, self.n_inner
        shapes: dict[str, tuple[int, ...]] = {
            "wte.weight": (self.vocab_size, embd),
            "wpe.weight": (self.n_positions, embd),
            "ln_f.weight": (embd,),
            "ln_f.bias": (embd,),
        }
        for layer in range(self.n_layer):
            for norm in ("ln_1", "ln_2"):
                shapes |= {f"h.{layer}.{norm}.weight": (embd,), f"h.{layer}.{norm}.bias": (embd,)}
            for linear, size in (
                ("attn.c_attn", (embd, 3 * embd)),
                ("attn.c_proj", (embd, embd)),
                ("mlp.c_fc", (embd, inner)),
                ("mlp.c_proj", (inner, embd)),
            ):
                shapes |= {f"h.{layer}.{linear}.weight": size, f"h.{layer}.{linear}.bias": size[1:]}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    def report(self, key: str, what: str) -> None:
        self.problems.append(GPTZooError(what, f"{self.path}: {key}"))

    def require_gpt2(self) -> None:
        kind = self.values.get("model_type")
        if kind != "gpt2":
            said = "it does not say which model this is" if kind is None else f"this is a model of type {kind!r}"
            raise GPTZooError(f"{said}. Only type 'gpt2' can be read.", f"{self.path}: model_type")

    def count(self, key: str, default: int, high: int = 2**31) -> int:
        value = self.values.get(key)
        if value is None:
            return default
        if type(value) is not int or not 1 <= value <= high:
            self.report(key, f"{value!r} is not a whole number from 1 to {high:,}.")
            return default
        return value

    def positive(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            self.report(key, f"{value!r} is not a number above 0.")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.report(key, f"{value!r} is neither true nor false.")
            return default
        return value

    def one_of(self, key: str, default: str, known: Mapping[str, str]) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str) or value not in known:
            self.report(key, f"{value!r} cannot be read, only {any_of(list(known))}.")
            return default
        return value


def _read_json(path: Path) -> dict[str, object]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "Name a folder that transformers' save_pretrained wrote."
        raise GPTZooError(f"there is no such file. {remedy}", str(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise GPTZooError(f"this is not JSON that can be read: {_one_line(error)}.", str(path)) from error
    if not isinstance(read, dict):
        raise GPTZooError("this is not a JSON object.", str(path))
    return read


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200]


# -- the weights -----------------------------------------------------------------------------------------------------


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / SINGLE).exists():
        return _load(folder / SINGLE)
    if (folder / INDEX).exists():
        return dict(_load_parts(folder))
    pickles = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if pickles:
        raise GPTZooError(
            f"{pickles[0]} is a pickle, which can run code when it is read. Ask its author for {SINGLE}, or, if you "
            "trust it, have transformers write one: GPT2LMHeadModel.from_pretrained(folder).save_pretrained(folder).",
            str(folder),
        )
    raise GPTZooError(f"it holds neither {SINGLE} nor {INDEX}.", str(folder))


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise GPTZooError(f"there is no such file, and {INDEX} names it. Copy it again.", str(file)) from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise GPTZooError(f"it is damaged ({_one_line(error)}). Copy it again.", str(file)) from error


def _load_parts(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model in several files, each from the one file that the index gives for it."""
    where = f"{folder / INDEX}: weight_map"
    parts = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(file, str) for file in parts.values()):
        raise GPTZooError("it does not say which file holds which weight.", where)
    files = sorted(set(parts.values()))
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise GPTZooError(f"{name!r} is not a safetensors file of this folder.", where)
    for name in files:
        tensors = _load(folder / name)
        if strange := sorted(tensors.keys() ^ {weight for weight, file in parts.items() if file == name}):
            raise GPTZooError(f"it and {name} disagree on {strange[0]!r}. Copy them again.", where)
        yield from tensors.items()


def _named_plainly(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Without the prefix that a model with a head adds, and without stored masks."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("transformer.")
        if short in plain:
            raise GPTZooError(f"it holds both {short!r} and {'transformer.' + short!r}.", str(folder))
        if not _MASK.fullmatch(short):
            plain[short] = tensor
    return plain


def _take_the_head(config: _Config, tensors: dict[str, Tensor]) -> None:
    """Drop an output matrix that is the embedding's.

    Raises:
        GPTZooError: It is another one.
    """
    head = tensors.pop("lm_head.weight", None)
    if head is None and config.tied:
        return
    if head is not None and torch.equal(head, tensors.setdefault("wte.weight", head)):
        return
    what = "lm_head.weight is not wte.weight" if head is not None else "there is no lm_head.weight"
    said = str(config.tied).lower()
    raise GPTZooError(
        f"it is {said}, and {what}: only a head that is the embedding can be read.",
        f"{config.path}: tie_word_embeddings",
    )


def _canonical(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights by our names: matrices as (out, in), q, k and v apart."""
    for name, tensor in tensors.items():
        if name in OUTSIDE:
            yield OUTSIDE[name], tensor
            continue
        _, layer, rest = name.split(".", 2)
        module, kind = rest.rsplit(".", 1)
        ours = BLOCK[module]
        for part, piece in zip(ours, tensor.t().chunk(len(ours)), strict=True):  # .t() leaves a vector as it is
            yield f"layers.{layer}.{part}.{kind}", piece


# -- the tokenizer ---------------------------------------------------------------------------------------------------


def _uses_gpt2_tokenizer(folder: Path) -> bool:
    """Whether the folder's tokenizer is GPT-2's: many of other languages have as many tokens. None there counts."""
    for read in (_merges_of_text, _merges_of_json):
        merges = read(folder)
        if merges is not None:
            return hashlib.sha256("\n".join(merges).encode(errors="replace")).hexdigest() == GPT2_MERGES
    return True


def _merges_of_text(folder: Path) -> list[str] | None:
    path = folder / "merges.txt"
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [line for line in lines if line and not line.startswith("#version")]


def _merges_of_json(folder: Path) -> list[str] | None:
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    model = _read_json(path).get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    return [pair if isinstance(pair, str) else " ".join(map(str, pair)) for pair in merges or ()]
