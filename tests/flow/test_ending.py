"""However `make dev` is ended, it leaves no process and no card behind."""

import os
import pty
import select
import signal
import sys
from pathlib import Path

import pytest

from local.template import REPOSITORY
from tests.flow.commands import END_S, Dev, ready, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def handles(running: Dev) -> list[int]:
    """Process handles, which cannot come to mean another process."""
    opened = [os.pidfd_open(pid) for pid in descendants(running.process.pid)]
    assert opened
    return opened


def have_ended(processes: list[int]) -> bool:
    return all(select.select([process], [], [], 10)[0] for process in processes)


def card(running: Dev) -> Path:
    return REPOSITORY / ".local" / f"dev-{running.card['base_url'].rpartition(':')[2]}.json"


def test_dev_ends_on_sigint_where_the_shell_started_it_with_sigint_ignored() -> None:
    with start("sh", "-c", "trap '' INT; exec \"$@\"", "sh") as process:
        running = ready(process)
        processes = handles(running)
        process.send_signal(signal.SIGINT)
        assert process.wait(END_S) == 0
        assert have_ended(processes)
        assert not card(running).exists()


def test_dev_ends_when_its_terminal_closes() -> None:
    ours, theirs = pty.openpty()
    wrapper = (sys.executable, "-c", AT_A_TERMINAL)
    with start(*wrapper, stdin=theirs, start_new_session=True) as process:
        os.close(theirs)
        running = ready(process)
        processes = handles(running)
        os.close(ours)
        assert process.wait(END_S) == 0
        assert have_ended(processes)
        assert not card(running).exists()


def test_no_process_outlives_a_dev_that_was_killed() -> None:
    with start() as process:
        running = ready(process)
        processes = handles(running)
        process.kill()
        assert have_ended(processes)
    card(running).unlink()
