"""What an image of a job is depends on its index alone; shards are a partition of the job."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cluster.types import Workload


def workload(**changes: Any) -> Workload:
    fields: dict[str, Any] = {
        "job_id": "job", "model": "m", "model_rev": "r", "count": 1000, "seed": 0,
        "shard_images": 64, "class_ids": (0, 1, 2), "width": 32, "height": 32,
    }  # fmt: skip
    return Workload(**{**fields, **changes})


weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


@given(st.integers(1, 10**4), st.integers(1, 5000))
def test_shards_partition_the_job(count: int, shard_images: int) -> None:
    job = workload(count=count, shard_images=shard_images)
    edges = [0, *(shard.stop for shard in job.shards())]
    assert edges[-1] == count
    assert [shard.start for shard in job.shards()] == edges[:-1]
    assert all(0 < shard.rows <= shard_images for shard in job.shards())


@given(weights, st.integers(0, 2**40), st.integers(0, 300), st.integers(0, 300))
def test_classes_do_not_depend_on_the_cut(
    weight: list[float], start: int, first: int, second: int
) -> None:
    for job in (
        workload(class_ids=tuple(range(len(weight))), class_weights=tuple(weight)),
        workload(class_ids=tuple(range(len(weight)))),
    ):
        whole = job.classes_of(start, start + first + second)
        parts = [
            job.classes_of(start, start + first),
            job.classes_of(start + first, start + first + second),
        ]
        assert np.array_equal(whole, np.concatenate(parts))


@given(weights, st.integers(0, 2**40))
def test_weights_hold_in_every_run_of_images(weight: list[float], start: int) -> None:
    job = workload(class_ids=tuple(range(len(weight))), class_weights=tuple(weight))
    ids = job.classes_of(start, start + 2000)
    got = np.bincount(ids, minlength=len(weight)) / 2000
    assert np.abs(got - np.array(weight) / sum(weight)).max() < 0.01


@given(st.integers(0, 9))
def test_labels_are_none_where_the_model_has_none(class_id: int) -> None:
    assert workload().label_of(class_id) is None
    names = tuple("abcdefghij")
    assert workload(labels=names).label_of(class_id) == names[class_id]
