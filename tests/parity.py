"""The architectures of transformers against ours: largest difference of the logits, for each kernel and precision.

`python -m tests.parity` prints the table. The models are small, their weights random, none of them at its initial
value. transformers computes norms, angles and (in its eager attention) softmax in float32 whatever the precision.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

SIZES = {
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT2_SIZES = {"vocab_size": 211, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64}
GROUPED = {**SIZES, "num_key_value_heads": 2, "tie_word_embeddings": True}


def with_rope(kind: str, **options: object) -> dict[str, object]:
    """A config's RoPE."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **options}}


@dataclass(frozen=True)
class Case:
    """A small model of transformers.

    Args:
        kind: Its classes are `<kind>Config` and `<kind><with_head>`.
        options: Of its config.
        with_head: What the class with a head is called.
    """

    kind: str
    options: Mapping[str, object]
    with_head: str = "ForCausalLM"


CASES: dict[str, Case] = {
    "gpt2": Case("GPT2", GPT2_SIZES, "LMHeadModel"),
    "gpt2, exact gelu, inner width": Case(
        "GPT2", {**GPT2_SIZES, "activation_function": "gelu", "n_inner": 100}, "LMHeadModel"
    ),
    "gpt2, unscaled, another eps": Case(
        "GPT2", {**GPT2_SIZES, "scale_attn_weights": False, "layer_norm_epsilon": 1e-3}, "LMHeadModel"
    ),
    "llama, tied": Case("Llama", {**GROUPED, "tie_word_embeddings": True}),
    "llama, biases, head_dim": Case(
        "Llama",
        {**GROUPED, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": False, "head_dim": 20},
    ),
    "llama, gelu": Case(
        "Llama", {**SIZES, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh", "mlp_bias": True}
    ),
    "llama, linear rope": Case("Llama", {**GROUPED, **with_rope("linear", factor=4.0)}),
    "llama, llama3 rope": Case(
        "Llama",
        {
            **GROUPED,
            **with_rope(
                "llama3",
                factor=8.0,
                original_max_position_embeddings=16,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                rope_theta=1000.0,
            ),
        },
    ),
    "llama, yarn": Case(
        "Llama",
        {
            **GROUPED,
            **with_rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, rope_theta=500.0),
        },
    ),
    "qwen2, yarn with a factor of its own": Case(
        "Qwen2",
        {
            **GROUPED,
            **with_rope(
                "yarn",
                factor=2.0,
                original_max_position_embeddings=32,
                beta_fast=4.0,
                beta_slow=0.5,
                rope_theta=500.0,
                attention_factor=1.1,
                truncate=False,
            ),
        },
    ),
    "mistral, window": Case("Mistral", {**GROUPED, "tie_word_embeddings": True, "sliding_window": 7}),
    "mistral, no window": Case("Mistral", {**GROUPED, "tie_word_embeddings": True, "sliding_window": None}),
    "qwen2": Case("Qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2, upper layers with a window": Case(
        "Qwen2",
        {
            **GROUPED,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
        },
    ),
    "qwen3": Case("Qwen3", {**GROUPED, "tie_word_embeddings": True, "head_dim": 24}),
    "gemma2": Case("Gemma2", {**GROUPED, "head_dim": 24, "query_pre_attn_scalar": 20, "sliding_window": 7}),
    "gemma2, no caps": Case(
        "Gemma2",
        {
            **GROUPED,
            "head_dim": 16,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    ),
    "llama, untied": Case("Llama", {**GROUPED, "tie_word_embeddings": False}),
    "pythia, untied": Case("GPTNeoX", {**SIZES, "tie_word_embeddings": False}),
    "pythia": Case("GPTNeoX", {**SIZES, "tie_word_embeddings": True}),
    "gpt_neox, sequential, no bias": Case(
        "GPTNeoX",
        {
            **SIZES,
            "tie_word_embeddings": True,
            "use_parallel_residual": False,
            "attention_bias": False,
            "hidden_act": "gelu_new",
            "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default", "partial_rotary_factor": 0.5},
        },
    ),
}


@dataclass(frozen=True)
class Reference:
    """A folder that transformers wrote, and the logits that it computes.

    Args:
        folder: Weights in float64.
        tokens: int64 (B, T).
        logits: By precision, (B, T, vocab_size).
    """

    folder: Path
    tokens: Tensor
    logits: Mapping[torch.dtype, Tensor]


def model_of(case: Case) -> nn.Module:
    """The model, in float64, with random weights."""
    transformers = quiet_transformers()
    config = getattr(transformers, f"{case.kind}Config")(
        **case.options, bos_token_id=0, eos_token_id=0, pad_token_id=None, attn_implementation="eager"
    )
    model = getattr(transformers, f"{case.kind}{case.with_head}")(config).eval().double()
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # so that no bias is 0 and no gain is 1
            parameter.add_(torch.randn(parameter.shape, generator=drawn, dtype=torch.float64) * 0.2)
    return model


def reference(case: Case, folder: Path) -> Reference:
    """Save a model and compute its logits."""
    model = model_of(case)
    model.save_pretrained(folder)  # type: ignore[operator]
    tokens = torch.randint(211, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = {dtype: model.to(dtype)(tokens).logits for dtype in (torch.float64, torch.float32)}
    return Reference(folder, tokens, logits)


def quiet_transformers():  # type: ignore[no-untyped-def]  # a module
    """transformers, without its progress bars and advice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    return transformers


def kernels_for(folder: Path) -> Iterator[str]:
    """The kernels that resolve admits for a model, on the CPU, for the forward alone."""
    from gptzoo.building import plan
    from gptzoo.errors import GPTZooError
    from gptzoo.interop.pretrained import read_pretrained
    from gptzoo.loading import load_plugins

    recipe, _ = read_pretrained(folder)
    for name in load_plugins().zoo.names("kernel"):
        try:
            plan(recipe, {"model.kernel": name}, training=False)
        except GPTZooError:
            continue
        yield name


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two logits."""
    return float((found.double() - expected.double()).abs().max())


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference, by the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


def table(folder: Path) -> str:
    """The parity table as text."""
    from gptzoo import from_pretrained

    lines = [f"{'architecture':36} {'kernel':8} {'precision':9} {'largest difference':>18} {'relative':>9}"]
    for number, (name, case) in enumerate(CASES.items()):
        made = reference(case, folder / str(number))
        for kernel in kernels_for(made.folder):
            for dtype in (torch.float32, torch.float64):
                model = from_pretrained(made.folder, dtype=dtype, overrides={"model.kernel": kernel})
                with torch.no_grad():
                    found, expected = model(made.tokens), made.logits[dtype]
                figures = f"{largest_difference(found, expected):18.1e} {relative_difference(found, expected):9.1e}"
                lines.append(f"{name:36} {kernel:8} {str(dtype).removeprefix('torch.'):9} {figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print(table(Path(scratch)))
