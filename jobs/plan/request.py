"""What a capacity plan is asked for: one YAML or JSON file, checked strictly.

Every figure is a number, or a number with where it is from: ``{value, low, high, source, date,
quality}``. Units are in the names. Missing is missing: what an objective or a limit needs and the
file lacks is an error that names it.
"""

from __future__ import annotations

import math
from datetime import date as Date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from cluster.documents import parse, read_mapping
from cluster.types import Record
from un0.quantities import parse_count, parse_duration_s

HOURS = 24
DEFAULT_SITE = "site"
EXAMPLE = "demand: [{model: m, images_per_day: 1e6, deadline: 24h}]"
Quality = Literal["measured", "fitted", "projected"]


class Figure(Record):
    """A number, with its bounds and where it is from. date: of the measurement or the source."""

    value: NonNegativeFloat
    low: NonNegativeFloat | None = None
    high: NonNegativeFloat | None = None
    source: str | None = None
    date: Date | None = None
    quality: Quality | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        if isinstance(given, (bool, str)):
            raise ValueError("is not a number; write a number, or {value: ..., source: ...}")
        if isinstance(given, int | float):
            if not 0 <= given < math.inf:
                raise ValueError("must be a finite number that is not negative")
            return {"value": float(given)}
        return given

    @model_validator(mode="after")
    def _ordered(self) -> Figure:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high < math.inf:
            raise ValueError("low, value and high must be finite and rise in that order")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Low and high; the value where there are none."""
        return (
            self.value if self.low is None else self.low,
            self.value if self.high is None else self.high,
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"type": "number", "minimum": 0}, schema]}


def _positive(figure: Figure) -> Figure:
    if figure.bounds[0] <= 0:
        raise ValueError("must be more than 0, its low bound too")
    return figure


def _count(given: Any) -> Any:
    if isinstance(given, str):
        return parse_count(given)
    if isinstance(given, dict) and isinstance(given.get("value"), str):
        return given | {"value": parse_count(given["value"])}
    return given


def _later(what: str) -> Any:
    def check(given: Any) -> Any:
        if isinstance(given, dict) and "from" in given:
            raise ValueError(
                f"{what} from a store or a cluster is not read yet; write a list of it here"
            )
        return given

    return BeforeValidator(check)


class Demand(Record):
    """Images of a model a day. by_hour: 24 shares of them, in any unit; else evenly. deadline: s
    from when an image is asked for. growth_per_month: a share; see ``horizon_months``."""

    model: str = Field(min_length=1)
    images_per_day: Annotated[Figure, BeforeValidator(_count)]
    deadline: PositiveFloat = Field(description="a duration, such as 24h or 90m; else seconds")
    by_hour: tuple[NonNegativeFloat, ...] | None = None
    growth_per_month: float = Field(default=0.0, gt=-1, le=10)

    @field_validator("deadline", mode="before")
    @classmethod
    def _duration(cls, given: Any) -> float:
        return parse_duration_s(given)

    @field_validator("by_hour")
    @classmethod
    def _of_a_day(cls, given: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if given is not None and (len(given) != HOURS or not 0 < sum(given) < math.inf):
            raise ValueError("write 24 numbers, one for each hour from 0, not all of them 0")
        return given


class RatePoint(Record):
    """A way to run a model on a node: power_w is the whole node's while it works."""

    model: str = Field(min_length=1)
    images_per_s: Figure
    power_w: Figure

    _more_than_nothing = field_validator("images_per_s", "power_w")(_positive)


class Place(Record):
    """Where nodes may stand."""

    site: str = Field(default=DEFAULT_SITE, min_length=1)
    rack: str | None = None


