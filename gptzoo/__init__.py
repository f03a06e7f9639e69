"""GPTZoo: a zoo of components for GPT-2-style language models.

Names are resolved on use, so that `import gptzoo` and the command line's `--help` need neither torch nor plugins.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

NUMERICS_VERSION = 1
"""Raised whenever the same recipe would give other numbers; part of a run's identity."""

_HOMES = {
    "gptzoo.errors": "GPTZooError Problems RunInUse CheckpointError NoSpace NotFinite Interrupted",
    "gptzoo.registry": "hookimpl hookspec Zoo Owner Entry Registrar Slot InSlot SLOTS",
    "gptzoo.contracts": (
        "Abilities Attention Batch BiasFunction Context Data Dims Kernel LayerCache Logger Mask NamedParameter Needs "
        "NormFactory Position Role Scale Schedule Tokenizer TwoPoints Where causal"
    ),
    "gptzoo.parts.attention": "MultiHeadAttention",
    "gptzoo.parts.kernels": "Naive Sdpa scores weights combine log_sum_exp as_autocast_would",
    "gptzoo.parts.positions": "Learned",
    "gptzoo.parts.recurrent": "Chunk StateCache documents_read in_chunks",
    "gptzoo.parts.rotary": "Pairing Rotary",
    "gptzoo.parts.norms": "LayerNorm",
    "gptzoo.parts.mlps": "Gelu",
    "gptzoo.parts.gated": "GatedMLP",
    "gptzoo.parts.plain": "PlainMLP",
    "gptzoo.parts.blocks": "Pre",
    "gptzoo.parts.heads": "Head Tied",
    "gptzoo.parts.inits": "Gpt2Init",
    "gptzoo.parts.optimizers": "AdamW decay_groups",
    "gptzoo.parts.schedules": "Cosine warmup_steps",
    "gptzoo.parts.byte_level": "byte_level_json",
    "gptzoo.parts.tokenizers": "Byte short_runs slices valid_unicode",
    "gptzoo.parts.text": "Text TokenStream",
    "gptzoo.parts.examples": "Example Examples LossOn",
    "gptzoo.parts.fresh": "Draws FreshExamples",
    "gptzoo.parts.sequences": "Range SequenceTask SymbolTask checked_range",
    "gptzoo.seeds": "stable_seed",
    "gptzoo.model": "Model Cache",
    "gptzoo.building": "build",
    "gptzoo.running": "train load Run",
    "gptzoo.generation": "generate stream Generated Piece",
    "gptzoo.evaluation": "evaluate",
    "gptzoo.scoring": "log_likelihoods",
    "gptzoo.quantization": "quantized",
    "gptzoo.evals.measuring": "evaluate_suite",
    "gptzoo.interop.pretrained": "from_pretrained",
    "gptzoo.interop.hub_model": "HubModel",
    "gptzoo.exchange": "import_run export",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:  # what editors and type checkers see; __getattr__ gives the same at run time
    from gptzoo.building import build as build
    from gptzoo.contracts import (
        Abilities as Abilities,
        Attention as Attention,
        Batch as Batch,
        BiasFunction as BiasFunction,
        Context as Context,
        Data as Data,
        Dims as Dims,
        Kernel as Kernel,
        LayerCache as LayerCache,
        Logger as Logger,
        Mask as Mask,
        NamedParameter as NamedParameter,
        Needs as Needs,
        NormFactory as NormFactory,
        Position as Position,
        Role as Role,
        Scale as Scale,
        Schedule as Schedule,
        Tokenizer as Tokenizer,
        TwoPoints as TwoPoints,
        Where as Where,
        causal as causal,
    )
    from gptzoo.errors import (
        CheckpointError as CheckpointError,
        GPTZooError as GPTZooError,
        Interrupted as Interrupted,
        NoSpace as NoSpace,
        NotFinite as NotFinite,
        Problems as Problems,
        RunInUse as RunInUse,
    )
    from gptzoo.evals.measuring import evaluate_suite as evaluate_suite
    from gptzoo.evaluation import evaluate as evaluate
    from gptzoo.exchange import export as export, import_run as import_run
    from gptzoo.generation import (
        Generated as Generated,
        Piece as Piece,
        generate as generate,
        stream as stream,
    )
    from gptzoo.interop.hub_model import HubModel as HubModel
    from gptzoo.interop.pretrained import from_pretrained as from_pretrained
    from gptzoo.model import Cache as Cache, Model as Model
    from gptzoo.parts.attention import MultiHeadAttention as MultiHeadAttention
    from gptzoo.parts.blocks import Pre as Pre
    from gptzoo.parts.byte_level import byte_level_json as byte_level_json
    from gptzoo.parts.examples import Example as Example, Examples as Examples, LossOn as LossOn
    from gptzoo.parts.fresh import Draws as Draws, FreshExamples as FreshExamples
    from gptzoo.parts.gated import GatedMLP as GatedMLP
    from gptzoo.parts.heads import Head as Head, Tied as Tied
    from gptzoo.parts.inits import Gpt2Init as Gpt2Init
    from gptzoo.parts.kernels import (
        Naive as Naive,
        Sdpa as Sdpa,
        as_autocast_would as as_autocast_would,
        combine as combine,
        log_sum_exp as log_sum_exp,
        scores as scores,
        weights as weights,
    )
    from gptzoo.parts.mlps import Gelu as Gelu
    from gptzoo.parts.norms import LayerNorm as LayerNorm
    from gptzoo.parts.optimizers import AdamW as AdamW, decay_groups as decay_groups
    from gptzoo.parts.plain import PlainMLP as PlainMLP
    from gptzoo.parts.positions import Learned as Learned
    from gptzoo.parts.recurrent import (
        Chunk as Chunk,
        StateCache as StateCache,
        documents_read as documents_read,
        in_chunks as in_chunks,
    )
    from gptzoo.parts.rotary import Pairing as Pairing, Rotary as Rotary
    from gptzoo.parts.schedules import Cosine as Cosine, warmup_steps as warmup_steps
    from gptzoo.parts.sequences import (
        Range as Range,
        SequenceTask as SequenceTask,
        SymbolTask as SymbolTask,
        checked_range as checked_range,
    )
    from gptzoo.parts.text import Text as Text, TokenStream as TokenStream
    from gptzoo.parts.tokenizers import (
        Byte as Byte,
        short_runs as short_runs,
        slices as slices,
        valid_unicode as valid_unicode,
    )
    from gptzoo.quantization import quantized as quantized
    from gptzoo.registry import (
        SLOTS as SLOTS,
        Entry as Entry,
        InSlot as InSlot,
        Owner as Owner,
        Registrar as Registrar,
        Slot as Slot,
        Zoo as Zoo,
        hookimpl as hookimpl,
        hookspec as hookspec,
    )
    from gptzoo.running import Run as Run, load as load, train as train
    from gptzoo.scoring import log_likelihoods as log_likelihoods
    from gptzoo.seeds import stable_seed as stable_seed


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'gptzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
