"""``un0 plan`` as scripts use it: the names in its JSON, its exit codes, its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.plan.answer import PlanAnswer
from tests.support.cli import un0, un0_json

FILE: dict[str, Any] = {
    "demand": [{"model": "m", "images_per_day": 216_000, "deadline": "24h"}],
    "catalogue": [
        {
            "name": "a",
            "points": [{"model": "m", "images_per_s": 1.0, "power_w": 100.0}],
            "idle_w": 20,
            "parked_w": 10,
            "load_w": 50,
            "count_max": 10,
            "price_usd_per_h": 1.0,
            "embodied_kgco2e": 100,
        }
    ],
}
NAMES = {
    "feasible", "status", "mix", "energy_j_per_day", "energy_low_j_per_day",
    "energy_high_j_per_day", "cost_per_day", "carbon_g_per_day", "peak_power_w", "gap",
    "simulated", "reasons", "relaxations",
}  # fmt: skip
BARE = ("--days", "0")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(**blocks: Any) -> str:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(FILE | blocks))
        return str(path)

    return write


def test_the_names_that_scripts_rely_on(write: Any) -> None:
    """2.5 images/s: three nodes; 2.5 of 90 W above parked, and 30 W parked."""
    answer = un0_json("plan", "size", write(), *BARE)
    assert answer.keys() >= NAMES
    assert answer["feasible"] is True
    assert answer["status"] == "optimal"
    assert answer["mix"] == {"a": 3}
    assert answer["cost_per_day"] == pytest.approx(72.0)
    assert answer["carbon_g_per_day"] is None  # nobody said what the electricity emits
    assert answer["energy_j_per_day"] == pytest.approx((2.5 * 90 + 30) * 86_400, rel=1e-3)
    assert answer["energy_low_j_per_day"] == answer["energy_high_j_per_day"]
    assert sum(p["energy_j"] for p in answer["waterfall"]) == pytest.approx(
        answer["energy_j_per_day"]
    )
    assert PlanAnswer.model_validate(answer).mix == {"a": 3}


def test_bounds_in_give_bounds_out(write: Any) -> None:
    """Power 90 to 130 W: energy (2.5 * 80 + 30) to (2.5 * 120 + 30) W for a day."""
    point = {"model": "m", "images_per_s": 1.0, "power_w": {"value": 100, "low": 90, "high": 130}}
    entry = FILE["catalogue"][0] | {"points": [point]}
    answer = un0_json("plan", "size", write(catalogue=[entry]), *BARE)
    ends = (answer["energy_low_j_per_day"], answer["energy_high_j_per_day"])
    assert ends == pytest.approx((230 * 86_400, 330 * 86_400), rel=1e-3)


def test_a_mix_that_fails_at_its_bounds_says_so_first(write: Any) -> None:
    demand = FILE["demand"][0] | {"images_per_day": {"value": 216_000, "low": 2e5, "high": 4e5}}
    answer = un0_json("plan", "size", write(demand=[demand]), *BARE)
    assert answer["energy_high_j_per_day"] is None
    assert "worse bound" in answer["reasons"][0]


def test_infeasible_is_3_and_says_what_would_help(write: Any) -> None:
    path = write(limits={"count": 2})
    done = un0("plan", "size", path, "--json", *BARE)
    assert done.returncode == 3
    answer = json.loads(done.stdout)
    assert answer["feasible"] is False
    assert answer["energy_j_per_day"] is None
    assert answer["reasons"]
    offers = {r["limit"]: r for r in answer["relaxations"]}
    assert offers["limits.count"]["amount"] == 1
    assert offers["limits.count"]["mix"] == {"a": 3}
    assert offers["demand"]["amount"] == pytest.approx(0.8)
    shown = un0("plan", "size", path, *BARE)
    assert shown.returncode == 3
    assert "limits.count: +1 nodes" in shown.stdout
    assert un0("plan", "size", write(limits={"count": 3}), *BARE).returncode == 0


def test_bad_input_is_2(write: Any) -> None:
    done = un0("plan", "size", write(objective="speed"), *BARE)
    assert done.returncode == 2
    assert "objective" in done.stderr
    assert un0("plan", "fit", write(), *BARE).returncode == 2
    assert un0("plan", "size", "nowhere.yaml").returncode == 2


def test_fit_says_how_much_is_left_and_for_how_long(write: Any) -> None:
    """Four nodes and 2.5 needed: 1.6 times; at 10 % a month ln 1.6 / ln 1.1 = 4.93 months."""
    demand = FILE["demand"][0] | {"growth_per_month": 0.1}
    fleet = [{"name": "a", "count": 4}]
    found = un0_json("plan", "fit", write(demand=[demand], fleet=fleet), *BARE)["headroom"]
    assert found["factor"] == pytest.approx(1.6, rel=1e-2)
    assert found["months"] == pytest.approx(4.93, abs=0.1)
    assert found["bottleneck"] == ["nodes"]
    capped = write(fleet=fleet, limits={"power_w": 310})
    found = un0_json("plan", "fit", capped, *BARE)["headroom"]
    assert found["bottleneck"] == ["limits.power_w"]


def test_a_fleet_that_is_too_small_says_how_much_it_can_do(write: Any) -> None:
    """Two nodes of the 2.5 that are needed: 80 % of the demand."""
    done = un0("plan", "fit", write(fleet=[{"name": "a", "count": 2}]), "--json", *BARE)
    assert done.returncode == 3
    answer = json.loads(done.stdout)
    assert "80.0000% of the demand" in answer["reasons"][0]
    assert answer["headroom"]["factor"] == pytest.approx(0.8, rel=1e-3)


def test_when_runs_in_cheap_hours(write: Any) -> None:
    """Five nodes can do 2.5 images/s in 12 hours: the cheap ones."""
    price = [0.1] * 12 + [0.5] * 12
    path = write(
        fleet=[{"name": "a", "count": 6}],
        signals={"price_usd_per_kwh": price},
        objective="money",
    )
    answer = un0_json("plan", "when", path, *BARE)
    by_hour = {hour["hour"]: hour["busy_nodes"] for hour in answer["hours"]}
    assert sum(by_hour[h] for h in range(12)) == pytest.approx(60, rel=1e-3)
    assert "class" in un0("plan", "when", path, *BARE).stdout


def test_what_if_changes_blocks_by_name(write: Any) -> None:
    chip = {
        "name": "oscillator",
        "points": [{"model": "m", "images_per_s": 10, "power_w": 10}],
        "idle_w": 1,
        "hypothetical": True,
    }
    scenarios = {
        "chip": {"catalogue": [chip]},
        "few": {"catalogue": [{"name": "a", "count_max": 2}]},
    }
    path = write(scenarios=scenarios)
    answer = un0_json("plan", "what-if", path, *BARE)
    assert answer["mix"] == {"a": 3}
    by_name = {part["scenario"]: part for part in answer["scenarios"]}
    assert by_name["chip"]["mix"] == {"oscillator": 1}
    assert by_name["chip"]["hypothetical"] == ["oscillator"]
    assert "hypothetical" in by_name["chip"]["reasons"][-1]
    assert by_name["few"]["feasible"] is False
    assert "oscillator (hypothetical)" in un0("plan", "what-if", path, *BARE).stdout


@pytest.mark.slow
def test_a_frontier_against_money(write: Any) -> None:
    """a: 100 W for 1 USD/h, b: 50 W for 3 USD/h: less energy costs more."""
    b = FILE["catalogue"][0] | {
        "name": "b",
        "price_usd_per_h": 3.0,
        "points": [{"model": "m", "images_per_s": 1.0, "power_w": 50.0}],
    }
    path = write(catalogue=[*FILE["catalogue"], b])
    answer = un0_json("plan", "frontier", path, "--against", "money", "--points", "3", *BARE)
    points = answer["frontier"]
    assert [point["feasible"] for point in points] == [True] * 3
    assert [point["mix"] for point in (points[0], points[-1])] == [{"a": 3}, {"b": 3}]
    energies = [point["energy_j_per_day"] for point in points]
    assert energies == sorted(energies, reverse=True)


@pytest.mark.slow
def test_samples_say_how_stable_the_mix_is(write: Any) -> None:
    rate = {"value": 1.0, "low": 0.8, "high": 1.2}
    point = {"model": "m", "images_per_s": rate, "power_w": 100.0}
    path = write(catalogue=[FILE["catalogue"][0] | {"points": [point]}])
    answer = un0_json("plan", "size", path, "--samples", "8", *BARE)
    stability = answer["stability"]
    assert sum(count for _, count in stability["mixes"]) == 8
    assert [bar["field"] for bar in stability["tornado"]] == ["catalogue.a.points.0.images_per_s"]
    assert un0_json("plan", "size", path, "--samples", "8", *BARE) == answer


@pytest.mark.slow
def test_the_simulator_agrees_with_a_plan(write: Any) -> None:
    answer = un0_json("plan", "size", write(reserve=0.2))
    simulated = answer["simulated"]
    assert simulated["days"] == 20
    assert simulated["agrees"], simulated
    assert simulated["energy_j_per_day"] == pytest.approx(answer["energy_j_per_day"], rel=0.1)


@pytest.mark.slow
def test_a_disagreement_is_said_first(write: Any) -> None:
    """Without a reserve three nodes of 1 image/s are barely enough for 2.99/s within an hour: jobs
    come at random, and some are late."""
    demand = FILE["demand"][0] | {"images_per_day": 258_000, "deadline": "1h"}
    shown = un0("plan", "size", write(demand=[demand]), "--days", "1")
    assert shown.returncode == 0, shown.stderr
    assert "THE SIMULATOR DISAGREES" in shown.stdout.splitlines()[1]


def test_the_schema_describes_the_file() -> None:
    schema = json.loads(un0("plan", "schema").stdout)
    assert {"demand", "fleet", "catalogue", "limits", "signals"} <= schema["properties"].keys()
    figure = schema["$defs"]["Figure"]["anyOf"]
    assert [way.get("type") for way in figure] == ["number", "object"]
