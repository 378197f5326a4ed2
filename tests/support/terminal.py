"""Run a command on a terminal of its own, which SIGUSR1 closes. Exits as the command does."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import sys


def main() -> int:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[1], sys.argv[1:])
    signal.signal(signal.SIGUSR1, lambda *_: os.close(terminal))
    with contextlib.suppress(OSError):  # it is closed, or the command has ended
        while os.read(terminal, 65536):
            pass
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