class Entry(Record):
    """A class of node that is there or could be.

    idle_w: with a model, without work. parked_w: without a model. load_s, load_w: of loading one.
    count_max: most nodes of it at the end, owned ones included; null: any number. price_usd_per_h:
    of a node that is rented, for every hour that it is kept; of one that is bought, price_usd over
    lifetime_years. embodied_kgco2e: of making a node, over the same time. places: where new ones
    may stand; null: everywhere. hypothetical: no such device can be had.
    """

    name: str = Field(min_length=1)
    points: tuple[RatePoint, ...] = Field(min_length=1)
    idle_w: Figure
    parked_w: Figure = Figure(value=0.0)
    load_s: Figure = Figure(value=0.0)
    load_w: Figure | None = None
    count_max: int | None = Field(default=None, ge=0, le=1_000_000)
    price_usd_per_h: Figure | None = None
    price_usd: Figure | None = None
    embodied_kgco2e: Figure | None = None
    lifetime_years: PositiveFloat = 5.0
    availability: float = Field(default=1.0, gt=0, le=1)
    losses_per_day: NonNegativeFloat = 0.0
    places: tuple[Place, ...] | None = Field(default=None, min_length=1)
    hypothetical: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Entry:
        least_w = min(point.power_w.value for point in self.points)
        if not self.parked_w.value <= self.idle_w.value <= least_w:
            raise ValueError(
                f"watts must rise from parked_w ({self.parked_w.value:g}) over idle_w "
                f"({self.idle_w.value:g}) to every point's power_w ({least_w:g}); correct them"
            )
        if self.load_s.bounds[1] > 3600:
            raise ValueError(
                f"load_s {self.load_s.bounds[1]:g} is over an hour; write at most 3600"
            )
        if self.load_w is not None and self.load_w.value < self.parked_w.value:
            raise ValueError("load_w may not be below parked_w; correct one of them")
        if self.price_usd is not None and self.price_usd_per_h is not None:
            raise ValueError("give price_usd_per_h (rented) or price_usd (bought), not both")
        return self


class Owned(Record):
    """Nodes that are there: ``count`` of the catalogue's class ``name``. rented: they cost its
    price_usd_per_h, and are not paid for yet. may_retire: whether a plan may give them up."""

    name: str = Field(min_length=1)
    count: PositiveInt
    site: str = Field(default=DEFAULT_SITE, min_length=1)
    rack: str | None = None
    rented: bool = False
    may_retire: bool = True


class SiteLimit(Record):
    power_w: PositiveFloat


class RackLimit(SiteLimit):
    """site: where the rack is; null where there is one site only."""

    site: str | None = None


class Limits(Record):
    """power_w: of all nodes that may run at once. count: nodes at the end. Null: no limit."""

    power_w: PositiveFloat | None = None
    usd_per_day: NonNegativeFloat | None = None
    kgco2e_per_day: NonNegativeFloat | None = None
    count: int | None = Field(default=None, ge=0)
    sites: dict[str, SiteLimit] = Field(default_factory=dict)
    racks: dict[str, RackLimit] = Field(default_factory=dict)


Hourly = float | tuple[float, ...]


class Signals(Record):
    """Of electricity: a number, 24 numbers by hour, or either by site."""

    price_usd_per_kwh: Hourly | dict[str, Hourly] | None = None
    carbon_g_per_kwh: Hourly | dict[str, Hourly] | None = None

    @field_validator("*")
    @classmethod
    def _of_a_day(cls, given: Any) -> Any:
        for series in given.values() if isinstance(given, dict) else [given]:
            if isinstance(series, tuple) and len(series) != HOURS:
                raise ValueError(f"has {len(series)} numbers; write 24, one for each hour from 0")
            values = series if isinstance(series, tuple) else (series or 0.0,)
            if not all(math.isfinite(value) for value in values):
                raise ValueError("has a number that is not finite; correct it")
        return given

    @property
    def sites(self) -> set[str]:
        both = (self.price_usd_per_kwh, self.carbon_g_per_kwh)
        return {site for signal in both if isinstance(signal, dict) for site in signal}


class ObjectiveWeights(Record):
    """Weights of J, USD and gCO2e, which are added up."""

    energy: NonNegativeFloat = 0.0
    money: NonNegativeFloat = 0.0
    carbon: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _some(self) -> ObjectiveWeights:
        if not self.energy + self.money + self.carbon:
            raise ValueError("weighs nothing; give energy, money or carbon a weight above 0")
        return self


class Solver(Record):
    """gap: between the plan and the bound, at which the solver stops, a share."""

    gap: float = Field(default=1e-3, ge=0, lt=1)
    time_limit_s: PositiveFloat = 60.0


