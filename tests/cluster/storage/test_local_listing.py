"""Listings of directories: all objects, in the order of their keys, whoever looks at them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import Retryable
from cluster.storage import local_listing
from cluster.storage.open import open_store
from tests.support.effort import examples

PARTS = st.text("ab-.1", min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def free(keys: list[str]) -> list[str]:
    """Those that a directory can hold together: no key continues another's path."""
    found: list[str] = []
    for key in keys:
        if not any(o == key or o.startswith(f"{key}/") or key.startswith(f"{o}/") for o in found):
            found.append(key)
    return found


@settings(
    max_examples=examples(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    keys=st.lists(KEYS, max_size=30).map(free),
    many=st.sampled_from([1, 3, 512]),
    tree=st.sampled_from([1, 2, 1000]),
    prefix=st.one_of(st.just(""), PARTS, KEYS.map(lambda key: f"{key}/")),
    after=st.one_of(st.just(""), KEYS),
)
def test_a_listing_has_every_key_once_and_in_order(
    memory_dir: Path, keys: list[str], many: int, tree: int, prefix: str, after: str
) -> None:
    root = memory_dir / "store"
    shutil.rmtree(root, ignore_errors=True)
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"x" * len(key))
    store = open_store(str(root), probe=False)
    with patch.multiple(local_listing, _MANY=many, _A_TASK=2, _AHEAD=2, _A_TREE=tree):
        found = [(info.key, info.size_bytes) for info in store.list(prefix, after=after)]
    wanted = sorted(key for key in keys if key.startswith(prefix) and key > after)
    assert found == [(key, len(key)) for key in wanted]


def test_what_cannot_be_read_does_not_look_empty_in_a_large_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (tmp_path / f"{number}").mkdir()
    real = os.scandir

    def broken(path: str) -> object:
        if path.endswith("/3/"):
            raise OSError(5, "input/output error")
        return real(path)

    monkeypatch.setattr(local_listing, "_MANY", 1)
    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(Retryable, match="input/output error"):
        list(open_store(str(tmp_path), probe=False).list(""))


def test_who_stops_early_leaves_no_thread_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_listing, "_MANY", 1)
    for number in range(2000):
        (tmp_path / f"{number:04}").write_bytes(b"")
    looked: list[str] = []
    real = os.stat

    def counted(path: str, **more: object) -> os.stat_result:
        looked.append(path)
        return real(path, **more)  # type: ignore[arg-type]

    listing = open_store(str(tmp_path), probe=False).list("")
    monkeypatch.setattr(local_listing.os, "stat", counted)
    assert next(listing).key == "0000"
    listing.close()  # type: ignore[attr-defined]
    seen = len(looked)
    assert seen < 1500, "a bounded part is looked at ahead"
    assert len(looked) == seen
