"""Small capacity problems whose answers can be worked out by hand."""

from __future__ import annotations

from typing import Any

from cluster.optimise.capacity import Demand, Group, Point, Problem

HOURS = 24
DAY_S = 86_400.0
KWH = 3.6e6


def node(name: str = "a", rate: float = 1.0, power_w: float = 100.0, **other: Any) -> Group:
    """Nodes that run the model m; without idle power, load or price unless said otherwise."""
    usual: dict[str, Any] = {
        "site": "s",
        "rack": None,
        "points": (Point("m", rate, power_w),),
        "idle_w": 0.0,
        "parked_w": 0.0,
        "load_s": 0.0,
        "load_w": 0.0,
        "usd_per_j": (0.0,) * HOURS,
        "g_per_j": (0.0,) * HOURS,
    }
    return Group(name=name, **(usual | other))


def steady(images_per_s: float, wait: int = HOURS, model: str = "m") -> Demand:
    """Images that come evenly all day, and may wait so many hours."""
    return Demand(f"{model}.deadline", model, (images_per_s * 3600.0,) * HOURS, wait)


def burst(images: float, wait: int, hour: int = 0) -> Demand:
    """Images that all come in one hour."""
    return Demand(
        "m.deadline", "m", tuple(images if h == hour else 0.0 for h in range(HOURS)), wait
    )


def problem(*groups: Group, demand: Demand, **other: Any) -> Problem:
    return Problem(groups, (demand,), **({"gap": 1e-6} | other))
