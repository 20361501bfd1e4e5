"""`make dev` leaves no process and no card file behind, however it is stopped."""

import json
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from local.scripted import ScriptedProvider
from tests.flow.commands import (
    CHAT,
    PROVIDERS,
    SIGINT_IGNORED,
    STOP_TIMEOUT_S,
    have_exited,
    open_descendants,
    start,
    wait_until_ready,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_dev_with_strict_callbacks_stops_on_sigint_that_its_shell_ignores(tmp_path: Path) -> None:
    providers = tmp_path / "providers.yaml"
    environment = {"PROVIDERS": str(providers), "MY_KEY": "sk-of-the-provider", "STRICT_CALLBACKS": "1"}
    with ScriptedProvider() as upstream:
        providers.write_text(PROVIDERS.format(base_url=upstream.base_url))
        with start(*SIGINT_IGNORED, **environment) as process:
            server = wait_until_ready(process)
            assert str(providers) in server.lines[0]
            assert (server.card["base_url"], server.card["pid"]) == (server.url, process.pid)
            assert server.card["api_key"] != server.card["other_api_key"]
            assert server.card["webhook_secret"].startswith("whsec_")
            with server.http() as http:
                assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
                request = {"replyTo": "http://127.0.0.1:9/hook", "request": CHAT}
                refused = http.post("/api/QueueOpenAiChatCompletion", json=request)
            assert refused.status_code == 400
            assert refused.json()["responseStatus"]["errors"][0]["fieldName"] == "ReplyTo"
            handles = open_descendants(server)
            process.send_signal(signal.SIGINT)
            assert process.wait(STOP_TIMEOUT_S) == 0
            assert have_exited(handles)
            assert not server.card_file.exists()
    (upstream_request,) = upstream.requests
    assert upstream_request.headers["authorization"] == "Bearer sk-of-the-provider"
    assert json.loads(upstream_request.body)["model"] == "vendor/llama"


def test_dev_stops_when_its_terminal_closes() -> None:
    controller, terminal = pty.openpty()
    wrapper = (sys.executable, "-c", AT_A_TERMINAL)
    with start(*wrapper, stdin=terminal, start_new_session=True) as process:
        os.close(terminal)
        server = wait_until_ready(process)
        handles = open_descendants(server)
        os.close(controller)
        assert process.wait(STOP_TIMEOUT_S) == 0
        assert have_exited(handles)
        assert not server.card_file.exists()
