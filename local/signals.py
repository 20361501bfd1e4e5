"""How a command is ended: by Ctrl-C, by a supervisor, or by the end of its terminal."""

from __future__ import annotations

import signal
import socket
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


def install_handlers() -> None:
    """Raise Interrupted in the main thread on the first signal; further ones are ignored, so that cleaning up ends.

    A shell without job control starts background jobs with SIGINT ignored: it is handled all the same. An ignored
    SIGHUP stays ignored: that is what nohup asks for.
    """
    for signum in _ENDING:
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def wait_for_signal() -> NoReturn:
    """Block the main thread until a signal arrives. Raises: Interrupted.

    The kernel may deliver a signal to any thread, and then wakes no lock or event that the main thread waits for.
    Python writes to this socket in whichever thread it is.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    while True:
        reader.recv(1)


def _interrupt(signum: int, frame: object) -> None:
    for ending in _ENDING:
        signal.signal(ending, _ignore)
    raise Interrupted(signum)


def _ignore(signum: int, frame: object) -> None:
    """Unlike SIG_IGN, this is no error for a signal that is already pending, and no child inherits it."""
