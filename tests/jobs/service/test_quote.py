"""What a job would take, by what was measured of hardware."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduler.priors import prior_profile
from cluster.storage.object_store import ObjectStore
from cluster.storage.profiles import PointRecord, ProfileRecord, save_profile
from jobs.service.core import StoreService
from jobs.service.quote import Queue, Work, make_quote
from jobs.spec import JobSpec
from tests.support.fake_server import REV, without_models

AT = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = f"{REV}/fp32"


def known(hardware: str, images_per_s: float, power_w: float, **changes: Any) -> ProfileRecord:
    point = {
        "batch_size": 16,
        "images_per_s": images_per_s,
        "power_w": power_w,
        "quality": "measured_counter",
        "samples": 5,
        "measured_at": AT,
    }
    point |= {name: changes.pop(name) for name in list(changes) if name in PointRecord.model_fields}
    fields = {"idle_w": 1.0, "load_s": 2.0, "load_j": 10.0, "model": MODEL}
    return ProfileRecord.model_validate(
        {"hardware": hardware, **fields, **changes, "curve": [point]}
    )


THRIFTY = known("thrifty", 100.0, 10.0)
QUICK = known("quick", 1000.0, 500.0)


def test_without_a_deadline_the_thriftiest_does_it_all() -> None:
    quote = make_quote(Work(MODEL, 10_000, 100), [QUICK, THRIFTY], Queue())
    assert quote.images_per_hardware == {"thrifty": 10_000}
    assert quote.energy_j == pytest.approx(10_000 * 0.1 + 10)
    assert quote.seconds == pytest.approx(100 + 2)
    assert (quote.queue_seconds, quote.quality) == (0.0, "measured_counter")
    assert quote.basis[0].measured_at == AT
    assert (quote.cost, quote.carbon_g) == (None, None)


def test_a_deadline_and_throughput_take_faster_hardware_too() -> None:
    soon = make_quote(Work(MODEL, 10_000, 100, deadline_s=30.0), [QUICK, THRIFTY], Queue())
    assert soon.images_per_hardware.keys() == {"quick", "thrifty"}
    fastest = make_quote(Work(MODEL, 10_000, 100, "throughput"), [QUICK, THRIFTY], Queue())
    assert fastest.seconds is not None
    assert fastest.seconds < 12
    late = make_quote(Work(MODEL, 10**6, 100, deadline_s=30.0), [QUICK, THRIFTY], Queue())
    assert any("late" in note for note in late.notes)
    poor = make_quote(Work(MODEL, 10_000, 100, budget_j=500.0), [THRIFTY], Queue())
    assert any("budget of 500 J" in note for note in poor.notes)


def test_prices_and_carbon_are_given_where_they_are_set() -> None:
    dear = known("dear", 100.0, 36.0, price_per_h=36.0, carbon_g_per_kwh=100.0)
    quote = make_quote(Work(MODEL, 100, 1), [dear], Queue())
    assert quote.cost == pytest.approx(0.01 * (1 + 2))
    assert quote.carbon_g == pytest.approx((36 + 10) * 100 / 3.6e6)


def test_an_estimates_bounds_are_those_of_its_profile() -> None:
    guess = prior_profile("cpu x4", MODEL, 2.0, batch_size=16)
    record = known("cpu x4", 1.0, 1.0).model_copy(
        update={"curve": tuple(PointRecord.of(p, AT) for p in guess.curve), "load_j": 0.0}
    )
    quote = make_quote(Work(MODEL, 1000, 10), [record], Queue())
    low, high = guess.curve[0].low_j, guess.curve[0].high_j
    assert low is not None
    assert high is not None
    assert quote.energy_low_j == pytest.approx(1000 * low)
    assert quote.energy_high_j == pytest.approx(1000 * high)
    assert quote.quality == "estimated"
    assert quote.basis[0].samples == 0


def test_what_is_not_known_is_missing_and_says_what_to_do() -> None:
    quote = make_quote(Work("another/fp32", 100, 1), [THRIFTY], Queue())
    assert (quote.energy_j, quote.seconds, quote.quality) == (None, None, "missing")
    assert "un0 calibrate" in quote.notes[0]
    behind = make_quote(Work(MODEL, 100, 1), [THRIFTY], Queue((Work("another/fp32", 9, 1),)))
    assert behind.energy_j is not None
    assert (behind.seconds, behind.queue_seconds) == (None, None)
    crowd = make_quote(Work(MODEL, 100, 1), [THRIFTY], Queue(None))
    assert crowd.queue_seconds is None
    assert "too many" in crowd.notes[0]


@given(
    images=st.integers(1, 10**9),
    shards=st.integers(1, 10**6),
    rates=st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(0.1, 1e4)), min_size=1, max_size=5),
    objective=st.sampled_from(["energy", "deadline", "throughput", "cost", "carbon"]),
    deadline_s=st.none() | st.floats(1e-3, 1e7),
)
def test_every_image_is_somewhere_and_bounds_hold_the_figure(
    images: int, shards: int, rates: Any, objective: Any, deadline_s: float | None
) -> None:
    profiles = [known(f"h{n}", rate, watts) for n, (rate, watts) in enumerate(rates)]
    work = Work(MODEL, images, min(shards, images), objective, deadline_s)
    quote = make_quote(work, profiles, Queue())
    assert sum(quote.images_per_hardware.values()) == images
    assert all(share >= 0 for share in quote.images_per_hardware.values())
    assert quote.energy_j is not None
    assert quote.energy_low_j is not None
    assert quote.energy_high_j is not None
    assert quote.energy_low_j <= quote.energy_j <= quote.energy_high_j
    assert quote.seconds is not None
    assert quote.seconds > 0


def test_a_quote_is_kept_with_its_job_and_counts_the_queue(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_models(monkeypatch)
    save_profile(local, THRIFTY.profile(), AT)
    service = StoreService(local)
    spec = JobSpec(count=1000, shard_images=100)
    first = service.submit(spec, by="ann")
    assert first.quote is not None
    assert first.quote.energy_j == pytest.approx(110)
    second = StoreService(local).quote(spec)
    assert second.queue_seconds == pytest.approx(10)
    assert second.seconds == pytest.approx(10 + 12)
    save_profile(local, QUICK.profile(), AT)
    assert service.status(first.job_id).quote == first.quote
