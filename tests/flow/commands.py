"""`make dev` as scripts start it: a process that is waited for until it is ready, and ended by a signal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from local.template import REPOSITORY

CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}
END_S = 60


@dataclass
class Dev:
    """A running `make dev` with its card."""

    process: subprocess.Popen[str]
    card: dict[str, Any]

    @property
    def log_dir(self) -> Path:
        return REPOSITORY / ".local" / self.card["base_url"].rpartition(":")[2]

    def http(self, key: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {key or self.card['api_key']}"}
        return httpx.Client(base_url=self.card["base_url"], headers=headers, timeout=END_S, trust_env=False)

    def queue(self, ref_id: str, content: str = "hi") -> httpx.Response:
        request = {**CHAT, "messages": [{"role": "user", "content": content}]}
        with self.http() as http:
            return http.post("/api/QueueOpenAiChatCompletion", json={"refId": ref_id, "request": request})


@contextmanager
def start(
    *wrapper: str, stdin: Any = None, stderr: Any = None, start_new_session: bool = False, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Killed, where it still runs, when the block ends: a test that fails does not wait for it."""
    with subprocess.Popen(
        [*wrapper, sys.executable, "-m", "local.dev"],
        cwd=REPOSITORY,
        env={**os.environ, "PORT": "0", "PYTHONFAULTHANDLER": "1", **environment},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=start_new_session,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: subprocess.Popen[str]) -> Dev:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("READY"):
            port = line.strip().rpartition(":")[2]
            return Dev(process, json.loads((REPOSITORY / ".local" / f"dev-{port}.json").read_text()))
    raise AssertionError(f"dev ended with status {process.wait()}")


@contextmanager
def dev(*wrapper: str, stderr: Any = None, **environment: str) -> Iterator[Dev]:
    """Ended by Ctrl-C when the block ends."""
    with start(*wrapper, stderr=stderr, **environment) as process:
        yield ready(process)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(END_S) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # writes what each thread waits for
            _, stderr = process.communicate()
            raise AssertionError(f"dev did not end within {END_S} s of SIGINT: {stderr}") from None
