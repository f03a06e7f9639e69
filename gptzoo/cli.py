"""The command line. `--help` and `--version` import neither torch nor plugins; each command imports what it needs."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from gptzoo import __version__, exchange
from gptzoo.ablation import commands as ablation
from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.testing.commands import check_command, check_parser

Command = Callable[[Namespace, list[tuple[str, str]]], int]


class Parser(ArgumentParser):
    """jsonargparse's parser, with our way of saying what is wrong."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        missing = "the following arguments are required: "
        key, *details = message.rstrip(".").split("\n")
        what = " ".join([key.removeprefix("Parser key "), *(line.strip() for line in details)])
        what = re.sub(r"\"(\w+)\": Expected a <class '(\w+)'>. Got value: (.*)", r"--\1: '\3' is not of type \2", what)
        if what.startswith(missing):
            first = what.removeprefix(missing).split(", ")[0]
            what = f"{first.split('.')[-1].upper()} is missing"
        raise GPTZooError(f"{what}. See gptzoo COMMAND --help.")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run a command; returns the exit code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _one_line_warning
            return _dispatch(argv)
    except GPTZooError as error:
        for line in error.lines:
            print(f"gptzoo: {line}" if not error.lines[1:] else line, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gptzoo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has left: `gptzoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"gptzoo: warning: {message}", file=sys.stderr)


def _dispatch(argv: list[str]) -> int:
    from gptzoo.recipe.compose import split_overrides

    parser = build_parser()
    rest, overrides = split_overrides(argv) if argv[:1] and argv[0] in TAKES_RECIPE else (argv, [])
    if argv[:1] == ["generate"]:  # its --seed is that of the draws, not the recipe's
        rest[1:1] = [word for key, value in overrides if key == "seed" for word in ("--seed", value)]
        overrides = [(key, value) for key, value in overrides if key != "seed"]
    _check_command(rest)
    if not rest:
        parser.print_help()
        return 0
    options = parser.parse_args(_options_first(rest))
    command = options.subcommand
    return COMMANDS[command](options[command], overrides)


FLAGS = frozenset({"-h", "--help", "--json", "--greedy", "--no-cache", "--compile", "--matrix", "--strict-plugins"})
"""Options of `generate` and `list` that take no value."""


def _options_first(argv: list[str]) -> list[str]:
    """`generate RUN -p FILE PROMPT` as `generate -p FILE RUN PROMPT`: argparse ends a list of words at an option."""
    if argv[0] not in ("generate", "list"):
        return argv
    options: list[str] = []
    words: list[str] = []
    rest = iter(argv[1:])
    for word in rest:
        if word == "--":
            words += [*rest]
        elif word.startswith("-") and word != "-":
            options += (
                [word]
                if word in FLAGS or "=" in word
                else [word, *(value for _, value in zip("1", rest, strict=False))]
            )
        else:
            words.append(word)
    return [argv[0], *options, "--", *words] if words else [argv[0], *options]


def _check_command(rest: Sequence[str]) -> None:
    if rest[:1] and not rest[0].startswith("-") and rest[0] not in COMMANDS:
        raise GPTZooError(f"there is no command {rest[0]!r}.{did_you_mean(rest[0], COMMANDS)} See gptzoo --help.")
    members = {name: commands for name, _, commands in GROUPS}.get(rest[0] if rest else "", {})
    given = rest[1] if rest[1:] else ""
    if members and not given.startswith("-") and given not in members:
        missing = f"there is no command {f'{rest[0]} {given}'!r}." if given else f"{rest[0]} needs a command."
        raise GPTZooError(f"{missing} Use {', '.join(f'gptzoo {rest[0]} {name}' for name in members)}.")


def build_parser() -> ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="gptzoo", description="A zoo of components for GPT-2-style language models.", version=__version__
    )
    commands = parser.add_subcommands(title="commands", metavar="COMMAND")
    for name, build in (
        ("train", _train_parser),
        ("generate", _generate_parser),
        ("evaluate", _evaluate_parser),
        ("show", _show_parser),
        ("list", _list_parser),
        ("diff", _diff_parser),
        ("new", _new_parser),
        ("check", lambda: check_parser(_parser)),
        ("import", lambda: exchange.import_parser(_parser)),
        ("export", lambda: exchange.export_parser(functools.partial(_parser, recipe=False))),
    ):
        sub = build()
        commands.add_subcommand(name, sub, help=(sub.description or "").split(".")[0])
    for name, description, members in GROUPS:
        group = Parser(description=description)
        commands.add_subcommand(name, group, help=description.split(".")[0])
        inner = group.add_subcommands(title="commands", metavar="COMMAND")  # only now: jsonargparse wants level order
        for member, build in members.items():
            sub = build()
            inner.add_subcommand(member, sub, help=(sub.description or "").split(".")[0])
    return parser


def _parser(description: str, *, recipe: bool = True, plugins: bool = True) -> ArgumentParser:
    epilog = (
        "Recipe keys are options too: --model.attention grouped_query --model.attention.n_kv_head 2 --train.steps 500"
    )
    parser = Parser(description=description, epilog=epilog if recipe else None)
    if not plugins:
        return parser
    parser.add_argument(
        "-p", "--plugin", type=str, action="append", default=[], help="a plugin: a module or a .py file"
    )
    parser.add_argument("--plugins", type=str, action="append", default=[], help="a folder of plugin files")
    parser.add_argument("--strict-plugins", action="store_true", help="a plugin that fails to load is an error")
    return parser


def _train_parser() -> ArgumentParser:
    parser = _parser("Train a recipe, or go on with a run. An interrupted run resumes where it stopped.")
    parser.add_argument("recipe", type=str, help="a recipe file, a shipped recipe or the folder of a run")
    parser.add_argument("--runs", type=str, default="runs", help="where run folders stand")
    parser.add_argument("--require-exact", action="store_true", help="refuse to resume where that is not bit-exact")
    parser.add_argument(
        "--print_config",
        type=str,
        nargs="?",
        const="",
        default=None,
        metavar="",
        help="print the resolved recipe and leave",
    )
    return parser


def _generate_parser() -> ArgumentParser:
    parser = _parser("Continue prompts with a trained model.")
    parser.add_argument("run", type=str, help="the folder of a run, or of a model that transformers saved")
    parser.add_argument("prompts", type=str, nargs="*", help="texts to continue; none: read one from standard input")
    parser.add_argument("--tokens", type=int, default=None, help="how many tokens to write; 200, or what fits")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=None, help="draw among the k likeliest tokens")
    parser.add_argument("--top-p", type=float, default=None, help="draw among the likeliest tokens of this mass")
    parser.add_argument(
        "--min-p", type=float, default=None, help="drop what is less likely than this share of the best"
    )
    parser.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, help="above 1, tokens that were there are less likely"
    )
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal texts")
    parser.add_argument(
        "--stop", type=str, action="append", default=[], help="a text that ends the continuation; may be given again"
    )
    parser.add_argument(
        "--logprobs", type=int, default=None, help="log-probabilities of the tokens, and of so many of the likeliest"
    )
    parser.add_argument("--step", type=int, default=None, help="use the checkpoint of this step")
    parser.add_argument("--no-cache", action="store_true", help="compute everything anew for each token")
    parser.add_argument("--prefill-chunk", type=int, default=None, help="tokens of a prompt to take at a time")
    parser.add_argument("--compile", action="store_true", help="compile the step of one token: for many tokens")
    parser.add_argument("--quantize", type=str, default=None, help="int8: weights as integers, in bf16; less exact")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = _parser("Loss, perplexity and bits per byte of a trained model on its validation data.")
    parser.add_argument("run", type=str, help="the folder of a run")
    parser.add_argument("--sequences", type=int, default=None, help="how many rows of the split; all unless given")
    parser.add_argument("--split", type=str, default="val", help="val or train")
    parser.add_argument(
        "--problems",
        type=int | None,
        default=None,
        help="how many problems to solve; 1000 unless given, if it has some",
    )
    parser.add_argument("--stride", type=int, default=None, help="windows overlap: each is so many tokens ahead")
    parser.add_argument("--per-position", action="store_true", help="the loss at each position, with a picture")
    parser.add_argument("--length", type=int, default=None, help="with --per-position: tokens in a row")
    parser.add_argument("--suite", type=str, default=None, help="a file that says what to measure, or basics")
    parser.add_argument("--quantize", type=str, default=None, help="int8: weights as integers, to see what it costs")
    parser.add_argument("--batch-size", type=int, default=8, help="rows at a time")
    parser.add_argument("--step", type=int, default=None, help="use the checkpoint of this step")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _show_parser() -> ArgumentParser:
    parser = _parser("Show a component, a recipe with what it will cost, or a run.")
    parser.add_argument("what", type=str, help="a component (name or slot.name), a recipe or the folder of a run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--print_config",
        type=str,
        nargs="?",
        const="",
        default=None,
        metavar="",
        help="print the resolved recipe alone",
    )
    return parser


def _list_parser() -> ArgumentParser:
    parser = _parser("List the registered components.", recipe=False)
    parser.add_argument("words", type=str, nargs="*", help="a slot, a pattern such as 'ro*', or both")
    parser.add_argument("--matrix", action="store_true", help="which position goes with which attention and kernel")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _diff_parser() -> ArgumentParser:
    parser = _parser("What differs between two runs: recipe, plugins, environment, results.", recipe=False)
    parser.add_argument("run", type=str, help="the folder of a run")
    parser.add_argument("other", type=str, help="the folder of another")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _new_parser() -> ArgumentParser:
    parser = _parser("Start a component of your own from a template, with its tests.", recipe=False)
    parser.add_argument("slot", type=str, help="attention, position, norm, mlp, ...")
    parser.add_argument("name", type=str, help="the name it shall have in recipes")
    parser.add_argument("--folder", type=str, default=".", help="where the files go")
    return parser


def _data_make_parser() -> ArgumentParser:
    parser = _parser("Write a generated data set into a folder, to share.", recipe=False)
    parser.add_argument("name", type=str, help="a data component that generates, such as algebra")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of all splits together")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal rows")
    parser.add_argument("--out", type=str, required=True, help="the folder, which must not exist yet")
    return parser


def _plugins(options: Namespace) -> dict[str, Any]:
    return {"plugins": options.plugin, "folders": options.plugins}


def _train(options: Namespace, overrides: list[tuple[str, str]]) -> int:
    from gptzoo.progress import TerminalWatcher
    from gptzoo.running import is_run, train

    if options.print_config is not None:
        return _show(Namespace(**{**vars(options), "what": options.recipe, "json": False}), overrides)
    with TerminalWatcher() as watcher:
        done = train(
            options.recipe,
            runs=options.runs,
            **_plugins(options),
            strict=options.strict_plugins,
            require_exact=options.require_exact,
            watcher=watcher,
            overrides=overrides,
        )
    watcher.summary(done, went_on=is_run(options.recipe))
    return 0


def _check_prompts(options: Namespace) -> None:
    """A pattern such as runs/gpt2-* may have become several words."""
    for prompt in options.prompts:
        if os.path.isfile(os.path.join(prompt, "recipe.yaml")):
            what = f"{prompt} is a run too, and would be taken for a prompt. Name one run: {options.run}, or {prompt}."
            raise GPTZooError(what, "generate")


def _generate(options: Namespace, overrides: list[tuple[str, str]]) -> int:
    from dataclasses import asdict

    from gptzoo.generation import generate
    from gptzoo.progress import Stream, logprob_lines
    from gptzoo.quantization import quantized

    _check_prompts(options)
    model = _model(options, overrides)
    if options.quantize is not None:
        model = quantized(model, options.quantize)
    if model.tokenizer is None:
        raise GPTZooError("its tokenizer is not known. Name one: --data.tokenizer gpt2, or byte.", options.run)
    prompts = options.prompts or [sys.stdin.read().rstrip("\n")]
    stream = Stream(prompts)
    done = generate(
        model,
        prompts,
        tokens=options.tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
        greedy=options.greedy,
        stop=options.stop,
        logprobs=options.logprobs,
        cache=not options.no_cache,
        prefill_chunk=options.prefill_chunk,
        compile=options.compile,
        on_token=None if options.json else stream.token,
        precision=None if options.quantize is None else "bf16",  # torch's integer kernel is slow in float32
    )
    if options.json:
        print(json.dumps([asdict(each) for each in done], indent=2, ensure_ascii=False))
        return 0
    stream.finish(done)
    for each in done if options.logprobs is not None else ():
        print("\n".join(logprob_lines(each, model.tokenizer)))
    return 0


def _model(options: Namespace, overrides: list[tuple[str, str]]):  # type: ignore[no-untyped-def]  # Model, imported late
    from gptzoo.interop.pretrained import from_pretrained
    from gptzoo.running import load

    if (Path(options.run) / "config.json").exists():
        return from_pretrained(options.run, **_plugins(options), overrides=overrides)
    return load(options.run, step=options.step, **_plugins(options), overrides=overrides)


def _evaluate(options: Namespace, overrides: list[tuple[str, str]]) -> int:
    from gptzoo.evals import commands

    return commands.run(options, overrides, _plugins(options))


def _show(options: Namespace, overrides: list[tuple[str, str]]) -> int:
    from gptzoo.showing import show

    print(
        show(
            options.what,
            overrides,
            as_json=options.json,
            config_only=options.print_config is not None,
            **_plugins(options),
        )
    )
    return 0


def _list(options: Namespace, _overrides: list[tuple[str, str]]) -> int:
    from gptzoo.listing import as_text, counts, listing
    from gptzoo.loading import load_plugins

    loaded = load_plugins(options.plugin, options.plugins, strict=options.strict_plugins)
    if options.matrix:
        return _matrix(options, loaded.zoo)
    if len(options.words) > 2:
        raise GPTZooError(f"{len(options.words)} words are too many. Give a slot, a pattern, or both.")
    rows = listing(loaded.zoo, *options.words)
    print(json.dumps(rows, indent=2) if options.json else as_text(rows))
    if not options.json and not options.words:
        print(counts(rows))
    for line in (*loaded.quarantined, *loaded.notes):
        print(f"gptzoo: warning: {line}", file=sys.stderr)
    return 0


def _matrix(options: Namespace, zoo: Any) -> int:
    from gptzoo.testing import matrix

    if options.words:
        raise GPTZooError("the matrix is of all parts. Leave out the words.", "--matrix")
    found = matrix.matrix(zoo)
    print(json.dumps(found.as_json(), indent=2) if options.json else matrix.as_text(found))
    return 0


def _diff(options: Namespace, _overrides: list[tuple[str, str]]) -> int:
    from gptzoo.diffing import as_text, diff

    found = diff(Path(options.run), Path(options.other))
    print(json.dumps(found, indent=2) if options.json else as_text(found, options.run, options.other))
    return 0


def _new(options: Namespace, _overrides: list[tuple[str, str]]) -> int:
    from gptzoo.loading import load_plugins
    from gptzoo.scaffold import new

    loaded = load_plugins(options.plugin, options.plugins, strict=options.strict_plugins)
    files = new(options.slot, options.name, Path(options.folder), loaded.zoo)
    for file in files:
        print(f"wrote {file}")
    print(f"test it: python -m pytest {files[-1]}    use it: gptzoo train RECIPE -p {files[0]}")
    return 0


def _data(options: Namespace, _overrides: list[tuple[str, str]]) -> int:
    from gptzoo.dataset_card import make_dataset
    from gptzoo.loading import load_plugins

    make = options.make
    loaded = load_plugins(make.plugin, make.plugins, strict=make.strict_plugins)
    made = make_dataset(make.name, loaded.zoo, make.out, rows=make.rows, seed=make.seed)
    for split, rows in made.rows.items():
        print(f"{split:6} {rows:>10,} rows")
    print(f"wrote {made.folder}    read it: datasets.load_dataset({str(made.folder)!r})")
    return 0


GROUPS: tuple[tuple[str, str, dict[str, Callable[[], ArgumentParser]]], ...] = (
    ("data", "Make data sets.", {"make": _data_make_parser}),
    ("ablate", ablation.DESCRIPTION, ablation.members(_parser)),
)
"""Commands that have commands of their own."""

COMMANDS: dict[str, Command] = {
    "train": _train,
    "generate": _generate,
    "evaluate": _evaluate,
    "show": _show,
    "list": _list,
    "diff": _diff,
    "new": _new,
    "check": lambda options, _overrides: check_command(options),
    "import": exchange.run_import,
    "export": lambda options, _overrides: exchange.run_export(options),
    "data": _data,
    "ablate": lambda options, _overrides: ablation.ablate(options),
}
TAKES_RECIPE = ("train", "generate", "evaluate", "show", "import")