class PlanRequest(Record):
    """The whole file. horizon_months: demand is planned for after so much growth. scenarios: named
    changes to the blocks above, for ``un0 plan what-if``."""

    demand: Annotated[tuple[Demand, ...], _later("demand")] = Field(min_length=1)
    fleet: Annotated[tuple[Owned, ...], _later("fleet")] = ()
    catalogue: tuple[Entry, ...] = Field(min_length=1)
    limits: Limits = Limits()
    signals: Signals = Signals()
    objective: Literal["energy", "money", "carbon"] | ObjectiveWeights = "energy"
    reserve: float = Field(default=0.0, ge=0, le=10)
    n_minus: Literal[0, 1] = 0
    horizon_months: float = Field(default=0.0, ge=0, le=600)
    solver: Solver = Solver()
    scenarios: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def weights(self) -> ObjectiveWeights:
        if isinstance(self.objective, str):
            return ObjectiveWeights.model_validate({self.objective: 1.0})
        return self.objective

    @property
    def sites(self) -> list[str]:
        """Every site that the file names, sorted."""
        named = {owned.site for owned in self.fleet} | self.signals.sites | set(self.limits.sites)
        named |= {rack.site for rack in self.limits.racks.values() if rack.site}
        for entry in self.catalogue:
            named |= {place.site for place in entry.places or ()}
        return sorted(named or {DEFAULT_SITE})

    @property
    def racks(self) -> dict[str, str]:
        """The site of every rack that the file names."""
        only = self.sites[0] if len(self.sites) == 1 else None
        found = {name: rack.site or only for name, rack in self.limits.racks.items()}
        for owned in self.fleet:
            if owned.rack:
                found[owned.rack] = owned.site
        for entry in self.catalogue:
            found |= {place.rack: place.site for place in entry.places or () if place.rack}
        return {name: site or DEFAULT_SITE for name, site in found.items()}

    @model_validator(mode="after")
    def _consistent(self) -> PlanRequest:
        names = [entry.name for entry in self.catalogue]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"catalogue: {', '.join(twice)} is there twice; rename one")
        models = {point.model for entry in self.catalogue for point in entry.points}
        for demand in self.demand:
            if demand.model not in models:
                raise ValueError(
                    f"demand: no class of the catalogue has points for model {demand.model!r}; "
                    f"add points for it, or write one of {', '.join(sorted(models))}"
                )
        for owned in self.fleet:
            if owned.name not in names:
                raise ValueError(
                    f"fleet: {owned.name!r} is not in the catalogue; add it there, or write one "
                    f"of {', '.join(sorted(names))}"
                )
        for name, rack in self.limits.racks.items():
            if rack.site is None and len(self.sites) > 1 and name not in self._placed():
                raise ValueError(f"limits.racks.{name}.site is missing; say at which site it is")
        self._has_what_it_needs()
        return self

    def _placed(self) -> set[str]:
        places = [place.rack for entry in self.catalogue for place in entry.places or ()]
        return {rack for rack in [*places, *(owned.rack for owned in self.fleet)] if rack}

    def _has_what_it_needs(self) -> None:
        weights, limits = self.weights, self.limits
        if weights.money or limits.usd_per_day is not None:
            why = "the objective" if weights.money else "limits.usd_per_day"
            for entry in self.catalogue:
                if entry.price_usd_per_h is None and entry.price_usd is None:
                    raise ValueError(
                        f"catalogue: {entry.name} has no price_usd_per_h, which {why} needs; "
                        "give it one (0 if it costs nothing)"
                    )
        if weights.carbon or limits.kgco2e_per_day is not None:
            why = "the objective" if weights.carbon else "limits.kgco2e_per_day"
            if self.signals.carbon_g_per_kwh is None:
                raise ValueError(f"signals.carbon_g_per_kwh is missing, which {why} needs; give it")
        for name in ("price_usd_per_kwh", "carbon_g_per_kwh"):
            signal = getattr(self.signals, name)
            if isinstance(signal, dict) and (lacking := set(self.sites) - signal.keys()):
                raise ValueError(
                    f"signals.{name} lacks site {', '.join(sorted(lacking))}; give it there too"
                )


def load_request(path: Path) -> PlanRequest:
    """The request in a YAML or JSON file. Raises UserError."""
    return parse(PlanRequest, read_mapping(path, "plan", EXAMPLE), f"plan {path}")
