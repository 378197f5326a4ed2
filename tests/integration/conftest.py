"""Stores for tests of what reads and writes them: a directory, and a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store


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
