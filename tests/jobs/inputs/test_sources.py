"""Sources of rows: what is read of them, and what of a bad line or file becomes of the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import UserError
from jobs.inputs import rows as limits
from jobs.inputs import texts
from jobs.inputs.check import Check
from jobs.inputs.parquet import parquet_rows
from jobs.inputs.rows import Fault
from jobs.inputs.texts import csv_rows, jsonl_rows
from jobs.spec import InputsSpec
from tests.support.effort import examples

CELL = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
LABELS = ("ant", "bee")


def read(
    reader: Callable[..., Any], data: bytes, **spec: Any
) -> tuple[list[dict[str, Any]], list[Fault]]:
    """The good rows, with the columns that are known of each, and what is wrong with others."""
    check, good, faults = Check(LABELS, 3), [], []
    for raw in reader(io.BytesIO(data), InputsSpec(source="source", **spec)):
        table, bad = check.good(raw)
        good += table.to_pylist()
        faults += bad
    return good, faults


def refused(reader: Callable[..., Any], data: bytes, **spec: Any) -> str:
    with pytest.raises(UserError) as error:
        read(reader, data, **spec)
    return str(error.value)


@given(
    st.lists(st.tuples(CELL, CELL), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(max_examples=examples(300))
def test_csv_is_read_as_it_was_written(
    cells: list[tuple[str, str]], ending: str, mark: str, quoting: Any
) -> None:
    if any("\r" in cell for pair in cells for cell in pair):
        quoting = csv.QUOTE_ALL  # Python's writer leaves \r without quotes if lines end in \n
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=ending, quoting=quoting)
    writer.writerow(["a", "class", "b"])
    writer.writerows((a, 1, b) for a, b in cells)
    found, faults = read(csv_rows, (mark + out.getvalue()).encode())
    assert [(row["a"] or "", row["b"] or "") for row in found] == cells
    assert faults == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=9), st.integers(1, 4))
@settings(max_examples=examples(200))
def test_a_bad_line_costs_itself_only(lines: list[tuple[int, int]], batch: int) -> None:
    """Of kinds of lines: what is good is there, in order, and each bad one is named by its line."""
    kinds = [b"bee,x", b"bee,x,y", b"wasp,x", b",x", b"\xff,x", b'"q"z,x']
    data = b"class,a\n" + b"".join(kinds[kind] + b"\n" for _, kind in lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BATCH_ROWS", batch)
        found, faults = read(csv_rows, data)
    good = [at for at, (_, kind) in enumerate(lines, start=2) if kind == 0]
    assert [row["un0.line"] for row in found] == good
    assert sorted(bad.line for bad in faults) == [
        at for at, (_, kind) in enumerate(lines, start=2) if kind
    ]


def test_lines_of_records_with_line_ends_are_counted() -> None:
    found, faults = read(csv_rows, b'class,a\n0,"x\ny"\n\n1,z\n"2,open\n0,k\n')
    assert [(row["un0.line"], row["a"]) for row in found] == [(2, "x\ny"), (5, "z")]
    assert [(bad.line, bad.reason) for bad in faults] == [
        (6, "not CSV: unexpected end of data, to line 7")
    ]


JSON = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | CELL


@given(st.lists(st.fixed_dictionaries({"class": st.just("ant")}, optional={"x": JSON, "y": JSON})))
@settings(max_examples=examples(300))
def test_json_keeps_types_and_each_column_has_one(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    data = "\n".join(map(json.dumps, rows)).encode()
    found, faults = read(jsonl_rows, data)
    assert len(found) + len(faults) == len(rows)
    of_line = {row["un0.line"]: row for row in found}
    for name in ("x", "y"):
        for line, row in enumerate(rows, start=1):
            if line in of_line:
                assert of_line[line].get(name) == row.get(name)
    for bad in faults:
        assert "where earlier rows have a" in bad.reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not an object"),
        (b'{"class": 0, "x": [1]}', "nested"),
        (b'{"class": 0, "x": {"a": 1}}', "nested"),
        (b'{"class": 0, "x": 99999999999999999999}', "beyond 64 bits"),
        (b'{"class": 0, "x": NaN}', "NaN is not JSON"),
        (b'{"class": 0, "x": "text"}', "a text, where earlier rows have a number"),
        (b'{"class": 0, "t": "\\ud800"}', "not UTF-8"),
        (b'{"class": 0, "t": "\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"class": ' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"class": 3}', "out of range"),
        (b'{"class": true}', "neither a label nor an id"),
        (b'{"class": 0.0}', "no class"),
        (b'{"class": [0]}', "no class"),
        (b"{}", "has no class"),
        (b'{"class": 0, "seed": -1}', "out of range"),
        (b'{"class": 0, "seed": 18446744073709551616}', "out of range"),
        (b'{"class": 0, "seed": 1.5}', "no seed"),
        (b'{"class": 0, "seed": false}', "no seed"),
        (b'{"class": 0, "custom_id": ""}', "has no custom_id"),
        (b'{"class": 0, "custom_id": true}', "no custom_id"),
        (b'{"class": 0, "custom_id": "' + b"x" * 1025 + b'"}', "longer than 1024"),
        (b'{"class": 0, "custom_id": "a", "t": "' + b"x" * 65_537 + b'"}', "65,536 bytes"),
    ],
)  # fmt: skip
def test_bad_json_lines(line: bytes, reason: str) -> None:
    first = b'{"class": "Bee", "x": 1, "custom_id": "one", "seed": null}\n'
    last = b'\n{"class": 2, "x": 2.5, "custom_id": 7, "seed": 18446744073709551615}'
    found, faults = read(jsonl_rows, b"\xef\xbb\xbf" + first + line + last)
    assert [(bad.line, reason in bad.reason) for bad in faults] == [(2, True)], faults
    assert all(len(bad.value or "") <= 201 for bad in faults)
    assert [
        (row["un0.class_id"], row["un0.seed"], row["x"], row["custom_id"]) for row in found
    ] == [
        (1, None, 1, "one"),
        (2, 2**64 - 1, 2.5, "7"),
    ]


@pytest.mark.parametrize(
    ("reader", "data", "words"),
    [
        (csv_rows, b"", "has no column 'class'"),
        (csv_rows, b"\xff\xfec\0", "UTF-16"),
        (csv_rows, b"a,b\n1,2\n", "has no column 'class'; it has 'a', 'b': say which"),
        (csv_rows, b"class,a,a\n", "the column 'a' twice"),
        (csv_rows, b"class,label\n0,x\n", "'label' cannot be carried"),
        (csv_rows, b"class,Image\n0,x\n", "'Image' cannot be carried"),
        (csv_rows, b"class,image.bytes\n0,x\n", "no name for a column"),
        (csv_rows, b"class,\n0,x\n", "no name for a column"),
        (csv_rows, b"class,un0.seed\n0,x\n", "no name for a column"),
        (csv_rows, b"class," + b",".join(b"c%d" % n for n in range(201)), "201 columns"),
        (csv_rows, b"class,a\n0," + b"x" * 5_000_000, "longer than 4 MiB"),
        (jsonl_rows, b"", "no line with a JSON object"),
        (jsonl_rows, b"[]\n", "no line with a JSON object: line 1: not an object"),
        (jsonl_rows, b'{"a": 1}\n', "has no column 'class'"),
        (parquet_rows, b"", "not readable as Parquet"),
        (parquet_rows, b"PAR1" + b"\xff" * 99 + b"PAR1", "not readable as Parquet"),
    ],
)
def test_sources_that_are_refused(reader: Any, data: bytes, words: str) -> None:
    assert words in refused(reader, data)


@pytest.mark.parametrize("batch", [1, 2, 99])
def test_either_all_json_rows_have_an_id_or_none(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BATCH_ROWS", batch)
    lines = [b'{"class": 0, "custom_id": "a"}', b'{"class": 1}', b'{"class": 2}']
    found, faults = read(jsonl_rows, b"\n".join(lines))
    assert [row["un0.line"] for row in found] == [1]
    assert [(bad.line, bad.reason) for bad in faults] == [
        (2, "has no custom_id; give each row one"),
        (3, "has no custom_id; give each row one"),
    ]
    found, faults = read(jsonl_rows, b"\n".join(reversed(lines)))
    assert [row["un0.line"] for row in found] == [1, 2]
    assert [bad.line for bad in faults] == [3]


def test_many_columns_of_json_are_refused() -> None:
    lines = (json.dumps({"class": 0, f"c{n}": n}) for n in range(300))
    assert "columns" in refused(jsonl_rows, "\n".join(lines).encode())


def test_a_long_line_of_json_is_one_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_LINE", 50)
    data = b'{"class": 0}\n{"class": 0, "x": "' + b"y" * 120 + b'"}\n{"class": 1}\n'
    found, faults = read(jsonl_rows, data)
    assert [row["un0.line"] for row in found] == [1, 3]
    assert [(bad.line, "longer than" in bad.reason) for bad in faults] == [(2, True)]


def of_table(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def test_parquet_keeps_the_types_that_images_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BATCH_ROWS", 2)
    table = pa.table(
        {
            "label": pa.array(["ant", "bee", None]).dictionary_encode(),
            "custom_id": pa.array([1, 2, 3], pa.int16()),
            "n": pa.array([1, None, 3], pa.uint8()),
            "t": pa.array([0, 1, None], pa.timestamp("s", "UTC")),
            "d": pa.array(["x", "y", "x"]).dictionary_encode(),
            "l": pa.array(["x", "y", "x"], pa.large_string()),
        }
    )
    raws = list(parquet_rows(io.BytesIO(of_table(table)), InputsSpec(source="s")))
    types = raws[0].carried.schema.types
    assert types == [pa.uint8(), pa.timestamp("ms", "UTC"), pa.string(), pa.string()]
    found, faults = read(parquet_rows, of_table(table))
    assert [(row["un0.class_id"], row["custom_id"], row["d"]) for row in found] == [
        (0, "1", "x"), (1, "2", "y"),
    ]  # fmt: skip
    assert [(bad.line, bad.reason) for bad in faults] == [(3, "has no class")]


@pytest.mark.parametrize(
    "column",
    [[[1, 2]], [{"a": 1}], pa.array([1], pa.decimal128(5)), pa.array([1], pa.time32("s"))],
)
def test_types_that_images_do_not_carry_are_refused(column: Any) -> None:
    data = of_table(pa.table({"class": [1], "x": column}))
    assert "column 'x' is of type" in refused(parquet_rows, data)


@given(st.data())
@settings(max_examples=examples(300))
def test_damaged_parquet_is_refused_or_read(data: st.DataObject) -> None:
    whole = bytearray(of_table(pa.table({"class": ["ant", "bee"], "x": ["some", "text"]})))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(UserError):
        read(parquet_rows, bytes(whole))
