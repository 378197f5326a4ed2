"""Handle SIGINT, SIGTERM and SIGHUP, and ensure that the process ends soon afterwards.

Quick to import, and imported first, so that signals are handled during all other imports.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cluster.stopping import STOP_S, STOP_SIGNALS, Stop

EXIT_INTERRUPTED = 130  # by SIGINT; by another signal 128 and its number, as a shell has it
CUT_SHORT = "stopping took too long; what is committed stays"


class Listener:
    """Handles the signals of a process. The first one interrupts the command, unless a run polls
    for it (``stop_requests``). Later ones are only counted.

    ends: end the process once the time for the stop is up.
    """

    def __init__(self, *, ends: bool) -> None:
        self.stop = Stop()
        self.interrupts = True
        self.last_words = CUT_SHORT
        self._ends = ends
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]

    def __call__(self, number: int, _: object) -> None:
        if not self.stop.ask(number):
            return
        if number == signal.SIGHUP:
            self._let_go_of_the_terminal()
        if self._ends:
            limit = threading.Timer(self.stop.within_s, self._leave)
            limit.daemon = True
            limit.start()
        if self.interrupts:
            raise KeyboardInterrupt

    def _let_go_of_the_terminal(self) -> None:
        """The terminal is closed: writing to it must not fail."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in self._terminals:
            os.dup2(nowhere, fd)
        os.close(nowhere)

    def _leave(self) -> None:
        with suppress(OSError):
            os.write(2, f"{self.last_words}\n".encode())
        os._exit(exit_code(self.stop))


_active: Listener | None = None


@contextmanager
def listening(*, ends: bool = False) -> Iterator[Listener]:
    """Handle signals in the ``with`` block, with the existing listener or a new one.

    Does nothing outside the main thread. SIGHUP stays ignored under ``nohup``.
    """
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        yield _active or Listener(ends=False)
        return
    _active = Listener(ends=ends)
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, _active)
    try:
        yield _active
    finally:
        _active = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_requests(within_s: float = STOP_S) -> Iterator[Stop]:
    """The requests to stop, for a run that polls them: no signal interrupts the block.

    An earlier request is included.
    """
    with listening() as listener:
        interrupts, listener.interrupts = listener.interrupts, False
        listener.stop.within_s = within_s
        try:
            yield listener.stop
        finally:
            listener.interrupts = interrupts


def if_cut_short(last_words: str) -> None:
    """Set the message for a process that is ended because its stop takes too long."""
    if _active is not None:
        _active.last_words = last_words


def exit_code(stop: Stop) -> int:
    """The exit code of a command that a signal has ended."""
    return EXIT_INTERRUPTED if stop.first is None else 128 + stop.first


def finish(code: int, stop: Stop) -> None:
    """End the process, at once if it was asked to stop: the interpreter's own end can take
    seconds, waits for threads, and answers another Ctrl-C with a traceback."""
    if stop.times:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(exit_code(stop) if code == EXIT_INTERRUPTED else code)
    sys.exit(code)
