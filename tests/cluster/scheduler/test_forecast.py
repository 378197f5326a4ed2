"""What the days before say of the hours to come."""

from __future__ import annotations

import pytest

from cluster.scheduler.forecast import BIN_S, DAY_S, Expected, Forecast
from cluster.scheduler.request import DemandKey, JobRequest

HOUR_S = 3600.0
KEY = DemandKey("m", "energy")


def job(at_s: float, images: int, slack_s: float | None = HOUR_S) -> tuple[float, JobRequest]:
    due_s = None if slack_s is None else at_s + slack_s
    return at_s, JobRequest("j", "m", images, 100, deadline_s=due_s)


def day(
    number: int, noon_images: int, slack_s: float | None = HOUR_S
) -> list[tuple[float, JobRequest]]:
    """A job every ten minutes: of 100 images, and of more from 11 to 13 o'clock."""
    times = [number * DAY_S + minute * 60.0 for minute in range(5, 1440, 10)]
    return [
        job(at_s, noon_images if 11 <= at_s % DAY_S / HOUR_S < 13 else 100, slack_s)
        for at_s in times
    ]


def between(ahead: list[Expected], first_h: float, last_h: float, number: int) -> float:
    start_s, stop_s = (number * DAY_S + hour * HOUR_S for hour in (first_h, last_h))
    return sum(e.images for e in ahead if start_s < e.stop_s <= stop_s)


def test_it_expects_what_came_at_the_same_time_of_the_days_before() -> None:
    forecast = Forecast.of([*day(0, 1000), *day(1, 1000), *day(2, 1000)])
    ahead = forecast.ahead(KEY, 3 * DAY_S)
    assert len(ahead) == DAY_S / BIN_S
    assert between(ahead, 2, 6, 3) == pytest.approx(24 * 100, rel=0.02)
    assert between(ahead, 9, 15, 3) == pytest.approx(24 * 100 + 12 * 1000, rel=0.05)
    assert between(ahead, 11, 13, 3) > 2.5 * between(ahead, 9, 11, 3)
    assert sum(e.images for e in ahead) == pytest.approx(132 * 100 + 12 * 1000)


def test_the_day_goes_on_after_midnight_and_what_is_over_is_expected_no_more() -> None:
    forecast = Forecast.of([*day(0, 1000), *day(1, 1000)])
    now_s = 2 * DAY_S + 12 * HOUR_S + 7 * 60
    ahead = forecast.ahead(KEY, now_s)
    assert ahead[0].stop_s == 2 * DAY_S + 12 * HOUR_S + BIN_S
    assert ahead[0].images < ahead[1].images  # half of its quarter is over
    assert ahead[-1].stop_s > now_s + DAY_S - BIN_S


def test_newer_days_count_more() -> None:
    rising = Forecast.of([*day(0, 100), *day(1, 1000)]).ahead(KEY, 2 * DAY_S)
    falling = Forecast.of([*day(0, 1000), *day(1, 100)]).ahead(KEY, 2 * DAY_S)
    assert between(rising, 11, 13, 2) > between(falling, 11, 13, 2)


def test_nothing_is_expected_before_a_whole_day_was_seen() -> None:
    forecast = Forecast.of(day(0, 1000)[:100])
    assert forecast.ahead(KEY, 0.7 * DAY_S) == []
    assert forecast.ahead(DemandKey("other", "energy"), 5 * DAY_S) == []


def test_a_day_without_work_is_a_day_too() -> None:
    forecast = Forecast.of(day(0, 1000))
    one, many = forecast.ahead(KEY, DAY_S), forecast.ahead(KEY, 11 * DAY_S)
    assert 0 < sum(e.images for e in many) < 0.2 * sum(e.images for e in one)


def test_work_without_a_deadline_is_not_waited_for() -> None:
    assert Forecast.of(day(0, 1000, None)).ahead(KEY, DAY_S) == []


def test_what_comes_in_few_large_jobs_is_kept_further_from_its_deadline() -> None:
    small = [job(at_s * 60.0, 10) for at_s in range(1440)]
    large = [job(at_s * 60.0, 600) for at_s in range(0, 1440, 60)]
    after_s = {}
    for name, jobs in (("small", small), ("large", large)):
        first = Forecast.of(jobs).ahead(KEY, DAY_S)[0]
        after_s[name] = first.due_s - first.stop_s
    assert after_s["large"] < after_s["small"] < HOUR_S
    assert after_s["small"] == pytest.approx(HOUR_S * (1 - 0.7 / 60**0.5))
    assert after_s["large"] == pytest.approx(HOUR_S / 2)  # never less
