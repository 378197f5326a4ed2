"""From the file that a user writes to the problem that is solved, and the provenance of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cluster.optimise.capacity import Cap, Demand, Group, Point, Problem, Weights
from jobs.plan.answer import Provenance
from jobs.plan.request import HOURS, Entry, Figure, Hourly, Owned, PlanRequest

J_PER_KWH = 3.6e6
DAYS_PER_YEAR = 365.25
SLOT_S = 3600.0
#: The value to take of a figure. Arguments: its field's name, and whether more of it is worse.
Pick = Callable[[str, Figure, bool], float]


def stated(_field: str, figure: Figure, _more_is_worse: bool) -> float:
    """The figure's own value."""
    return figure.value


def best(_field: str, figure: Figure, more_is_worse: bool) -> float:
    """The bound at which the plan costs least."""
    return figure.bounds[0 if more_is_worse else 1]


def worst(_field: str, figure: Figure, more_is_worse: bool) -> float:
    """The bound at which the plan costs most."""
    return figure.bounds[1 if more_is_worse else 0]


def problem_of(request: PlanRequest, pick: Pick = stated) -> Problem:
    """The problem that the request states, its figures taken by ``pick``."""
    groups = tuple(_groups(request, pick))
    weights = request.weights
    return Problem(
        groups=groups,
        demands=tuple(_demand(request, i, pick) for i in range(len(request.demand))),
        caps=tuple(_caps(request, groups)),
        weights=Weights(weights.energy, weights.money, weights.carbon),
        reserve=request.reserve,
        n_minus=request.n_minus,
        slot_s=SLOT_S,
        gap=request.solver.gap,
        time_limit_s=request.solver.time_limit_s,
    )


def figures(request: PlanRequest) -> Iterator[tuple[str, Figure]]:
    """Every figure of the file by the name of its field."""
    for i, demand in enumerate(request.demand):
        yield f"demand.{i}.images_per_day", demand.images_per_day
    for entry in request.catalogue:
        where = f"catalogue.{entry.name}"
        for i, point in enumerate(entry.points):
            yield f"{where}.points.{i}.images_per_s", point.images_per_s
            yield f"{where}.points.{i}.power_w", point.power_w
        for name in ("idle_w", "parked_w", "load_s", "load_w", *PRICES):
            figure = getattr(entry, name)
            if name in entry.model_fields_set and figure is not None:
                yield f"{where}.{name}", figure


PRICES = ("price_usd_per_h", "price_usd", "embodied_kgco2e")


def provenance(request: PlanRequest) -> tuple[Provenance, ...]:
    return tuple(
        Provenance(field=field, **figure.model_dump()) for field, figure in figures(request)
    )


def _demand(request: PlanRequest, number: int, pick: Pick) -> Demand:
    demand = request.demand[number]
    images = pick(f"demand.{number}.images_per_day", demand.images_per_day, True)
    images *= (1.0 + demand.growth_per_month) ** request.horizon_months
    shares = demand.by_hour or (1.0,) * HOURS
    return Demand(
        name=f"demand.{number}.deadline",
        model=demand.model,
        images=tuple(images * share / sum(shares) for share in shares),
        slots=int(demand.deadline / SLOT_S + 1e-9),
    )


def _groups(request: PlanRequest, pick: Pick) -> Iterator[Group]:
    """Owned nodes by place and kind, and where new ones may come; sorted by name and place."""
    for entry in sorted(request.catalogue, key=lambda entry: entry.name):
        owned: dict[tuple[str, str, bool, bool], int] = {}
        for nodes in request.fleet:
            if nodes.name == entry.name:
                key = _place_of(nodes)
                owned[key] = owned.get(key, 0) + nodes.count
        places = _places(request, entry)
        for key in sorted(owned):
            site, rack, rented, may_retire = key
            grows = (site, rack) in places
            places.discard((site, rack))
            yield _group(request, entry, pick, site, rack, owned[key], rented, may_retire, grows)
        for site, rack in sorted(places):
            yield _group(request, entry, pick, site, rack, 0, False, True, True)


