"""The ledger of one device: every metered millijoule goes to exactly one bucket. Pure.

Readings become intervals (``timeline.py``), which are divided between the uses of the device
(``split.py``). Outcomes of attempts decide between the buckets ``job`` and ``wasted``. Every
interval goes through three states:

    open        both of its readings are there; uses may still be reported
    charged     divided between its uses; the shares never change again
    written     turned into rows, once every attempt with a share in it has won or lost
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from cluster.ledger.attempt import Attempt, late_ns
from cluster.ledger.reading import Device, Reading
from cluster.ledger.split import cover
from cluster.ledger.timeline import Timeline
from cluster.ledger.usage import EnergyRow, Interval, Outcome, Use
from cluster.ledger.window import MIN_WINDOW_NS, Window
from cluster.types import MISSING_ENERGY, Energy


class Ledger:
    """Takes readings, uses and outcomes as they come; ``drain`` returns the final rows.

    first_epoch: number of the first ``meter_epoch``; no earlier run on this host may have used it.
    idle_power_mw: of the device, if known: what exceeds it is a row's ``active_mj``.
    grace_s: how long after an interval its uses may still be announced.
    outage_s: how long a counter may be unreadable before that time becomes a gap.
    patience_s: how long after its end an attempt may be undecided before it counts as lost.
    """

    def __init__(
        self,
        device: Device,
        *,
        first_epoch: int = 0,
        idle_power_mw: int | None = None,
        grace_s: float = 10.0,
        outage_s: float = 10.0,
        patience_s: float = 900.0,
    ) -> None:
        self.device = device
        self.idle_power_mw = idle_power_mw
        self._grace_ns, self._patience_ns = int(grace_s * 1e9), int(patience_s * 1e9)
        self._timeline = Timeline(device, first_epoch, int(outage_s * 1e9))
        self._open: deque[Interval] = deque()
        self._charged: deque[Window] = deque()
        self._charged_ns: int | None = None  # everything before is charged
        self._attempts: defaultdict[str, Attempt] = defaultdict(Attempt)
        self._lost_replicas: set[str] = set()

    def read(self, reading: Reading) -> None:
        """Take a reading. One that is not later than the last changes nothing."""
        if self._charged_ns is None:
            self._charged_ns = reading.at_ns
            for attempt in self._attempts.values():
                uses = attempt.uses.values()
                attempt.misplaced_ns = sum(late_ns(use, reading.at_ns) for use in uses)
        closed = self._timeline.read(reading)
        if closed is not None:
            self._open.append(closed)

    def report(self, use: Use) -> None:
        """Take a use: announced (``end_ns`` None), ended, or both at once. Replays are harmless.

        Announce uses as they begin. A use that is first reported after its time was charged gets
        no share of that time; its attempt's energy is missing if that is more than a 50th of it.
        """
        if use.end_ns is None and use.replica_id in self._lost_replicas:
            return  # nobody would report its end
        stale = self._now_ns - use.start_ns > self._patience_ns
        if stale and use.attempt_id not in self._attempts:
            return  # a replay of what is forgotten by now
        self._attempts[use.attempt_id].add(use, self._charged_ns)

    def settle(self, attempt_id: str, outcome: Outcome) -> None:
        """Set the outcome of an attempt. The last one set before its rows are drained counts."""
        self._attempts[attempt_id].outcome = outcome
        self._attempts[attempt_id].settled_ns = self._now_ns

    def lose(self, replica_id: str, at_ns: int) -> None:
        """A replica is gone: its uses end now, and its undecided attempts are lost."""
        self._lost_replicas.add(replica_id)
        for attempt in self._attempts.values():
            if attempt.end_uses(at_ns, replica_id):
                attempt.outcome = attempt.outcome or "lost"

    def attempt_energy(self, attempt_id: str) -> Energy | None:
        """The attempt's energy. None if it still runs, or no later reading has come yet.

        Charges all time up to that reading. Missing if it contains a gap, was reported too
        late, or is unknown.
        """
        if attempt_id not in self._attempts or not self._attempts[attempt_id].uses:
            return MISSING_ENERGY
        attempt = self._attempts[attempt_id]
        if attempt.running or self._charged_ns is None:
            return None
        if self._charged_ns < attempt.end_ns:
            enough = next((i.end_ns for i in self._open if i.end_ns >= attempt.end_ns), None)
            if enough is None:
                return None
            self._charge(enough)
        return attempt.result()

    def drain(self) -> list[EnergyRow]:
        """The rows that have become final, in order of time. Each is returned once.

        However often it is called, it charges no less than ``MIN_WINDOW_NS`` at a time.
        """
        until_ns = self._now_ns - self._grace_ns
        if self._charged_ns is not None and until_ns - self._charged_ns >= MIN_WINDOW_NS:
            self._charge(until_ns)
        for attempt in self._attempts.values():
            if not attempt.running and self._now_ns - attempt.end_ns > self._patience_ns:
                attempt.outcome = attempt.outcome or "lost"
        rows: list[EnergyRow] = []
        while self._charged and self._final(self._charged[0]):
            rows += self._rows(self._charged.popleft())
        self._forget()
        return rows

    def close(self) -> list[EnergyRow]:
        """All rows that remain, up to the newest reading. Undecided attempts are lost."""
        for attempt in self._attempts.values():
            attempt.end_uses(self._now_ns)
            attempt.outcome = attempt.outcome or "lost"
        rest = self._timeline.close()
        if rest is not None:
            self._open.append(rest)
        self._charge(self._now_ns)
        rows = [row for window in self._charged for row in self._rows(window)]
        self._charged.clear()
        return rows

    @property
    def _now_ns(self) -> int:
        return self._timeline.newest_ns or 0

    def _charge(self, until_ns: int) -> None:
        """Divide the open intervals that end by then between their uses."""
        if not self._open or self._open[0].end_ns > until_ns:
            return
        start_ns = self._open[0].start_ns
        uses = [
            use
            for a in self._attempts.values()
            for use in a.uses.values()
            if use.ends_after(start_ns)
        ]
        windows: list[Window] = []
        while self._open and self._open[0].end_ns <= until_ns:
            interval = self._open.popleft()
            window = Window(interval, cover(interval, uses))
            if windows and windows[-1].alike(window):
                window = windows.pop().joined(window)
            windows.append(window)
        for window in windows:
            window.divide()
            for (_, attempt_id), part in window.shares():
                if attempt_id is not None:
                    self._attempts[attempt_id].charge(part, window.interval)
        self._charged += windows
        self._charged_ns = windows[-1].interval.end_ns

    def _final(self, window: Window) -> bool:
        return all(
            bucket != "job" or attempt_id is None or self._attempts[attempt_id].outcome is not None
            for bucket, attempt_id in window.cover.weights
        )

    def _rows(self, window: Window) -> Iterator[EnergyRow]:
        interval = window.interval
        if window.parts is None:
            bounds = interval.low_mj, interval.high_mj
            yield EnergyRow(interval, "gap", interval.energy_mj, None, *bounds)
        shared = window.cover.shared or self.device.shared
        for key, part in window.shares():
            bucket, attempt_id = key
            row = EnergyRow(interval, bucket, None, shared=shared)
            if part is not None:
                active_mj = self._active_mj(part.energy_mj, window.device_ns(key))
                row = EnergyRow(
                    interval, bucket, part.energy_mj, active_mj, part.low_mj, part.high_mj, shared
                )
            if attempt_id is not None:
                yield self._attempts[attempt_id].signed(row, attempt_id)
            elif part is not None:
                yield row

    def _active_mj(self, energy_mj: int, device_ns: int) -> int | None:
        if self.idle_power_mw is None:
            return None
        return max(0, energy_mj - self.idle_power_mw * device_ns // 10**9)

    def _forget(self) -> None:
        """Forget attempts that no row and no call can refer to any more."""
        written_ns = self._charged[0].interval.start_ns if self._charged else self._charged_ns or 0
        for attempt_id, attempt in list(self._attempts.items()):
            last_ns = max(attempt.end_ns, attempt.settled_ns, attempt.charged_ns)
            over = self._now_ns - last_ns > self._patience_ns and last_ns <= written_ns
            if over and not attempt.running:
                del self._attempts[attempt_id]
