"""A machine whose RAPL counters go on as the test says, in the machine's own time or the test's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster.clock import monotonic_ns
from cluster.metering.rapl_choice import Machine
from tests.support.meter_worlds import TestClock, powercap

LEAST_STEP_S = 0.004
Counter = Callable[[float], float]  # seconds -> joules
RANGE_UJ = 262_143_328_850


def steady(watts: float) -> Counter:
    return lambda seconds: watts * seconds


@dataclass
class RaplWorld:
    """Zones by directory ("intel-rapl:0"): a name and a counter. Two packages of two threads."""

    root: Path
    zones: dict[str, tuple[str, Counter]]
    range_uj: int = RANGE_UJ
    clock: TestClock = field(default_factory=TestClock)
    load: float = 0.5  # of every thread
    dies: dict[int, tuple[int, int]] = field(
        default_factory=lambda: {0: (0, 0), 1: (0, 0), 2: (1, 0), 3: (1, 0)}
    )

    def __post_init__(self) -> None:
        powercap(self.root, {path: name for path, (name, _) in self.zones.items()}, self.range_uj)
        self.files = {
            path: os.open(self.root / path / "energy_uj", os.O_WRONLY) for path in self.zones
        }
        for thread, (package, die) in self.dies.items():
            directory = self.root / "cpu" / f"cpu{thread}" / "topology"
            directory.mkdir(parents=True)
            (directory / "physical_package_id").write_text(f"{package}\n")
            (directory / "die_id").write_text(f"{die}\n")
        self.show(0.0)

    def show(self, seconds: float) -> None:
        """What the files say at that time. Through open files: whoever we are by now."""
        for path, (_, counter) in self.zones.items():
            value_uj = round(counter(seconds) * 1e6) % self.range_uj
            os.pwrite(self.files[path], b"%020d\n" % value_uj, 0)
        ticks = int(seconds * os.sysconf("SC_CLK_TCK"))
        busy, lines = int(self.load * ticks), ["cpu 0 0 0 0 0 0 0"]
        lines += [f"cpu{thread} {busy} 0 0 {ticks - busy} 0 0 0" for thread in self.dies]
        (self.root / "stat").write_text("\n".join(lines) + "\n")

    def go_on(self, seconds: float) -> None:
        self.clock.now_ns += round(max(seconds, LEAST_STEP_S) * 1e9)
        self.show(self.clock.now_ns / 1e9)

    def machine(self) -> Machine:
        return Machine(
            self.root, self.root / "cpu", self.root / "stat", self.clock, self.go_on, self.go_on
        )

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Meanwhile the counters go on in real time."""
        stop, start_ns = threading.Event(), monotonic_ns()

        def run() -> None:
            while not stop.wait(LEAST_STEP_S):
                seconds = (monotonic_ns() - start_ns) / 1e9
                for path, (_, counter) in self.zones.items():
                    value_uj = round(counter(seconds) * 1e6)
                    os.pwrite(self.files[path], b"%020d\n" % value_uj, 0)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        for file in self.files.values():
            os.close(file)
