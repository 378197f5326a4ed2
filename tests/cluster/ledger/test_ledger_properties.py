"""The ledger under random schedules, crashes, resets, outages, late and repeated reports.

Time is in milliseconds here and power in watts, so that a millisecond takes whole millijoules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Device, Reading
from cluster.ledger.split import largest_remainder
from cluster.ledger.usage import EnergyRow, Outcome, Use
from cluster.metering.counter import CounterTrack
from tests.support.effort import examples
from tests.support.ledger_world import GPU, LIVES, MS, WORK, World, check_rows, sums


@settings(max_examples=examples(200), deadline=None)
@given(LIVES, st.booleans(), st.none() | st.integers(0, 300))
def test_random_lives_of_a_device(
    acts: list[tuple[str, int, int, int]], estimated: bool, idle_w: int | None
) -> None:
    world = World(estimated, idle_w)
    for act in acts:
        world.act(*act)
    world.check()


# A schedule: what is done in turn, for how many milliseconds at how many watts.
Step = tuple[str, int, int]
KINDS = st.sampled_from(["job", "overhead", "idle"])
STEPS = st.lists(st.tuples(KINDS, st.integers(1, 5000), st.integers(0, 900)), min_size=1)
TIMES = st.lists(st.integers(0, 20_000), max_size=20)


def total_mj(steps: Sequence[Step], at_ms: int) -> int:
    total = 0
    for _, ms, watts in steps:
        total += watts * min(ms, max(at_ms, 0))
        at_ms -= ms
    return total


def reading(at_ms: int, mj: int | None, epoch: int = 0) -> Reading:
    if mj is None:
        return Reading(at_ms * MS, None, "missing", "unplugged", epoch)
    return Reading(at_ms * MS, mj, "measured_counter", "test", epoch)


def uses_of(steps: Sequence[Step]) -> list[Use]:
    edges_ms = [0, *accumulate(ms for _, ms, _ in steps)]
    return [
        Use(a_ms * MS, b_ms * MS, kind, f"a{n}", f"r{n}", WORK, images=b_ms - a_ms)
        for n, ((kind, _, _), (a_ms, b_ms)) in enumerate(
            zip(steps, pairwise(edges_ms), strict=True)
        )
        if kind == "job" or kind == "overhead"
    ]


def live(
    steps: Sequence[Step],
    extra_ms: Iterable[int] = (),
    *,
    boundaries: bool = True,
    lost_ms: Collection[int] = (),
    repeats: int = 1,
    outcome: Outcome = "won",
) -> list[EnergyRow]:
    """The rows of a schedule, read at its boundaries and at extra times; not at the lost ones."""
    uses = uses_of(steps)
    edges_ms = [0, *accumulate(ms for _, ms, _ in steps)]
    times = {0, edges_ms[-1], *(ms for ms in extra_ms if ms < edges_ms[-1])}
    times |= set(edges_ms) if boundaries else set()
    readings = [reading(ms, None if ms in lost_ms else total_mj(steps, ms)) for ms in sorted(times)]
    ledger = Ledger(GPU, grace_s=0)
    announced = [replace(use, end_ns=None, images=None) for use in uses]
    for use in announced:
        ledger.report(use)
    for now in readings:
        ledger.read(now)
    for use in uses:
        ledger.report(use)
        ledger.settle(use.attempt_id, outcome)
    for use in (uses + announced) * (repeats - 1):
        ledger.report(use)
    energies = {use.attempt_id: ledger.attempt_energy(use.attempt_id) for use in uses}
    rows = ledger.drain() + ledger.close()
    check_rows(rows, readings)
    for attempt_id, energy in energies.items():
        if energy is None:  # an outage that may still end well
            assert edges_ms[-1] in lost_ms
            continue
        charged = [row.energy_mj for row in rows if row.attempt_id == attempt_id]
        assert energy.energy_mj == (None if None in charged else sum(map(int, charged)))
    return rows


def by_attempt(rows: Iterable[EnergyRow]) -> dict[str | None, int]:
    total: Counter[str | None] = Counter()
    for row in rows:
        total[row.attempt_id] += row.energy_mj or 0
    return dict(total)


@given(STEPS, TIMES)
def test_read_at_its_boundaries_each_attempt_is_charged_what_it_took(
    steps: list[Step], extra_ms: list[int]
) -> None:
    charged = by_attempt(live(steps, extra_ms))
    for n, (kind, ms, watts) in enumerate(steps):
        if kind != "idle":
            assert charged[f"a{n}"] == ms * watts
    assert sum(charged.values()) == sum(ms * watts for _, ms, watts in steps)


@given(STEPS, TIMES, st.integers(1, 900), st.integers(2, 7), st.booleans())
def test_at_constant_power_energy_is_power_times_time(
    steps: list[Step], extra_ms: list[int], watts: int, k: int, boundaries: bool
) -> None:
    """Wherever the readings fall: shares are in proportion to time."""
    flat = [(kind, ms, watts) for kind, ms, _ in steps]
    once = sums(live(flat, extra_ms, boundaries=boundaries))
    times: Counter[str] = Counter()
    for kind, ms, _ in steps:
        times[kind] += ms
    assert once == {kind: watts * ms for kind, ms in times.items()}
    longer = [(kind, k * ms, watts) for kind, ms, _ in steps]
    more = sums(live(longer, [k * ms for ms in extra_ms], boundaries=boundaries))
    assert more == {bucket: k * mj for bucket, mj in once.items()}


@given(STEPS, TIMES, TIMES)
def test_more_readings_leave_the_sums(
    steps: list[Step], extra_ms: list[int], more_ms: list[int]
) -> None:
    rows, finer = live(steps, extra_ms), live(steps, extra_ms + more_ms)
    assert by_attempt(rows) == by_attempt(finer)
    assert sums(rows) == sums(finer)
    coarse = live(steps, boundaries=False)
    assert sum(sums(coarse).values()) == sum(sums(finer).values())


@given(STEPS, TIMES, st.booleans())
def test_repeated_reports_change_nothing(
    steps: list[Step], extra_ms: list[int], boundaries: bool
) -> None:
    once = live(steps, extra_ms, boundaries=boundaries)
    assert live(steps, extra_ms, boundaries=boundaries, repeats=3) == once


@given(STEPS, TIMES)
def test_what_lost_attempts_took_is_wasted(steps: list[Step], extra_ms: list[int]) -> None:
    won = sums(live(steps, extra_ms))
    lost = sums(live(steps, extra_ms, outcome="lost"))
    assert "job" not in lost
    assert lost.pop("wasted", 0) == won.pop("job", 0)
    assert lost == won


@given(STEPS, TIMES, st.sets(st.integers(0, 20_000), max_size=10))
def test_images_are_counted_once(steps: list[Step], extra_ms: list[int], lost_ms: set[int]) -> None:
    rows = live(steps, extra_ms, lost_ms=lost_ms - {0})
    made: Counter[str | None] = Counter()
    for row in rows:
        if row.attempt_id is not None:
            made[row.attempt_id] += row.images or 0
    expected = {use.attempt_id: use.images for use in uses_of(steps)}
    assert dict(made) == expected


@given(STEPS, TIMES, st.data())
def test_what_is_not_known_is_null_and_stays_so(
    steps: list[Step], extra_ms: list[int], data: st.DataObject
) -> None:
    """Readings are lost. Attempts in a gap have no energy; the others have their own, exactly."""
    edges_ms = [0, *accumulate(ms for _, ms, _ in steps)]
    lost = data.draw(st.sets(st.sampled_from(edges_ms), max_size=3))
    rows = live(steps, extra_ms, lost_ms=lost)
    gaps = [row for row in rows if row.bucket == "gap"]
    for use in uses_of(steps):
        mine = [row.energy_mj for row in rows if row.attempt_id == use.attempt_id]
        n = int(use.attempt_id[1:])
        hurt = any(
            gap.interval.start_ns < (use.end_ns or 0) and use.start_ns < gap.interval.end_ns
            for gap in gaps
        )
        assert (None in mine) == hurt
        if not hurt:
            assert sum(map(int, mine)) == steps[n][1] * steps[n][2]
    if lost & {edges_ms[0], edges_ms[-1]}:
        assert None in [gap.energy_mj for gap in gaps]


@given(
    st.lists(st.tuples(st.integers(1, 60_000), st.integers(0, 900), st.booleans()), min_size=2),
    st.integers(200_000_000, 300_000_000),
)
def test_a_counter_that_wraps_resets_and_wraps_twice_closes(
    polls: list[tuple[int, int, bool]], wrap_at: int
) -> None:
    """A source's own counter in microjoules: what it says of an epoch is what rows add up to."""
    track = CounterTrack("RAPL", 1000, wrap_at)
    ledger = Ledger(Device("package-0", "cpu", "test cpu", "package"), outage_s=1e6)
    use = Use(0, None, "job", "a", "r")
    ledger.report(use)
    ledger.settle("a", "won")
    raw = at_ms = 0
    readings = []
    for ms, watts, reset in polls:
        at_ms += ms
        raw = 0 if reset else (raw + 1000 * ms * watts) % wrap_at
        readings.append(track.read(at_ms * MS, raw))
        ledger.read(readings[-1])
    rows = ledger.close()
    check_rows(rows, readings)
    epochs = {now.epoch for now in readings}
    assert {row.interval.epoch for row in rows if row.energy_mj is not None} <= epochs
    for before, after in pairwise(readings):
        if before.epoch != after.epoch:
            spans = [(r.interval.start_ns, r.interval.end_ns) for r in rows if r.bucket == "gap"]
            assert any(a <= before.at_ns and after.at_ns <= b for a, b in spans)


@given(st.integers(0, 2**62), st.lists(st.integers(0, 10**12), min_size=1).filter(any))
def test_parts_add_up_and_are_within_one_of_their_quota(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)
