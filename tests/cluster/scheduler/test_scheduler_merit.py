"""The merit order: which hardware is used for what, and at which operating point."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from cluster.scheduler.plan import Plan, make_plan
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import DemandKey, Objective
from cluster.scheduler.supply import Demand, Offer
from tests.support.fleetworld import FleetWorld, profile

EXACT = Policy(round_down=0.0, start_share=0.0)  # no more and no less than the rate needs


def plan(
    rate: float,
    *profiles: Profile,
    nodes: int = 4,
    up: int = 4,
    objective: Objective = "energy",
    cap_w: float | None = None,
) -> Plan:
    demand = Demand("m", objective, rate, 10_000_000, patient=False)
    offers = [Offer(found, nodes, up) for found in profiles]
    cap_mw = None if cap_w is None else int(cap_w * 1000)
    return make_plan([demand], {demand.key: offers}, EXACT, cap_mw)


def granted(made: Plan, objective: Objective = "energy") -> dict[str, tuple[int, float]]:
    """Nodes and watts by hardware."""
    grants = made.grants[DemandKey("m", objective)].values()
    return {g.hardware: (g.nodes, g.performance.power_w) for g in grants}


CHEAP = profile("cheap", 100, 50, load_j=1)  # 0.5 J
COSTLY = profile("costly", 1000, 900, load_j=1)  # 0.9 J


def test_the_cheapest_hardware_goes_first_and_the_next_only_when_the_rate_needs_it() -> None:
    parked_costly = Offer(COSTLY, 4, 0)
    demand = Demand("m", "energy", 400, 10_000_000, patient=False)
    made = make_plan([demand], {demand.key: [parked_costly, Offer(CHEAP, 4, 0)]}, EXACT)
    assert granted(made) == {"cheap": (4, 50)}
    made = make_plan(
        [replace(demand, rate=401)], {demand.key: [parked_costly, Offer(CHEAP, 4, 0)]}, EXACT
    )
    assert granted(made) == {"cheap": (4, 50), "costly": (1, 900)}


def test_a_point_is_raised_where_its_marginal_joule_is_cheaper_than_the_next_hardware() -> None:
    thrifty = profile("a", 100, 50, faster=((150, 85),))  # 0.7 J for each image more
    assert granted(plan(600, thrifty, COSTLY)) == {"a": (4, 85)}
    greedy = profile("a", 100, 50, faster=((150, 110),))  # 1.2 J for each image more
    assert granted(plan(600, greedy, replace(COSTLY, hardware="b"), up=4))["a"] == (4, 50)


def test_a_start_up_does_not_hide_the_faster_points_of_the_same_hardware() -> None:
    """The cost of starting puts a parked device behind its own faster point."""
    only = profile("a", 100, 50, load_j=1e6, faster=((150, 76),))
    assert granted(plan(600, only, up=0)) == {"a": (4, 76)}


def test_nodes_that_join_a_raised_point_run_at_that_point() -> None:
    some_up = profile("a", 100, 50, load_j=2e6, faster=((150, 76),))
    assert granted(plan(450, some_up, nodes=4, up=2)) == {"a": (3, 76)}


def test_measured_wins_a_tie_with_an_estimate() -> None:
    guessed = profile("guessed", 100, 40, quality="estimated", bounds_j=(0.3, 0.6))
    assert granted(plan(100, guessed, CHEAP)) == {"cheap": (4, 50)}
    clearly = profile("guessed", 100, 40, quality="estimated", bounds_j=(0.3, 0.45))
    assert "guessed" in granted(plan(100, clearly, CHEAP))


def test_throughput_uses_everything_at_its_fastest() -> None:
    fast = profile("a", 100, 50, faster=((150, 110),))
    made = plan(math.inf, fast, COSTLY, up=0, objective="throughput")
    assert granted(made, "throughput") == {"a": (4, 110), "costly": (4, 900)}


@pytest.mark.parametrize(
    ("objective", "best"), [("energy", "frugal"), ("cost", "budget"), ("carbon", "hydro")]
)
def test_each_objective_has_its_own_order(objective: Objective, best: str) -> None:
    fleet = [
        profile("frugal", 100, 10, price_per_h=9, carbon_g_per_kwh=900),
        profile("budget", 100, 90, price_per_h=1, carbon_g_per_kwh=500),
        profile("hydro", 100, 50, price_per_h=5, carbon_g_per_kwh=20),
    ]
    assert list(granted(plan(100, *fleet, objective=objective), objective)) == [best]


def test_prices_and_carbon_of_zero_are_no_trouble() -> None:
    guessed = profile("a", 100, 40, quality="estimated", bounds_j=(0.3, 0.6))
    clean = profile("b", 100, 50, carbon_g_per_kwh=100)
    assert "a" in granted(plan(100, guessed, clean, objective="carbon"), "carbon")
    same_rate = profile("a", 100, 50, faster=((100, 60),))
    uncapped = replace(
        same_rate.curve[1], point=replace(same_rate.curve[1].point, power_cap_w=None)
    )
    both = replace(same_rate, curve=(same_rate.curve[0], uncapped))
    assert "a" in granted(plan(100, both, objective="cost"), "cost")


def test_what_round_down_leaves_out_is_no_shortfall() -> None:
    """Else owners would come before deadlines though there is hardware for all."""
    demand = Demand("m", "energy", 120, 10_000_000, patient=False)
    policy = Policy(round_down=0.3, start_share=0.0)
    made = make_plan([demand], {demand.key: [Offer(CHEAP, 4, 0)]}, policy)
    assert granted(made) == {"cheap": (1, 50)}
    assert not made.shortfall
    assert plan(401, CHEAP).shortfall == {DemandKey("m", "energy"): 1}


def test_every_demand_has_what_it_needs_before_one_gets_more() -> None:
    first = Demand("m", "energy", 100, 10_000_000, patient=False)
    second = Demand("n", "energy", 300, 10_000_000, patient=False)
    other = replace(CHEAP, model="n")
    offers = {first.key: [Offer(CHEAP, 4, 0)], second.key: [Offer(other, 4, 0)]}
    made = make_plan([first, second], offers, Policy(round_down=0.0))
    assert made.grants[second.key]["cheap"].nodes == 3


def test_no_more_replicas_than_shards_are_woken() -> None:
    world = FleetWorld([profile("cheap", 100, 50)])  # starts for free
    for _ in range(8):
        world.join("cheap")
    world.submit(shards=2)
    world.run()
    assert world.ended["j"].state == "completed"
    assert len(world.woken()) <= 2


def ahead(rate: float, steady: float, busy: float) -> Plan:
    """Two cheap nodes and two of 1.8 times the cost are 2,200 images/s; the last resort does 20."""
    cheap, costly, last = (
        profile("cheap", 100, 50),
        profile("costly", 1000, 900),
        profile("x", 10, 900),
    )
    demand = Demand("m", "energy", rate, 10**7, patient=False, steady=steady, busy=busy)
    offers = [Offer(found, 2, 2) for found in (cheap, costly, last)]
    return make_plan([demand], {demand.key: offers}, EXACT)


def test_work_goes_ahead_of_a_rush_that_only_the_dearest_hardware_could_serve() -> None:
    assert granted(ahead(50, 1200, 2210)) == {"cheap": (2, 50), "costly": (1, 900)}
    assert granted(ahead(50, 1200, 3000))["costly"] == (1, 900)  # more than there is
    # All but the last resort, if even the usual is more than there is
    assert granted(ahead(50, 2500, 3000)) == {"cheap": (2, 50), "costly": (2, 900)}


def test_a_rush_that_the_same_hardware_serves_can_come() -> None:
    assert granted(ahead(50, 1200, 2190)) == {"cheap": (2, 50)}
    assert granted(ahead(50, 150, 1500)) == {"cheap": (2, 50)}  # at less than twice the price


def test_only_the_cheapest_hardware_is_widened() -> None:
    free = Policy(round_down=0.0, start_share=math.inf)
    offers = [Offer(CHEAP, 4, 0), Offer(COSTLY, 4, 0)]
    demand = Demand("m", "energy", 50, 10**7, patient=False)
    assert granted(make_plan([demand], {demand.key: offers}, free)) == {"cheap": (4, 50)}
    made = make_plan([replace(demand, rate=500)], {demand.key: offers}, free)
    assert granted(made) == {"cheap": (4, 50), "costly": (1, 900)}
