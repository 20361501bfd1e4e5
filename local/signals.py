"""How a command is ended: by Ctrl-C, by a supervisor, or by the end of its terminal."""

from __future__ import annotations

import signal

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


def _interrupt(signum: int, frame: object) -> None:
    for ending in _ENDING:
        signal.signal(ending, signal.SIG_IGN)
    raise Interrupted(signum)
