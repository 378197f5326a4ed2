"""Fleets, workloads and traces as users write them, and what is said of mistakes in them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.scenario.fleet import load_fleet
from cluster.scenario.traces import Request, TraceSpec, in_windows, read_trace
from cluster.scenario.workload import SyntheticSpec, WorkloadSpec, load_workload
from tests.support.simulated import MODEL, SOURCE, fleet, hardware

FLEET = {"name": "mine", "hardware": [hardware("one")]}


def written(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


def test_the_reference_fleet_has_21_nodes_and_a_source_for_each_figure() -> None:
    spec = load_fleet("reference")
    assert sum(kind.count for kind in spec.hardware) == 21
    h100 = next(
        p for p in spec.profiles() if (p.hardware, p.model) == ("H100-SXM", "cifar10/n4096")
    )
    full = h100.curve[0]
    assert full.images_per_s == pytest.approx(989e12 * 0.4 / 1.103e9)
    assert (full.power_w, h100.standby.idle_w) == (700 - 70, 120 - 70)
    assert h100.standby.load_j == pytest.approx((180 - 70) * 45)
    for kind in spec.hardware:
        assert {"peak_tflops", "utilisation", "idle_w", "parked_w", "load_s"} <= kind.sources.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"idle_w": 500.0}, "watts must rise"),
        ({"count": 0}, "hardware.0.count: 0"),
        ({"images_per_s": {}}, "give images_per_s by model, or both"),
        ({"sources": {"idle_w": SOURCE}}, "sources lacks images_per_s, load_s, parked_w"),
        ({"idle": 5.0}, "hardware.0.idle: unknown field"),
    ],
)
def test_a_mistake_in_a_fleet_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    data = copy.deepcopy(FLEET)
    data["hardware"][0].update(change)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=message):
        load_fleet(written(tmp_path / "fleet.yaml", data))


def test_files_that_are_not_there_or_no_yaml_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a file nor bundled; bundled: reference"):
        load_fleet("none")
    with pytest.raises(UserError, match=r"bundled: day"):
        load_workload("none")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match="not a mapping"):
        load_fleet(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("{")
    with pytest.raises(UserError, match="not valid YAML"):
        load_workload(tmp_path / "broken.yaml")


def test_a_workload_keeps_the_fleet_as_busy_as_it_says() -> None:
    spec = load_fleet("reference")
    workload = load_workload("day").model_copy(
        update={"load": 0.4, "models": {"cifar10/n4096": 3.0, "imagenet64/n16384": 1.0}}
    )
    arrivals = workload.jobs(spec, seed=4)
    work_s = dict.fromkeys(workload.models, 0.0)
    for arrival in arrivals:
        rate = spec.capacity_images_per_s(arrival.job.model)
        work_s[arrival.job.model] += arrival.job.images / rate
    assert sum(work_s.values()) == pytest.approx(0.4 * 86_400, rel=1e-3)
    assert work_s["cifar10/n4096"] == pytest.approx(3 * work_s["imagenet64/n16384"], rel=1e-3)
    assert all(a.job.deadline_s == a.at_s + 3600 for a in arrivals)
    assert [a.at_s for a in arrivals] == sorted(a.at_s for a in arrivals)
    assert workload.jobs(spec, seed=4) == arrivals
    assert workload.jobs(spec, seed=5) != arrivals
    assert workload.horizon_s(arrivals) == 86_400 + 3600


def test_days_have_a_peak_and_bursts() -> None:
    calm = SyntheticSpec(jobs=4000, burst_share=0.0, swing=0.9).requests(1)
    afternoon = sum(12 * 3600 <= r.at_s < 18 * 3600 for r in calm)
    night = sum(r.at_s < 6 * 3600 for r in calm)
    assert afternoon > 3 * night
    bursty = SyntheticSpec(jobs=4000, burst_share=0.5, burst_jobs=200.0).requests(1)
    most = [max(_counts(requests).values()) for requests in (calm, bursty)]
    assert most[1] > 3 * most[0]


def _counts(requests: list[Request]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for request in requests:
        counts[int(request.at_s // 300)] = counts.get(int(request.at_s // 300), 0) + 1
    return counts


def test_a_model_that_the_fleet_cannot_run_is_named() -> None:
    workload = load_workload("day")
    with pytest.raises(UserError, match=r"cannot run cifar10/n4096; it knows m"):
        workload.jobs(fleet(hardware("one")))


AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:33.9799600,110,30
2023-11-16 18:19:04.0000000,3000,5
"""
ALIBABA = """gmt_create,predict_type,predict_status,exec_time_seconds,num_images_per_prompt,\
num_inference_steps,checkpoint_model_version_id
2024-11-15 16:57:50,t,SUCCEED,22,1.0,30.0,aa
2024-11-15 16:58:00,t,FAILED,1,1.0,30.0,aa
2024/11/15 16:59,t,SUCCEED,22,2.0,20.0,bb
"""


