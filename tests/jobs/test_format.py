"""Figures for people: an estimate never bare, unknown never zero."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cluster.progress import ReplicaView, Snapshot
from cluster.stage_times import StageTimes
from cluster.types import MISSING_ENERGY, Energy
from jobs.cli.live import live_view
from jobs.format import bounded, duration, energy_per_image, joules

ESTIMATE = Energy(energy_mj=3000, low_mj=1000, high_mj=9000, quality="estimated", method="test")
MEASURED = Energy(energy_mj=412_000, quality="measured_counter", method="test")


@pytest.mark.parametrize(
    ("value_j", "text"),
    [
        (None, "unknown"),
        (0.0, "0 mJ"),
        (0.0042, "4.2 mJ"),
        (12.34, "12.3 J"),
        (4567.0, "4.57 kJ"),
        (3.6e6, "3.6 MJ"),
    ],
)
def test_joules(value_j: float | None, text: str) -> None:
    assert joules(value_j) == text


def test_an_estimate_shows_its_bounds() -> None:
    assert energy_per_image(ESTIMATE, 1000) == "3 mJ (1 mJ to 9 mJ) estimated"


def test_a_measurement_says_how() -> None:
    assert energy_per_image(MEASURED, 1000) == "412 mJ measured counter"


def test_unknown_stays_unknown() -> None:
    assert energy_per_image(MISSING_ENERGY, 1000) == "unknown"
    assert energy_per_image(ESTIMATE, 0) == "unknown"
    assert bounded(None, None, None) == "unknown"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (42, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_live_view_tells_progress_rate_joules_and_a_deadline_that_will_be_missed() -> None:
    snapshot = Snapshot(
        job_id="nightly",
        state="running",
        total_images=10_000,
        committed_images=1000,
        run_images=1000,
        open_images=200,
        startup_s=3.0,
        run_s=10.0,
        energy=ESTIMATE,
        overhead=MISSING_ENERGY,
        replicas=(ReplicaView("replica-0", "lost", "node-7", note="killed"),),
        retries=2,
        stages=StageTimes(10.0, 2.5, 9.0, 0.1),
    )
    out = io.StringIO()
    Console(file=out, width=160).print(live_view(snapshot, deadline_s=30.0))
    shown = out.getvalue()
    parts = ("nightly", "1,000 of 10,000", "120 images/s", "ETA 73 s", "will be missed",
             "3 mJ (1 mJ to 9 mJ) estimated", "replica-0", "lost", "node-7", "killed",
             "device 25%, encode 90%, upload 1%", "bottleneck: encode")  # fmt: skip
    for part in parts:
        assert part in shown
