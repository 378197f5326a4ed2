"""What a fleet knows: its hardware, the work it is used to, and why it decided what it did. All of
it is kept in the store for the next coordinator; that it cannot be kept never stops a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from cluster.actors.options import FleetOptions, ModelWork
from cluster.actors.replica import Load
from cluster.actors.slot import SlotSpec
from cluster.clock import monotonic_s, utc_now
from cluster.errors import ClusterError
from cluster.scheduler.forecast import Forecast, Habits
from cluster.scheduler.priors import prior_profile
from cluster.scheduler.profiles import ProfileBook
from cluster.storage.arrivals import load_habits, save_habits
from cluster.storage.decisions import DecisionLog
from cluster.storage.object_store import ObjectStore
from cluster.storage.profiles import load_profiles, save_profile
from cluster.types import Workload, model_key

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Knowledge:
    """book: beliefs of hardware. forecast: what work is to come; a run with replicas of its own has
    but its one job to expect. models: by key, what is loaded for it and the work in its images."""

    def __init__(self, store: ObjectStore, options: FleetOptions, run_id: str) -> None:
        self._store, self._cluster_id = store, options.cluster_id
        self._shared = not options.own
        self.book = ProfileBook(_tried("its profiles", lambda: load_profiles(store)) or [])
        epoch_s = utc_now().timestamp() - monotonic_s()
        habits = None
        if self._shared:
            habits = _tried("its usual work", lambda: load_habits(store, self._cluster_id))
        self.forecast = Forecast(epoch_s, habits)
        self._kept = self.forecast.habits
        self.decisions = DecisionLog(store, run_id)
        self.models: dict[str, tuple[Load, ModelWork]] = {}

    def learn_model(self, workload: Workload, work: ModelWork, specs: Iterable[SlotSpec]) -> None:
        """A job brings its model: have a belief of it on the hardware of these slots."""
        key = model_key(workload.model_rev, workload.precision)
        load = Load(workload.model, workload.model_rev, workload.precision)
        self.models[key] = load, work
        for spec in specs:
            self._believe(spec, key)

    def believe_all(self, spec: SlotSpec) -> None:
        """Have a belief of every known model on the slot's hardware."""
        for key in self.models:
            self._believe(spec, key)

    def _believe(self, spec: SlotSpec, key: str) -> None:
        """Have a belief of the hardware: the fleet's own, or one from data sheets."""
        if self.book.profile(spec.hardware, key) is not None:
            return
        load, work = self.models[key]
        tile = work.cpu_tile if spec.options.device == "cpu" else work.gpu_tile
        self.book.put(
            prior_profile(
                spec.hardware,
                key,
                work.gflop_per_image,
                batch_size=tile,
                precision=load.precision,
            )
        )

    def write_down(self) -> None:
        """Keep what is new. Never raises; blocks on the store."""
        self.decisions.flush()
        for profile in self.book.changed():
            _tried("a profile", partial(save_profile, self._store, profile, utc_now()))
        habits = self.forecast.habits
        if self._shared and habits is not None and habits != self._kept:
            self._kept = _tried("its usual work", lambda: self._save(habits)) or self._kept

    def _save(self, habits: Habits) -> Habits:
        save_habits(self._store, self._cluster_id, habits)
        return habits


def _tried(what: str, work: Callable[[], T]) -> T | None:
    """Its result; None, and a warning, if the store does not have it."""
    try:
        return work()
    except ClusterError as error:
        logger.warning("of the fleet, %s cannot be read or kept: %s", what, error)
        return None
