"""Functions run in their real runtime client, one call per process at a time, within Lambda's limits."""

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
from local.invoke import InvalidEvent, insert_key, read_event
from local.runtime_api import MAX_PAYLOAD_BYTES, DeployedFunction, FunctionFailed
from local.sandbox_pool import SandboxPool
from local.seed import new_keys
from local.template import Route, gateway_responses, read_template

ARN = "arn:aws:lambda:us-east-1:000000000000:function:toy"
RETURN_PID = "import os\ndef handler(event, context):\n    return os.getpid()\n"
PATIENCE_S = 20

Start = Callable[..., SandboxPool]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Create a pool for a handler from its source."""
    with ExitStack() as stack:

        def create_pool(source: str, *, timeout_s: int = PATIENCE_S) -> SandboxPool:
            folder = tmp_path / "toy"
            folder.mkdir()
            (folder / "handler.py").write_text(source)
            toy = DeployedFunction("toy", ARN, folder, "handler.handler", timeout_s, 256, {"TABLE": "jobs"})
            pool = SandboxPool(toy, "http://127.0.0.1:1", tmp_path, [])
            stack.callback(pool.close)
            return pool

        yield create_pool


def call(pool: SandboxPool, event: Any = None) -> Any:
    return json.loads(pool.invoke(json.dumps(event).encode()))


def call_and_fail(pool: SandboxPool, event: Any = None) -> FunctionFailed:
    with pytest.raises(FunctionFailed) as error_info:
        call(pool, event)
    return error_info.value


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread or process, at most PATIENCE_S."""
    tick = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("timed out while waiting for the condition")


