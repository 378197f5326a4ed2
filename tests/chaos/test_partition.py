"""A node that is cut off goes on working, and comes back: not a pixel of the job is different."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.clock import utc_now
from cluster.hardware.identify import hardware_class
from cluster.storage.layout import JobLayout
from cluster.storage.open import open_store
from cluster.storage.profiles import save_profile
from tests.support.cli import running, un0_json
from tests.support.netns import net_fleet, why_not
from tests.support.rayfleet import Kind, images_by_host

pytestmark = [pytest.mark.ray, pytest.mark.slow]
LATE_S = 15.0
COUNT = 12000


def give_time(until: Callable[[], bool]) -> None:
    """Time in which the cut-off replica may do harm: until it has tried, or no longer than that."""
    end_s = time.monotonic() + LATE_S
    while not until() and time.monotonic() < end_s:
        time.sleep(0.1)


def test_a_job_completes_without_a_node_that_is_cut_off_and_its_late_work_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    store = open_store(str(tmp_path / "store"))
    slow = Kind(
        hardware_class(None, threads=1), cpus=1, idle_w=1, busy_w=3, images_per_s=150, power_w=4
    )
    save_profile(store, slow.profile(), utc_now())
    where = ("--store", store.config.uri)
    layout = JobLayout("job")

    def attempts() -> int:
        """Attempts that have written their images."""
        return sum(1 for _ in store.list(layout.attempts))

    with net_fleet(tmp_path, "left", "right") as fleet:
        # a deadline that one of them is believed not to meet: both work
        job = ("generate", "--job-id", "job", "--count", str(COUNT), "--shard-images", "256",
               "--address", fleet.address, "--deadline", "5s", "--json")  # fmt: skip
        with running(*job, *where, under=fleet.run("head")) as command:
            command.until(lambda: images_by_host(store, "job").keys() == {"left", "right"})
            fleet.cut_off("right")
            zombies = fleet.processes("right", "ray::Replica")
            assert zombies
            for zombie in zombies:
                zombie.suspend()  # in the middle of its shards
            assert command.wait() == 0, command.stdout + command.stderr
            assert json.loads(command.stdout)["state"] == "completed"
        whole = un0_json("verify", "job", *where)
        assert whole["ok"] is True
        made, late = images_by_host(store, "job"), attempts()
        assert sum(made.values()) == COUNT

        for zombie in zombies:
            zombie.resume()
        give_time(lambda: attempts() > late)  # it does not know that it was given up
        fleet.heal("right")
        give_time(lambda: not any(zombie.is_running() for zombie in zombies))
        again = un0_json("verify", "job", *where)
        assert again["ok"] is True
        assert again["pixel_sha256"] == whole["pixel_sha256"]
        assert images_by_host(store, "job") == made
