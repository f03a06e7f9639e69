"""`gptzoo check`: the laws, on any component, and what they found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, Namespace

from gptzoo.errors import GPTZooError

NewParser = Callable[..., ArgumentParser]
"""Called with `description` and `recipe=False`: a parser that takes plugins."""


def check_parser(new: NewParser) -> ArgumentParser:
    """The parser of `gptzoo check`."""
    parser = new("Try the laws on a component. Exit code 1 where one of them is broken.", recipe=False)
    parser.add_argument("what", type=str, help="a component (name or slot.name), a plugin's .py file, or package:Class")
    parser.add_argument("--slot", type=str | None, default=None, help="the slot, where nothing else tells it")
    parser.add_argument("--options", type=str | None, default=None, help="options to try it under: '{window: 4}'")
    parser.add_argument("--examples", type=int, default=50, help="cases that each law is tried in")
    parser.add_argument("--law", type=str, default="*", help="a pattern of law names, such as '*cache*'")
    parser.add_argument("--device", type=str, default="cpu", help="where models are put")
    parser.add_argument(
        "--seed", type=int | None, default=None, help="of the search; unless given the same cases come each time"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def check_command(options: Namespace) -> int:
    """Run `gptzoo check`; returns the exit code.

    Raises:
        GPTZooError: There is no such component, law or device.
    """
    from gptzoo.building import choose_device
    from gptzoo.testing import Outcome, check, said

    subject = ""

    def show(outcome: Outcome) -> None:
        nonlocal subject
        if not options.json:
            if outcome.subject != subject:
                subject = outcome.subject
                print(subject)
            print(f"  {said(outcome)}".replace("\n", "\n  "), flush=True)

    if options.examples < 1:
        raise GPTZooError(f"{options.examples} is below 1.", "--examples")
    report = check(
        options.what,
        slot=options.slot,
        options=_options(options.options),
        plugins=options.plugin,
        folders=options.plugins,
        examples=options.examples,
        laws=options.law,
        device=str(choose_device(options.device)),
        seed=options.seed,
        on_outcome=show,
    )
    if options.json:
        rows = [
            {
                "subject": each.subject,
                "law": each.law.name,
                "passed": each.passed,
                "examples": each.examples,
                "failure": each.failure,
                "case": "" if each.case is None else str(each.case),
            }
            for each in report.outcomes
        ]
        print(json.dumps({"laws": rows, "seconds": round(report.seconds, 1)}, indent=2))
    else:
        broken = len(report.failures)
        print(
            f"{Path(options.what).name}: {len(report.outcomes)} laws, {report.examples:,} cases, "
            f"{f'{broken} broken' if broken else 'none broken'}, {report.seconds:.0f} s"
        )
    return 1 if report.failures else 0


def _options(text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    try:
        options = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GPTZooError(f"{text!r} cannot be read as YAML. Write '{{window: 4}}'.", "--options") from error
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise GPTZooError(f"{text!r} is no mapping. Write '{{window: 4}}'.", "--options")
    return options
