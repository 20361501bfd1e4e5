"""Functions run in their real runtime client, one call a process, within Lambda's limits."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from local.gateway import Gateway
from local.invoke import InvalidEvent, read_event, with_key
from local.runtime_api import MAX_PAYLOAD_BYTES, DeployedFunction, FunctionFailed
from local.sandbox_pool import SandboxPool
from local.seed import new_keys
from local.template import Route, gateway_responses, read_template

ARN = "arn:aws:lambda:us-east-1:000000000000:function:toy"
WHO = "import os\ndef handler(event, context):\n    return os.getpid()\n"
PATIENCE_S = 20

Start = Callable[..., SandboxPool]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Make a pool for a handler given as source."""
    with ExitStack() as running:

        def started(source: str, *, timeout_s: int = PATIENCE_S) -> SandboxPool:
            folder = tmp_path / "toy"
            folder.mkdir()
            (folder / "handler.py").write_text(source)
            toy = DeployedFunction("toy", ARN, folder, "handler.handler", timeout_s, 256, {"TABLE": "jobs"})
            pool = SandboxPool(toy, "http://127.0.0.1:1", tmp_path, [])
            running.callback(pool.close)
            return pool

        yield started


def call(pool: SandboxPool, event: Any = None) -> Any:
    return json.loads(pool.invoke(json.dumps(event).encode()))


def fails(pool: SandboxPool, event: Any = None) -> FunctionFailed:
    with pytest.raises(FunctionFailed) as failed:
        call(pool, event)
    return failed.value


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread or process, up to a bound."""
    tick = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it never happened")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_handler_sees_its_event_and_lambdas_context(start: Start) -> None:
    source = """
def handler(event, context):
    return [event, context.aws_request_id, context.invoked_function_arn, context.memory_limit_in_mb,
            context.function_name, context.get_remaining_time_in_millis()]
"""
    pool = start(source)
    event, request_id, arn, memory, name, left_ms = json.loads(pool.invoke(b'{"caf\\u00e9": 1}', request_id="r-1"))
    assert (event, request_id, arn, int(memory), name) == ({"café": 1}, "r-1", ARN, 256, "toy")
    assert 0 < left_ms <= PATIENCE_S * 1000


def test_a_handler_sees_nothing_of_the_developers_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the developer's")
    monkeypatch.setenv("AWS_PROFILE", "production")
    seen = call(start("import os\ndef handler(event, context):\n    return dict(os.environ)\n"))
    assert "OPENAI_API_KEY" not in seen
    assert "AWS_PROFILE" not in seen
    assert seen["HOME"] != os.environ.get("HOME")
    assert seen["TABLE"] == "jobs"
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "toy"
    assert seen["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"


def test_calls_after_each_other_share_a_process(start: Start) -> None:
    pool = start(WHO)
    pool.warm()
    assert len({call(pool) for _ in range(20)}) == 1
    assert pool.size == 1


def test_calls_at_once_each_have_a_process(start: Start) -> None:
    """Each handler reports and waits for leave: the calls end only if all three run at once."""
    source = """
import os, socket
def handler(event, context):
    with socket.create_connection(("127.0.0.1", event)) as gate:
        gate.recv(1)
    return os.getpid()
"""
    pool = start(source)
    with socket.create_server(("127.0.0.1", 0)) as gate, ThreadPoolExecutor(3) as threads:
        gate.settimeout(PATIENCE_S)
        answers = [threads.submit(call, pool, gate.getsockname()[1]) for _ in range(3)]
        waiting = [gate.accept()[0] for _ in range(3)]
        for connection in waiting:
            connection.close()
        assert len({answer.result(PATIENCE_S) for answer in answers}) == 3


def test_a_handler_over_its_time_is_killed_and_replaced(start: Start, tmp_path: Path) -> None:
    source = f"""
import os, pathlib
def handler(event, context):
    pathlib.Path({str(tmp_path)!r}, "pid").write_text(str(os.getpid()))
    while event == "hang":
        pass
    return "well"
