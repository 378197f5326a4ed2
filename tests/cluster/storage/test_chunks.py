"""Bytes in several buffers are the joined bytes, seen in any way."""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.storage import chunks as module
from cluster.storage.chunks import Chunks
from tests.support.effort import examples

BUFFERS = st.lists(st.binary(max_size=9), max_size=6)


@given(BUFFERS)
@settings(max_examples=examples(300))
def test_they_are_their_bytes_in_order(buffers: list[bytes]) -> None:
    chunks, joined = Chunks(buffers), b"".join(buffers)
    assert bytes(chunks) == b"".join(chunks.buffers) == joined
    assert chunks.size_bytes == len(joined)
    assert chunks.sha256() == hashlib.sha256(joined).hexdigest()
    assert all(len(buffer) for buffer in chunks.buffers)


@given(BUFFERS, st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=examples(300))
def test_a_part_is_a_slice_of_the_same_memory(buffers: list[bytes], start: int, stop: int) -> None:
    part = Chunks(buffers).part(start, stop)
    assert bytes(part) == b"".join(buffers)[start:stop]
    assert all(any(view.obj is buffer for buffer in buffers) for view in part.buffers)


STEPS = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 30)),
    st.tuples(st.just("seek"), st.integers(0, 60)),
    st.tuples(st.just("tell"), st.none()),
)


@given(BUFFERS, st.lists(STEPS, max_size=12))
@settings(max_examples=examples(300))
def test_a_reader_does_what_a_file_does(buffers: list[bytes], steps: list[Any]) -> None:
    reader, file = Chunks(buffers).open(), io.BytesIO(b"".join(buffers))
    for verb, value in steps:
        arguments = [] if value is None else [value]
        assert getattr(reader, verb)(*arguments) == getattr(file, verb)(*arguments)
    assert reader.seek(-1, os.SEEK_END) == -1 + file.seek(0, os.SEEK_END) if any(buffers) else True
    assert reader.read(2) == b"".join(buffers)[-1:]


def test_a_reader_refuses_places_before_the_start() -> None:
    with pytest.raises(ValueError, match="seek to 0 or later"):
        Chunks([b"abc"]).open().seek(-4, os.SEEK_END)


def test_any_buffer_will_do() -> None:
    numbers = np.arange(3, dtype="<u2")
    assert bytes(Chunks([numbers, bytearray(b"x")])) == numbers.tobytes() + b"x"


def test_the_digest_is_computed_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def counted() -> Any:
        begun.append(1)
        return hashlib.new("sha256")

    chunks = Chunks([os.urandom(1_000_000)] * 3)
    monkeypatch.setattr(module.hashlib, "sha256", counted)
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: chunks.sha256(), range(16)))
    assert digests == {hashlib.new("sha256", bytes(chunks)).hexdigest()}
    assert len(begun) == 1
