"""The files in infra/ are what the tools that read them accept."""

from __future__ import annotations

from pathlib import Path

import yaml  # as Ray reads it, of which it is a part
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]


def test_ray_accepts_the_cluster_file() -> None:
    config = yaml.safe_load((ROOT / "infra/ray-cluster.yaml").read_text())
    validate_config(prepare_config(config))


def test_the_container_holds_every_package_and_what_its_build_reads() -> None:
    lines = (ROOT / "infra/Containerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    assert copied >= {"un0", "cluster", "jobs", "pyproject.toml", "README.md", "LICENSE"}


def test_the_constraints_cover_every_direct_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "infra/constraints.txt").read_text().split()
    }
    extras = project["optional-dependencies"]
    wanted = {
        requirement.split(">")[0].split("[")[0].strip().lower().replace("_", "-")
        for requirement in project["dependencies"] + extras["test"] + extras["serve"]
    }
    # torch is pinned by the Makefile, and may be your own; its CUDA builds pin their triton
    assert wanted - {"torch", "triton", project["name"]} <= pinned
