"""The receivers of docs/callbacks.md run as they stand there, and what they are sent is signed as the product signs."""

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
ANOTHERS_SECRET = api_keys.new_webhook_secrets().current
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript receiver needs Node 18 or newer")
# Both with a comparison in constant time that finds nothing equal.
UNEQUAL_PYTHON = "import hmac, runpy; hmac.compare_digest = lambda a, b: False; runpy.run_path('receiver.py')"
UNEQUAL_NODE = "require('node:crypto').timingSafeEqual = () => false; require('node:module').syncBuiltinESMExports();"


def example(holding: str) -> str:
    """The one fenced block of the page that holds this text."""
    (found,) = (block for block in re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.M | re.S) if holding in block)
    return found


@dataclass
class Receiver:
    """One of the page's receivers: its file, what runs it, and the same with nothing equal to anything."""

    file: str
    text: str
    command: list[str]
    unequal_command: list[str]


PYTHON = Receiver(
    "receiver.py",
    example("from http.server import"),
    [sys.executable, "receiver.py"],
    [sys.executable, "-c", UNEQUAL_PYTHON],
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
    (tmp_path / "unequal.cjs").write_text(UNEQUAL_NODE)
    return request.param


@dataclass
class Running:
    """A receiver that listens. `handled` is what it printed after that, known when it has ended."""

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
def running(command: list[str], folder: Path, secret: str = SECRET) -> Iterator[Running]:
    with start(command, folder, secret) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START_S)[0], "it does not say that it listens"
            line = process.stdout.readline()
            found = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)/\n", line)
            assert found, line
            started = Running(int(found[1]), [])
            yield started
        finally:
            process.kill()
        started.handled += process.stdout.read().splitlines()


def signed(*secrets: str, body: bytes = BODY, age_s: int = 0, message_id: str = ID) -> dict[str, str]:
    """The headers of a callback, `age_s` after it was sent."""
    about = {"x-job-id": message_id.split("_")[1], "x-job-state": "Completed"}
    return about | signature_headers(secrets or [SECRET], message_id, int(time.time()) - age_s, body)


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in signed().items() if key != name}


def test_a_callback_is_handled_once_though_it_arrives_twice(receiver: Receiver, tmp_path: Path) -> None:
    with running(receiver.command, tmp_path) as it:
        assert it.post(signed()) in range(200, 300)
        assert it.post(signed(age_s=240) | {"x-attempt": "2"}) in range(200, 300)
        assert it.post(signed(message_id="msg_4712_0") | {"x-job-state": "Failed"}) in range(200, 300)
        assert it.post(signed(message_id="msg_4711_1")) in range(200, 300)
        assert it.post(signed()) in range(200, 300)
    assert it.handled == ["job 4711 Completed", "job 4712 Failed", "job 4711 Completed"]


def test_what_is_not_signed_is_answered_4xx_and_not_handled(receiver: Receiver, tmp_path: Path) -> None:
    signature = signed()["webhook-signature"].removeprefix("v1,")
    wrong = {
        "another's signature": (signed(ANOTHERS_SECRET), BODY),
        "a changed body": (signed(), BODY.replace(b"1", b"2")),
        "no body": (signed(), b""),
        "another id": (signed() | {"webhook-id": "msg_4712_0"}, BODY),
        "another time": (signed() | {"webhook-timestamp": str(int(time.time()) + 1)}, BODY),
        "an old one": (signed(age_s=301), BODY),
        "one of the future": (signed(age_s=-330), BODY),
        "another version": (signed() | {"webhook-signature": f"v2,{signature}"}, BODY),
        **{f"no {name}": (without(name), BODY) for name in signed() if name.startswith("webhook-")},
        **{f"signature {text!r}": (signed() | {"webhook-signature": text}, BODY) for text in ("", "v1", "v1,", "v1,!")},
        "letters no base64 has": (signed() | {"webhook-signature": "v1,é".encode()}, BODY),
        **{f"time {text!r}": (signed() | {"webhook-timestamp": text}, BODY) for text in ("", "now", "NaN", "Infinity")},
    }
    with running(receiver.command, tmp_path) as it:
        answered = {name: it.post(headers, body) for name, (headers, body) in wrong.items()}
        assert it.post(signed(message_id="msg_4799_0")) in range(200, 300)
    assert [name for name, status in answered.items() if status not in range(400, 500) or status == 410] == []
    assert it.handled == ["job 4799 Completed"]


def test_a_body_of_any_size_and_a_caller_that_breaks_off_do_no_harm(receiver: Receiver, tmp_path: Path) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    large = b'"%b"' % (b"x" * 256 * 1024)
    with running(receiver.command, tmp_path) as it:
        for length in (-1, 1024 * 1024 + 1, 10**12):
            with it.connect() as connection:
                connection.sendall(head % length)
                assert re.match(rb"HTTP/1\.[01] 4(?!10)\d\d ", connection.recv(65_536)), length
        with it.connect() as connection:
            connection.sendall(head % 1000 + b"half")
        assert it.post(signed(body=large), large) in range(200, 300)
    assert it.handled == ["job 4711 Completed"]


def test_during_a_rotation_a_receiver_that_knows_either_secret_accepts(receiver: Receiver, tmp_path: Path) -> None:
    for known in (SECRET, PREVIOUS_SECRET):
        with running(receiver.command, tmp_path, known) as it:
            assert it.post(signed(SECRET, PREVIOUS_SECRET)) in range(200, 300)
            assert it.post(signed(ANOTHERS_SECRET, ANOTHERS_SECRET)) in range(400, 500)
        assert it.handled == ["job 4711 Completed"]


def test_a_signature_fits_only_by_the_comparison_in_constant_time(receiver: Receiver, tmp_path: Path) -> None:
    with running(receiver.unequal_command, tmp_path) as it:
        assert it.post(signed()) in range(400, 500)
    assert it.handled == []


@pytest.mark.parametrize("secret", ["", "whsec_"])
def test_a_receiver_does_not_start_with_an_empty_secret(secret: str, receiver: Receiver, tmp_path: Path) -> None:
    with start(receiver.command, tmp_path, secret) as process:
        try:
            assert process.wait(START_S) != 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("holding", "refusal"),
    [("Webhook(secret)", WebhookVerificationError), ("webhooks.verify_signature", InvalidWebhookSignatureError)],
    ids=["standardwebhooks", "openai"],
)
@pytest.mark.parametrize("known", [SECRET, PREVIOUS_SECRET], ids=["new", "previous"])
def test_the_libraries_of_the_page_accept_what_the_product_signs(
    holding: str, refusal: type[Exception], known: str
) -> None:
    def check(headers: dict[str, str], body: bytes = BODY) -> None:
        exec(example(holding), {"secret": known, "headers": headers, "body": body})  # noqa: S102  the page's own text

    check(signed(known))
    check(signed(SECRET, PREVIOUS_SECRET))
    check(signed(known, age_s=290))
    for headers in (signed(ANOTHERS_SECRET), signed(known, age_s=301), signed(known, age_s=-330)):
        with pytest.raises(refusal):
            check(headers)
    with pytest.raises(refusal):
        check(signed(known), BODY + b" ")