def has_exited(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_handler_receives_its_event_and_the_lambda_context(start: Start) -> None:
    source = """
def handler(event, context):
    return [event, context.aws_request_id, context.invoked_function_arn, context.memory_limit_in_mb,
            context.function_name, context.get_remaining_time_in_millis()]
"""
    pool = start(source)
    event, request_id, arn, memory, name, remaining_ms = json.loads(pool.invoke(b'{"caf\\u00e9": 1}', request_id="r-1"))
    assert (event, request_id, arn, int(memory), name) == ({"café": 1}, "r-1", ARN, 256, "toy")
    assert 0 < remaining_ms <= PATIENCE_S * 1000


def test_handler_environment_excludes_the_developers_variables(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the developer's")
    monkeypatch.setenv("AWS_PROFILE", "production")
    environment = call(start("import os\ndef handler(event, context):\n    return dict(os.environ)\n"))
    assert "OPENAI_API_KEY" not in environment
    assert "AWS_PROFILE" not in environment
    assert environment["HOME"] != os.environ.get("HOME")
    assert environment["TABLE"] == "jobs"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "toy"
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"


def test_sequential_calls_share_a_process(start: Start) -> None:
    pool = start(RETURN_PID)
    pool.warm()
    assert len({call(pool) for _ in range(20)}) == 1
    assert pool.size == 1


def test_concurrent_calls_run_in_separate_processes(start: Start) -> None:
    """Each handler connects and waits: the calls end only if all three run concurrently."""
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
        responses = [threads.submit(call, pool, gate.getsockname()[1]) for _ in range(3)]
        connections = [gate.accept()[0] for _ in range(3)]
        for connection in connections:
            connection.close()
        assert len({response.result(PATIENCE_S) for response in responses}) == 3


def test_handler_over_its_timeout_is_killed_and_replaced(start: Start, tmp_path: Path) -> None:
    source = f"""
import os, pathlib
def handler(event, context):
    pathlib.Path({str(tmp_path)!r}, "pid").write_text(str(os.getpid()))
    while event == "hang":
        pass
    return "well"
"""
    pool = start(source, timeout_s=1)
    failure = call_and_fail(pool, "hang")
    assert failure.type == "Sandbox.Timedout"
    assert "Task timed out after 1.00 seconds" in str(failure)
    assert f"{failure}\n" in (tmp_path / "toy.log").read_text()
    assert has_exited(int((tmp_path / "pid").read_text()))
    assert call(pool) == "well"


def test_exiting_handler_fails_only_its_own_call(start: Start) -> None:
    pool = start("import os\ndef handler(event, context):\n    os._exit(3) if event else None\n    return 'well'\n")
    failure = call_and_fail(pool, "crash")
    assert (failure.type, "exit status 3" in str(failure)) == ("Runtime.ExitError", True)
    assert call(pool) == "well"


def test_process_killed_between_calls_fails_no_call(start: Start) -> None:
    pool = start(RETURN_PID)
    first_pid = call(pool)
    os.kill(first_pid, 9)
    wait_until(lambda: pool.size == 0)
    assert call(pool) != first_pid


def test_exception_type_and_message_are_preserved(start: Start) -> None:
    pool = start("def handler(event, context):\n    raise LookupError('no such thing')\n")
    failure = call_and_fail(pool)
    assert (failure.type, str(failure)) == ("LookupError", "LookupError: no such thing")


@pytest.mark.parametrize(
    ("source", "error_type", "message"),
    [
        ("import no_such_module\n", "Runtime.ImportModuleError", "no_such_module"),
        ("1 / 0\n", "ZeroDivisionError", "division by zero"),
        ("x = 1\n", "Runtime.HandlerNotFound", "handler"),
    ],
)
def test_initialisation_error_is_reported(start: Start, source: str, error_type: str, message: str) -> None:
    pool = start(source)
    with pytest.raises(FunctionFailed, match=message) as error_info:
        pool.warm()
    assert error_info.value.type == error_type
    assert call_and_fail(pool).type == error_type
    wait_until(lambda: pool.size == 0)


def test_event_over_the_limit_is_rejected_without_invocation(start: Start) -> None:
    pool = start(RETURN_PID)
    with pytest.raises(FunctionFailed) as error_info:
        pool.invoke(b" " * (MAX_PAYLOAD_BYTES + 1))
    assert error_info.value.type == "RequestTooLargeException"
    assert pool.size == 0


def test_event_and_response_at_the_limit_are_accepted(start: Start) -> None:
    pool = start("def handler(event, context):\n    return 'x' * event\n")
    assert len(pool.invoke(str(MAX_PAYLOAD_BYTES - 2).encode().ljust(MAX_PAYLOAD_BYTES))) == MAX_PAYLOAD_BYTES


def test_response_over_the_limit_fails_only_its_own_call(start: Start) -> None:
    pool = start("def handler(event, context):\n    return 'x' * event\n")
    assert call_and_fail(pool, MAX_PAYLOAD_BYTES - 1).type == "Function.ResponseSizeTooLarge"
    assert call(pool, 1) == "x"


def test_close_ends_every_process(start: Start) -> None:
    pool = start(RETURN_PID)
    pid = call(pool)
    pool.close()
    assert has_exited(pid)
    assert call_and_fail(pool).type == "Runtime.ExitError"
    assert pool.size == 0


def test_crash_returns_the_template_502(start: Start) -> None:
    pool = start("import os\ndef handler(event, context):\n    os._exit(1)\n")
    gateway = Gateway(0)
    try:
        route = Route(method="GET", path="/crash", function="toy", timeout_s=29.0, is_streamed=False)

        def invoke(function: str, event: bytes, request_id: str) -> bytes:
            return pool.invoke(event, request_id=request_id)

        gateway.open([route], gateway_responses(read_template()), invoke)
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"GET /crash HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head, _, body = b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\r\n\r\n")
    finally:
        gateway.close()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert json.loads(body)["responseStatus"]["errorCode"] == "InternalError"
    assert json.loads(body)["error"]["type"] == "server_error"


def test_event_name_up_to_the_first_dot_names_the_function(tmp_path: Path) -> None:
    (tmp_path / "chat.no-model.json").write_text('{"headers": {}}')
    assert read_event(["chat.no-model"], tmp_path) == ("chat", {"headers": {}})
    with pytest.raises(InvalidEvent, match=r"chat\.no-model"):
        read_event(["chat"], tmp_path)


def test_key_is_inserted_only_into_existing_authorization_headers() -> None:
    event: dict[str, Any] = {"headers": {"Authorization": "old", "A": "b"}, "multiValueHeaders": {"authorization": []}}
    keys = new_keys()
    updated = insert_key(event, keys)
    assert updated["headers"] == {"Authorization": f"Bearer {keys.api_key}", "A": "b"}
    assert updated["multiValueHeaders"] == {"authorization": [f"Bearer {keys.api_key}"]}
    assert insert_key({"Records": []}, keys) == {"Records": []}
