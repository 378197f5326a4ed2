"""Profiles and decisions in a store: shared by a fleet, and in nobody's way."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pyarrow.dataset as ds
import pytest

from cluster.clock import Anchor
from cluster.errors import Fatal, Retryable
from cluster.scheduler.explain import Decision
from cluster.scheduler.forecast import Forecast
from cluster.scheduler.plan import Rival
from cluster.scheduler.profiles import Pipeline, Profile
from cluster.scheduler.request import (
    DemandKey,
    JobRequest,
    OperatingPoint,
    Performance,
    StandbyCost,
)
from cluster.stage_times import StageTimes
from cluster.storage.arrivals import load_habits, save_habits
from cluster.storage.decisions import DecisionLog, read_decisions
from cluster.storage.finish import finalise
from cluster.storage.layout import PROFILES, JobLayout, arrivals_key, profile_key
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.profiles import (
    load_profile_records,
    load_profiles,
    rates_of,
    save_profile,
)
from cluster.storage.verify import verify
from tests.support.jobfactory import workload, write_job

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
MODEL = "rev-1/bf16"


@pytest.fixture(params=["local", "seaweedfs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "seaweedfs":
        return request.getfixturevalue("s3_store")
    return open_store(str(tmp_path / "store"))


def profile(hardware: str = "NVIDIA L4", samples: int = 3, rate: float = 100.0) -> Profile:
    measured = Performance(
        OperatingPoint(256), rate, 50.0, "measured_counter" if samples else "estimated",
        None if samples else 0.1, None if samples else 2.0, samples,
    )  # fmt: skip
    return Profile(hardware, MODEL, StandbyCost(20.0, 12.0, 400.0), (measured,))


def test_a_profile_comes_back_as_it_was(store: ObjectStore) -> None:
    hostile = "cpu: Wörk/Station #1 100% x2"
    kept = [profile("NVIDIA L4"), profile(hostile, samples=0)]
    for one in kept:
        save_profile(store, one, NOW)
    assert sorted(load_profiles(store), key=lambda p: p.hardware) == kept
    ages = {record.hardware: record.curve[0].measured_at for record in load_profile_records(store)}
    assert ages == {"NVIDIA L4": NOW, hostile: None}  # nothing was measured of the second


def whole_path(encoding: str, rate: float, *, shares: bool = True) -> Pipeline:
    performance = Performance(
        OperatingPoint(256), rate, 50.0, "estimated", 0.1, 2.0, 3
    )  # fmt: skip
    times = StageTimes(10.0, 2.5, 9.0, 1.0) if shares else StageTimes()
    return Pipeline(encoding, performance, times)


def test_a_profile_tells_what_the_whole_path_does_by_encoding(store: ObjectStore) -> None:
    paths = (whole_path("png", 40.0), whole_path("raw/lz4", 80.0, shares=False))
    save_profile(store, replace(profile(), pipelines=paths), NOW)
    (record,) = load_profile_records(store)
    png, raw = record.pipelines
    assert (png.encoding, png.compression, png.bottleneck) == ("png", None, "encode")
    assert png.stage_share == {"device": 0.25, "encode": 0.9, "upload": 0.1}
    assert (raw.encoding, raw.compression, raw.measured_at) == ("raw", "lz4", NOW)
    assert raw.stage_share is raw.bottleneck is None
    (loaded,) = load_profiles(store)
    assert [p.encoding for p in loaded.pipelines] == ["png", "raw/lz4"]
    assert [p.performance for p in loaded.pipelines] == [p.performance for p in paths]
    assert loaded.pipelines[0].times.shares == paths[0].times.shares


def test_what_one_fleet_saw_of_an_encoding_stays_when_another_saw_a_different_one(
    store: ObjectStore,
) -> None:
    """And work, which says nothing of stages, leaves their shares as they were measured."""
    save_profile(store, replace(profile(), pipelines=(whole_path("png", 40.0),)), NOW)
    others = (whole_path("jpeg", 60.0), whole_path("png", 44.0, shares=False))
    save_profile(store, replace(profile(), pipelines=others), LATER)
    save_profile(store, profile(), LATER)
    (record,) = load_profile_records(store)
    known = {path.key: (path.images_per_s, path.bottleneck) for path in record.pipelines}
    assert known == {"png": (44.0, "encode"), "jpeg": (60.0, "encode")}
    assert rates_of(store, MODEL, "png") == [44.0]
    assert rates_of(store, MODEL, "webp") == [100.0], "what is known of the device"


def test_profiles_without_paths_are_read_and_written_as_ever(store: ObjectStore) -> None:
    save_profile(store, profile(), NOW)
    key = profile_key("NVIDIA L4", MODEL)
    written = json.loads(store.get(key))
    assert "pipelines" not in written
    store.put(key, json.dumps(written).encode())
    assert load_profiles(store) == [profile()]


def test_a_guess_never_replaces_a_measurement(store: ObjectStore) -> None:
    save_profile(store, profile(samples=3), NOW)
    save_profile(store, profile(samples=0, rate=9.0), LATER)
    (record,) = load_profile_records(store)
    assert (record.curve[0].images_per_s, record.curve[0].measured_at) == (100.0, NOW)


def test_the_latest_measurement_stands_and_an_old_one_does_not_look_new(
    store: ObjectStore,
) -> None:
    save_profile(store, profile(samples=30), NOW)
    save_profile(store, profile(samples=30), LATER)  # nothing has been measured since
    assert load_profile_records(store)[0].curve[0].measured_at == NOW
    save_profile(store, profile(samples=2, rate=80.0), LATER)
    (record,) = load_profile_records(store)
    assert (record.curve[0].images_per_s, record.curve[0].measured_at) == (80.0, LATER)


def test_writers_at_once_leave_one_whole_profile(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: save_profile(store, profile(rate=float(n)), NOW), range(1, 9)))
    (one,) = load_profiles(store)
    assert one.curve[0].images_per_s in range(1, 9)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        json.dumps({"schema_version": 2}).encode(),
        json.dumps({"images_per_s": float("nan")}).encode(),
    ],
)
def test_a_damaged_profile_is_named_and_left_out(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(str(tmp_path))
    save_profile(store, profile("good"), NOW)
    bad = profile_key("bad", MODEL)
    store.put(bad, damage)
    assert [p.hardware for p in load_profiles(store)] == ["good"]
    assert bad in caplog.text
    save_profile(store, profile("bad"), NOW)  # and fixed by the next writer
    assert len(load_profiles(store)) == 2


def test_a_profile_that_speaks_of_other_hardware_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(str(tmp_path))
    save_profile(store, profile("good"), NOW)
    moved = profile_key("bad", MODEL)
    store.put(moved, store.get(profile_key("good", MODEL)))
    assert [p.hardware for p in load_profiles(store)] == ["good"]
    assert moved in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("power_w", 0.0), ("images_per_s", -1.0), ("images_per_s", float("inf")), ("samples", -1)],
)
def test_figures_that_cannot_be_are_refused(
    field: str, value: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(str(tmp_path))
    save_profile(store, profile(), NOW)
    key = profile_key("NVIDIA L4", MODEL)
    record = json.loads(store.get(key))
    record["curve"][0][field] = value
    store.put(key, json.dumps(record).encode())
    assert load_profiles(store) == []
    assert key in caplog.text


def decision(kind: str = "lease", at_s: float = 0.0, plan: int = 1, **facts: object) -> Decision:
    return replace(Decision("lease", at_s, plan, "why"), kind=kind, **facts)


def planned(number: int) -> Decision:
    rivals = (Rival("L4", 0.5, 3, "1 used"), Rival("H100", float("inf"), 0, "not needed"))
    return Decision("plan", float(number), number, f"{MODEL} for energy", rivals=rivals)


def test_decisions_come_back_by_job_in_order(store: ObjectStore) -> None:
    log = DecisionLog(store, "run-1", anchor=Anchor(NOW, 0), lines_a_file=2)
    log.begin("a")
    log.append([planned(1), decision(job_id="a", at_s=2.0, first=0, stop=4, predicted_j=7.0)])
    log.begin("b")  # later: it gets the plan that it found
    log.append([decision(job_id="b", at_s=3.0), decision("park", at_s=4.0), decision(job_id="c")])
    log.close()
    of_a, of_b = read_decisions(store, "a"), read_decisions(store, "b")
    assert [(d.kind, d.job_id) for d in of_a] == [("plan", None), ("lease", "a"), ("park", None)]
    assert [(d.kind, d.job_id) for d in of_b] == [("plan", None), ("lease", "b"), ("park", None)]
    assert [rival.cost for rival in of_a[0].rivals] == [0.5, None]  # JSON knows no infinity
    assert of_a[1].at == NOW + timedelta(seconds=2)
    assert (of_a[1].run_id, of_a[1].plan, of_a[1].predicted_j) == ("run-1", 1, 7.0)
    assert read_decisions(store, "c") == []  # not a job of this run


def test_runs_of_a_job_add_up(store: ObjectStore) -> None:
    for number in range(2):
        log = DecisionLog(store, f"run-{number}", anchor=Anchor(NOW, 0))
        log.begin("a")
        log.append([decision(job_id="a", at_s=float(number))])
        log.end("a").result()
        log.close()
    assert [d.run_id for d in read_decisions(store, "a")] == ["run-0", "run-1"]


def test_a_store_that_is_away_costs_explanations_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    log = DecisionLog(store, "run", lines_a_file=1)
    log.begin("a")

    def away(*_: object) -> None:
        raise Retryable("the store is away")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(store, "put", away)
        log.append([decision(job_id="a")])
        log.flush()
        log.end("a").result()
    assert "the store is away" in caplog.text
    log.begin("a")
    log.append([decision(job_id="a", at_s=5.0)])
    log.close()
    assert len(read_decisions(store, "a")) == 1


def test_a_slow_store_holds_nobody_up_and_memory_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.storage.decisions.MOST_WAITING", 50)
    store = open_store(str(tmp_path))
    put, go_on = store.put, Event()

    def slow(key: str, data: bytes) -> None:
        go_on.wait(60)
        put(key, data)

    monkeypatch.setattr(store, "put", slow)
    log = DecisionLog(store, "run", anchor=Anchor(NOW, 0), lines_a_file=10)
    log.begin("a")
    for number in range(1000):
        log.append([decision(job_id="a", at_s=float(number))])
    go_on.set()
    log.close()
    kept = read_decisions(store, "a")
    assert len(kept) <= 2 * 50
    assert kept[-1].at == NOW + timedelta(seconds=999)  # the oldest went


def test_damaged_lines_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(str(tmp_path))
    log = DecisionLog(store, "run", anchor=Anchor(NOW, 0))
    log.begin("a")
    log.append([decision(job_id="a"), decision(job_id="a", at_s=1.0)])
    log.close()
    key = JobLayout("a").decisions_of("run", 0)
    first, second = store.get(key).splitlines()
    store.put(key, b"\n".join([first[:-9], b"\xff\x00", second]))
    assert [d.at for d in read_decisions(store, "a")] == [NOW + timedelta(seconds=1)]
    assert f"{key}, line 1" in caplog.text
    assert f"{key}, line 2" in caplog.text


def test_profiles_and_decisions_are_in_nobodys_way(store: ObjectStore) -> None:
    """A finished job verifies, and a glob over its images is clean."""
    job = workload()
    write_job(store, job, finish=False)
    log = DecisionLog(store, "run", lines_a_file=1)
    log.begin(job.job_id)
    log.append([planned(1), decision(job_id=job.job_id)])
    log.close()
    save_profile(store, profile(), NOW)
    finalise(store, job.job_id, "completed", shards=job.num_shards, drained=True)
    assert len(read_decisions(store, job.job_id)) == 2
    assert verify(store, job.job_id).problems == ()
    under = [info.key for info in store.list(JobLayout(job.job_id).attempts)]
    assert all(key.endswith("images.parquet") for key in under)
    assert any(True for _ in store.list(PROFILES))
    if store.config.uri.startswith("file:"):
        root = store.config.uri.removeprefix("file://")
        assert ds.dataset(f"{root}/jobs/{job.job_id}/attempts").count_rows() == job.count


def test_what_work_a_fleet_is_used_to_outlives_its_coordinator_and_its_clock(
    store: ObjectStore,
) -> None:
    at_s = NOW.timestamp()
    today = Forecast(epoch_s=at_s)
    for minute in range(0, 2 * 1440, 10):
        due_s = 60.0 * minute + 1800
        job = JobRequest("j", MODEL, 500 if minute % 1440 < 60 else 10, 10, deadline_s=due_s)
        today.observe(60.0 * minute, job)
    assert load_habits(store, "a:6379") is None
    habits = today.habits
    assert habits is not None
    save_habits(store, "a:6379", habits)
    assert b"encoding" not in store.get(arrivals_key("a:6379"))  # older versions read it
    assert load_habits(store, "another") is None
    assert load_habits(store, "a:6379") == habits

    reboot_s = 2 * 86_400.0
    tomorrow = Forecast(epoch_s=at_s + reboot_s, habits=load_habits(store, "a:6379"))
    expected = tomorrow.ahead(DemandKey(MODEL, "energy"), 0.0)
    assert expected == [
        replace(
            e, stop_s=pytest.approx(e.stop_s - reboot_s), due_s=pytest.approx(e.due_s - reboot_s)
        )
        for e in today.ahead(DemandKey(MODEL, "energy"), reboot_s)
    ]
    first, later = expected[0], expected[40]
    assert first.images > 5 * later.images


def test_damaged_habits_name_their_object(store: ObjectStore) -> None:
    store.put(arrivals_key("a:6379"), b'{"schema_version": 1, "open_bin": 3, "kinds": [{}]}')
    with pytest.raises(Fatal, match=r"fleet/arrivals/a%3A6379\.json: not a ArrivalsRecord"):
        load_habits(store, "a:6379")
