"""The main loop beside awslambdaric: the same handler and events, and the same answers, errors and log lines.

What differs is in the docstring of aiserver/lambda_runtime.py, and in the tests here that say so.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.runtime_api import AWSLAMBDARIC, OURS, running

pytest.importorskip("awslambdaric", reason="it is not built for macOS")

HANDLER = "def handler(event, context):\n    "
# What awslambdaric says before an error at the start: that an update of the runtime may be the cause.
UPDATE_NOTE = re.compile(r"\[WARNING\]\tTIME\t\tLAMBDA_WARNING: [^\n]*\n")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass(frozen=True)
class Said:
    """What a client answered to each call, as paths and JSON, its exit status if it ended, and its log."""

    answers: list[tuple[str, Any]]
    status: int | None
    log: str


def both(folder: Path, source: str, *events: Any, ends: bool = False, **environment: str) -> tuple[Said, Said]:
    """Ours, then awslambdaric's; one that `ends` does so after its last answer, or before any."""
    theirs = [*AWSLAMBDARIC[:-1], environment.get("_HANDLER", "handler.handler")]
    with ThreadPoolExecutor(2) as threads:
        ours, other = [threads.submit(_said, folder, source, it, events, ends, environment) for it in (OURS, theirs)]
        return ours.result(), other.result()


def _said(
    folder: Path, source: str, command: list[str], events: tuple[Any, ...], ends: bool, environment: dict[str, str]
) -> Said:
    answers: list[tuple[str, Any]] = []
    with running(folder, source, command=command, **environment) as client:
        for number, event in enumerate(events):
            answer = client.call(event, request_id=f"r-{number}")
            answers.append((str(answer), json.loads(answer.body)))
        last = client.api.hear()
        if last.method == "POST":
            answers.append((str(last), json.loads(last.body)))
        status = client.ends() if ends else None
        return Said(answers, status, TIME.sub("TIME", client.log))


@pytest.mark.parametrize(
    "source",
    [
        "return {'é': [1, 2.5, -0.0, 1e300, None, True, 'ü😀\\u2028'], 3: (1, [event]), None: {}}",
        "return None",
        "raise LookupError('nö')",
        "raise LookupError",
        "return (lambda n: 1 / n)(0)",
        "return object()",
        "return {(1, 2): 3}",
        "event['self'] = event; return event",
        "import nowhere",
        "return [(f := lambda n: f(n - 1) if n else 1 / 0), f(9)]",
    ],
)
def test_results_and_errors_are_told_in_the_same_words(tmp_path: Path, source: str) -> None:
    ours, theirs = both(tmp_path, HANDLER + source, {"a": "ä"}, {})
    assert ours == theirs
    assert len(ours.answers) == 2


def test_a_handler_sees_the_same_context(tmp_path: Path) -> None:
    source = """
import os
def handler(event, context):
    names = [name for name in dir(context) if not name.startswith("_") and not callable(getattr(context, name))]
    identity = context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id
    return ({name: repr(getattr(context, name)) for name in names if name != "identity"}, names, identity,
            context.get_remaining_time_in_millis() // 60_001, os.environ["_X_AMZN_TRACE_ID"])
"""
    ours, theirs = both(tmp_path, source, 1, 2)
    assert ours == theirs
    assert ours.answers[1][1][0]["aws_request_id"] == "'r-1'"


def test_log_lines_look_the_same(tmp_path: Path) -> None:
    source = """
import logging, sys
logging.warning("at the start")
def handler(event, context):
    logging.warning("%s", "wärning")
    logging.info("nobody asked for it")
    logging.getLogger("by.name").error("two\\n  lines")
    print("printed")
    print("to stderr", file=sys.stderr)
    logging.getLogger().setLevel("INFO")
    logging.info("now wanted")
    raise ValueError(event)
"""
    ours, theirs = both(tmp_path, source, "first", "second")
    assert ours == theirs
    assert ours.log.startswith(
        "[WARNING]\tTIME\t\tat the start\n[WARNING]\tTIME\tr-0\twärning\n[ERROR]\tTIME\tr-0\ttwo\n"
    )
    assert ours.log.count("\tr-1\t") == 4


def test_an_unhandled_error_is_one_log_line_with_its_indentation_kept(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, HANDLER + "raise LookupError('x')", 1)
    place = f'File "{tmp_path}/handler.py", line 2, in handler'
    said = ["[ERROR] LookupError: x", "Traceback (most recent call last):", f"\xa0\xa0{place}", "\xa0" * 4]
    assert ours.log == "\r".join(said) + "raise LookupError('x')\n"
    assert ours.log == theirs.log


def test_a_logged_exception_ends_its_line_where_awslambdaric_forgets_to(tmp_path: Path) -> None:
    source = "import logging\n" + HANDLER
    source += (
        "try:\n        1 / 0\n    except ArithmeticError:\n        logging.exception('caught')\n    print('after')\n"
    )
    ours, theirs = both(tmp_path, source, 1)
    assert "ZeroDivisionError: division by zero\nafter\n" in ours.log
    assert ours.log.replace("by zero\nafter", "by zeroafter") == theirs.log


@pytest.mark.parametrize(
    ("named", "source"),
    [
        ("nowhere.handler", ""),
        ("sub/nowhere.handler", ""),
        ("handler.handler", "def ("),
        ("handler.other", ""),
        ("sys.exit", ""),
        ("handler.handler", "def f():\n    1 / 0\nf()\n"),
        ("handler.handler", "import nowhere\n"),
    ],
)
def test_a_function_that_cannot_start_is_told_in_the_same_words(tmp_path: Path, named: str, source: str) -> None:
    ours, theirs = both(tmp_path, source, ends=True, _HANDLER=named)
    assert (ours.answers, ours.status) == (theirs.answers, theirs.status)
    assert (ours.answers[0][0], ours.status) == ("POST /init/error", 1)
    assert ours.log == UPDATE_NOTE.sub("", theirs.log)


def test_a_handlers_name_without_a_module_is_the_same_error_in_fewer_words(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, "", ends=True, _HANDLER="handler")
    (_, told), (_, others) = ours.answers[0], theirs.answers[0]
    assert others["errorMessage"].startswith(told.pop("errorMessage"))
    assert told == {name: value for name, value in others.items() if name != "errorMessage"}


def test_a_module_that_ends_the_process_has_its_way(tmp_path: Path) -> None:
    for command in (OURS, AWSLAMBDARIC):
        with running(tmp_path, "import sys\nsys.exit(4)\n", command=command) as client:
            assert client.ends() == 4
            assert client.api.is_silent()
