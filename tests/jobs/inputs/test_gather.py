"""From a source to the rows that a job keeps: which are good, in what order and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from jobs.inputs import gather, texts
from jobs.inputs.gather import Gathered, gathered
from jobs.resolve import ModelFacts
from jobs.spec import InputsSpec
from tests.support.effort import examples

MODEL = ModelFacts("test", "rev", 3, 8, ("ant", "bee"))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def gather_all(
    path: Path, store: ObjectStore, **spec: Any
) -> tuple[Gathered, list[dict[str, Any]]]:
    """What was gathered, and all of its rows."""
    with gathered(InputsSpec(source=str(path), **spec), store, MODEL) as found:
        tables = [pq.read_table(part) for part in found.parts]
        return found, pa.concat_tables(tables).to_pylist()


@given(st.lists(st.sampled_from("abcdefgh") | st.none(), max_size=40), st.integers(1, 7))
@settings(max_examples=examples(100, 8))
def test_of_rows_with_one_id_the_first_is_kept(ids: list[str | None], batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BATCH_ROWS", batch)
        path = Path(folder, "rows.jsonl")
        rows = [{"class": 1, "custom_id": name, "n": n} for n, name in enumerate(ids)]
        path.write_text("\n".join(map(json.dumps, rows)))
        firsts = {name: n for n, name in reversed(list(enumerate(ids))) if name is not None}
        store = open_store(str(Path(folder, "store")))
        if not firsts:
            with pytest.raises(UserError, match="no"):
                gather_all(path, store)
            return
        found, kept = gather_all(path, store)
    assert [row["n"] for row in kept] == sorted(firsts.values())
    assert found.facts.count == len(firsts)
    assert found.facts.inputs.bad_rows == len(ids) - len(firsts)
    bad = sorted(set(range(len(ids))) - set(firsts.values()))
    assert [fault.line - 1 for fault in found.faults] == bad
    for fault in found.faults:
        if ids[fault.line - 1] is not None:
            first = firsts[str(ids[fault.line - 1])] + 1
            assert f"line {first} has the same custom_id" in fault.reason


def test_the_same_rows_make_the_same_parts_however_they_are_read(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "LEAST_PART_ROWS", 64)
    monkeypatch.setattr(gather, "MOST_PART_ROWS", 64)
    monkeypatch.setattr(gather, "GROUP_ROWS", 24)
    path = tmp_path / "rows.csv"
    path.write_text("class,custom_id\n" + "".join(f"{n % 3},id {n}\n" for n in range(200)))
    digests = set()
    for batch in (7, 64, 1000):
        monkeypatch.setattr(texts, "BATCH_ROWS", batch)
        found, rows = gather_all(path, store)
        assert len(found.parts) == 4
        assert [row["custom_id"] for row in rows] == [f"id {n}" for n in range(200)]
        digests.add(found.facts.inputs.digest)
    assert len(digests) == 1
    assert not any(part.exists() for part in found.parts), "they are gone afterwards"


def test_json_columns_that_come_late_and_change_to_fractions(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BATCH_ROWS", 1)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"class": 0}\n{"class": 0, "x": 1}\n{"class": 0, "x": 2.5, "y": true}\n')
    found, rows = gather_all(path, store)
    assert [(row["x"], row["y"]) for row in rows] == [(None, None), (1.0, None), (2.5, True)]
    assert found.facts.inputs.columns == ("x", "y")
    assert not found.facts.inputs.seeded, "their images can be made as those of other jobs are"


def test_a_strict_job_names_the_first_ten(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("class\n" + "wasp\n" * 12 + "ant\n")
    with pytest.raises(UserError) as error:
        gather_all(path, store, strict=True)
    lines = str(error.value).splitlines()
    assert "strict" in lines[0]
    assert [line.partition(":")[0] for line in lines[1:]] == [
        *(f"  line {n}" for n in range(2, 12)),
        "  and 2 more",
    ]
    path.write_text("class,custom_id\n0,a\n1,a\n")
    with pytest.raises(UserError, match=r"line 3.*line 2 has the same custom_id"):
        gather_all(path, store, strict=True)


def test_sources_on_a_store_and_by_name(store: ObjectStore) -> None:
    store.put("uploads/rows.data", b"label,class\nbee,1\n")
    spec = InputsSpec(source="store:uploads/rows.data")
    with pytest.raises(UserError, match="give format"), gathered(spec, store, MODEL):
        pass
    given_format = InputsSpec.model_validate(
        {"source": "store:uploads/rows.data", "format": "csv", "class": "class", "seed": "label"}
    )
    with pytest.raises(UserError, match="no good row"), gathered(given_format, store, MODEL):
        pass
    with pytest.raises(UserError, match="is not there"):
        gather_all(Path("none.csv"), store)
    missing = InputsSpec(source="store:uploads/none.csv")
    with pytest.raises(UserError, match="is not there"), gathered(missing, store, MODEL):
        pass


_CHILD = """
import resource, sys
from pathlib import Path
from cluster.storage.open import open_store
from jobs.inputs.gather import gathered
from jobs.resolve import ModelFacts
from jobs.spec import InputsSpec
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = ModelFacts("test", "rev", 3, 8, ("ant", "bee"))
with gathered(InputsSpec(source=sys.argv[1]), open_store(sys.argv[2]), model) as found:
    assert found.facts.count == int(sys.argv[3]), found.facts
    assert found.facts.inputs.bad_rows == int(sys.argv[4])
usage = resource.getrusage(resource.RUSAGE_SELF)
print((usage.ru_maxrss - before) / 1024, usage.ru_utime)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Above what the imports take. Every hundredth custom_id is there twice."""
    peaks = []
    for rows in (500_000, 4_000_000):
        path = tmp_path / f"{rows}.parquet"
        duckdb.sql(
            "copy (select i % 3 as class, format('row-{:040d}', if(i % 100 = 99, i - 1, i)) as "
            f"custom_id, i / 7 as score from range({rows}) as t(i)) to '{path}'"
        )
        asked = [str(path), str(tmp_path / "store"), str(rows * 99 // 100), str(rows // 100)]
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, *asked], capture_output=True, text=True, check=True
        )
        peaks.append(float(child.stdout.split()[0]))
    assert peaks[1] < 1024, f"MiB: {peaks}"
    assert peaks[1] < peaks[0] + 512, f"eight times the rows took more memory: {peaks} MiB"
