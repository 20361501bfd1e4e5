"""Public names of code and template: `python -m tests.public_names` records them in tests/vectors/names.json.

A release may add names. A removed or renamed name breaks callers, alarms or scripts, or replaces a table.
"""

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from aiserver import errors
from aiserver.admin.__main__ import _create_parser
from aiserver.jobs.job import Job
from aiserver.jobs.states import TERMINAL_STATES, CallbackState, JobState
from aiserver.usecases import record_outcome, views
from local.template import REPOSITORY
from tests import stack

FILE = Path(__file__).parent / "vectors" / "names.json"
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


def names() -> dict[str, list[str]]:
    """Return the sorted names of each kind."""
    names_by_kind = {
        "error codes": _error_codes(),
        "wait reasons": _wait_reasons(),
        "job events": _job_events(),
        "job states": (str(state) for state in JobState),
        "callback states": (str(state) for state in CallbackState),
        "template: parameters": stack.TEMPLATE.source["Parameters"],
        "template: logical ids and types": (
            f"{name} {resource['Type']}" for name, resource in stack.TEMPLATE.source["Resources"].items()
        ),
        "template: outputs": stack.TEMPLATE.source["Outputs"],
        "template: log groups": (
            _text(group["LogGroupName"]) for group in stack.of_type("AWS::Logs::LogGroup").values()
        ),
        "template: metrics": (
            f"{alarm['Namespace']} {alarm['MetricName']}" for alarm in stack.of_type("AWS::CloudWatch::Alarm").values()
        ),
        "template: handlers": (
            f"{stack.folder(function).name} {stack.properties(function)['Handler']}" for function in stack.FUNCTIONS
        ),
        "environment variables": (
            f"{function} {name}" for function in stack.FUNCTIONS for name in stack.variables(function)
        ),
        "admin commands": _commands(_create_parser(), ""),
        "make targets": TARGET.findall((REPOSITORY / "Makefile").read_text()),
        "event files": (path.name for path in (REPOSITORY / "events").glob("*.json")),
    }
    return {kind: sorted(set(members)) for kind, members in names_by_kind.items()}


def _error_codes() -> Iterator[str]:
    pending: list[type[errors.AiServerError]] = [errors.AiServerError]
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        if error.__module__ == errors.__name__:
            yield f"{error.status} {error.error_code} {error.type} {error.code}"


def _wait_reasons() -> Iterator[str]:
    yield record_outcome.STORAGE_UNAVAILABLE
    pending: list[type[errors.ProviderError]] = [errors.ProviderError]
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        is_retried = error.retryable or issubclass(error, errors.ProviderTimeout)
        if is_retried and error.__module__ == errors.__name__:
            yield from (record_outcome._wait_reason(_job(queue=queue), error()) for queue in ("hosted", "gpu"))


def _job_events() -> Iterator[str]:
    """Yield the detail types and the members of a detail."""
    yield from (f"Job{state}" for state in TERMINAL_STATES)
    yield from json.loads(views.event_view(_job(usage="{}")))


def _job(**values: str) -> Job:
    """A job in which every field has a value."""
    samples = {field.name: 1 if "int" in str(field.type) else "x" for field in fields(Job)}
    return Job(**(samples | {"state": JobState.COMPLETED, "callback": CallbackState.NONE} | values))  # type: ignore[arg-type]


def _commands(parser: argparse.ArgumentParser, command: str) -> Iterator[str]:
    """Yield every command with its options."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                yield from _commands(subparser, f"{command} {name}".strip())
        else:
            yield from (f"{command} {option}".strip() for option in action.option_strings or [action.dest])
    yield command


def _text(value: str | dict[str, str]) -> str:
    return value if isinstance(value, str) else value["Fn::Sub"]


if __name__ == "__main__":
    FILE.write_text(json.dumps(names(), indent=1) + "\n")
