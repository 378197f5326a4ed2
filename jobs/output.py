"""Standard output that may be full, closed, or in an encoding without some characters."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_NO_OUTPUT = 1


class _Watched(io.FileIO):
    """Standard output that remembers why it could not be written."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failed = error
            raise


def with_output(command: Callable[[], int]) -> int:
    """The exit code of ``command``; 1, with a message, if its output cannot be written.

    A reader that closes the pipe, such as ``head``, is not an error. Characters that the encoding
    lacks are written as escapes.
    """
    output = _watch()
    code = EXIT_NO_OUTPUT
    try:
        try:
            code = command()
        finally:
            sys.stdout.flush()
    except OSError:
        if output is None or output.failed is None:
            raise
    if output is not None and output.failed is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # for what is still buffered
        if not isinstance(output.failed, BrokenPipeError):
            why = output.failed.strerror
            print(f"failed: cannot write to standard output: {why}", file=sys.stderr)
        return EXIT_NO_OUTPUT
    return code


def _watch() -> _Watched | None:
    """Watch this process's standard output; None if it is closed, or another's, as in tests."""
    before = sys.stdout
    if before is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # for as long as we live
        return None
    if before is not sys.__stdout__ or not isinstance(before, io.TextIOWrapper):
        return None
    before.flush()
    output = _Watched(before.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        output if before.write_through else io.BufferedWriter(output),
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )
    return output


@contextmanager
def stray_output_aside() -> Iterator[None]:
    """What libraries write to this process's standard output goes to standard error: HiGHS has
    messages that no option silences, and standard output is only the result."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError):  # there is none
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def can_show(text: str) -> bool:
    """Whether standard output can encode this text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
