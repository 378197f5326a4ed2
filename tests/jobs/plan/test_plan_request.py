"""The file of a plan: what parses, what its figures mean, and what is refused with which fix."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from cluster.documents import parse
from cluster.errors import UserError
from jobs.plan.request import PlanRequest, load_request
from jobs.plan.translate import best, problem_of, provenance, worst

POINT = {"model": "m", "images_per_s": 1.0, "power_w": 100.0}
DATA: dict[str, Any] = {
    "demand": [{"model": "m", "images_per_day": "86400", "deadline": "24h"}],
    "catalogue": [{"name": "a", "points": [POINT], "idle_w": 20}],
}


def request(**blocks: Any) -> PlanRequest:
    return parse(PlanRequest, copy.deepcopy(DATA) | blocks, "plan")


def refusal(**blocks: Any) -> str:
    with pytest.raises(UserError) as refused:
        request(**blocks)
    return str(refused.value)


def test_a_file_with_every_block_parses(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        """
demand: [{model: m, images_per_day: 1e6, deadline: 90m, growth_per_month: 0.05}]
fleet: [{name: a, count: 2, site: north}]
catalogue:
  - name: a
    points:
      - model: m
        images_per_s: {value: 10, low: 9, high: 12, source: x, date: 2026-11-01, quality: fitted}
        power_w: 70
    idle_w: 28
    parked_w: 12
    load_s: 60
    load_w: 36
    count_max: 8
    price_usd_per_h: 0.7
    embodied_kgco2e: {value: 160, low: 120, high: 320, source: "NVIDIA, 2025"}
limits: {power_w: 5000, usd_per_day: 100, kgco2e_per_day: 9}
signals: {carbon_g_per_kwh: {north: 56}, price_usd_per_kwh: 0.2}
objective: {energy: 1.0e-6, money: 1}
reserve: 0.1
n_minus: 1
scenarios: {capped: {limits: {power_w: 1000}}}
"""
    )
    found = load_request(path)
    problem = problem_of(found)
    assert [(g.name, g.site, g.owned) for g in problem.groups] == [("a", "north", 2)]
    assert problem.demands[0].slots == 1  # 90 minutes hold one whole hour
    assert problem.groups[0].g_per_j[0] * 3.6e6 == pytest.approx(56)
    assert {cap.name: cap.most for cap in problem.caps} == {
        "limits.power_w": 5000.0,
        "limits.usd_per_day": 100.0,
        "limits.kgco2e_per_day": 9000.0,
        "catalogue.a.count_max": 8.0,
    }


def test_bounds_are_taken_on_the_side_that_is_asked_for() -> None:
    rate = {"value": 10, "low": 8, "high": 12}
    point = {"model": "m", "images_per_s": rate, "power_w": {"value": 50, "low": 40, "high": 60}}
    asked = request(catalogue=[{"name": "a", "points": [point], "idle_w": 20}])
    found = [problem_of(asked, pick).groups[0].points[0] for pick in (best, worst)]
    assert [(p.images_per_s, p.power_w) for p in found] == [(12, 40), (8, 60)]


def test_provenance_names_every_stated_figure() -> None:
    assert {p.field: p.value for p in provenance(request())} == {
        "demand.0.images_per_day": 86400,
        "catalogue.a.points.0.images_per_s": 1.0,
        "catalogue.a.points.0.power_w": 100.0,
        "catalogue.a.idle_w": 20.0,
    }


def test_growth_is_planned_for() -> None:
    demand = DATA["demand"][0] | {"growth_per_month": 0.1}
    problem = problem_of(request(demand=[demand], horizon_months=2))
    assert sum(problem.demands[0].images) == pytest.approx(86_400 * 1.21)


def test_new_nodes_stand_in_capped_racks_too() -> None:
    limits = {"racks": {"r1": {"power_w": 500}, "r2": {"power_w": 500}}}
    problem = problem_of(request(limits=limits))
    assert [group.rack for group in problem.groups] == ["r1", "r2"]


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ({"demand": {"from": "store"}}, ("demand", "not read yet", "write a list")),
        ({"fleet": {"from": "cluster"}}, ("fleet", "not read yet")),
        ({"demand": []}, ("demand",)),
        ({"objective": "speed"}, ("objective", "'speed'")),
        ({"reserve": -0.1}, ("reserve", "-0.1")),
        ({"n_minus": 2}, ("n_minus", "2")),
        ({"limit": {}}, ("limit", "unknown field", "limits")),
        ({"objective": "money"}, ("a has no price_usd_per_h", "give it one")),
        ({"objective": "carbon"}, ("signals.carbon_g_per_kwh is missing",)),
        ({"limits": {"usd_per_day": 5}}, ("limits.usd_per_day needs",)),
        ({"signals": {"price_usd_per_kwh": [1, 2]}}, ("price_usd_per_kwh", "write 24")),
        ({"fleet": [{"name": "b", "count": 1}]}, ("'b' is not in the catalogue", "a")),
        ({"fleet": [{"name": "a", "count": 0}]}, ("fleet.0.count", "0")),
        ({"catalogue": DATA["catalogue"] * 2}, ("a is there twice",)),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_fix(
    blocks: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = refusal(**blocks)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"idle_w": 200}, ("idle_w (200)", "power_w (100)")),
        ({"idle_w": True}, ("catalogue.0.idle_w", "True", "number")),
        ({"idle_w": "20 W"}, ("catalogue.0.idle_w", "'20 W'", "number")),
        ({"idle_w": {"value": 20, "low": 30}}, ("catalogue.0.idle_w", "rise in that order")),
        ({"load_s": 7200}, ("load_s 7200", "at most 3600")),
        ({"points": [POINT | {"images_per_s": 0}]}, ("images_per_s", "more than 0")),
        ({"points": [POINT | {"model": "x"}]}, ("no class", "'m'", "add points")),
        ({"price_usd": 1, "price_usd_per_h": 1}, ("not both",)),
    ],
)
def test_entries_of_the_catalogue_are_checked(
    entry: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = refusal(catalogue=[DATA["catalogue"][0] | entry])
    assert all(word in message for word in words), message
