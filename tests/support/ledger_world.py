"""The random life of a metered device, and all that must hold of the rows it leaves.

Time is in milliseconds here and power in watts, so that a millisecond takes whole millijoules.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from hypothesis import strategies as st

from cluster.ledger.ledger import Ledger
from cluster.ledger.merge import condensed, merged
from cluster.ledger.reading import Device, Reading
from cluster.ledger.usage import EnergyRow, Interval, Outcome, Use, Work
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
        """The counter starts anew, and its source reports it; or not, when it goes backwards."""
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
