"""Hardware is planned for, and learned about, by how images are written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.energy import MIN_WINDOW_S
from cluster.scheduler.plan import make_plan
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import Pipeline, Profile, ProfileBook
from cluster.scheduler.request import OperatingPoint, Performance, Usage
from cluster.scheduler.supply import Demand, Offer
from cluster.stage_times import StageTimes
from tests.support.effort import examples
from tests.support.fleetworld import FleetWorld, profile

POINT = OperatingPoint(64)
ENCODINGS = ("png", "jpeg", "raw/zstd")


def path(encoding: str, rate: float, power_w: float) -> Pipeline:
    performance = Performance(POINT, rate, power_w, "measured_counter", samples=3)
    return Pipeline(encoding, performance, StageTimes(1.0, rate / 1000, 1.0, 0.1))


def seen(rate: float, power_w: float = 300.0) -> Usage:
    images = round(2 * MIN_WINDOW_S * rate)
    return Usage(images, images / rate, round(images / rate * power_w * 1e3), "measured_counter")


# A device whose encoders keep it waiting for PNG, and one that they keep up with
FAST = replace(
    profile("fast", 1000, 500), pipelines=(path("png", 100, 200), path("raw/zstd", 900, 480))
)
SLOW = profile("slow", 200, 140)


def rate_of(book: ProfileBook, encoding: str) -> float:
    known = book.profile("h", "m", encoding)
    assert known is not None
    return known.curve[0].images_per_s


def test_what_is_known_of_the_path_is_believed_and_of_the_device_where_nothing_is() -> None:
    book = ProfileBook([replace(FAST, hardware="h")])
    assert [rate_of(book, e) for e in ("png", "raw/zstd", "jpeg")] == [100, 900, 1000]


def test_points_at_which_the_path_was_not_measured_go_where_it_went() -> None:
    capped = replace(FAST.curve[0], point=OperatingPoint(64, 300.0), images_per_s=800, power_w=300)
    both = replace(FAST, curve=(FAST.curve[0], capped))
    measured, guessed = both.of("png").curve
    assert (measured.images_per_s, measured.samples) == (100, 3)
    assert (guessed.images_per_s, guessed.power_w, guessed.samples) == (80, 120, 0)
    assert both.of("jpeg") is both


usages = st.lists(st.tuples(st.sampled_from(ENCODINGS), st.floats(50, 5000)), max_size=30)


@settings(max_examples=examples(100))
@given(usages=usages, samples=st.integers(0, 60))
def test_work_in_one_encoding_teaches_nothing_about_another(
    usages: list[tuple[str, float]], samples: int
) -> None:
    """As if every encoding had a book of its own, in which that of the default is kept."""
    prior = profile("h", 1000, 300, samples=samples)
    mixed, alone = ProfileBook([prior]), {e: ProfileBook([prior]) for e in ENCODINGS}
    for encoding, rate in usages:
        mixed.observe("h", "m", POINT, seen(rate), encoding)
        alone[encoding].observe("h", "m", POINT, seen(rate))
    for encoding in ENCODINGS:
        found = mixed.profile("h", "m", encoding)
        own = alone[encoding].profile("h", "m")
        assert found is not None
        assert own is not None
        assert found.curve == own.curve


@settings(max_examples=examples(50))
@given(usages=usages)
def test_what_is_kept_of_a_book_is_what_the_next_one_believes(
    usages: list[tuple[str, float]],
) -> None:
    book = ProfileBook([profile("h", 1000, 300)])
    for encoding, rate in usages:
        book.observe("h", "m", POINT, seen(rate), encoding)
    kept = book.changed()
    assert bool(kept) == bool(usages)
    after = ProfileBook(kept or [profile("h", 1000, 300)])
    for encoding in ENCODINGS:
        assert rate_of(after, encoding) == rate_of(book, encoding)
    assert all(one.curve == (profile("h", 1000, 300).curve) for one in kept)


@settings(max_examples=examples(40), deadline=None)
@given(
    jobs=st.lists(
        st.tuples(
            st.integers(1, 30),
            st.one_of(st.none(), st.floats(10, 2000)),
            st.sampled_from(["energy", "deadline", "throughput"]),
        ),
        min_size=1,
        max_size=5,
    ),
    encoding=st.sampled_from(ENCODINGS),
)
def test_a_fleet_of_one_encoding_decides_as_if_there_were_no_encodings(
    jobs: list[tuple[int, float | None, str]], encoding: str
) -> None:
    worlds = []
    for own in ("png", encoding):
        fleet = [profile("a", 100, 50, load_s=5, load_j=400), profile("b", 300, 250, load_j=900)]
        world = FleetWorld(fleet)
        world.join("a", "a", "b")
        for number, (shards, due_s, objective) in enumerate(jobs):
            deadline_s = None if due_s is None else world.now_s + due_s
            world.submit(f"j{number}", shards, deadline_s=deadline_s, objective=objective,
                         encoding=own)  # fmt: skip
            world.play(20)
        world.play(4000)
        worlds.append(world)
    assert worlds[0].log == worlds[1].log


@pytest.mark.parametrize(("encoding", "best"), [("png", "slow"), ("raw/zstd", "fast")])
def test_work_goes_where_its_encoding_is_cheapest_not_where_the_device_is(
    encoding: str, best: str
) -> None:
    """500 W for 1,000 images/s are fewer joules than 140 W for 200, unless PNG keeps it at 100."""
    demand = Demand("m", "energy", 150, 10**6, patient=False, encoding=encoding)
    offers = [Offer(known.of(encoding), 4, 4) for known in (FAST, SLOW)]
    made = make_plan([demand], {demand.key: offers}, Policy(round_down=0.0, start_share=0.0))
    assert list(made.grants[demand.key]) == [best]


@pytest.mark.parametrize(("encoding", "rate", "power_w"), [("png", 100, 200), ("jpeg", 1000, 500)])
def test_a_device_that_its_host_holds_up_is_planned_at_the_rate_of_the_path(
    encoding: str, rate: float, power_w: float
) -> None:
    world = FleetWorld([FAST])
    world.join("fast")
    world.submit(shards=100, encoding=encoding)
    world.run()
    lease = next(d for d in world.state.take_decisions() if d.kind == "lease")
    assert lease.stop is not None
    assert lease.predicted_s == lease.stop * 100 / rate
    assert lease.predicted_j == lease.predicted_s * power_w


def test_a_deadline_wakes_as_many_as_its_encoding_needs() -> None:
    def woken(encoding: str) -> int:
        costly_start = replace(FAST, standby=replace(FAST.standby, load_s=1.0, load_j=1e6))
        world = FleetWorld([costly_start], Policy(start_share=0.0))
        world.join(*["fast"] * 20)
        world.submit(shards=1000, deadline_s=500.0, objective="deadline", encoding=encoding)
        return len(world.woken())

    assert woken("raw/zstd") == 1
    assert woken("png") >= 3


def test_two_encodings_share_the_only_replica_of_their_model() -> None:
    world = FleetWorld([FAST])
    world.join("fast")
    world.submit("a", 10, encoding="png")
    world.submit("b", 10, encoding="raw/zstd")
    world.play(10_000)
    assert {job: end.state for job, end in world.ended.items()} == dict.fromkeys("ab", "completed")
    assert len(world.woken()) == 1
    named = {d.demand for d in world.state.take_decisions() if d.kind == "plan"}
    assert named == {"m for energy", "m for energy in raw/zstd"}


def test_the_profile_that_is_kept_has_the_stages_as_they_were_measured() -> None:
    book = ProfileBook([replace(FAST, hardware="h")])
    book.observe("h", "m", POINT, seen(120), "png")
    (kept,) = book.changed()
    known = {p.encoding: p for p in kept.pipelines}
    assert 100 < known["png"].performance.images_per_s < 120
    assert known["png"].times == path("png", 100, 200).times
    assert known["raw/zstd"] == path("raw/zstd", 900, 480)


def test_loading_is_learned_once_for_all_encodings() -> None:
    book = ProfileBook([profile("h", 1000, 300, load_s=10, load_j=100)])
    before = book.profile("h", "m", "jpeg")
    book.observe_load("h", "m", Usage(0, 20.0, 300_000, "measured_counter"))
    loads = [known.standby for e in ENCODINGS if (known := book.profile("h", "m", e))]
    assert before is not None
    assert {(standby.load_s, standby.load_j) for standby in loads} == {(15.0, 200.0)}


def test_a_new_profile_forgets_what_was_believed() -> None:
    book = ProfileBook([replace(FAST, hardware="h")])
    book.observe("h", "m", POINT, seen(120), "png")
    again: Profile = profile("h", 700, 300)
    book.put(again)
    assert rate_of(book, "png") == 700
