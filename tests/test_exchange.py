"""From a training here to transformers, and from there to a run here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gptzoo
from gptzoo.cli import run
from gptzoo.errors import GPTZooError
from gptzoo.exchange import export, import_run
from gptzoo.loading import shipped_folder
from tests import parity

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout

LLAMA = {
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "context_length": 48,
    "bias": False,
    "attention": {"name": "grouped_query", "n_kv_head": 2},
    "position": "rope",
    "norm": "rmsnorm",
    "mlp": "swiglu",
}
TRAIN = {"steps": 60, "batch_size": 8, "learning_rate": 1e-2, "eval_every": 0, "eval_sequences": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training of Llama's parts on one sentence, over and over."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 400)
    data = {"name": "text", "path": str(folder / "text.txt"), "tokenizer": "byte"}
    return gptzoo.train({"name": "small", "model": LLAMA, "data": data, "train": TRAIN}, runs=folder).path


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "llama"
    assert export(trained, out) == "llama"
    return out


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; its exit code, what it printed and what it complained of."""

    def call(*words: object) -> tuple[int, str, str]:
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("prompt", ["The quick ", "d"])
def test_transformers_own_generate_writes_the_same_greedy_tokens(trained: Path, exported: Path, prompt: str) -> None:
    transformers = parity.quiet_transformers()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    asked = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        written = theirs.generate(**asked, max_new_tokens=30, do_sample=False, pad_token_id=256, eos_token_id=None)  # pyright: ignore[reportAttributeAccessIssue]
    (ours,) = gptzoo.generate(gptzoo.load(trained), [prompt], tokens=30, greedy=True)
    assert written[0, asked["input_ids"].shape[1] :].tolist() == list(ours.tokens)
    assert len(set(ours.tokens)) > 5


def test_an_import_is_a_run_with_weights_recipe_and_tokenizer(trained: Path, exported: Path, tmp_path: Path) -> None:
    done = import_run(exported, tmp_path / "run")
    assert (done.path, done.parameters, done.tokenizer) == (tmp_path / "run", 31424, "tokenizer_json")
    before, after = gptzoo.load(trained), gptzoo.load(done.path)
    assert after.tokenizer is not None
    assert after.tokenizer.encode("12 + 3") == list(b"12 + 3")
    tokens = torch.randint(257, (2, 20))
    with torch.no_grad():
        assert torch.equal(before(tokens), after(tokens))


def test_an_imported_run_needs_nothing_but_its_folder(exported: Path, tmp_path: Path) -> None:
    import_run(exported, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    model = gptzoo.load(tmp_path / "moved")
    assert model.tokenizer is not None
    assert model.tokenizer.decode(model.tokenizer.encode("1 + 1")) == "1 + 1"


def test_there_and_back_again_changes_nothing(exported: Path, tmp_path: Path) -> None:
    import_run(exported, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "again")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        again, before = ((folder / name).read_bytes() for folder in (tmp_path / "again", exported))
        assert again == before if name.endswith("safetensors") else json.loads(again) == json.loads(before), name


def test_a_training_starts_from_an_imported_run(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    import_run(exported, "run")
    changes = {"train.init_from": "run", "train.steps": 1, "train.eval_sequences": 1}
    done = gptzoo.train("run/recipe.yaml", runs=tmp_path, overrides=changes)
    assert done.metrics[-1]["step"] == 1


def test_an_imported_run_is_not_trained_on(exported: Path, tmp_path: Path) -> None:
    import_run(exported, tmp_path / "run")
    with pytest.raises(GPTZooError) as refused:
        gptzoo.train(tmp_path / "run")
    assert str(refused.value).replace(str(tmp_path), "") == (
        "/run: it was imported, not trained here. Start a run from it: gptzoo train /run/recipe.yaml "
        "--train.init_from /run"
    )


def test_an_import_that_fails_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(GPTZooError) as refused:
        import_run(exported, tmp_path / "run", overrides={"model.norm": "layernorm"})
    assert "its weights do not fit the model: " in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_no_target(exported: Path, trained: Path, tmp_path: Path) -> None:
    for act in (lambda: import_run(exported, tmp_path), lambda: export(trained, tmp_path)):
        with pytest.raises(GPTZooError) as refused:
            act()
        assert str(refused.value) == f"{tmp_path}: it exists already. Name another, or remove it."


def test_a_format_that_does_not_exist_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(GPTZooError) as refused:
        export(trained, tmp_path / "out", format="onnx")
    assert str(refused.value) == "--format: there is no format 'onnx'. Use transformers, hub-mixin or gguf."


# -- the command line ------------------------------------------------------------------------------------------------


def test_the_commands_say_what_they_wrote(trained: Path, tmp_path: Path, said: Callable) -> None:
    assert said("export", trained, "--out", tmp_path / "llama") == (0, f"wrote {tmp_path / 'llama'} as llama\n", "")
    code, out, err = said("import", f"hf:{tmp_path / 'llama'}", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == (
        f"wrote {tmp_path / 'run'}: 31,424 parameters, recipe in {tmp_path / 'run' / 'recipe.yaml'}"
    )
    code, out, err = said("generate", tmp_path / "run", "1 + 1 = ", "--tokens", 3, "--greedy")
    assert (code, err) == (0, "")
    assert out.startswith("1 + 1 = ")


def test_recipe_keys_may_be_given_to_an_import(exported: Path, tmp_path: Path, said: Callable) -> None:
    code, _, err = said(
        "import", exported, "--out", tmp_path / "run", "--model.kernel", "naive", "--data.tokenizer", "byte"
    )
    assert (code, err) == (0, "")
    model = gptzoo.load(tmp_path / "run")
    assert {kernel.name for kernel in model.kernels if kernel is not None} == {"naive"}
    assert isinstance(model.tokenizer, gptzoo.Byte)


def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path: Path, said: Callable) -> None:
    assert said("import", "no/such/model", "--out", tmp_path / "run") == (
        2,
        "",
        "gptzoo: no/such/model: there is no such file or folder, and this is no name on the hub.\n",
    )
    assert said("export", tmp_path / "run", "--out", tmp_path / "out")[0] == 2
    assert said("export", tmp_path / "run")[2] == "gptzoo: OUT is missing. See gptzoo COMMAND --help.\n"
