"""A command ends in order on the first signal, whatever it was started with."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from local.template import REPOSITORY

WAITS = """
import time
from local.signals import Interrupted, install_handlers

install_handlers()
try:
    print("ready", flush=True)
    time.sleep(60)
except Interrupted as interrupted:
    print(interrupted, flush=True)
    input()  # cleaning up
    print("cleaned up", flush=True)
    raise SystemExit(interrupted.exit_status)
"""
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextmanager
def start(ignored: str = "") -> Iterator[subprocess.Popen[str]]:
    trap = f"trap '' {ignored}; " if ignored else ""
    with subprocess.Popen(
        ["sh", "-c", f'{trap}exec "$@"', "sh", sys.executable, "-c", WAITS],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert line(process) == "ready"
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("signum", ENDING)
def test_second_signal_does_not_interrupt_cleanup(signum: signal.Signals) -> None:
    with start() as process:
        process.send_signal(signum)
        assert line(process) == signum.name
        for again in ENDING:
            process.send_signal(again)
        assert process.communicate("\n", timeout=20)[0] == "cleaned up\n"
    assert process.returncode == 128 + signum


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_a_signal_that_was_ignored_at_the_start_ends_a_command_too(name: str) -> None:
    signum = signal.Signals[f"SIG{name}"]
    with start(ignored=name) as process:
        process.send_signal(signum)
        assert line(process) == signum.name
        process.communicate("\n", timeout=20)
    assert process.returncode == 128 + signum


def test_a_command_started_with_nohup_outlives_its_terminal() -> None:
    with start(ignored="HUP") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert line(process) == "SIGTERM"
        process.communicate("\n", timeout=20)