"""
    pool = start(source, timeout_s=1)
    failure = fails(pool, "hang")
    assert failure.type == "Sandbox.Timedout"
    assert "Task timed out after 1.00 seconds" in str(failure)
    assert f"{failure}\n" in (tmp_path / "toy.log").read_text()
    assert gone(int((tmp_path / "pid").read_text()))
    assert call(pool) == "well"


def test_a_handler_that_ends_its_process_fails_that_call_only(start: Start) -> None:
    pool = start("import os\ndef handler(event, context):\n    os._exit(3) if event else None\n    return 'well'\n")
    failure = fails(pool, "crash")
    assert (failure.type, "exit status 3" in str(failure)) == ("Runtime.ExitError", True)
    assert call(pool) == "well"


def test_a_process_that_dies_between_two_calls_costs_none(start: Start) -> None:
    pool = start(WHO)
    first = call(pool)
    os.kill(first, 9)
    until(lambda: pool.size == 0)
    assert call(pool) != first


def test_an_exception_keeps_its_type_and_message(start: Start) -> None:
    pool = start("def handler(event, context):\n    raise LookupError('no such thing')\n")
    failure = fails(pool)
    assert (failure.type, str(failure)) == ("LookupError", "LookupError: no such thing")


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        ("import no_such_module\n", "Runtime.ImportModuleError", "no_such_module"),
        ("1 / 0\n", "ZeroDivisionError", "division by zero"),
        ("x = 1\n", "Runtime.HandlerNotFound", "handler"),
    ],
)
def test_a_function_that_cannot_start_says_why(start: Start, source: str, kind: str, says: str) -> None:
    pool = start(source)
    with pytest.raises(FunctionFailed, match=says) as warming:
        pool.warm()
    assert warming.value.type == kind
    assert fails(pool).type == kind
    until(lambda: pool.size == 0)


def test_an_event_over_the_limit_never_reaches_the_function(start: Start) -> None:
    pool = start(WHO)
    with pytest.raises(FunctionFailed) as failed:
        pool.invoke(b" " * (MAX_PAYLOAD_BYTES + 1))
    assert failed.value.type == "RequestTooLargeException"
    assert pool.size == 0


def test_an_event_and_an_answer_at_the_limit_pass(start: Start) -> None:
    pool = start("def handler(event, context):\n    return 'x' * event\n")
    assert len(pool.invoke(str(MAX_PAYLOAD_BYTES - 2).encode().ljust(MAX_PAYLOAD_BYTES))) == MAX_PAYLOAD_BYTES


def test_an_answer_over_the_limit_fails_that_call_only(start: Start) -> None:
    pool = start("def handler(event, context):\n    return 'x' * event\n")
    assert fails(pool, MAX_PAYLOAD_BYTES - 1).type == "Function.ResponseSizeTooLarge"
    assert call(pool, 1) == "x"


def test_closing_leaves_no_process(start: Start) -> None:
    pool = start(WHO)
    pid = call(pool)
    pool.close()
    assert gone(pid)
    assert fails(pool).type == "Runtime.ExitError"
    assert pool.size == 0


def test_a_crash_reaches_the_caller_as_the_templates_502(start: Start) -> None:
    pool = start("import os\ndef handler(event, context):\n    os._exit(1)\n")
    door = Gateway(0)
    try:
        crash = Route(method="GET", path="/crash", function="toy", timeout_s=29.0, streamed=False)

        def invoke(function: str, event: bytes, request_id: str) -> bytes:
            return pool.invoke(event, request_id=request_id)

        door.open([crash], gateway_responses(read_template()), invoke)
        with socket.create_connection(("127.0.0.1", door.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"GET /crash HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head, _, body = b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\r\n\r\n")
    finally:
        door.close()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert json.loads(body)["responseStatus"]["errorCode"] == "InternalError"
    assert json.loads(body)["error"]["type"] == "server_error"


def test_an_events_name_up_to_its_first_dot_is_the_function(tmp_path: Path) -> None:
    (tmp_path / "chat.no-model.json").write_text('{"headers": {}}')
    assert read_event(["chat.no-model"], tmp_path) == ("chat", {"headers": {}})
    with pytest.raises(InvalidEvent, match=r"chat\.no-model"):
        read_event(["chat"], tmp_path)


def test_an_event_gets_a_key_that_works_only_where_it_had_one() -> None:
    event: dict[str, Any] = {"headers": {"Authorization": "old", "A": "b"}, "multiValueHeaders": {"authorization": []}}
    seeded = new_keys()
    given = with_key(event, seeded)
    assert given["headers"] == {"Authorization": f"Bearer {seeded.api_key}", "A": "b"}
    assert given["multiValueHeaders"] == {"authorization": [f"Bearer {seeded.api_key}"]}
    assert with_key({"Records": []}, seeded) == {"Records": []}
