"""However `make dev` is ended, it leaves no process and no card behind."""

import json
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from local.scripted import ScriptedProvider
from tests.flow.commands import CHAT, END_S, PROVIDERS, SIGINT_IGNORED, have_ended, processes, ready, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_dev_with_strict_callbacks_ends_on_a_sigint_that_its_shell_ignores(tmp_path: Path) -> None:
    providers = tmp_path / "providers.yaml"
    environment = {"PROVIDERS": str(providers), "MY_KEY": "sk-of-the-provider", "STRICT_CALLBACKS": "1"}
    with ScriptedProvider() as upstream:
        providers.write_text(PROVIDERS.format(base_url=upstream.base_url))
        with start(*SIGINT_IGNORED, **environment) as process:
            running = ready(process)
            assert str(providers) in running.lines[0]
            assert (running.card["base_url"], running.card["pid"]) == (running.url, process.pid)
            assert running.card["api_key"] != running.card["other_api_key"]
            assert running.card["webhook_secret"].startswith("whsec_")
            with running.http() as http:
                assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
                request = {"replyTo": "http://127.0.0.1:9/hook", "request": CHAT}
                refused = http.post("/api/QueueOpenAiChatCompletion", json=request)
            assert refused.status_code == 400
            assert refused.json()["responseStatus"]["errors"][0]["fieldName"] == "ReplyTo"
            started = processes(running)
            process.send_signal(signal.SIGINT)
            assert process.wait(END_S) == 0
            assert have_ended(started)
            assert not running.card_file.exists()
    (sent,) = upstream.requests
    assert sent.headers["authorization"] == "Bearer sk-of-the-provider"
    assert json.loads(sent.body)["model"] == "vendor/llama"


def test_dev_ends_when_its_terminal_closes() -> None:
    ours, theirs = pty.openpty()
    wrapper = (sys.executable, "-c", AT_A_TERMINAL)
    with start(*wrapper, stdin=theirs, start_new_session=True) as process:
        os.close(theirs)
        running = ready(process)
        started = processes(running)
        os.close(ours)
        assert process.wait(END_S) == 0
        assert have_ended(started)
        assert not running.card_file.exists()