def _place_of(nodes: Owned) -> tuple[str, str, bool, bool]:
    return nodes.site, nodes.rack or "", nodes.rented, nodes.may_retire


def _places(request: PlanRequest, entry: Entry) -> set[tuple[str, str]]:
    """Where new nodes may stand: the entry's places, else in every rack, or site without racks."""
    if entry.places is not None:
        return {(place.site, place.rack or "") for place in entry.places}
    racks = {(site, rack) for rack, site in request.racks.items()}
    bare = set(request.sites) - {site for site, _ in racks}
    return racks | {(site, "") for site in bare}


def _group(
    request: PlanRequest,
    entry: Entry,
    pick: Pick,
    site: str,
    rack: str,
    owned: int,
    rented: bool,
    may_retire: bool,
    may_grow: bool,
) -> Group:
    def take(name: str, more_is_worse: bool = True) -> float:
        figure = getattr(entry, name)
        return (
            0.0 if figure is None else pick(f"catalogue.{entry.name}.{name}", figure, more_is_worse)
        )

    points = tuple(_points(entry, pick))
    parked_w = take("parked_w")
    idle_w = max(parked_w, min(take("idle_w"), *(point.power_w for point in points)))
    rent_usd = 24.0 * take("price_usd_per_h")
    days = entry.lifetime_years * DAYS_PER_YEAR
    return Group(
        name=entry.name,
        site=site,
        rack=rack or None,
        points=points,
        idle_w=idle_w,
        parked_w=parked_w,
        load_s=take("load_s"),
        load_w=max(parked_w, idle_w if entry.load_w is None else take("load_w")),
        usd_per_j=_per_j(request.signals.price_usd_per_kwh, site),
        g_per_j=_per_j(request.signals.carbon_g_per_kwh, site),
        owned=owned,
        may_retire=may_retire,
        may_grow=may_grow,
        availability=entry.availability,
        keep_owned_usd=rent_usd if rented else 0.0,
        keep_new_usd=rent_usd + take("price_usd") / days,
        embodied_g=1e3 * take("embodied_kgco2e") / days,
    )


def _points(entry: Entry, pick: Pick) -> Iterator[Point]:
    for i, point in enumerate(entry.points):
        where = f"catalogue.{entry.name}.points.{i}"
        yield Point(
            point.model,
            pick(f"{where}.images_per_s", point.images_per_s, False),
            pick(f"{where}.power_w", point.power_w, True),
        )


def _per_j(signal: Hourly | dict[str, Hourly] | None, site: str) -> tuple[float, ...]:
    """By hour, per J; 0 where there is none."""
    if signal is None:
        return (0.0,) * HOURS
    here = signal[site] if isinstance(signal, dict) else signal
    series = here if isinstance(here, tuple) else (here,) * HOURS
    return tuple(value / J_PER_KWH for value in series)


def _caps(request: PlanRequest, groups: tuple[Group, ...]) -> Iterator[Cap]:
    limits, everything = request.limits, tuple(range(len(groups)))

    def of(name: str, value: str) -> tuple[int, ...]:
        return tuple(i for i in everything if getattr(groups[i], name) == value)

    if limits.power_w is not None:
        yield Cap("limits.power_w", "power_w", limits.power_w, everything)
    for site, limit in limits.sites.items():
        yield Cap(f"limits.sites.{site}.power_w", "power_w", limit.power_w, of("site", site))
    for rack, limit in limits.racks.items():
        yield Cap(f"limits.racks.{rack}.power_w", "power_w", limit.power_w, of("rack", rack))
    if limits.usd_per_day is not None:
        yield Cap("limits.usd_per_day", "usd_per_day", limits.usd_per_day, everything)
    if limits.kgco2e_per_day is not None:
        yield Cap("limits.kgco2e_per_day", "g_per_day", 1e3 * limits.kgco2e_per_day, everything)
    if limits.count is not None:
        yield Cap("limits.count", "count", limits.count, everything)
    for entry in request.catalogue:
        if entry.count_max is not None:
            members = of("name", entry.name)
            most = max(entry.count_max, sum(groups[i].owned for i in members))
            yield Cap(f"catalogue.{entry.name}.count_max", "count", most, members)
