"""The Lambda runtime compared with awslambdaric: equal responses, errors and log lines for equal handlers and events.

The docstring of aiserver/lambda_runtime.py lists the differences; the tests of a difference name it.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.runtime_api import AISERVER_RUNTIME, AWSLAMBDARIC, running

pytest.importorskip("awslambdaric", reason="awslambdaric has no build for macOS")

HANDLER = "def handler(event, context):\n    "
# awslambdaric logs this note before an init error: an update of the runtime may be the cause.
UPDATE_NOTE = re.compile(r"\[WARNING\]\tTIME\t\tLAMBDA_WARNING: [^\n]*\n")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass(frozen=True)
class RunResult:
    """Path and JSON body of each request of the runtime, its exit status if it ended, and its log."""

    responses: list[tuple[str, Any]]
    status: int | None
    log: str


def run_both(
    folder: Path, source: str, *events: Any, ends: bool = False, **environment: str
) -> tuple[RunResult, RunResult]:
    """Run both runtimes, and return the result of ours, then of awslambdaric.

    With `ends`, both processes must end after their last response or during init.
    """
    awslambdaric = [*AWSLAMBDARIC[:-1], environment.get("_HANDLER", "handler.handler")]
    with ThreadPoolExecutor(2) as threads:
        ours, theirs = [
            threads.submit(_run, folder, source, command, events, ends, environment)
            for command in (AISERVER_RUNTIME, awslambdaric)
        ]
        return ours.result(), theirs.result()


def _run(
    folder: Path, source: str, command: list[str], events: tuple[Any, ...], ends: bool, environment: dict[str, str]
) -> RunResult:
    responses: list[tuple[str, Any]] = []
    with running(folder, source, command=command, **environment) as client:
        for number, event in enumerate(events):
            response = client.call(event, request_id=f"r-{number}")
            responses.append((str(response), json.loads(response.body)))
        last_request = client.api.next_request()
        if last_request.method == "POST":
            responses.append((str(last_request), json.loads(last_request.body)))
        status = client.wait_for_exit() if ends else None
        return RunResult(responses, status, TIME.sub("TIME", client.log))


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
def test_results_and_errors_equal_those_of_awslambdaric(tmp_path: Path, source: str) -> None:
    ours, theirs = run_both(tmp_path, HANDLER + source, {"a": "ä"}, {})
    assert ours == theirs
    assert len(ours.responses) == 2


def test_context_equals_that_of_awslambdaric(tmp_path: Path) -> None:
    source = """
import os
def handler(event, context):
    names = [name for name in dir(context) if not name.startswith("_") and not callable(getattr(context, name))]
    identity = context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id
    return ({name: repr(getattr(context, name)) for name in names if name != "identity"}, names, identity,
            context.get_remaining_time_in_millis() // 60_001, os.environ["_X_AMZN_TRACE_ID"])
"""
    ours, theirs = run_both(tmp_path, source, 1, 2)
    assert ours == theirs
    assert ours.responses[1][1][0]["aws_request_id"] == "'r-1'"


def test_log_lines_equal_those_of_awslambdaric(tmp_path: Path) -> None:
    source = """
import logging, sys
logging.warning("at the start")
def handler(event, context):
    logging.warning("%s", "wärning")
    logging.info("below the level")
    logging.getLogger("by.name").error("two\\n  lines")
    print("printed")
    print("to stderr", file=sys.stderr)
    logging.getLogger().setLevel("INFO")
    logging.info("at the level")
    raise ValueError(event)
"""
    ours, theirs = run_both(tmp_path, source, "first", "second")
    assert ours == theirs
    assert ours.log.startswith(
        "[WARNING]\tTIME\t\tat the start\n[WARNING]\tTIME\tr-0\twärning\n[ERROR]\tTIME\tr-0\ttwo\n"
    )
    assert ours.log.count("\tr-1\t") == 4


def test_unhandled_error_is_one_log_line_with_its_indentation(tmp_path: Path) -> None:
    ours, theirs = run_both(tmp_path, HANDLER + "raise LookupError('x')", 1)
    place = f'File "{tmp_path}/handler.py", line 2, in handler'
    lines = ["[ERROR] LookupError: x", "Traceback (most recent call last):", f"\xa0\xa0{place}", "\xa0" * 4]
    assert ours.log == "\r".join(lines) + "raise LookupError('x')\n"
    assert ours.log == theirs.log


def test_logged_exception_ends_with_a_newline_unlike_awslambdaric(tmp_path: Path) -> None:
    source = "import logging\n" + HANDLER
    source += (
        "try:\n        1 / 0\n    except ArithmeticError:\n        logging.exception('caught')\n    print('after')\n"
    )
    ours, theirs = run_both(tmp_path, source, 1)
    assert "ZeroDivisionError: division by zero\nafter\n" in ours.log
    assert ours.log.replace("by zero\nafter", "by zeroafter") == theirs.log


@pytest.mark.parametrize(
    ("handler", "source"),
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
def test_init_errors_equal_those_of_awslambdaric(tmp_path: Path, handler: str, source: str) -> None:
    ours, theirs = run_both(tmp_path, source, ends=True, _HANDLER=handler)
    assert (ours.responses, ours.status) == (theirs.responses, theirs.status)
    assert (ours.responses[0][0], ours.status) == ("POST /init/error", 1)
    assert ours.log == UPDATE_NOTE.sub("", theirs.log)


def test_handler_name_without_a_module_is_the_same_error_but_shorter(tmp_path: Path) -> None:
    ours, theirs = run_both(tmp_path, "", ends=True, _HANDLER="handler")
    (_, our_error), (_, their_error) = ours.responses[0], theirs.responses[0]
    assert their_error["errorMessage"].startswith(our_error.pop("errorMessage"))
    assert our_error == {name: value for name, value in their_error.items() if name != "errorMessage"}


def test_module_may_exit_the_process(tmp_path: Path) -> None:
    for command in (AISERVER_RUNTIME, AWSLAMBDARIC):
        with running(tmp_path, "import sys\nsys.exit(4)\n", command=command) as client:
            assert client.wait_for_exit() == 4
            assert client.api.has_no_request()
