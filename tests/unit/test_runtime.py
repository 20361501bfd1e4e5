"""The main loop of the functions that stream, as a process against a scripted Runtime API: calls, errors, starts."""

import ast
import io
import json
import subprocess
import sys
import time
import tokenize
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.runtime_api import ARN, LAYER, Client, running

WRAPPER = LAYER / "bin" / "aiserver-runtime"
RUNTIME = LAYER / "aiserver" / "lambda_runtime.py"
MAX_LINES_OF_CODE = 120
MAX_LATE_MS = 5_000
REFUSALS = (400, 403, 413, 500)
ECHO = "def handler(event, context):\n    return event\n"
STREAM = "def handler(event, context):\n    yield {}\n    yield b'x'\n"
FAILS = "def handler(event, context):\n    raise LookupError('no such thing')\n"
ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"

Start = Callable[..., Client]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as clients:
        yield lambda source, **more: clients.enter_context(running(tmp_path, source, **more))


def test_a_result_goes_back_under_its_calls_id_and_the_next_call_is_asked_for(start: Start) -> None:
    client = start(ECHO)
    for request_id in ("r-1", "r-2"):
        answer = client.call({"café": [1, None]}, request_id=request_id)
        assert str(answer) == f"POST /invocation/{request_id}/response"
        assert answer.body == '{"café": [1, null]}'.encode()
        assert "transfer-encoding" not in answer.headers
        assert "lambda-runtime-function-response-mode" not in answer.headers
    assert str(client.api.hear()) == "GET /invocation/next"


def test_an_exception_goes_back_with_its_type_words_and_trace_and_the_next_call_is_asked_for(start: Start) -> None:
    client = start(FAILS)
    answer = client.call(request_id="r-7")
    assert str(answer) == "POST /invocation/r-7/error"
    assert answer.headers[ERROR_TYPE] == "LookupError"
    told = json.loads(answer.body)
    (frame,) = told.pop("stackTrace")
    assert told == {"errorMessage": "no such thing", "errorType": "LookupError", "requestId": "r-7"}
    assert "line 2, in handler" in frame
    assert str(client.api.hear()) == "GET /invocation/next"


def test_a_result_that_is_not_json_is_an_error_of_its_own_kind(start: Start) -> None:
    answer = start("def handler(event, context):\n    return {1, 2}\n").call()
    told = json.loads(answer.body)
    assert (str(answer), told["errorType"]) == ("POST /invocation/r-1/error", "Runtime.MarshalError")
    assert told["errorMessage"].startswith("Unable to marshal response: ")


def test_a_handler_is_told_of_its_call_and_of_its_function(start: Start) -> None:
    source = """
import os
def handler(event, context):
    names = ["aws_request_id", "invoked_function_arn", "tenant_id", "client_context", "memory_limit_in_mb",
             "function_name", "function_version", "log_group_name", "log_stream_name"]
    return [getattr(context, name) for name in names] + [os.environ["_X_AMZN_TRACE_ID"]]
"""
    client = start(source)
    own = ["256", "toy", "$LATEST", "/aws/lambda/toy", "2026/01/01/[$LATEST]0"]
    trace = {"Lambda_Runtime_Trace_Id": "Root=1-first"}
    assert json.loads(client.call(**trace).body) == ["r-1", ARN, None, None, *own, "Root=1-first"]
    more = {"Lambda_Runtime_Trace_Id": "Root=1-second", "Lambda_Runtime_Aws_Tenant_Id": "t"}
    assert json.loads(client.call(request_id="r-2", **more).body) == ["r-2", ARN, "t", None, *own, "Root=1-second"]


def test_a_handler_knows_how_long_it_has_left_and_that_it_has_nothing_once_its_time_is_over(start: Start) -> None:
    client = start("def handler(event, context):\n    return context.get_remaining_time_in_millis()\n")
    now_ms = int(time.time() * 1000)
    left_ms = json.loads(client.call(Lambda_Runtime_Deadline_Ms=str(now_ms + 60_000)).body)
    assert 60_000 - MAX_LATE_MS < left_ms <= 60_000
    assert client.call(Lambda_Runtime_Deadline_Ms=str(now_ms - 1)).body == b"0"


