"""The Lambda runtime as a process against a scripted Runtime API: invocations, errors and starts."""

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
MAX_LINES_OF_CODE = 200
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
        yield lambda source, **options: clients.enter_context(running(tmp_path, source, **options))


def test_result_is_posted_with_its_request_id_then_next_is_polled(start: Start) -> None:
    client = start(ECHO)
    for request_id in ("r-1", "r-2"):
        response = client.call({"café": [1, None]}, request_id=request_id)
        assert str(response) == f"POST /invocation/{request_id}/response"
        assert response.body == '{"café": [1, null]}'.encode()
        assert "transfer-encoding" not in response.headers
        assert "lambda-runtime-function-response-mode" not in response.headers
    assert str(client.api.next_request()) == "GET /invocation/next"


def test_exception_is_posted_with_type_message_and_trace(start: Start) -> None:
    client = start(FAILS)
    response = client.call(request_id="r-7")
    assert str(response) == "POST /invocation/r-7/error"
    assert response.headers[ERROR_TYPE] == "LookupError"
    error = json.loads(response.body)
    (frame,) = error.pop("stackTrace")
    assert error == {"errorMessage": "no such thing", "errorType": "LookupError", "requestId": "r-7"}
    assert "line 2, in handler" in frame
    assert str(client.api.next_request()) == "GET /invocation/next"


def test_result_that_is_not_json_is_a_marshal_error(start: Start) -> None:
    response = start("def handler(event, context):\n    return {1, 2}\n").call()
    error = json.loads(response.body)
    assert (str(response), error["errorType"]) == ("POST /invocation/r-1/error", "Runtime.MarshalError")
    assert error["errorMessage"].startswith("Unable to marshal response: ")


def test_context_has_invocation_and_function_attributes(start: Start) -> None:
    source = """
import os
def handler(event, context):
    names = ["aws_request_id", "invoked_function_arn", "tenant_id", "client_context", "memory_limit_in_mb",
             "function_name", "function_version", "log_group_name", "log_stream_name"]
    return [getattr(context, name) for name in names] + [os.environ["_X_AMZN_TRACE_ID"]]
"""
    client = start(source)
    function = ["256", "toy", "$LATEST", "/aws/lambda/toy", "2026/01/01/[$LATEST]0"]
    trace = {"Lambda_Runtime_Trace_Id": "Root=1-first"}
    assert json.loads(client.call(**trace).body) == ["r-1", ARN, None, None, *function, "Root=1-first"]
    headers = {"Lambda_Runtime_Trace_Id": "Root=1-second", "Lambda_Runtime_Aws_Tenant_Id": "t"}
    assert json.loads(client.call(request_id="r-2", **headers).body) == [
        "r-2",
        ARN,
        "t",
        None,
        *function,
        "Root=1-second",
    ]


def test_context_returns_remaining_time_and_zero_after_the_deadline(start: Start) -> None:
    client = start("def handler(event, context):\n    return context.get_remaining_time_in_millis()\n")
    now_ms = int(time.time() * 1000)
    remaining_ms = json.loads(client.call(Lambda_Runtime_Deadline_Ms=str(now_ms + 60_000)).body)
    assert 60_000 - MAX_LATE_MS < remaining_ms <= 60_000
    assert client.call(Lambda_Runtime_Deadline_Ms=str(now_ms - 1)).body == b"0"


@pytest.mark.parametrize(
    ("handler", "source", "error_type", "message"),
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
def test_failed_init_posts_an_error_and_ends_the_process(
    start: Start, handler: str, source: str, error_type: str, message: str
) -> None:
    client = start(source, _HANDLER=handler)
    response = client.api.next_request()
    error = json.loads(response.body)
    assert (str(response), response.headers[ERROR_TYPE], error["errorType"]) == (
        "POST /init/error",
        error_type,
        error_type,
    )
    assert error["errorMessage"].startswith(message)
    assert client.wait_for_exit() == 1
    assert client.api.has_no_request()
    assert client.log.startswith(f"[ERROR] {error_type}: {message}")
    assert client.log.count("\n") == 1


@pytest.mark.parametrize("source", [ECHO, FAILS, STREAM], ids=["response", "error", "stream"])
def test_next_is_polled_after_an_accepted_response(start: Start, source: str) -> None:
    client = start(source)
    client.call()
    client.call()
    assert str(client.api.next_request()) == "GET /invocation/next"
    assert client.process.poll() is None


@pytest.mark.parametrize(
    ("source", "verb", "requests"),
    [
        (ECHO, "response", ["GET /invocation/next", "POST /invocation/r-1/response"]),
        (STREAM, "response", ["GET /invocation/next", "POST /invocation/r-1/response"]),
        (FAILS, "error", ["GET /invocation/next", "POST /invocation/r-1/error"]),
        ("1 / 0\n", "error", ["POST /init/error"]),
        (ECHO, "next", ["GET /invocation/next"]),
    ],
    ids=["response", "stream", "error", "init error", "next"],
)
def test_rejected_request_ends_the_process_with_a_log_line(
    start: Start, source: str, verb: str, requests: list[str]
) -> None:
    clients = {status: start(source) for status in REFUSALS}
    for status, client in clients.items():
        client.api.statuses[verb] = status
        if verb == "next":
            client.api.offer_raw_response(b"HTTP/1.1 %d -\r\nContent-Length: 3\r\n\r\nwhy" % status)
        else:
            client.api.offer_event()
    for status, client in clients.items():
        assert [str(client.api.next_request()) for _ in requests] == requests
        assert client.wait_for_exit() != 0
        assert client.api.has_no_request()
        assert sum(f"the Runtime API returned {status}" in line for line in client.log.splitlines()) == 1


@pytest.mark.parametrize(
    "response",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"],
    ids=["dropped", "no HTTP", "cut off"],
)
def test_failed_next_request_ends_the_process(start: Start, response: bytes) -> None:
    client = start(ECHO)
    client.api.next_request()
    client.api.offer_raw_response(response)
    assert client.wait_for_exit() != 0
    assert client.api.has_no_request()


def test_invocation_without_a_request_id_ends_the_process(start: Start) -> None:
    client = start("def handler(event, context):\n    print('it ran')\n")
    client.api.next_request()
    client.api.offer_event(request_id=None)
    assert client.wait_for_exit() != 0
    assert client.api.has_no_request()
    assert "it ran" not in client.log


def test_wait_for_the_next_invocation_ignores_the_default_socket_timeout(start: Start) -> None:
    client = start(f"import socket\nsocket.setdefaulttimeout(0.01)\n{ECHO}")
    client.api.next_request()
    with pytest.raises(subprocess.TimeoutExpired):
        client.process.wait(0.5)
    client.api.offer_event("late")
    assert client.api.next_request().body == b'"late"'


def test_wrapper_starts_the_runtime_in_place_of_the_bootstrap(start: Start, tmp_path: Path) -> None:
    source = """
import os, sys
def handler(event, context):
    return sys.argv, os.environ["PYTHONPATH"], sys.stdout.write_through
"""
    command = [str(WRAPPER), sys.executable, "/var/runtime/bootstrap.py"]
    argv, path, unbuffered = json.loads(start(source, command=command).call().body)
    assert argv == [str(RUNTIME)]
    assert path.startswith(f"{tmp_path}:/opt/python:{tmp_path}:{LAYER}:")
    assert unbuffered


def test_runtime_is_small_and_imports_only_the_standard_library() -> None:
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
    imports = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imports |= {f"{'.' * node.level}{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imports} <= sys.stdlib_module_names