def test_azure_traces_are_read(tmp_path: Path) -> None:
    (tmp_path / "azure.csv").write_text(AZURE)
    found = read_trace(TraceSpec(kind="azure-llm-2023", path=tmp_path / "azure.csv"))
    assert [r.work for r in found] == [10, 30, 5]
    assert [r.at_s for r in found] == pytest.approx([0.0, 30.0, 120.02004], abs=1e-5)
    assert [r.work for r in in_windows(found, 60.0)] == [40, 5]
    assert [r.at_s for r in in_windows(found, 60.0)] == [60.0, 180.0]


def test_alibaba_traces_are_read(tmp_path: Path) -> None:
    (tmp_path / "ali.csv").write_text(ALIBABA)
    spec = TraceSpec(kind="alibaba-gentd26", path=tmp_path / "ali.csv", time_scale=2.0)
    found = read_trace(spec)
    assert found == [Request(0.0, 30.0, "aa"), Request(140.0, 40.0, "bb")]


def test_other_traces_are_read_by_the_names_of_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("when,n,which\n5,3,x\n2,1,y\n")
    columns = {"at": "when", "work": "n", "model": "which"}
    found = read_trace(TraceSpec.model_validate({"kind": "csv", "path": path, "columns": columns}))
    assert found == [Request(0.0, 1.0, "y"), Request(3.0, 3.0, "x")]
    with pytest.raises(UserError, match="lacks the names of its columns"):
        read_trace(TraceSpec(kind="csv", path=path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column TIMESTAMP, GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,2\n", "line 2: 'noon' is neither"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n5,1,many\n", "line 2: could not convert"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n5,1\n", "line 2: "),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no request"),
    ],
)
def test_a_trace_that_is_not_what_it_is_said_to_be(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_trace(TraceSpec(kind="azure-llm-2023", path=tmp_path / "t.csv"))
    with pytest.raises(UserError, match="cannot be read"):
        read_trace(TraceSpec(kind="azure-llm-2023", path=tmp_path / "gone.csv"))


def test_a_workload_of_a_trace(tmp_path: Path) -> None:
    (tmp_path / "azure.csv").write_text(AZURE)
    data = {
        "name": "recorded",
        "models": {MODEL: 1.0},
        "load": 0.5,
        "slack_s": None,
        "arrivals": {"kind": "azure-llm-2023", "path": str(tmp_path / "azure.csv")},
    }
    workload = load_workload(written(tmp_path / "w.yaml", data))
    assert isinstance(workload, WorkloadSpec)
    arrivals = workload.jobs(fleet(hardware("one", 2)))
    assert [a.at_s for a in arrivals] == [60.0, 180.0]
    assert [a.job.images for a in arrivals] == [16_000, 2000]  # half of 180 s x 200 images/s
    assert arrivals[0].job.deadline_s is None