@pytest.mark.parametrize(
    ("named", "source", "kind", "says"),
    [
        ("handler", ECHO, "Runtime.MalformedHandlerName", "Bad handler 'handler'"),
        ("nowhere.handler", ECHO, "Runtime.ImportModuleError", "Unable to import module 'nowhere': No module named"),
        ("handler.handler", "def (", "Runtime.UserCodeSyntaxError", "Syntax error in module 'handler': invalid syntax"),
        ("handler.other", ECHO, "Runtime.HandlerNotFound", "Handler 'other' missing on module 'handler'"),
        ("sys.exit", ECHO, "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"),
        ("handler.handler", "1 / 0\n", "ZeroDivisionError", "division by zero"),
        ("handler.handler", "import nowhere\n", "Runtime.ImportModuleError", "Unable to import module 'handler': "),
    ],
    ids=["malformed", "no module", "syntax", "no handler", "built in", "raises", "imports nothing"],
)
def test_a_function_that_cannot_start_says_why_and_ends(
    start: Start, named: str, source: str, kind: str, says: str
) -> None:
    client = start(source, _HANDLER=named)
    answer = client.api.hear()
    told = json.loads(answer.body)
    assert (str(answer), answer.headers[ERROR_TYPE], told["errorType"]) == ("POST /init/error", kind, kind)
    assert told["errorMessage"].startswith(says)
    assert client.ends() == 1
    assert client.api.is_silent()
    assert client.log.startswith(f"[ERROR] {kind}: {says}")
    assert client.log.count("\n") == 1


@pytest.mark.parametrize("source", [ECHO, FAILS, STREAM], ids=["response", "error", "stream"])
def test_what_is_accepted_is_followed_by_the_next_call(start: Start, source: str) -> None:
    client = start(source)
    client.call()
    client.call()
    assert str(client.api.hear()) == "GET /invocation/next"
    assert client.process.poll() is None


@pytest.mark.parametrize(
    ("source", "verb", "heard"),
    [
        (ECHO, "response", ["GET /invocation/next", "POST /invocation/r-1/response"]),
        (STREAM, "response", ["GET /invocation/next", "POST /invocation/r-1/response"]),
        (FAILS, "error", ["GET /invocation/next", "POST /invocation/r-1/error"]),
        ("1 / 0\n", "error", ["POST /init/error"]),
        (ECHO, "next", ["GET /invocation/next"]),
    ],
    ids=["response", "stream", "error", "init error", "next"],
)
def test_a_refusal_ends_the_process_and_the_log_says_which(
    start: Start, source: str, verb: str, heard: list[str]
) -> None:
    clients = {status: start(source) for status in REFUSALS}
    for status, client in clients.items():
        client.api.statuses[verb] = status
        if verb == "next":
            client.api.offer_last(b"HTTP/1.1 %d -\r\nContent-Length: 3\r\n\r\nwhy" % status)
        else:
            client.api.offer()
    for status, client in clients.items():
        assert [str(client.api.hear()) for _ in heard] == heard
        assert client.ends() != 0
        assert client.api.is_silent()
        assert sum(f"the Runtime API answered {status}" in line for line in client.log.splitlines()) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"],
    ids=["dropped", "no HTTP", "cut off"],
)
def test_a_next_call_that_does_not_arrive_ends_the_process(start: Start, answer: bytes) -> None:
    client = start(ECHO)
    client.api.hear()
    client.api.offer_last(answer)
    assert client.ends() != 0
    assert client.api.is_silent()


def test_a_call_without_an_id_is_nobodys_and_ends_the_process_before_its_handler_runs(start: Start) -> None:
    client = start("def handler(event, context):\n    print('it ran')\n")
    client.api.hear()
    client.api.offer(request_id=None)
    assert client.ends() != 0
    assert client.api.is_silent()
    assert "it ran" not in client.log


def test_the_wait_for_the_next_call_has_no_end_whatever_its_module_thinks_of_timeouts(start: Start) -> None:
    client = start(f"import socket\nsocket.setdefaulttimeout(0.01)\n{ECHO}")
    client.api.hear()
    with pytest.raises(subprocess.TimeoutExpired):
        client.process.wait(0.5)
    client.api.offer("late")
    assert client.api.hear().body == b'"late"'


def test_the_wrapper_starts_it_in_place_of_what_lambda_would_start(start: Start, tmp_path: Path) -> None:
    source = """
import os, sys
def handler(event, context):
    return sys.argv, os.environ["PYTHONPATH"], sys.stdout.write_through
"""
    given = [str(WRAPPER), sys.executable, "/var/runtime/bootstrap.py"]
    argv, path, unbuffered = json.loads(start(source, command=given).call().body)
    assert argv == [str(RUNTIME)]
    assert path.startswith(f"{tmp_path}:/opt/python:{tmp_path}:{LAYER}:")
    assert unbuffered


def test_the_runtime_stays_small_enough_to_be_read_at_once_and_needs_nothing_but_python() -> None:
    source = RUNTIME.read_text(encoding="utf-8")
    tree = ast.parse(source)
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    assert len(lines) <= MAX_LINES_OF_CODE
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {f"{'.' * node.level}{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
