"""A call of Ray's that does not come back is given up, and what it left is cleared up later."""

from __future__ import annotations

import threading

import pytest

from cluster.actors.ray_thread import RayThread, Stuck


def test_a_call_that_does_not_come_back_is_given_up_and_the_last_one_still_made() -> None:
    thread, stuck, last = RayThread(), threading.Event(), threading.Event()
    with pytest.raises(Stuck):
        thread.call(stuck.wait, 0.01)
    thread.end(last.set)
    assert not last.is_set()
    stuck.set()
    assert last.wait(30)


def test_calls_are_made_in_one_thread_and_their_errors_are_the_callers() -> None:
    thread = RayThread()
    assert thread.call(threading.get_ident, 30) == thread.call(threading.get_ident, 30)
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0, 30)
    thread.end()
