"""`make dev` as scripts start it: wait until the process is ready, and stop it by a signal."""

import json
import os
import select
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
PROVIDERS = """
providers:
  - name: mine
    base_url: {base_url}
    api_key_var: MY_KEY
    models: {{"llama3:8b": vendor/llama}}
"""
STOP_TIMEOUT_S = 60
SIGINT_IGNORED = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")  # as a shell without job control starts "command &"


@dataclass
class DevServer:
    """A running `make dev`, its output and its card file."""

    process: subprocess.Popen[str]
    lines: list[str]

    def __post_init__(self) -> None:
        self.url = self.lines[-1].removeprefix("READY ")
        self._port = self.url.rpartition(":")[2]
        self.card: dict[str, Any] = json.loads(self.card_file.read_text())

    @property
    def card_file(self) -> Path:
        return REPOSITORY / ".local" / f"dev-{self._port}.json"

    @property
    def log_dir(self) -> Path:
        return REPOSITORY / ".local" / self._port

    def http(self, key: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {key or self.card['api_key']}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=STOP_TIMEOUT_S, trust_env=False)

    def queue(self, ref_id: str, content: str = "hi") -> httpx.Response:
        request = {**CHAT, "messages": [{"role": "user", "content": content}]}
        with self.http() as http:
            return http.post("/api/QueueOpenAiChatCompletion", json={"refId": ref_id, "request": request})


@contextmanager
def start(
    *wrapper: str, stdin: Any = None, stderr: Any = None, start_new_session: bool = False, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Start `make dev`; kill the process at the end of the block, so that a failed test does not wait for it."""
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


def wait_until_ready(process: subprocess.Popen[str]) -> DevServer:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("READY"):
            return DevServer(process, lines)
    raise AssertionError(f"dev exited with status {process.wait()}")


@contextmanager
def run_dev(*wrapper: str, stderr: Any = None, **environment: str) -> Iterator[DevServer]:
    """Run `make dev`; stop it by Ctrl-C at the end of the block."""
    with start(*wrapper, stderr=stderr, **environment) as process:
        yield wait_until_ready(process)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(STOP_TIMEOUT_S) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # writes the stack of each thread
            _, stderr = process.communicate()
            raise AssertionError(f"dev did not stop within {STOP_TIMEOUT_S} s of SIGINT: {stderr}") from None


def open_descendants(server: DevServer) -> list[int]:
    """Return pidfds of all descendant processes; a pidfd, unlike a pid, is never reused."""
    handles = [os.pidfd_open(pid) for pid in _descendants(server.process.pid)]
    assert handles
    return handles


def have_exited(handles: list[int]) -> bool:
    """Return whether all these processes exit within ten seconds."""
    return all(select.select([handle], [], [], 10)[0] for handle in handles)


def _descendants(pid: int) -> list[int]:
    pids: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            pids += [child, *_descendants(child)]
    return pids
