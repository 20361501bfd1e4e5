"""A command ends in order on the first signal, also if it was started with the signal ignored."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from local.template import REPOSITORY

WAITING_COMMAND = """
from local.signals import Interrupted, install_handlers, wait_for_signal

install_handlers()
try:
    print("ready", flush=True)
    wait_for_signal()
except Interrupted as interrupted:
    print(interrupted, flush=True)
    input()  # cleaning up
    print("cleaned up", flush=True)
    raise SystemExit(interrupted.exit_status)
"""
SIGNAL_TO_ANOTHER_THREAD = """
import signal, threading, time
from local.signals import install_handlers, wait_for_signal

install_handlers()

def signal_own_thread():
    time.sleep(0.2)  # until the main thread waits; shorter only makes the test pass more easily
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

threading.Thread(target=signal_own_thread, daemon=True).start()
try:
    wait_for_signal()
except KeyboardInterrupt:
    print("interrupted")
"""
TWO_SIGNALS_AT_ONCE = """
import os, signal
from local.signals import install_handlers

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGTERM)
try:
    install_handlers()
except KeyboardInterrupt as interrupted:
    print(interrupted)
"""
TERMINATION_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextmanager
def start(ignored_signal: str = "") -> Iterator[subprocess.Popen[str]]:
    trap = f"trap '' {ignored_signal}; " if ignored_signal else ""
    with subprocess.Popen(
        ["sh", "-c", f'{trap}exec "$@"', "sh", sys.executable, "-c", WAITING_COMMAND],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert read_line(process) == "ready"
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("signum", TERMINATION_SIGNALS)
def test_second_signal_does_not_interrupt_cleanup(signum: signal.Signals) -> None:
    with start() as process:
        process.send_signal(signum)
        assert read_line(process) == signum.name
        for further_signal in TERMINATION_SIGNALS:
            process.send_signal(further_signal)
        assert process.communicate("\n", timeout=20)[0] == "cleaned up\n"
    assert process.returncode == 128 + signum


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_signal_ignored_at_start_ends_a_command(name: str) -> None:
    signum = signal.Signals[f"SIG{name}"]
    with start(ignored_signal=name) as process:
        process.send_signal(signum)
        assert read_line(process) == signum.name
        process.communicate("\n", timeout=20)
    assert process.returncode == 128 + signum


def test_command_under_nohup_survives_its_terminal() -> None:
    with start(ignored_signal="HUP") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert read_line(process) == "SIGTERM"
        process.communicate("\n", timeout=20)


def test_signal_delivered_to_another_thread_ends_a_command() -> None:
    command = [sys.executable, "-c", SIGNAL_TO_ANOTHER_THREAD]
    assert subprocess.check_output(command, cwd=REPOSITORY, timeout=20) == b"interrupted\n"


def test_two_simultaneous_signals_print_no_error() -> None:
    command = [sys.executable, "-c", TWO_SIGNALS_AT_ONCE]
    completed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=20, check=True)
    assert (completed.stdout, completed.stderr) == ("SIGINT\n", "")
