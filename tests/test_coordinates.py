"""The coordinate check tells muP from the standard parametrisation."""

from __future__ import annotations

import pytest

import gptzoo
from gptzoo.coordinates import coordinate_check, slopes
from tests.coordinates import LIMIT, SMALL, both, table

WIDTHS = (64, 128, 256)


def test_a_slope_is_the_power_of_the_width() -> None:
    sizes = {"flat": [3.0, 3.0, 3.0], "root": [8.0, 8 * 2**0.5, 16.0], "inverse": [1.0, 0.5, 0.25]}
    assert slopes(sizes, WIDTHS) == pytest.approx({"flat": 0, "root": 0.5, "inverse": -1}, abs=1e-12)


def test_mup_passes_and_the_standard_parametrisation_fails() -> None:
    mup, standard = both(WIDTHS, (0, 1))
    assert set(mup) == {"embedding", "logits"} | {
        f"layer {layer}{what}" for layer in (0, 1) for what in ("", " attention", " mlp")
    }
    steepest = {name: max(map(abs, slopes(sizes, WIDTHS).values())) for name, sizes in (("mup", mup), ("sp", standard))}
    assert steepest["mup"] < LIMIT
    assert steepest["sp"] > 0.5
    assert "passes; standard" in table(mup, standard, WIDTHS)
    assert [each[0] for each in mup.values()] != [each[0] for each in standard.values()]


def test_before_any_step_only_mups_logits_shrink() -> None:
    overrides = {**SMALL, "model.n_layer": 1, "model.n_head": 2}
    found = slopes(coordinate_check("mup-tiny", WIDTHS, steps=0, seeds=range(3), overrides=overrides), WIDTHS)
    assert found.pop("logits") == pytest.approx(-0.5, abs=0.1)
    assert max(map(abs, found.values())) < 2 * LIMIT


def test_a_width_that_no_number_of_heads_fills_is_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError, match=r"^widths: 80 is not a multiple of head_dim 32\.$"):
        coordinate_check("mup-tiny", [64, 80])
