"""The receivers of docs/callbacks.md run unchanged and accept the signatures of the gateway."""

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import InvalidWebhookSignatureError
from standardwebhooks import WebhookVerificationError

from aiserver import api_keys
from aiserver.webhooks.signature import signature_headers
from local.template import REPOSITORY

PAGE = (REPOSITORY / "docs" / "callbacks.md").read_text(encoding="utf-8")
BODY = '{"id": "chatcmpl-1", "object": "chat.completion", "choices": ["ü"]}'.encode()
ID = "msg_4711_0"
START_S = 30
SECRET, PREVIOUS_SECRET = api_keys.new_webhook_secrets().rotate(now_ms=1, overlap_ms=1).active(1)
FOREIGN_SECRET = api_keys.new_webhook_secrets().current
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript receiver needs Node 18 or newer")
# The receivers with a constant-time comparison that always returns false.
NEVER_EQUAL_PYTHON = "import hmac, runpy; hmac.compare_digest = lambda a, b: False; runpy.run_path('receiver.py')"
NEVER_EQUAL_NODE = (
    "require('node:crypto').timingSafeEqual = () => false; require('node:module').syncBuiltinESMExports();"
)


def example(text_in_block: str) -> str:
    """Return the only fenced block of the page that contains this text."""
    (code,) = (block for block in re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.M | re.S) if text_in_block in block)
    return code


@dataclass
class Receiver:
    """A receiver of the page: its file, code and command, and the command with a comparison that is never equal."""

    file: str
    text: str
    command: list[str]
    never_equal_command: list[str]


PYTHON = Receiver(
    "receiver.py",
    example("from http.server import"),
    [sys.executable, "receiver.py"],
    [sys.executable, "-c", NEVER_EQUAL_PYTHON],
)
JAVASCRIPT = Receiver(
    "receiver.mjs",
    example('from "node:http"'),
    ["node", "receiver.mjs"],
    ["node", "--require", "./unequal.cjs", "receiver.mjs"],
)


@pytest.fixture(params=[pytest.param(PYTHON, id="python"), pytest.param(JAVASCRIPT, id="javascript", marks=needs_node)])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Receiver:
    (tmp_path / request.param.file).write_text(request.param.text, encoding="utf-8")
    (tmp_path / "unequal.cjs").write_text(NEVER_EQUAL_NODE)
    return request.param


@dataclass
class RunningReceiver:
    """A listening receiver. `handled` are the lines it printed, available after it has exited."""

    port: int
    handled: list[str]

    def post(self, headers: dict[str, Any], body: bytes = BODY) -> int:
        return httpx.post(f"http://127.0.0.1:{self.port}/", content=body, headers=headers, trust_env=False).status_code

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), START_S)


def start(command: list[str], folder: Path, secret: str) -> subprocess.Popen[str]:
    environment = os.environ | {"WEBHOOK_SECRET": secret, "PORT": "0"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


@contextmanager
def running(command: list[str], folder: Path, secret: str = SECRET) -> Iterator[RunningReceiver]:
    with start(command, folder, secret) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START_S)[0], "the receiver does not print that it listens"
            line = process.stdout.readline()
            match = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)/\n", line)
            assert match, line
            running_receiver = RunningReceiver(int(match[1]), [])
            yield running_receiver
        finally:
            process.kill()
        running_receiver.handled += process.stdout.read().splitlines()


def signed_headers(*secrets: str, body: bytes = BODY, age_s: int = 0, message_id: str = ID) -> dict[str, str]:
    """Return the headers of a callback sent `age_s` seconds ago."""
    job_headers = {"x-job-id": message_id.split("_")[1], "x-job-state": "Completed"}
    return job_headers | signature_headers(secrets or [SECRET], message_id, int(time.time()) - age_s, body)


def headers_without(name: str) -> dict[str, str]:
    return {key: value for key, value in signed_headers().items() if key != name}


def test_duplicate_callback_is_handled_once(receiver: Receiver, tmp_path: Path) -> None:
    with running(receiver.command, tmp_path) as server:
        assert server.post(signed_headers()) in range(200, 300)
        assert server.post(signed_headers(age_s=240) | {"x-attempt": "2"}) in range(200, 300)
        assert server.post(signed_headers(message_id="msg_4712_0") | {"x-job-state": "Failed"}) in range(200, 300)
        assert server.post(signed_headers(message_id="msg_4711_1")) in range(200, 300)
        assert server.post(signed_headers()) in range(200, 300)
    assert server.handled == ["job 4711 Completed", "job 4712 Failed", "job 4711 Completed"]


