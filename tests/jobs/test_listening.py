"""Signals to stop, as a process and as a run in it hear them."""

from __future__ import annotations

import signal
import threading

import pytest

from cluster.stopping import STOP_SIGNALS, Grace, Stop
from jobs.listening import exit_code, listening, stop_requests


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_interrupts_a_command_and_the_next_ones_do_not(
    number: signal.Signals,
) -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with listening() as listener:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        for other in STOP_SIGNALS:
            signal.raise_signal(other)
        assert exit_code(listener.stop) == 128 + number
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_run_looks_after_its_own_stop_and_finds_one_that_came_earlier() -> None:
    with listening():
        with stop_requests(within_s=5.0) as stop:
            assert not stop.times
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert (stop.first, stop.times) == (signal.SIGTERM, 2)
            assert 0 < stop.left_s <= 5.0
        signal.raise_signal(signal.SIGINT)  # not the first: it interrupts nothing
        with stop_requests() as later:
            assert later.times == 3


def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as listener:
            signal.raise_signal(signal.SIGHUP)
            assert not listener.stop.times
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_outside_the_main_thread_is_not_asked() -> None:
    heard: list[Stop] = []

    def run() -> None:
        with stop_requests() as stop:
            heard.append(stop)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not heard[0].times


@pytest.mark.parametrize("within_s", [2.0, 8.0, 600.0])
def test_the_log_comes_before_the_rest_and_all_within_the_time(within_s: float) -> None:
    stop = Stop(within_s)
    assert stop.ask(signal.SIGTERM)
    grace = Grace.of(stop.left_s)
    end_s = stop.asked_s + within_s
    assert stop.asked_s < grace.shards_s < grace.log_s < grace.rest_s < end_s
    assert grace.hurried().shards_s < grace.shards_s
