"""Shared fixtures: real object stores, started when first used, and a clean AWS environment."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from cluster.storage.dev_s3 import DevS3
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from tests.support.effort import PROFILE
from tests.support.juicefs import JuiceFSGateway

settings.load_profile(PROFILE)
ROOT = Path(__file__).parents[1]

# Whatever credentials, profiles and proxies this machine has are none of the tests' business.
for _name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[_name]
os.environ |= {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, by children as well


def pytest_configure(config: pytest.Config) -> None:
    """Triton's kernels run in its interpreter, on CPU tensors, also where there is a GPU, unless
    the GPU's own tests are asked for (``-m gpu``). Triton asks when kernels are imported."""
    if config.getoption("markexpr") != "gpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")


class RayTogether(LoadFileScheduling):  # type: ignore[misc]
    """Each file is run by one worker, since its tests share fixtures; all files that start Ray by
    the same one: their tests look at processes and load the machine. (pytest-xdist's groups by mark
    do nothing under pytest 9.2, whose node ids it cannot change.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "ray" if _starts_ray(file) else file


@cache
def _starts_ray(file: str) -> bool:
    return "pytest.mark.ray" in (ROOT / file).read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> RayTogether:
    return RayTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Ray comes first, since it takes longest."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[DevS3]:
    """A running S3 server, shared by this worker's tests: use a prefix of your own, and leave it
    up."""
    pytest.importorskip("boto3")
    with DevS3() as server:
        yield server


@pytest.fixture
def s3(s3_server: DevS3, monkeypatch: pytest.MonkeyPatch) -> DevS3:
    """The shared S3 server, with the environment that leads boto3 to it."""
    for name, value in s3_server.env().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def s3_store(s3: DevS3) -> ObjectStore:
    """An empty store on the shared S3 server."""
    return open_store(f"{s3.uri}/test-{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def juicefs_server() -> Iterator[JuiceFSGateway]:
    """An S3 server that ignores conditions on writes, shared by this worker's tests."""
    with JuiceFSGateway() as server:
        yield server


@pytest.fixture
def juicefs(juicefs_server: JuiceFSGateway, monkeypatch: pytest.MonkeyPatch) -> JuiceFSGateway:
    """The JuiceFS gateway, with the environment that leads boto3 to it."""
    for name, value in juicefs_server.env().items():
        monkeypatch.setenv(name, value)
    return juicefs_server


@pytest.fixture
def memory_dir() -> Iterator[Path]:
    """A directory in memory where there is one: for tests with very many small writes."""
    base = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="un0-test-", dir=base if base.is_dir() else None))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, memory_dir: Path) -> ObjectStore:
    """An empty store of either kind."""
    if request.param == "s3":
        found: ObjectStore = request.getfixturevalue("s3_store")
        return found
    return open_store(str(memory_dir / "it's a [store]*"), probe=False)


@pytest.fixture
def local(memory_dir: Path) -> ObjectStore:
    """An empty store in a directory, for what need not be asked of both kinds."""
    return open_store(str(memory_dir), probe=False)
