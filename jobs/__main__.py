"""Entry point of ``un0``. Handles signals from the start, so that Ctrl-C prints no traceback."""

from __future__ import annotations

from jobs.listening import EXIT_INTERRUPTED, finish, listening


def main() -> None:
    """Entry point."""
    with listening(ends=True) as listener:
        try:
            from jobs.cli.main import command

            code = command()
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        finish(code, listener.stop)


if __name__ == "__main__":
    main()
