"""Running threads one step at a time in a chosen order, so that a race can be replayed."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Interleaver:
    """``run`` starts every task in a thread; only one ever runs, until it calls ``step``.

    choose: given how many tasks are alive, the index of the one to run next.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self._choose = choose
        self._turns: dict[int, threading.Semaphore] = {}
        self._paused = threading.Semaphore(0)

    def step(self, *_: object) -> None:
        """Called by a task: let another one run. No effect outside ``run``."""
        if turn := self._turns.get(threading.get_ident()):
            self._paused.release()
            turn.acquire()

    def run(self, tasks: list[Callable[[], None]]) -> None:
        alive: list[threading.Semaphore] = []
        errors: list[BaseException] = []

        def body(task: Callable[[], None], turn: threading.Semaphore) -> None:
            self._turns[threading.get_ident()] = turn
            turn.acquire()
            try:
                task()
            except BaseException as error:
                errors.append(error)
            finally:
                del self._turns[threading.get_ident()]
                alive.remove(turn)
                self._paused.release()

        threads = []
        for task in tasks:
            turn = threading.Semaphore(0)
            alive.append(turn)
            threads.append(threading.Thread(target=body, args=(task, turn)))
            threads[-1].start()
        while alive:
            alive[self._choose(len(alive))].release()
            self._paused.acquire()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
