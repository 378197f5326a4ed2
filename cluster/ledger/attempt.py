"""One attempt in the ledger: its uses of devices, and the energy charged to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cluster.energy import ZERO_ENERGY, sum_energy
from cluster.ledger.split import Part
from cluster.ledger.usage import EnergyRow, Interval, Outcome, Use
from cluster.ledger.window import MIN_WINDOW_NS
from cluster.types import MISSING_ENERGY, Energy

MAX_MISPLACED = 50  # at most a 50th of an attempt's time may be charged to its neighbours


@dataclass
class Attempt:
    """Uses under one name, by their start, and what they have been charged.

    misplaced_ns: time of the attempt charged to others because it was reported too late, or of
        others charged to the attempt.
    charged_ns: the end of the last window in which it has a share.
    """

    uses: dict[int, Use] = field(default_factory=dict)
    outcome: Outcome | None = None
    settled_ns: int = 0
    charged_ns: int = 0
    misplaced_ns: int = 0
    energy: Energy = ZERO_ENERGY

    @property
    def running(self) -> bool:
        return any(use.end_ns is None for use in self.uses.values())

    @property
    def end_ns(self) -> int:
        """When its last use ended, or began if that still runs."""
        ends = (use.start_ns if use.end_ns is None else use.end_ns for use in self.uses.values())
        return max(ends, default=0)

    def add(self, use: Use, charged_ns: int | None) -> None:
        """Add a use. charged_ns: energy of the time before is already divided."""
        known = self.uses.get(use.start_ns)
        if known is None:
            self.misplaced_ns += late_ns(use, charged_ns)
        elif known.end_ns is not None or use.end_ns is None:
            return  # a replay
        elif charged_ns is not None:
            self.misplaced_ns += max(0, charged_ns - use.end_ns)
        self.uses[use.start_ns] = use

    def end_uses(self, at_ns: int, replica_id: str | None = None) -> bool:
        """End running uses of the replica, or of any; True if there are uses of it."""
        mine = [use for use in self.uses.values() if replica_id in (None, use.replica_id)]
        for use in mine:
            if use.end_ns is None:
                self.uses[use.start_ns] = replace(use, end_ns=max(use.start_ns, at_ns))
        return bool(mine)

    def charge(self, part: Part | None, interval: Interval) -> None:
        """Add a share of the interval; None: an unknown one."""
        share = MISSING_ENERGY
        if part is not None:
            share = Energy(
                energy_mj=part.energy_mj,
                low_mj=part.low_mj,
                high_mj=part.high_mj,
                quality=interval.quality,
                method=interval.method,
            )
        self.energy = sum_energy([self.energy, share])
        self.charged_ns = interval.end_ns

    def result(self) -> Energy:
        """Its energy; missing if part of it is unknown or was charged to others."""
        busy_ns = sum(
            use.end_ns - use.start_ns for use in self.uses.values() if use.end_ns is not None
        )
        tolerable_ns = min(busy_ns // 2, max(busy_ns, MIN_WINDOW_NS) // MAX_MISPLACED)
        known = busy_ns > 0 and self.misplaced_ns <= tolerable_ns
        return self.energy if known else MISSING_ENERGY

    def signed(self, row: EnergyRow, attempt_id: str) -> EnergyRow:
        """The row with the attempt's id, outcome, images and batch size."""
        interval = row.interval
        uses = [use for use in self.uses.values() if use.start_ns < interval.end_ns]
        made = sum(use.images_between(interval.start_ns, interval.end_ns) for use in uses)
        latest = max(uses, key=lambda use: use.start_ns)
        return replace(
            row,
            bucket="wasted" if row.bucket == "job" and self.outcome == "lost" else row.bucket,
            attempt_id=attempt_id,
            work=latest.work,
            images=made if any(use.images is not None for use in uses) else None,
            batch_size=latest.batch_size,
        )


def late_ns(use: Use, charged_ns: int | None) -> int:
    """How much of the use's time was already charged when it was reported, ns."""
    if charged_ns is None:
        return 0
    end_ns = charged_ns if use.end_ns is None else min(use.end_ns, charged_ns)
    return max(0, end_ns - use.start_ns)
