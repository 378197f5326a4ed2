"""What is made of measured windows, and what a calibration measures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.calibration import Calibration, Load, Point, calibrate
from cluster.end_to_end import EnginePoint, Output, PathPoint
from cluster.hardware.identify import hardware_class, replica_threads
from cluster.measuring import Window
from cluster.metering.bench import Idle
from cluster.stage_times import StageTimes
from cluster.storage.open import open_store
from cluster.storage.profiles import load_profiles
from cluster.types import MISSING_ENERGY, Energy, ImageEncoding, model_key
from jobs.cli.main import main
from un0 import DEFAULT_MODEL
from un0.engine.tuning import CANDIDATES

BOUNDED = Energy(energy_mj=4000, low_mj=2000, high_mj=8000, quality="estimated", method="test")
COUNTED = Energy(energy_mj=4000, quality="measured_counter", method="test")


def window(images: int, energy: Energy = BOUNDED) -> Window:
    return Window(images, 2.0, energy)


def whole_path(encoding: ImageEncoding, images: int, energy: Energy = BOUNDED) -> PathPoint:
    alone = EnginePoint(32, (window(1000),))
    times = StageTimes(2.0, 0.5, 1.8, 0.02)
    own = (window(images, energy),)
    return PathPoint("cpu", "fp32", 32, Output(encoding), own, alone, times, 2000 * images)


def calibration(*points: Point, idle_w: float | None = 5.0) -> Calibration:
    idle = Idle(idle_w, "estimated" if idle_w else "missing")
    loads = tuple(Load(p, 1.5, BOUNDED) for p in sorted({point.precision for point in points}))
    return Calibration("cpu: test x2", "test", "m", "rev", 2, idle, loads, points)


def test_one_odd_window_does_not_move_a_point() -> None:
    steady = Point("fp32", 32, True, (window(1000), window(1000), window(1)))
    assert steady.images_per_s == 500
    assert steady.energy_per_image_j == pytest.approx(4e-3)
    assert steady.bounds_j == (pytest.approx(2e-3), pytest.approx(8e-3))
    known = steady.performance()
    assert known is not None
    assert known.energy_per_image_j == pytest.approx(4e-3)
    assert known.samples == 3


def test_a_point_is_as_sure_as_its_least_sure_window() -> None:
    assert Point("fp32", 32, True, (window(9, COUNTED), window(9))).quality == "estimated"
    measured = Point("fp32", 32, True, (window(9, COUNTED),))
    assert (measured.quality, measured.bounds_j) == ("measured_counter", (None, None))
    unknown = Point("fp32", 32, True, (window(9, COUNTED), window(9, MISSING_ENERGY)))
    assert unknown.quality == "missing"
    assert unknown.energy_per_image_j is None


def test_the_profile_holds_the_batch_that_is_used_and_only_what_is_known() -> None:
    used, other = (
        Point("fp32", 32, True, (window(1000),)),
        Point("fp32", 64, False, (window(2000),)),
    )
    dark = Point("bf16", 32, True, (window(9, MISSING_ENERGY),))
    found = calibration(used, other, dark)
    (profile,) = found.profiles()
    assert profile.model == model_key("rev", "fp32")
    assert [p.point.batch_size for p in profile.curve] == [32]
    assert (profile.standby.idle_w, profile.standby.load_j) == (5.0, 4.0)
    assert found.share_of_best(used) == 0.5
    assert found.share_of_best(other) == 1.0


def test_an_idle_power_that_nobody_could_measure_is_believed_not_zero() -> None:
    (profile,) = calibration(Point("fp32", 32, True, (window(9),)), idle_w=None).profiles()
    assert profile.standby.idle_w > 0


def test_the_profile_holds_the_paths_whose_joules_are_known() -> None:
    made = calibration(Point("fp32", 32, True, (window(1000),)))
    paths = whole_path("png", 250), whole_path("jpeg", 500, MISSING_ENERGY)
    (profile,) = replace(made, paths=paths).profiles()
    (png,) = profile.pipelines
    assert (png.encoding, png.performance.images_per_s) == ("png", 125)
    assert png.performance.energy_per_image_j == pytest.approx(16e-3)
    assert png.times.bottleneck == "encode"
    assert profile.of("jpeg").curve == profile.curve


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 2), (3, 3), (4, 4), (6, 3), (64, 4)])
def test_replicas_leave_the_fewest_cpus_over(cpus: int, threads: int) -> None:
    assert replica_threads(cpus) == threads


@pytest.mark.slow
def test_a_real_sweep_measures_every_point_and_more_than_two_seconds_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    steps: list[int] = []
    found = calibrate(
        DEFAULT_MODEL,
        precisions=["fp32"],
        batches=[8],
        rounds=1,
        outputs=[Output("png"), Output("raw")],
        on_step=lambda done, total, _: steps.append(total - done),
    )
    assert found.hardware == hardware_class(None, found.threads)
    asked, chosen = found.points
    assert (asked.batch_size, asked.used, chosen.used) == (8, False, True)
    assert chosen.batch_size in CANDIDATES, "as measured here"
    for point in found.points:
        assert all(w.duration_s >= 2.0 for w in point.windows)
        assert all(w.images % (point.batch_size * found.threads) == 0 for w in point.windows)
        assert point.quality != "missing"
    assert found.loads[0].energy.energy_mj
    (profile,) = found.profiles()
    known = {path.encoding: path.performance for path in profile.pipelines}
    assert set(known) == {"png", "raw/zstd"}
    assert all(path.point == profile.curve[0].point for path in known.values())
    assert all(path.alone.windows[0].duration_s >= 2.0 for path in found.paths)
    assert steps[-1] == 1


def test_what_is_saved_is_what_the_fleet_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = (Point("fp32", 32, True, (window(1000),)), Point("fp32", 64, False, (window(1100),)))
    made = replace(calibration(*points), paths=(whole_path("png", 250),))
    monkeypatch.setattr("cluster.calibration.calibrate", lambda *_, **__: made)
    monkeypatch.setattr(sys, "argv", ["un0", "calibrate", "--store", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    (kept,) = load_profiles(open_store(str(tmp_path)))
    (own,) = made.profiles()
    assert replace(kept, pipelines=()) == replace(own, pipelines=())
    assert [p.performance for p in kept.pipelines] == [p.performance for p in own.pipelines]
    shown = capsys.readouterr().out
    assert "32 *" in shown
    assert "4 mJ (2 mJ to 8 mJ)" in shown
    assert "0002-tiles" in shown
    path_row = next(line for line in shown.splitlines() if "png" in line)
    for cell in ("125.0", "25%", "16 (8 to 32)", "90%", "encode"):
        assert cell in path_row


def test_ctrl_c_ends_it_and_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("un0.Sampler.generate_tiles", interrupted)
    monkeypatch.setattr(sys, "argv", ["un0", "calibrate", "--store", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert load_profiles(open_store(str(tmp_path))) == []
