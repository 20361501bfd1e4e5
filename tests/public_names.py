"""The names that others depend on, taken from code and template: `python -m tests.public_names` records them.

A release may add names. One that is gone or renamed breaks callers, alarms, scripts, or replaces a table.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from aiserver import errors
from aiserver.admin.__main__ import _parser
from aiserver.jobs.states import CallbackState, JobState
from local.template import REPOSITORY
from tests import stack

FILE = Path(__file__).parent / "vectors" / "names.json"
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


def names() -> dict[str, list[str]]:
    """Each kind of name, sorted."""
    found = {
        "error codes": _error_codes(),
        "job states": (str(state) for state in JobState),
        "callback states": (str(state) for state in CallbackState),
        "template: parameters": stack.TEMPLATE.source["Parameters"],
        "template: logical ids and types": (
            f"{name} {one['Type']}" for name, one in stack.TEMPLATE.source["Resources"].items()
        ),
        "template: outputs": stack.TEMPLATE.source["Outputs"],
        "template: log groups": (_text(one["LogGroupName"]) for one in stack.of_type("AWS::Logs::LogGroup").values()),
        "template: metrics": (
            f"{one['Namespace']} {one['MetricName']}" for one in stack.of_type("AWS::CloudWatch::Alarm").values()
        ),
        "template: handlers": (
            f"{stack.folder(function).name} {stack.properties(function)['Handler']}" for function in stack.FUNCTIONS
        ),
        "environment variables": (
            f"{function} {name}" for function in stack.FUNCTIONS for name in stack.variables(function)
        ),
        "admin commands": _commands(_parser(), ""),
        "make targets": TARGET.findall((REPOSITORY / "Makefile").read_text()),
        "event files": (path.name for path in (REPOSITORY / "events").glob("*.json")),
    }
    return {kind: sorted(set(given)) for kind, given in found.items()}


def _error_codes() -> Iterator[str]:
    waiting: list[type[errors.AiServerError]] = [errors.AiServerError]
    while waiting:
        error = waiting.pop()
        waiting.extend(error.__subclasses__())
        if error.__module__ == errors.__name__:
            yield f"{error.status} {error.error_code} {error.type} {error.code}"


def _commands(parser: argparse.ArgumentParser, words: str) -> Iterator[str]:
    """Every command with its options."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _commands(inner, f"{words} {name}".strip())
        else:
            yield from (f"{words} {option}".strip() for option in action.option_strings or [action.dest])
    yield words


def _text(value: str | dict[str, str]) -> str:
    return value if isinstance(value, str) else value["Fn::Sub"]


if __name__ == "__main__":
    FILE.write_text(json.dumps(names(), indent=1) + "\n")
