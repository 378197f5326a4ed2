"""Performance by (hardware, model, encoding, operating point), and how work updates it. Pure.

A value starts as a prior: a measurement of another fleet, or an estimate from data sheets. What is
known of a device alone is the prior of every encoding. What work shows is of its own encoding only,
since encoding and storage may be slower than the device. Each window of work moves a value, less
and less the more work is behind it, down to a share that lets it follow slow change. Deviations to
one side that add up (CUSUM) are a drift: then the value starts anew from the current window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cluster.energy import MIN_WINDOW_S
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost, Usage, joules
from cluster.stage_times import StageTimes
from cluster.types import DEFAULT_ENCODING, QUALITIES, EnergyQuality

PRIOR_WEIGHT = 1.0  # of a prior, in windows
MOST_WEIGHT = 50.0  # of what was learned: a belief follows change within about so many windows
USUAL_SURPRISE = 0.05  # windows of one and the same hardware differ by this much anyway
MOST_SURPRISE = 3.0  # that one window is worth: a single one may be a hiccup
DRIFT = 8.0  # surprises that add up to this are no accident


@dataclass(frozen=True)
class Pipeline:
    """The whole path from a device into a store, in one encoding at one point. times: of its
    stages, as they were last measured apart; without a window where they never were."""

    encoding: str
    performance: Performance
    times: StageTimes = field(default_factory=StageTimes)


@dataclass(frozen=True)
class Profile:
    """One hardware class with one model. curve: the performance of the device, one entry per point.
    pipelines: of the whole path, where it is known."""

    hardware: str
    model: str
    standby: StandbyCost
    curve: tuple[Performance, ...]
    pipelines: tuple[Pipeline, ...] = ()

    def of(self, encoding: str) -> Profile:
        """The same with what is known of work in this encoding as its curve: of the whole path, or
        else of the device. Points that only the device was measured at go where the path went."""
        known = {
            p.performance.point: p.performance for p in self.pipelines if p.encoding == encoding
        }
        both = [(known[p.point], p) for p in self.curve if p.point in known]
        if not both:
            return self
        path, device = both[0]
        faster = path.images_per_s / device.images_per_s
        hotter = path.power_w / device.power_w
        curve = (known.get(p.point) or _moved(p, faster, hotter) for p in self.curve)
        return replace(self, curve=tuple(curve))

    def knowing(self, encoding: str, performance: Performance) -> Profile:
        """The same with this performance of the whole path, in place of an earlier one."""
        point, times = performance.point, StageTimes()
        others = []
        for p in self.pipelines:
            if (p.encoding, p.performance.point) == (encoding, point):
                times = p.times
            else:
                others.append(p)
        new = Pipeline(encoding, performance, times)
        return replace(self, pipelines=(*others, new))


@dataclass
class _Window:
    """Work at one point that is not learned from yet."""

    images: int = 0
    duration_s: float = 0.0
    energy_j: float | None = 0.0
    quality: EnergyQuality = "measured_counter"  # the worst of it

    def add(self, usage: Usage) -> None:
        self.images += usage.images
        self.duration_s += usage.duration_s
        known = None if usage.quality == "missing" else joules(usage)
        self.energy_j = None if known is None or self.energy_j is None else self.energy_j + known
        self.quality = max(self.quality, usage.quality, key=QUALITIES.index)


@dataclass
class _Belief:
    """One point. rate and power are posterior means of logarithms; weights are in windows."""

    performance: Performance
    rate_weight: float = PRIOR_WEIGHT
    power_weight: float = PRIOR_WEIGHT
    surprise: float = 0.0
    window: _Window = field(default_factory=_Window)


class ProfileBook:
    """The profiles that the scheduler works with. ``observe`` updates them from finished work."""

    def __init__(self, profiles: Iterable[Profile] = ()) -> None:
        self._profiles: dict[tuple[str, str], Profile] = {}
        self._views: dict[tuple[str, str, str], Profile] = {}  # by encoding, made when asked for
        self._beliefs: dict[tuple[str, str, str, OperatingPoint], _Belief] = {}  # likewise
        self.drifts = 0
        self._changed: dict[tuple[str, str], None] = {}
        for profile in profiles:
            self.put(profile)

    def put(self, profile: Profile) -> None:
        """Set the profile of its hardware and model, replacing an earlier one."""
        own = profile.hardware, profile.model
        self._profiles[own] = profile
        self._views = {key: view for key, view in self._views.items() if key[:2] != own}
        self._beliefs = {key: one for key, one in self._beliefs.items() if key[:2] != own}

    def profile(
        self, hardware: str, model: str, encoding: str = DEFAULT_ENCODING
    ) -> Profile | None:
        """The profile of this hardware with this model, its curve that of work in this encoding;
        None if there is none."""
        key = hardware, model, encoding
        view = self._views.get(key)
        if view is None and (known := self._profiles.get((hardware, model))) is not None:
            view = self._views[key] = known.of(encoding)
            for performance in view.curve:
                weight = max(PRIOR_WEIGHT, min(float(performance.samples), MOST_WEIGHT))
                self._beliefs[*key, performance.point] = _Belief(performance, weight, weight)
        return view

    def observe(
        self,
        hardware: str,
        model: str,
        point: OperatingPoint,
        usage: Usage,
        encoding: str = DEFAULT_ENCODING,
    ) -> None:
        """Learn from finished work in this encoding. Ignores points that the profile does not
        have."""
        view = self.profile(hardware, model, encoding)
        belief = self._beliefs.get((hardware, model, encoding, point))
        if view is None or belief is None or usage.images <= 0 or usage.duration_s <= 0:
            return
        belief.window.add(usage)
        if belief.window.duration_s < MIN_WINDOW_S:
            return
        before = belief.performance
        self.drifts += _learn(belief)
        belief.window = _Window()
        faster = belief.performance.images_per_s / before.images_per_s
        hotter = belief.performance.power_w / before.power_w
        curve = tuple(
            belief.performance if p.point == point else _like(p, faster, hotter) for p in view.curve
        )
        for performance in curve:
            self._beliefs[hardware, model, encoding, performance.point].performance = performance
        self._views[hardware, model, encoding] = replace(view, curve=curve)
        known = self._profiles[hardware, model].knowing(encoding, belief.performance)
        self._profiles[hardware, model] = known
        self._changed[hardware, model] = None

    def changed(self) -> list[Profile]:
        """The profiles that work has changed since the last call."""
        changed, self._changed = self._changed, {}
        return [self._profiles[key] for key in changed]

    def observe_load(self, hardware: str, model: str, usage: Usage) -> None:
        """Learn time and energy of loading: the mean of the old value and this one."""
        profile = self._profiles.get((hardware, model))
        if profile is None or usage.duration_s <= 0:
            return
        standby = profile.standby
        load_j = standby.load_j
        seen_j = joules(usage)
        if seen_j is not None:
            load_j = (load_j + seen_j) / 2
        standby = replace(standby, load_s=(standby.load_s + usage.duration_s) / 2, load_j=load_j)
        self._profiles[hardware, model] = replace(profile, standby=standby)
        for key, view in self._views.items():
            if key[:2] == (hardware, model):
                self._views[key] = replace(view, standby=standby)


def _learn(belief: _Belief) -> bool:
    """Take a full window in; whether it showed a drift."""
    window, old = belief.window, belief.performance
    rate = window.images / window.duration_s
    drifts = bool(old.samples) and _drifts(belief, rate)
    if drifts:
        belief.surprise, belief.rate_weight, belief.power_weight = 0.0, 0.0, 0.0
    new_rate = _mean(old.images_per_s, belief.rate_weight, rate)
    belief.rate_weight = min(belief.rate_weight + 1, MOST_WEIGHT)
    power_w, quality = old.power_w, old.quality
    if _informs(window, old.quality) and window.energy_j:
        power_w = _mean(old.power_w, belief.power_weight, window.energy_j / window.duration_s)
        belief.power_weight = min(belief.power_weight + 1, MOST_WEIGHT)
        quality = window.quality
    low_j, high_j = (old.low_j, old.high_j) if quality == "estimated" else (None, None)
    ratio = power_w / new_rate / old.energy_per_image_j
    belief.performance = Performance(
        old.point,
        new_rate,
        power_w,
        quality,
        None if low_j is None else low_j * ratio,
        None if high_j is None else high_j * ratio,
        old.samples + 1,
    )
    return drifts


def _drifts(belief: _Belief, rate: float) -> bool:
    """Whether the belief about the rate has been off on one side for too long."""
    off = math.log(rate / belief.performance.images_per_s) / USUAL_SURPRISE
    if abs(off) < 1:
        belief.surprise /= 2
    else:
        belief.surprise += min(max(off, -MOST_SURPRISE), MOST_SURPRISE)
    return abs(belief.surprise) > DRIFT


def _informs(window: _Window, believed: EnergyQuality) -> bool:
    """Whether its energy may update the profile: an estimate never changes a measured value."""
    return window.quality in QUALITIES[:2] or window.quality == believed == "estimated"


def _mean(old: float, weight: float, seen: float) -> float:
    """The geometric mean of a belief of so many windows and one more window."""
    return math.exp((weight * math.log(old) + math.log(seen)) / (weight + 1))


def _like(performance: Performance, faster: float, hotter: float) -> Performance:
    """A point that nothing was measured at goes where its measured neighbour went."""
    return performance if performance.samples else _moved(performance, faster, hotter)


def _moved(performance: Performance, faster: float, hotter: float) -> Performance:
    """A guess at so many times the speed and the power."""
    ratio = hotter / faster
    return replace(
        performance,
        images_per_s=performance.images_per_s * faster,
        power_w=performance.power_w * hotter,
        low_j=None if performance.low_j is None else performance.low_j * ratio,
        high_j=None if performance.high_j is None else performance.high_j * ratio,
        samples=0,
    )
