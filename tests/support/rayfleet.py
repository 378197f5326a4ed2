"""A real Ray cluster of several raylets on this machine, each with its own label, CPUs and
stand-in meter, as if they were different hardware."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.actors.discovery import HARDWARE_LABEL
from cluster.metering.replay_node import REPLAY_ENV
from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost
from cluster.storage.commit import read_commits
from cluster.storage.object_store import ObjectStore
from cluster.types import model_key
from un0 import DEFAULT_MODEL, load_model
from un0.machine import CPUS_ENV

# A raylet that is gone is known to be within a few seconds, not after a minute
SHORT_HEALTH = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True)
class Kind:
    """A hardware class. Watts of the stand-in meter: always, and on top for each busy CPU.

    images_per_s, power_w: what a fleet believes of one replica of it.
    """

    hardware: str
    cpus: int
    idle_w: float
    busy_w: float
    images_per_s: float
    power_w: float

    def profile(self) -> Profile:
        """The belief, as from enough work that nobody needs to probe it."""
        point = Performance(
            OperatingPoint(1024), self.images_per_s, self.power_w, "measured_counter", samples=20
        )
        standby = StandbyCost(idle_w=self.idle_w, load_s=4.0, load_j=4 * self.idle_w)
        return Profile(self.hardware, model_key(bundled_rev(), "fp32"), standby, (point,))

    def meter_file(self, directory: Path) -> Path:
        """What ``UN0_METER_REPLAY`` of such a node names: the bounds are 20 % about."""
        watts = {
            name: [0.8 * w, w, 1.2 * w]
            for name, w in (("idle_w", self.idle_w), ("busy_w", self.busy_w))
        }
        path = directory / f"{self.hardware}.json"
        path.write_text(json.dumps({"hw_name": self.hardware, **watts}))
        return path


THRIFTY = Kind("thrifty", cpus=1, idle_w=1, busy_w=3, images_per_s=500, power_w=4)
HUNGRY = Kind("hungry", cpus=2, idle_w=20, busy_w=40, images_per_s=800, power_w=100)


def bundled_rev() -> str:
    return str(load_model(DEFAULT_MODEL).rev)


class RayFleet:
    """The cluster. Its head has no CPUs, so that work runs on the nodes that are added."""

    def __init__(self, directory: Path, system_config: Mapping[str, int]) -> None:
        from ray.cluster_utils import Cluster

        self._directory = directory
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "_system_config": dict(system_config),
            },
        )
        self._added = 0
        self.address = str(self._cluster.address)

    def add(self, kind: Kind) -> Any:
        """A node of that kind; what ``remove`` takes."""
        self._added += 1
        env = {
            "UN0_HOST_NAME": f"{kind.hardware}-{self._added}",
            CPUS_ENV: str(kind.cpus),
            REPLAY_ENV: str(kind.meter_file(self._directory)),
        }
        return self._cluster.add_node(
            num_cpus=kind.cpus, labels={HARDWARE_LABEL: kind.hardware}, env_vars=env
        )

    def remove(self, node: Any) -> None:
        """Kill the node's raylet; what it started goes with it."""
        self._cluster.remove_node(node, allow_graceful=False)

    def processes(self, title: str, host: str = "") -> list[psutil.Process]:
        """Processes of the cluster, or one of its nodes, by the title that Ray gives them, such as
        ``Coordinator``."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                titled = " ".join(process.cmdline()).startswith(f"ray::{title}")
                if titled and host in ("", _host_of(process)):
                    found.append(process)
        return found

    def close(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def ray_fleet(
    directory: Path, *kinds: Kind, system_config: Mapping[str, int] = SHORT_HEALTH
) -> Iterator[RayFleet]:
    """A fleet of these nodes, in order."""
    fleet = RayFleet(directory, system_config)
    try:
        for kind in kinds:
            fleet.add(kind)
        yield fleet
    finally:
        fleet.close()


def images_by_host(store: ObjectStore, job_id: str) -> Counter[str]:
    """How many committed images of the job each host made."""
    made: Counter[str] = Counter()
    for record in read_commits(store, job_id).values():
        made[record.host_name] += record.rows
    return made


def _host_of(process: psutil.Process) -> str:
    """By its raylet: a title of one's own is written over one's environment."""
    raylet = process.parent()
    return "" if raylet is None else raylet.environ().get("UN0_HOST_NAME", "")
