"""The command line as a user types it: one line for a mistake, its exit code, no traceback, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gptzoo.cli import COMMANDS, FLAGS, build_parser, run

TINY = ["--model.n_layer", "1", "--model.n_embd", "16", "--model.n_head", "2", "--model.context_length", "16"]
SHORT = [*TINY, "--train.steps", "3", "--train.batch_size", "2", "--train.eval_sequences", "2"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("".join(f"{n} squared is {n * n}.\n" for n in range(300)))
    recipe = "name: squares\nmodel: {n_layer: 1, n_embd: 16, n_head: 2, context_length: 16}\n"
    recipe += (
        "data: {name: text, path: text.txt, tokenizer: char}\ntrain: {steps: 3, batch_size: 2, eval_sequences: 2}\n"
    )
    (tmp_path / "squares.yaml").write_text(recipe)
    return tmp_path


@pytest.fixture
def trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["train", "squares.yaml"]) == 0
    capsys.readouterr()
    return str(next((folder / "runs").iterdir()).relative_to(folder))


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that must be refused with exit code 2."""
    assert run(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.rstrip("\n")


def test_the_whole_way_from_a_recipe_to_a_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "squares.yaml", "--model.position", "rope", "--model.attention", "mqa"]) == 0
    out = capsys.readouterr().out
    (path,) = (folder / "runs").iterdir()
    assert "step 3/3" in out
    assert out.splitlines()[-1].startswith(f"run: runs/{path.name}    go on: gptzoo generate runs/{path.name} ")
    assert run(["generate", str(path), "12 sq", "--tokens", "8", "--seed", "1"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("12 sq")
    assert run(["generate", str(path), "--seed", "1", "12 sq", "--tokens", "8", "--no-cache"]) == 0
    assert capsys.readouterr().out == first
    assert run(["generate", str(path), "1", "12 squared", "--tokens", "2", "--greedy"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "--- 1 of 2"
    assert run(["evaluate", str(path), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["sequences"] > 2
    assert scores["perplexity"] > 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian", "gpt2-tiny"], "gptzoo: there is no command 'trian'. Did you mean train? See gptzoo --help."),
        (["train"], "gptzoo: RECIPE is missing. See gptzoo COMMAND --help."),
        (["generate"], "gptzoo: RUN is missing. See gptzoo COMMAND --help."),
        (["train", "gpt2-tinny"], "gptzoo: there is no recipe 'gpt2-tinny'. Did you mean gpt2-tiny or mup-tiny?"),
        (["train", "gpt2-tiny", "--tokens"], "gptzoo: unrecognized arguments: --tokens. See gptzoo COMMAND --help."),
        (
            ["train", "gpt2-tiny", "--train.steps"],
            "gptzoo: command line: train.steps: it has no value. Write --train.steps VALUE.",
        ),
        (["train", "gpt2-tiny", "--train.steps", "-5"], "gptzoo: command line: train.steps: -5 must be at least 1."),
        (
            ["train", "gpt2-tiny", "--model.attention", "sliding_windw"],
            "gptzoo: command line: model.attention: no attention is called 'sliding_windw'. "
            "Did you mean sliding_window?",
        ),
        (["train", "nowhere/"], "gptzoo: there is no recipe 'nowhere/'."),
        (
            ["list", "attenton"],
            "gptzoo: 'attenton' is neither a slot nor a component. Did you mean attention or linear_attention?",
        ),
        (
            ["list", "attention", "m*", "x"],
            "gptzoo: 3 words are too many. Give a slot, a pattern, or both.",
        ),
        (["show", "roep"], "gptzoo: no component, recipe or run is called 'roep'. Did you mean rope?"),
        (["evaluate", "nowhere"], "gptzoo: nowhere: there is no such run."),
        (
            ["generate", "nowhere", "x", "--tokens", "few"],
            "gptzoo: --tokens: 'few' is not of type int. See gptzoo COMMAND --help.",
        ),
        (["new", "norn", "mine"], "gptzoo: no slot is called 'norn'. Did you mean norm?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    before = sorted(folder.rglob("*"))
    assert refusal(argv, capsys) == message
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.path: 'bad.txt' holds no text."),
        (b"abc\xff", "bad.txt: this is not UTF-8 text: not UTF-8 at byte 3."),
        (b"abc\0def", "bad.txt: this is not UTF-8 text: a NUL at byte 3."),
        (b"short", "bad.txt"),
    ],
)
def test_bad_data_are_refused_by_file_and_place(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    (folder / "bad.txt").write_bytes(content)
    assert message in refusal(["train", "squares.yaml", "--data.path", "bad.txt"], capsys)
    assert not (folder / "runs").exists()


def test_a_prompt_beyond_learned_positions_is_refused(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(["generate", trained, "1" * 20], capsys)
    assert message == (
        "gptzoo: prompt: its 20 tokens do not fit: the model's positions end at 16 (context_length). Shorten it."
    )


def test_what_generate_writes_as_json_is_what_it_prints(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["generate", trained, "12", "3 sq", "--tokens", "5", "--seed", "2", "--repetition-penalty", "1.2"]
    assert run([*asked, "--json", "--logprobs", "2", "--prefill-chunk", "1"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert set(first) == {"prompt", "text", "tokens", "ended", "logprobs", "alternatives"}
    assert [len(each) for each in first["alternatives"]] == [2] * len(first["tokens"])
    assert run([*asked, "--logprobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"12{first['text']}".split("\n")[0] == lines[1]
    tokens = [line for line in lines if line.lstrip().startswith("-") and not line.startswith("---")]
    assert [float(line.split()[0]) for line in tokens] == pytest.approx(
        first["logprobs"] + second["logprobs"], abs=1e-4
    )


def test_integer_weights_write_and_are_measured(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    losses = []
    for more in ([], ["--quantize", "int8"]):
        assert run(["evaluate", trained, "--sequences", "2", "--json", *more]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.01)
    assert run(["generate", trained, "12", "--tokens", "4", "--quantize", "int8"]) == 0
    assert capsys.readouterr().out.startswith("12")
    for command in (["generate", trained, "1"], ["evaluate", trained]):
        message = refusal([*command, "--quantize", "int9"], capsys)
        assert message == "gptzoo: --quantize: no quantization is called 'int9'. Did you mean int8?"


def test_a_stop_string_ends_what_generate_prints(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", trained, "12", "--tokens", "9", "--greedy"]) == 0
    whole = capsys.readouterr().out
    stop = whole[4]
    assert run(["generate", trained, "12", "--tokens", "9", "--greedy", "--stop", "none", "--stop", stop]) == 0
    assert capsys.readouterr().out == f"12{whole[2:].split(stop)[0]}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stop", ""], "--stop: an empty text is everywhere. Leave it out."),
        (["--logprobs", "-1"], "--logprobs: -1 is below 0. 0 gives those of the written tokens alone."),
        (
            ["--repetition-penalty", "0"],
            "--repetition-penalty: 0.0 is not a finite number above 0. 1 changes nothing, 1.2 is usual.",
        ),
        (["--prefill-chunk", "0"], "--prefill-chunk: 0 is below 1. Leave it out to take a prompt whole."),
        (
            ["--compile", "--no-cache"],
            "--compile: what is compiled is a step with a cache, and --no-cache is given. Leave it out.",
        ),
    ],
)
def test_generate_refuses_what_it_would_have_to_ignore(
    trained: str, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert refusal(["generate", trained, "1", *options], capsys) == f"gptzoo: {message}"


def test_generate_does_not_take_a_second_run_for_a_prompt(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["generate", trained, trained, "1"], capsys)
    what = f"{trained} is a run too, and would be taken for a prompt. Name one run: {trained}, or {trained}."
    assert said == f"gptzoo: generate: {what}"


def test_a_run_directory_in_use_is_exit_code_3(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "import sys, time; from pathlib import Path; from gptzoo.runs import RunDirectory\n"
        "RunDirectory.at(Path(sys.argv[1]), lock=True); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, trained], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert run(["train", trained, "--train.steps", "9"]) == 3
        assert f"gptzoo: {trained}: in use by process {holder.pid} on " in capsys.readouterr().err
        assert run(["show", trained]) == 0
        holder.kill()
    assert run(["train", trained, "--train.steps", "9"]) == 0


def test_no_sound_checkpoint_is_exit_code_4(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    (weights,) = Path(trained).glob("checkpoints/*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert run(["generate", trained, "1"]) == 4
    warning, message = capsys.readouterr().err.splitlines()
    assert warning.startswith("gptzoo: warning: skipped an unsound checkpoint: ")
    assert "no sound checkpoint (" in message
    assert weights.exists()


def test_all_problems_of_a_recipe_come_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text(
        "base: gpt2-tiny\nmodel:\n  attenton: mha\n  n_layer: four\n  position: roep\ntrain: {stepz: 3}\n"
    )
    assert refusal(["train", "bad.yaml"], capsys).splitlines() == [
        "bad.yaml:3: model.attenton: there is no such key. Did you mean attention?",
        "bad.yaml:4: model.n_layer: 'four' is not an int.",
        "bad.yaml:5: model.position: no position is called 'roep'. Did you mean rope?",
        "bad.yaml:6: train.stepz: there is no such key. Did you mean steps?",
    ]


def test_show_tells_where_a_value_comes_from_and_what_it_costs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", "squares.yaml", "--model.position", "rope"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["model.n_layer"][1:] == ["1", "squares.yaml:2"]
    assert rows["model.position.name"][1:] == ["rope", "command", "line"]
    assert rows["model.norm.name"][1:] == ["layernorm", "default"]
    assert any(line.startswith("parameters         3,") for line in lines)
    assert run(["show", "squares.yaml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kernels"] == ["sdpa"]
    assert shown["costs"]["by_slot"]["attention"] == 4 * (16 * 16 + 16)


def test_show_tells_where_a_value_of_a_layer_comes_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "layers.yaml").write_text(
        "base: ./squares.yaml\nmodel:\n  n_layer: 4\n  layers:\n"
        "    - {norm: rmsnorm, attention: multi_head}\n"
        "    - {norm: rmsnorm, attention: {name: sliding_window, window: 3}}\n"
        "    - repeat: 2\n      norm: rmsnorm\n      attention:\n        name: multi_head\n"
    )
    assert run(["show", "layers.yaml"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    assert rows["model.norm.name"] == ["rmsnorm", "layers.yaml:5"]
    assert rows["model.layers.1.attention.name"] == ["sliding_window", "layers.yaml:6"]
    assert rows["model.layers.1.attention.window"] == ["3", "layers.yaml:6"]
    assert rows["model.layers.1.attention.softcap"] == ["null", "default"]
    assert rows["model.layers.2.repeat"] == ["2", "layers.yaml:7"]
    (folder / "twice.yaml").write_text(
        "base: ./squares.yaml\nmodel:\n  n_layer: 3\n  layers:\n"
        "    - {attention: {name: sliding_window, window: 3}}\n"
        "    - attention:\n        name: sliding_window\n        window: 3\n"
        "    - {}\n"
    )
    assert run(["show", "twice.yaml"]) == 0  # whose first two entries are shown as one
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    assert rows["model.layers.0.attention.window"] == ["3", "twice.yaml:5"]
    assert rows["model.layers.1.repeat"] == ["1", "default"]


def test_the_printed_recipe_is_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "squares.yaml", "--print_config"]) == 0
    text = capsys.readouterr().out
    (folder / "again.yaml").write_text(text)
    assert run(["show", "again.yaml", "--print_config"]) == 0
    assert capsys.readouterr().out == text


def test_diff_names_what_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rate in ("1e-3", "2e-3"):
        assert run(["train", "squares.yaml", "--train.learning_rate", rate]) == 0
    capsys.readouterr()
    runs = sorted(map(str, (folder / "runs").iterdir()), key=lambda path: Path(path, "recipe.yaml").stat().st_mtime)
    assert run(["diff", *runs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recipe"] == {"train.learning_rate": [0.001, 0.002]}
    assert found["plugins"] == found["environment"] == {}
    assert "val_loss" in found["results"]
    assert run(["diff", *runs]) == 0
    assert "  train.learning_rate  0.001 -> 0.002" in capsys.readouterr().out.splitlines()


def test_list_knows_slots_patterns_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "position", "r*"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["position", "rope", "(rotary)"]
    assert run(["list", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} >= {"multi_head", "rope", "swiglu", "muon"}


STRANGER = '''"""Attention that also sees nothing but the token before."""

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.attention("{name}", Previous)


class Previous(gptzoo.MultiHeadAttention):
    """A token sees itself and the one before it."""

    def mask(self, q_pos, k_pos):
        return gptzoo.causal(q_pos, k_pos) & (q_pos - k_pos < 2)
'''


def test_a_plugin_outside_the_repository_is_listed_used_and_refused_when_its_name_is_taken(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "previous.py").write_text(STRANGER.format(name="previous"))
    assert run(["list", "attention", "prev*", "--plugins", "mine"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["attention", "previous"]
    assert run(["train", "squares.yaml", "-p", "mine/previous.py", "--model.attention", "previous"]) == 0
    (path,) = (folder / "runs").iterdir()
    plugins = json.loads((path / "environment.json").read_text())["plugins"]
    assert ("previous", str(folder / "mine" / "previous.py"), 64) in [
        (p["plugin"], p["origin"], len(p["sha256"])) for p in plugins
    ]
    capsys.readouterr()
    assert "'previous'" in refusal(["generate", str(path), "1"], capsys)
    assert run(["generate", str(path), "1", "-p", "mine/previous.py", "--tokens", "3"]) == 0
    capsys.readouterr()
    (folder / "mine" / "clash.py").write_text(STRANGER.format(name="sliding_window"))
    message = refusal(["list", "-p", "mine/clash.py"], capsys)
    assert message.startswith(
        "gptzoo: mine/clash.py:6: plugin clash failed to load: attention 'sliding_window' of plugin"
    )
    assert "is taken by plugin sliding_window (gptzoo_plugins " in message


def test_a_plugin_that_fails_in_its_first_forward_is_named_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = STRANGER.format(name="broken").replace("q_pos - k_pos < 2", "q_pos - k_pos < self.widht")
    (folder / "broken.py").write_text(broken)
    message = refusal(["train", "squares.yaml", "-p", "broken.py", "--model.attention", "broken"], capsys)
    assert message == (
        f"gptzoo: {folder / 'broken.py'}:15: plugin broken fails in its first forward: AttributeError: "
        "'Previous' object has no attribute 'widht'"
    )


def test_the_flags_of_commands_with_words_are_known() -> None:
    parser = build_parser()
    for name in ("generate", "list"):
        sub = next(a for a in parser._actions if getattr(a, "choices", None) and name in a.choices).choices[name]  # type: ignore[index]
        flags = {word for action in sub._actions if action.nargs == 0 for word in action.option_strings}
        assert flags <= FLAGS, flags - FLAGS


def test_every_command_has_a_parser() -> None:
    parser = build_parser()
    choices = next(a.choices for a in parser._actions if getattr(a, "choices", None) and "train" in a.choices)  # type: ignore[operator]
    assert set(choices) == set(COMMANDS)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", [["report", "runs/x"], ["analyse", "x.csv"], ["calibrate"], ["power", "x.yaml"]])
def test_what_loads_no_plugin_takes_none(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["ablate", *action, "-p", "mine.py"], capsys)
    assert said == "gptzoo: unrecognized arguments: -p mine.py. See gptzoo COMMAND --help."


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "x.yaml", "--timeout", "-1"], "--timeout: -1 s is no time to wait. Give more, or leave it out."),
        (["replay", "x-0", "--tolerance", "-1"], "--tolerance: -1 is no share. Give 0 or more, such as 0.01."),
    ],
)
def test_numbers_that_mean_nothing_are_refused(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(["ablate", *argv], capsys) == f"gptzoo: {said}"