def test_invalid_signature_is_a_4xx_and_not_handled(receiver: Receiver, tmp_path: Path) -> None:
    signature = signed_headers()["webhook-signature"].removeprefix("v1,")
    invalid_requests = {
        "foreign signature": (signed_headers(FOREIGN_SECRET), BODY),
        "changed body": (signed_headers(), BODY.replace(b"1", b"2")),
        "no body": (signed_headers(), b""),
        "another id": (signed_headers() | {"webhook-id": "msg_4712_0"}, BODY),
        "another time": (signed_headers() | {"webhook-timestamp": str(int(time.time()) + 1)}, BODY),
        "too old": (signed_headers(age_s=301), BODY),
        "in the future": (signed_headers(age_s=-330), BODY),
        "another version": (signed_headers() | {"webhook-signature": f"v2,{signature}"}, BODY),
        **{f"no {name}": (headers_without(name), BODY) for name in signed_headers() if name.startswith("webhook-")},
        **{
            f"signature {text!r}": (signed_headers() | {"webhook-signature": text}, BODY)
            for text in ("", "v1", "v1,", "v1,!")
        },
        "invalid base64": (signed_headers() | {"webhook-signature": "v1,é".encode()}, BODY),
        **{
            f"time {text!r}": (signed_headers() | {"webhook-timestamp": text}, BODY)
            for text in ("", "now", "NaN", "Infinity")
        },
    }
    with running(receiver.command, tmp_path) as server:
        statuses = {name: server.post(headers, body) for name, (headers, body) in invalid_requests.items()}
        assert server.post(signed_headers(message_id="msg_4799_0")) in range(200, 300)
    assert [name for name, status in statuses.items() if status not in range(400, 500) or status == 410] == []
    assert server.handled == ["job 4799 Completed"]


def test_oversized_bodies_and_aborted_requests_do_no_harm(receiver: Receiver, tmp_path: Path) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    large = b'"%b"' % (b"x" * 256 * 1024)
    with running(receiver.command, tmp_path) as server:
        for length in (-1, 1024 * 1024 + 1, 10**12):
            with server.connect() as connection:
                connection.sendall(head % length)
                assert re.match(rb"HTTP/1\.[01] 4(?!10)\d\d ", connection.recv(65_536)), length
        with server.connect() as connection:
            connection.sendall(head % 1000 + b"half")
        assert server.post(signed_headers(body=large), large) in range(200, 300)
    assert server.handled == ["job 4711 Completed"]


def test_receiver_with_either_secret_accepts_during_a_rotation(receiver: Receiver, tmp_path: Path) -> None:
    for receiver_secret in (SECRET, PREVIOUS_SECRET):
        with running(receiver.command, tmp_path, receiver_secret) as server:
            assert server.post(signed_headers(SECRET, PREVIOUS_SECRET)) in range(200, 300)
            assert server.post(signed_headers(FOREIGN_SECRET, FOREIGN_SECRET)) in range(400, 500)
        assert server.handled == ["job 4711 Completed"]


def test_receiver_compares_signatures_in_constant_time(receiver: Receiver, tmp_path: Path) -> None:
    with running(receiver.never_equal_command, tmp_path) as server:
        assert server.post(signed_headers()) in range(400, 500)
    assert server.handled == []


@pytest.mark.parametrize("secret", ["", "whsec_"])
def test_receiver_does_not_start_with_an_empty_secret(secret: str, receiver: Receiver, tmp_path: Path) -> None:
    with start(receiver.command, tmp_path, secret) as process:
        try:
            assert process.wait(START_S) != 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("text_in_block", "error_type"),
    [("Webhook(secret)", WebhookVerificationError), ("webhooks.verify_signature", InvalidWebhookSignatureError)],
    ids=["standardwebhooks", "openai"],
)
@pytest.mark.parametrize("receiver_secret", [SECRET, PREVIOUS_SECRET], ids=["new", "previous"])
def test_libraries_of_the_page_accept_the_gateway_s_signatures(
    text_in_block: str, error_type: type[Exception], receiver_secret: str
) -> None:
    def check(headers: dict[str, str], body: bytes = BODY) -> None:
        exec(example(text_in_block), {"secret": receiver_secret, "headers": headers, "body": body})  # noqa: S102  code of the page

    check(signed_headers(receiver_secret))
    check(signed_headers(SECRET, PREVIOUS_SECRET))
    check(signed_headers(receiver_secret, age_s=290))
    for headers in (
        signed_headers(FOREIGN_SECRET),
        signed_headers(receiver_secret, age_s=301),
        signed_headers(receiver_secret, age_s=-330),
    ):
        with pytest.raises(error_type):
            check(headers)
    with pytest.raises(error_type):
        check(signed_headers(receiver_secret), BODY + b" ")
