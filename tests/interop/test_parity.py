"""Every architecture that can be read, against transformers and against slow forwards in float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gptzoo.building import plan
from gptzoo.interop.pretrained import from_pretrained, read_pretrained
from gptzoo.loading import shipped_folder
from gptzoo.recipe.typed import as_yaml
from tests import float64_twins, parity

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, parity.Reference]:
    root = tmp_path_factory.mktemp("references")
    return {name: parity.reference(case, root / str(n)) for n, (name, case) in enumerate(parity.CASES.items())}


@pytest.mark.parametrize("name", parity.CASES)
def test_logits_are_those_of_transformers_under_every_kernel(
    references: dict[str, parity.Reference], name: str
) -> None:
    reference = references[name]
    kernels = list(parity.kernels_for(reference.folder))
    assert "naive" in kernels
    for kernel in kernels:
        for dtype in (torch.float32, torch.float64):
            model = from_pretrained(reference.folder, dtype=dtype, overrides={"model.kernel": kernel})
            with torch.no_grad():
                found, expected = model(reference.tokens), reference.logits[dtype]
            assert found.dtype == dtype
            if dtype == torch.float32:
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
            elif name.startswith("gpt2"):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
            else:
                assert parity.relative_difference(found, expected) < 1e-6


@pytest.mark.parametrize("name", [name for name in parity.CASES if not name.startswith("gpt2")])
def test_logits_are_those_of_a_slow_forward_in_float64(references: dict[str, parity.Reference], name: str) -> None:
    folder, tokens = references[name].folder, references[name].tokens[0]
    config = json.loads((folder / "config.json").read_text())
    expected = float64_twins.logits(config, load_file(folder / "model.safetensors"), tokens)
    with torch.no_grad():
        found = from_pretrained(folder, dtype=torch.float64)(tokens[None])[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", parity.CASES)
def test_the_recipe_that_is_written_out_is_the_model(
    references: dict[str, parity.Reference], name: str, tmp_path: Path
) -> None:
    mapping, _ = read_pretrained(references[name].folder)
    made = plan(mapping, training=False)
    (tmp_path / "recipe.yaml").write_text(as_yaml(made.recipe))
    assert plan(tmp_path / "recipe.yaml", training=False).recipe.model == made.recipe.model
