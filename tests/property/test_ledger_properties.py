"""The ledger under random schedules, crashes, resets, outages, late and repeated reports.

Time is in milliseconds here and power in watts, so that a millisecond takes whole millijoules.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.metering.counter import CounterTrack
from cluster.metering.ledger import Ledger
from cluster.metering.merge import condensed, merged
from cluster.metering.reading import Device, Reading
from cluster.metering.split import largest_remainder
from cluster.metering.usage import EnergyRow, Interval, Outcome, Use, Work
from cluster.types import Energy

MS = 1_000_000
GPU = Device("GPU-1", "gpu", "test gpu", "gpu")
WORK = Work("job", 0)
PATIENCE_MS = 6_000


def sums(rows: Iterable[EnergyRow]) -> dict[str, int]:
    """Known millijoules by bucket."""
    total: Counter[str] = Counter()
    for row in rows:
        total[row.bucket] += row.energy_mj or 0
    return {bucket: mj for bucket, mj in total.items() if mj}


def amounts(rows: Iterable[EnergyRow], name: str) -> dict[tuple[str, str | None], int]:
    """What is known of an amount, by bucket and attempt."""
    total: Counter[tuple[str, str | None]] = Counter()
    for row in rows:
        total[row.bucket, row.attempt_id] += getattr(row, name) or 0
    return dict(total)


def unknown_ns(rows: Iterable[EnergyRow]) -> int:
    """For how long nobody knows the energy."""
    return sum(
        row.interval.duration_ns for row in rows if row.bucket == "gap" and row.energy_mj is None
    )


def intervals_of(rows: Sequence[EnergyRow]) -> list[tuple[Interval, list[EnergyRow]]]:
    """Each interval and its rows, which must come together."""
    found = [(i, list(group)) for i, group in groupby(rows, lambda row: row.interval)]
    starts = [interval.start_ns for interval, _ in found]
    assert len(starts) == len(set(starts)), "the rows of an interval were handed out apart"
    return found


def check_rows(rows: Sequence[EnergyRow], readings: Sequence[Reading]) -> None:
    """Everything that must hold of a closed ledger, whatever happened to it."""
    if len(readings) < 2:
        assert rows == []
        return
    said = {reading.at_ns: reading for reading in readings}
    found = intervals_of(rows)
    edges = [found[0][0].start_ns, *(interval.end_ns for interval, _ in found)]
    assert [i.start_ns for i, _ in found] == edges[:-1], "a hole or an overlap"
    assert (edges[0], edges[-1]) == (readings[0].at_ns, readings[-1].at_ns)
    for interval, here in found:
        assert interval.start_ns < interval.end_ns
        for name in ("energy_mj", "low_mj", "high_mj"):
            check_closure(interval, here, name, said)
        for row in here:
            check_row(row)
    for _, epoch in groupby((i for i, _ in found if i.energy_mj is not None), lambda i: i.epoch):
        run = list(epoch)
        first, last = said[run[0].start_ns], said[run[-1].end_ns]
        charged = sum(row.energy_mj or 0 for row in rows if row.interval.epoch == run[0].epoch)
        assert first.epoch == last.epoch
        assert charged == (last.energy_mj or 0) - (first.energy_mj or 0), "an epoch does not close"


def check_closure(
    interval: Interval, rows: Sequence[EnergyRow], name: str, said: dict[int, Reading]
) -> None:
    whole, parts = getattr(interval, name), [getattr(row, name) for row in rows]
    if whole is None:
        assert parts == [None] * len(parts), "null became a number"
        return
    assert sum(part or 0 for part in parts) == whole
    before, after = (getattr(said[at], name) for at in (interval.start_ns, interval.end_ns))
    assert whole == after - before


def check_row(row: EnergyRow) -> None:
    if row.energy_mj is None:
        assert row.bucket not in ("idle", "foreign")
        assert row.active_mj is None
        return
    assert 0 <= row.energy_mj < 2**63
    assert row.active_mj is None or 0 <= row.active_mj <= row.energy_mj
    if row.low_mj is not None and row.high_mj is not None:
        assert 0 <= row.low_mj <= row.energy_mj <= row.high_mj
    assert (row.attempt_id is None) == (row.bucket in ("idle", "foreign", "gap"))


class World:
    """A device, two replicas whose reports take their time, and a meter that may fail."""

    def __init__(self, estimated: bool, idle_w: int | None) -> None:
        self.estimated = estimated
        self.ledger = Ledger(
            GPU,
            first_epoch=7,
            idle_power_mw=None if idle_w is None else idle_w * 1000,
            grace_s=0.5,
            outage_s=2.0,
            patience_s=PATIENCE_MS / 1000,
        )
        self.now_ms = self.total_mj = self.epoch = self.born = 0
        self.readings: list[Reading] = []
        self.rows: list[EnergyRow] = []
        self.names = ["r0", "r1"]
        self.mail: dict[str, deque[Use]] = defaultdict(deque)
        self.sent: list[Use] = []
        self.running: dict[str, Use] = {}
        self.outcomes: dict[str, Outcome | None] = {}
        self.energies: dict[str, Energy] = {}
        self.died_ns: dict[str, int] = {}

    def act(self, name: str, ms: int, watts: int, pick: int) -> None:
        self.now_ms += ms
        self.total_mj += ms * watts
        getattr(self, name)(pick)

    def read(self, _: int) -> None:
        mj = self.total_mj
        bounds = {"low_mj": mj // 3, "high_mj": 3 * mj} if self.estimated else {}
        quality: Any = "estimated" if self.estimated else "measured_counter"
        self.take(Reading(self.now_ms * MS, mj, quality, "test", self.epoch, **bounds))

    def read_in_vain(self, _: int) -> None:
        self.take(Reading(self.now_ms * MS, None, "missing", "unplugged", self.epoch))

    def take(self, reading: Reading) -> None:
        if not self.readings or reading.at_ns > self.readings[-1].at_ns:
            self.readings.append(reading)
        self.ledger.read(reading)

    def reset(self, pick: int) -> None:
        """The counter starts anew, and its source tells; or not, when it goes backwards."""
        backwards = bool(self.readings) and (self.readings[-1].energy_mj or 0) > 0
        self.total_mj = 0 if pick % 2 else 10**9
        self.epoch += not (pick % 4 == 1 and backwards)

    def work(self, pick: int) -> None:
        """Begin something, or end what was begun; the report is on its way."""
        name = self.names[pick % 2]
        running = self.running.pop(name, None)
        if running is not None:
            self.mail[name].append(replace(running, end_ns=self.now_ms * MS, images=100))
            return
        self.born += 1
        self.running[name] = Use(
            self.now_ms * MS,
            None,
            "overhead" if self.born % 5 == 0 else "foreign" if self.born % 7 == 0 else "job",
            f"a{self.born}",
            name,
            WORK,
            gpu_fraction=[1.0, 0.5, 1 / 3][pick % 3],
        )
        self.mail[name].append(self.running[name])

    def work_and_tell(self, pick: int) -> None:
        self.work(pick)
        while self.mail[self.names[pick % 2]]:
            self.deliver(pick)

    def deliver(self, pick: int) -> None:
        """A report arrives, maybe twice."""
        mail = self.mail[self.names[pick % 2]]
        if mail:
            self.sent.append(mail.popleft())
            for _ in range(1 + pick % 3):
                self.ledger.report(self.sent[-1])

    def repeat(self, pick: int) -> None:
        """An old report arrives once more."""
        if self.sent:
            self.ledger.report(self.sent[pick % len(self.sent)])

    def settle(self, pick: int) -> None:
        ended = [use for use in self.sent if use.end_ns and use.attempt_id not in self.outcomes]
        if ended:
            use = ended[pick % len(ended)]
            outcome: Outcome = "lost" if pick % 3 == 0 else "won"
            in_time = self.now_ms - (use.end_ns or 0) // MS <= PATIENCE_MS
            self.outcomes[use.attempt_id] = outcome if in_time else None
            self.ledger.settle(use.attempt_id, outcome)

    def crash(self, pick: int) -> None:
        """A replica dies, and with it what it has not sent. Another takes its place."""
        name = self.names[pick % 2]
        self.mail.pop(name, None)
        self.running.pop(name, None)
        self.died_ns[name] = self.now_ms * MS
        for use in self.sent:
            if use.replica_id == name:
                self.outcomes.setdefault(use.attempt_id, "lost")
        self.ledger.lose(name, self.now_ms * MS)
        self.names[pick % 2] = f"{name}'"

    def ask(self, pick: int) -> None:
        if not self.sent:
            return
        use = self.sent[-1 - pick % min(4, len(self.sent))]
        energy = self.ledger.attempt_energy(use.attempt_id)
        forgotten = self.now_ms - use.start_ns // MS > PATIENCE_MS
        if energy is not None and not forgotten:
            assert self.energies.setdefault(use.attempt_id, energy) == energy, "it changed"

    def drain(self, _: int) -> None:
        self.rows += self.ledger.drain()

    def check(self) -> None:
        """Close, and look back at it all."""
        self.rows += self.ledger.close()
        check_rows(self.rows, self.readings)
        mine = defaultdict(list)
        for row in self.rows:
            mine[row.attempt_id].append(row)
        for use in self.sent:
            rows, outcome = mine[use.attempt_id], self.outcomes.get(use.attempt_id, "lost")
            wrong = {"won": "wasted", "lost": "job"}.get(outcome or "")
            assert wrong not in {row.bucket for row in rows}, f"{outcome}, yet {wrong}"
            for row in rows:
                assert row.interval.start_ns < self.died_ns.get(use.replica_id, 2**63)
            assert sum(row.images or 0 for row in rows) <= 100
        for attempt_id, energy in self.energies.items():
            if energy.energy_mj is not None:
                charged = [row.energy_mj for row in mine[attempt_id]]
                assert None not in charged
                assert sum(map(int, charged)) == energy.energy_mj, "not what was committed"
        self.check_merged()

    def check_merged(self) -> None:
        """Merging changes how many rows there are, and nothing they say."""
        fewer = merged(self.rows)
        check_rows(fewer, self.readings)
        for amount in ("energy_mj", "active_mj", "low_mj", "high_mj", "images"):
            assert amounts(fewer, amount) == amounts(self.rows, amount)
        gaps = condensed(self.rows)
        assert sum(gap.energy_mj or 0 for gap in gaps) == sum(sums(self.rows).values())
        for rows in (fewer, gaps):
            assert unknown_ns(rows) == unknown_ns(self.rows)


ACTS = {
    "read": 8, "work_and_tell": 5, "work": 2, "deliver": 2, "settle": 3, "ask": 3, "drain": 2,
    "repeat": 1, "crash": 1, "read_in_vain": 1, "reset": 1,
}  # fmt: skip
LIVES = st.lists(
    st.tuples(
        st.sampled_from([name for name, weight in ACTS.items() for _ in range(weight)]),
        st.integers(0, 2000),
        st.integers(0, 900),
        st.integers(0, 11),
    ),
    min_size=20,
    max_size=80,
)


@settings(max_examples=200, deadline=None)
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
