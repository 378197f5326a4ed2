"""Running threads one step at a time in a chosen order, so that a race can be replayed."""

from __future__ import annotations

import threading
from collections.abc import Callable


class _Abandoned(BaseException):
    """Ends a task whose run will not go on."""


class Interleaver:
    """``run`` starts every task in a thread; only one ever runs, until it calls ``step``.

    choose: given how many tasks are alive, the index of the one to run next. What it raises
        ends the run.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self._choose = choose
        self._turns: dict[int, threading.Semaphore] = {}
        self._paused = threading.Semaphore(0)
        self._abandoned = False

    def step(self, *_: object) -> None:
        """Called by a task: let another one run. No effect outside ``run``."""
        if turn := self._turns.get(threading.get_ident()):
            self._paused.release()
            turn.acquire()
            if self._abandoned:
                raise _Abandoned

    def run(self, tasks: list[Callable[[], None]]) -> None:
        alive: list[threading.Semaphore] = []
        errors: list[BaseException] = []
        self._abandoned = False

        def body(task: Callable[[], None], turn: threading.Semaphore) -> None:
            self._turns[threading.get_ident()] = turn
            turn.acquire()
            try:
                if not self._abandoned:
                    task()
            except BaseException as error:
                errors.append(error)
            finally:
                del self._turns[threading.get_ident()]
                alive.remove(turn)
                self._paused.release()

        for task in tasks:
            turn = threading.Semaphore(0)
            alive.append(turn)
            threading.Thread(target=body, args=(task, turn), daemon=True).start()
        try:
            while alive:
                self._resume(alive[self._choose(len(alive))])
        finally:
            self._abandoned = True
            while alive:
                self._resume(alive[0])
        if errors:
            raise errors[0]

    def _resume(self, turn: threading.Semaphore) -> None:
        turn.release()
        self._paused.acquire()
