"""Signal handling: a command ends on Ctrl-C, on a supervisor's signal, or when its terminal closes."""

from __future__ import annotations

import signal
import socket
from typing import NoReturn

_TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A termination signal was received; `exit_status` is 128 + its number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


def install_handlers() -> None:
    """Raise Interrupted in the main thread on the first signal; further ones are ignored, so that cleanup completes.

    A shell without job control starts background jobs with SIGINT ignored: it is handled nevertheless. An ignored
    SIGHUP stays ignored, as nohup requires.
    """
    for signum in _TERMINATION_SIGNALS:
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINATION_SIGNALS)


def wait_for_signal() -> NoReturn:
    """Block the main thread until a signal arrives. Raises: Interrupted.

    The kernel may deliver a signal to any thread, which does not wake a lock or event in the main thread. Python writes
    to this socket in the thread that receives the signal.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    while True:
        reader.recv(1)


def _interrupt(signum: int, frame: object) -> None:
    for termination_signal in _TERMINATION_SIGNALS:
        signal.signal(termination_signal, _ignore)
    raise Interrupted(signum)


def _ignore(signum: int, frame: object) -> None:
    """Unlike SIG_IGN, this causes no error for a pending signal, and children do not inherit it."""
