"""Runs on a machine that gives its processes less than it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.hardware.identify import hardware_class
from cluster.storage.open import open_store
from cluster.storage.profiles import load_profiles
from tests.support.cli import un0_json


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_a_run_bound_to_one_cpu_has_one_replica_of_one_thread(tmp_path: Path) -> None:
    """And what it teaches the fleet is of one thread, not of the machine's usual replica."""
    whole = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(whole)})
    try:
        done = un0_json("generate", "--count", "20000", "--store", str(tmp_path))
    finally:
        os.sched_setaffinity(0, whole)
    assert done["state"] == "completed"
    profiles = load_profiles(open_store(str(tmp_path)))
    assert {profile.hardware for profile in profiles} == {hardware_class(None, 1)}
