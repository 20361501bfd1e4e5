"""`make dev` as scripts start it: a process that is waited for until it is ready, and ended by a signal."""

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
END_S = 60
SIGINT_IGNORED = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")  # as a shell without job control starts "command &"


@dataclass
class Dev:
    """A running `make dev` with its card."""

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
        return httpx.Client(base_url=self.url, headers=headers, timeout=END_S, trust_env=False)

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
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("READY"):
            return Dev(process, lines)
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


def processes(running: Dev) -> list[int]:
    """Handles of the processes it has started, and those they have: a handle cannot come to mean another process."""
    opened = [os.pidfd_open(pid) for pid in _descendants(running.process.pid)]
    assert opened
    return opened


def have_ended(handles: list[int]) -> bool:
    """Whether these processes have ended, or do within moments of being killed."""
    return all(select.select([handle], [], [], 10)[0] for handle in handles)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_descendants(child)]
    return found
