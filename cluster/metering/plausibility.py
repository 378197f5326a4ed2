"""Whether a meter can be right: its readings against what its device can draw. Pure.

A meter is believed as long as its energy stays between two lines. Over any time its device draws
no more than its ceiling, and no less than its floor, which rises with the work that it does:
powered silicon never draws nothing. Both are kept far from what real devices do, so that a meter
outside of them is broken, not unusual. The figures and their sources:
docs/reference/meters.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cluster.ledger.reading import Device, Reading

SLACK_S = 0.5  # a counter's values are older than the moment they are read
WITHHOLD_S = 0.25  # the slowest counter known is updated every 0.1 s
PATIENCE_S = 3.0  # how long energy may be lacking before the meter is given up
BREAKS, BREAKS_WITHIN_S = 3, 60.0  # so many jumps and resets in that time, and it is given up
STEADY_S = 5.0  # of low load and of high load, at exactly the same power
LOW_LOAD, HIGH_LOAD = 0.1, 0.5
ROUNDING_MJ = 2

PACKAGE_HARD_MW, PACKAGE_LEAST_CEILING_MW = 1_000_000, 250_000
DRAM_HARD_MW, DRAM_LEAST_CEILING_MW = 500_000, 100_000
GPU_HARD_MW, MODULE_REST_MW = 3_000_000, 1_000_000
CPU_BURST, GPU_BURST = 4, 2  # times the power limit that a ceiling is


@dataclass(frozen=True)
class Limits:
    """Power that a device can draw, in milliwatts.

    floor_mw: at least, powered and idle. busy_mw: at least on top, for each of its ``units``
    (hardware threads of a CPU, 1 of a GPU) that is busy. ceiling_mw: at most.
    """

    floor_mw: float
    ceiling_mw: float
    busy_mw: float = 0.0
    units: int = 1

    def floor_of(self, busy: float) -> float:
        """The least power with so many units busy."""
        return self.floor_mw + self.busy_mw * min(max(busy, 0.0), self.units)


def limits_of(device: Device, max_power_mw: int | None = None, units: int = 1) -> Limits:
    """The limits of a device. max_power_mw: what its driver says it can draw, if it does."""
    told_mw = max_power_mw or device.power_limit_mw or 0
    if device.zone == "dram":
        ceiling = max(DRAM_LEAST_CEILING_MW, CPU_BURST * told_mw) if told_mw else DRAM_HARD_MW
        return Limits(1, min(ceiling, DRAM_HARD_MW))
    if device.zone in ("package", "host"):
        ceiling = max(PACKAGE_LEAST_CEILING_MW, CPU_BURST * told_mw) if told_mw else PACKAGE_HARD_MW
        return Limits(10, min(ceiling, PACKAGE_HARD_MW), 50, units)
    ceiling = min(GPU_BURST * told_mw or GPU_HARD_MW, GPU_HARD_MW)
    if device.zone == "module":
        return Limits(5, ceiling + MODULE_REST_MW, told_mw / 100)
    return Limits(100, ceiling, told_mw / 100)


@dataclass(frozen=True)
class Verdict:
    """What to make of a reading.

    ok: believe it. wait: do not yet, energy is lacking that may still come. broken: the step to it
    is impossible, believe what follows. refused: never believe this meter again.
    """

    kind: Literal["ok", "wait", "broken", "refused"]
    reason: str = ""


OK = Verdict("ok")
TOO_SOON = Verdict("wait", "read twice at the same moment")


@dataclass
class Plausibility:
    """Judges the readings of one meter, in order. Missing ones need no judgement."""

    limits: Limits
    _last: Reading | None = field(default=None, init=False)
    _last_busy_s: float | None = field(default=None, init=False)
    _lacking_since: Reading | None = field(default=None, init=False)
    _lacking_s: float = field(default=0.0, init=False)  # time that no energy accounts for
    _excess_mj: float = field(default=0.0, init=False)  # energy that no time accounts for
    _breaks_ns: list[int] = field(default_factory=list, init=False)
    _steady: Steady = field(init=False)

    def __post_init__(self) -> None:
        self._steady = Steady(self.limits.units)

    def judge(self, reading: Reading, busy_s: float | None = None) -> Verdict:
        """What to make of a reading that is not missing.

        busy_s: for how long the device's units have worked so far, together; None: unknown.
        """
        last, last_busy_s = self._last, self._last_busy_s
        if last is not None and reading.epoch == last.epoch and reading.at_ns <= last.at_ns:
            return self._wait_or_ok(reading) if reading == last else TOO_SOON
        self._last, self._last_busy_s = reading, busy_s
        if last is None:
            return OK
        assert reading.energy_mj is not None
        assert last.energy_mj is not None
        if reading.epoch != last.epoch:
            return self._break(reading, "started anew")
        spent_mj, elapsed_s = reading.energy_mj - last.energy_mj, (reading.at_ns - last.at_ns) / 1e9
        self._excess_mj = max(0, self._excess_mj + spent_mj - self.limits.ceiling_mw * elapsed_s)
        if spent_mj < 0 or self._excess_mj > self.limits.ceiling_mw * SLACK_S:
            watts = spent_mj / elapsed_s / 1e3
            return self._break(
                reading,
                f"jumped by {spent_mj / 1e3:,.0f} J in {elapsed_s:.2g} s ({watts:,.0f} W; the "
                f"device draws at most {self.limits.ceiling_mw / 1e3:,.0f} W)",
            )
        busy = 0.0
        if busy_s is not None and last_busy_s is not None:
            busy = (busy_s - last_busy_s) / elapsed_s
            if self._steady.seen(reading, busy, elapsed_s):
                return Verdict(
                    "refused",
                    f"{reading.method} says exactly the same power, idle or at work",
                )
        floor_mw = self.limits.floor_of(busy)
        self._lacking_s = max(0.0, self._lacking_s + elapsed_s - spent_mj / floor_mw)
        if not self._lacking_s:
            self._lacking_since = None
        elif self._lacking_since is None:
            self._lacking_since = last
        return self._wait_or_ok(reading)

    def _wait_or_ok(self, reading: Reading) -> Verdict:
        since = self._lacking_since
        if self._lacking_s <= WITHHOLD_S or since is None:
            return OK
        if self._lacking_s < PATIENCE_S:
            return Verdict("wait", f"{reading.method} lags behind what the device must have drawn")
        seconds = (reading.at_ns - since.at_ns) / 1e9
        spent_mj = (reading.energy_mj or 0) - (since.energy_mj or 0)
        if not spent_mj:
            return Verdict("refused", f"{reading.method} stood still for {seconds:.0f} s")
        return Verdict(
            "refused",
            f"{reading.method} went on by only {spent_mj / seconds:.2g} mW for {seconds:.0f} s, "
            "less than the device must have drawn",
        )

    def _break(self, reading: Reading, what: str) -> Verdict:
        self._lacking_since, self._lacking_s, self._excess_mj = None, 0.0, 0.0
        self._steady = Steady(self.limits.units)
        if reading.quality == "measured_counter":  # integrated power breaks whenever we are late
            recent_ns = reading.at_ns - int(BREAKS_WITHIN_S * 1e9)
            self._breaks_ns = [*(ns for ns in self._breaks_ns if ns > recent_ns), reading.at_ns]
        if len(self._breaks_ns) < BREAKS:
            return Verdict("broken", f"{reading.method} {what}")
        return Verdict(
            "refused",
            f"{reading.method} jumped or started anew {BREAKS} times within "
            f"{BREAKS_WITHIN_S:.0f} s; at last it {what}",
        )


@dataclass
class Steady:
    """Whether power stays exactly the same while the load changes, which no device's does.

    Since the anchor, the energies of all readings lie on one straight line, to the rounding: they
    leave a range of slopes that is not empty.
    """

    units: int
    _anchor: Reading | None = None
    _slopes: tuple[float, float] = (0.0, float("inf"))
    _low_s: float = 0.0
    _high_s: float = 0.0

    def seen(self, reading: Reading, busy: float, elapsed_s: float) -> bool:
        """Take a reading, before which ``busy`` units worked; True: power cannot be so steady."""
        if self._anchor is None or not self._on_line(self._anchor, reading):
            self._anchor, self._slopes = reading, (0.0, float("inf"))
            self._low_s = self._high_s = 0.0
            return False
        load = busy / self.units
        self._low_s += elapsed_s * (load <= LOW_LOAD)
        self._high_s += elapsed_s * (load >= HIGH_LOAD)
        return min(self._low_s, self._high_s) >= STEADY_S

    def _on_line(self, anchor: Reading, reading: Reading) -> bool:
        spent_mj = (reading.energy_mj or 0) - (anchor.energy_mj or 0)
        elapsed_ns = reading.at_ns - anchor.at_ns
        low, high = self._slopes
        low = max(low, (spent_mj - ROUNDING_MJ) / elapsed_ns)
        high = min(high, (spent_mj + ROUNDING_MJ) / elapsed_ns)
        self._slopes = low, high
        return low <= high
