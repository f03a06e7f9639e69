"""Parts fit, or are refused with both keys and what would work; nothing falls back silently."""

from __future__ import annotations

import itertools
import re
import time

import pytest
import torch

import gptzoo
from gptzoo.building import plan
from gptzoo.environment import kernels_that_run
from gptzoo.errors import any_of

TINY = {
    "name": "tiny",
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16, "vocab_size": 300},
}

PLUGIN = '''
"""An attention without scores, and a kernel that can do nothing."""

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.attention("averaging", Averaging)
    zoo.attention("capped", Capped)
    zoo.kernel("bare", Bare)


class Averaging(gptzoo.Attention):
    """The mean of what was seen."""

    kernels = ()
    abilities = gptzoo.Abilities(rotate=False, bias=frozenset(), temperature=False, documents=False)

    def __init__(self, dims: gptzoo.Dims):
        super().__init__()
        self.rotate_dim = dims.head_dim

    def forward(self, x, ctx):
        return x.cumsum(1)


class Capped(gptzoo.MultiHeadAttention):
    """Scores are capped."""

    def __init__(self, dims: gptzoo.Dims):
        super().__init__(dims, softcap=2.0)


class Bare(gptzoo.Kernel):
    """States nothing."""
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(PLUGIN)
    return str(path)


def refusal(plugins: list[str] | None = None, *, overrides: dict[str, object]) -> str:
    with pytest.raises(gptzoo.GPTZooError) as caught:
        plan(TINY, overrides, plugins=plugins or [])
    return str(caught.value)


def with_few(message: str, *few: str) -> str:
    """A refusal in which only these of the parts it recommends are left, so that new parts change no test."""
    lines = []
    for line in message.splitlines():
        what, _, ways = line.partition(" Use ")
        named = [[name for name in re.split(r", | or ", way) if name in few] for way in ways.rstrip(".").split("; or ")]
        lines.append(f"{what} Use {'; or '.join(any_of(names) for names in named)}.")
    return "\n".join(lines)


def test_a_bias_for_an_attention_without_scores_is_refused_with_what_would_work(plugin: str) -> None:
    message = refusal([plugin], overrides={"model.attention": "averaging", "model.position": "alibi"})
    assert with_few(message, "learned", "none", "rope", "capped", "multi_head") == (
        "mapping: model.position: position 'alibi' adds a score bias, and attention 'averaging' has no scores. "
        "Use learned or none; or capped or multi_head."
    )


def test_all_violations_are_reported_at_once(plugin: str) -> None:
    message = refusal(
        [plugin],
        overrides={"model.attention": "averaging", "model.position": "rope", "data.documents": True},
    )
    assert with_few(message, "capped", "multi_head", "multi_query", "averaging").splitlines() == [
        "mapping: model.position: position 'rope' rotates queries and keys, and attention 'averaging' has none to "
        "rotate. Use capped, multi_head or multi_query.",
        "mapping: model.attention: attention 'averaging' cannot keep documents apart (data.documents). "
        "Use capped, multi_head or multi_query.",
    ]


def test_a_kernel_for_an_attention_that_mixes_by_itself_is_refused(plugin: str) -> None:
    layers = [{"attention": "averaging", "kernel": "naive", "position": "none"}, {}]
    message = refusal([plugin], overrides={"model.layers": layers, "model.kernel": "sdpa"})
    assert "attention 'averaging' mixes by itself and takes no kernel." in message


def test_the_models_kernel_skips_an_attention_that_mixes_by_itself(plugin: str) -> None:
    layers = [{"attention": "averaging", "position": "none"}, {"attention": "multi_head", "position": "rope"}]
    model = gptzoo.build(TINY, plugins=[plugin], overrides={"model.layers": layers, "model.kernel": "sdpa"})
    assert kernels_that_run(model, "fp32") == ["none", "sdpa: flash (cpu)"]


def test_what_a_kernel_does_not_state_it_cannot_do(plugin: str) -> None:
    message = refusal([plugin], overrides={"model.kernel": "bare"})
    assert with_few(message, "flash", "naive", "sdpa", "bare").splitlines() == [
        "mapping: model.kernel: kernel 'bare' does not run on cpu. Use flash, naive or sdpa.",
        "mapping: model.kernel: kernel 'bare' does not take fp32 on cpu. Use flash, naive or sdpa.",
    ]


def test_auto_takes_the_first_kernel_that_can(plugin: str) -> None:
    assert plan(TINY).recipe.model.kernel.name == "sdpa"
    capped = plan(TINY, {"model.attention": "capped"}, plugins=[plugin]).recipe
    assert capped.model.kernel.name == "naive"
    assert {layer.kernel.name for layer in capped.model.layers} == {"naive"}


def test_an_asked_for_kernel_is_refused_rather_than_replaced() -> None:
    message = refusal(overrides={"model.attention": {"name": "multi_head", "softcap": 2.0}, "model.kernel": "sdpa"})
    assert with_few(message, "naive", "sdpa", "flash", "multi_head", "multi_query") == (
        "mapping: model.kernel: attention 'multi_head' caps its scores, which kernel 'sdpa' on cpu cannot do. "
        "Use naive; or multi_head or multi_query."
    )


def test_a_layer_cannot_have_an_embedding_of_its_own() -> None:
    message = refusal(overrides={"model.layers": [{"position": "sinusoidal"}, {"position": "none"}]})
    assert with_few(message, "alibi", "learned", "none", "rope", "sinusoidal") == (
        "mapping: model.position: position 'sinusoidal' is added to the embedding and cannot be a single layer's. "
        "Use alibi, none or rope."
    )


def test_dropout_that_a_kernel_lacks_is_refused() -> None:
    message = refusal(overrides={"model.kernel": "flash", "model.dropout": 0.1})
    assert with_few(message, "flash", "naive", "sdpa") == (
        "mapping: model.kernel: kernel 'flash' on cpu has no dropout (model.dropout). Use naive or sdpa."
    )


def test_a_constructors_refusal_names_slot_component_and_place() -> None:
    message = refusal(overrides={"model.attention": {"name": "grouped_query", "n_kv_head": 3}})
    assert (
        message == "mapping: model.attention: attention 'grouped_query': n_kv_head must divide n_head = 2, 3 does not."
    )


def test_a_part_that_goes_with_others_is_refused_without_them() -> None:
    assert refusal(overrides={"train.optimizer": "schedule_free"}) == (
        "mapping: train.schedule: optimizer 'schedule_free' goes with train.schedule constant, not cosine."
    )
    plan(TINY, {"train.optimizer": "schedule_free", "train.schedule": "constant"})


@pytest.mark.parametrize(
    ("kernel", "ran"),
    [
        ("naive", "naive: plain"),
        ("sdpa", "sdpa: flash (cpu)"),
        ("flash", "flash: flash (cpu)"),
        ({"name": "sdpa", "backend": "math"}, "sdpa: plain"),
        ({"name": "sdpa", "backend": "flash"}, "sdpa: flash (cpu)"),
    ],
    ids=str,
)
def test_the_kernel_on_record_is_the_kernel_that_ran(kernel: object, ran: str) -> None:
    for position, precision in itertools.product(("learned", "rope"), ("fp32", "bf16")):
        model = gptzoo.build(TINY, overrides={"model.kernel": kernel, "model.position": position})
        assert kernels_that_run(model, precision) == [ran, ran]


def test_dropout_makes_sdpa_run_its_plain_formula_on_this_device_and_the_record_says_so() -> None:
    model = gptzoo.build(TINY, overrides={"model.dropout": 0.1, "model.kernel": "sdpa"})
    assert kernels_that_run(model, "fp32") == ["sdpa: plain"] * 2


def test_resolving_allocates_nothing_and_takes_no_time() -> None:
    large = {"name": "large", "model": {"n_embd": 16384, "n_head": 128, "n_layer": 96}}
    start = time.perf_counter()
    plan(large)
    assert time.perf_counter() - start < 5  # its weights would be 1.2 TB


def test_building_on_the_meta_device_leaves_the_default_device_alone() -> None:
    plan(TINY)
    assert torch.zeros(1).device.type == "cpu"
