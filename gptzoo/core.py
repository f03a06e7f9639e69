"""The core's components, registered through the same hook that a stranger's plugin uses."""

from __future__ import annotations

from gptzoo.parts.attention import MultiHeadAttention
from gptzoo.parts.blocks import Pre
from gptzoo.parts.heads import Tied
from gptzoo.parts.inits import Gpt2Init
from gptzoo.parts.kernels import Naive, Sdpa
from gptzoo.parts.mlps import Gelu
from gptzoo.parts.norms import LayerNorm
from gptzoo.parts.optimizers import AdamW
from gptzoo.parts.positions import Learned
from gptzoo.parts.schedules import Cosine
from gptzoo.parts.text import Text
from gptzoo.parts.tokenizers import Byte
from gptzoo.registry import Registrar, hookimpl


@hookimpl
def gptzoo_register(zoo: Registrar) -> None:
    """Register plain GPT-2."""
    zoo.attention("multi_head", MultiHeadAttention, aliases=["mha"])
    zoo.kernel("naive", Naive)
    zoo.kernel("sdpa", Sdpa)
    zoo.position("learned", Learned)
    zoo.norm("layernorm", LayerNorm)
    zoo.mlp("gelu", Gelu)
    zoo.block("pre", Pre)
    zoo.head("tied", Tied)
    zoo.init("gpt2", Gpt2Init)
    zoo.optimizer("adamw", AdamW)
    zoo.schedule("cosine", Cosine)
    zoo.tokenizer("byte", Byte)
    zoo.data("text", Text)
