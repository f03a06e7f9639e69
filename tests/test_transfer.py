"""Putting named tensors into a model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from gptzoo.errors import GPTZooError
from gptzoo.transfer import Transfer, load_weights


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 3, bias=False)
        self.b = nn.Linear(3, 2)


NAMES = ("a.weight", "b.weight", "b.bias")


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small()


def tensors_for(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.full_like(tensor, index) for index, (name, tensor) in enumerate(model.state_dict().items())}


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(model: nn.Module, expected: dict[str, Tensor]) -> None:
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_all_weights_are_taken(model: Small) -> None:
    given_ = tensors_for(model)
    assert load_weights(model, given_) == Transfer(taken=NAMES, initialised=(), dropped=())
    assert_equal(model, given_)


def test_the_model_keeps_its_own_memory_and_precision(model: Small) -> None:
    given_ = {name: tensor.double() for name, tensor in tensors_for(model).items()}
    before = model.a.weight.data_ptr()
    load_weights(model, given_)
    assert model.a.weight.dtype == torch.float32
    assert model.a.weight.data_ptr() == before
    given_["a.weight"].fill_(9)
    assert model.a.weight.max() == 0


def test_a_refusal_names_everything_that_is_wrong_and_changes_nothing(model: Small) -> None:
    before = copy_of(model)
    bad = {"b.weight": torch.zeros(3, 2), "b.bias": torch.tensor([1.0, torch.inf]), "c": torch.zeros(1)}
    with pytest.raises(GPTZooError) as refused:
        load_weights(model, bad, source="runs/x")
    assert str(refused.value) == (
        "runs/x: the weights do not fit the model: 1 is missing (a.weight), 1 is unknown here (c), 1 is of another "
        "kind (b.weight: shape (3, 2) is not (2, 3)), 1 is not finite (b.bias). To start from those that fit, train "
        "with train.init_from and partial: true."
    )
    assert_equal(model, before)


def test_of_many_names_only_the_first_are_told(model: Small) -> None:
    with pytest.raises(GPTZooError) as refused:
        load_weights(model, {f"x{number}": torch.zeros(1) for number in range(5)})
    assert str(refused.value) == (
        "the weights do not fit the model: 3 are missing (a.weight, b.weight, b.bias), 5 are unknown here (x0, x1, x2, "
        "...). Build the model from the recipe that the weights were made with."
    )


def test_partial_takes_what_fits_and_tells_the_rest(model: Small) -> None:
    before, given_ = copy_of(model), tensors_for(model)
    some = {"b.bias": given_["b.bias"], "b.weight": torch.zeros(2, 4), "c": torch.zeros(1)}
    assert load_weights(model, some, partial=True) == Transfer(
        taken=("b.bias",),
        initialised=("a.weight", "b.weight"),
        dropped=(("b.weight", "shape (2, 4) is not (2, 3)"), ("c", "unknown here")),
    )
    assert_equal(model, {**before, "b.bias": given_["b.bias"]})


def test_partial_refuses_when_nothing_fits(model: Small) -> None:
    with pytest.raises(GPTZooError) as refused:
        load_weights(model, {"c": torch.zeros(1)}, partial=True, source="runs/x")
    assert str(refused.value) == (
        "runs/x: none of its 1 weights fits the model: 3 are missing (a.weight, b.weight, b.bias), 1 is unknown "
        "here (c)."
    )


def test_partial_refuses_what_is_not_finite_and_changes_nothing(model: Small) -> None:
    before = copy_of(model)
    bad = {**tensors_for(model), "b.bias": torch.tensor([torch.nan, 0.0])}
    with pytest.raises(GPTZooError) as refused:
        load_weights(model, bad, partial=True)
    assert str(refused.value) == "weights are damaged: 1 is not finite (b.bias)."
    assert_equal(model, before)


def test_a_number_that_overflows_in_the_models_precision_is_not_finite(model: Small) -> None:
    given_ = {**tensors_for(model), "b.bias": torch.tensor([1e6, 0.0])}
    with pytest.raises(GPTZooError, match=r"1 is not finite \(b\.bias\)"):
        load_weights(model.half(), given_)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_numbers_of_another_kind_are_not_converted(model: Small, dtype: torch.dtype) -> None:
    given_ = {**tensors_for(model), "b.bias": torch.zeros(2, dtype=dtype)}
    name = str(dtype).removeprefix("torch.")
    assert load_weights(model, given_, partial=True).dropped == (("b.bias", f"{name} is not float32"),)
    with pytest.raises(GPTZooError, match=rf"b\.bias: {name} is not float32"):
        load_weights(model, given_)


def test_a_tied_weight_goes_by_its_first_name(model: Small) -> None:
    model.add_module("again", model.a)
    given_ = {name: tensor for name, tensor in tensors_for(model).items() if name != "again.weight"}
    assert load_weights(model, given_).taken == NAMES
    assert model.get_submodule("again").weight is model.a.weight


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(["x", "y"])))
@settings(deadline=None)
def test_partial_accounts_for_every_name(present: set[str], misshapen: set[str], strange: set[str]) -> None:
    model = Small()
    fitting = present - misshapen
    tensors = {name: tensor for name, tensor in tensors_for(model).items() if name in fitting}
    tensors |= {name: torch.zeros(7) for name in (present & misshapen) | strange}
    if not fitting:
        with pytest.raises(GPTZooError, match="none of its"):
            load_weights(model, tensors, partial=True)
        return
    transfer = load_weights(model, tensors, partial=True)
    assert set(transfer.taken) == fitting
    assert set(transfer.taken) | set(transfer.initialised) == set(NAMES)
    assert {name for name, _ in transfer.dropped} == set(tensors) - fitting
