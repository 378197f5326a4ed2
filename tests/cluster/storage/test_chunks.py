"""Bytes in several buffers read as if they were one."""

from __future__ import annotations

import hashlib
import io

from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.chunks import Chunks

BUFFERS = st.lists(st.binary(max_size=9), max_size=6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 30)),
        st.tuples(st.sampled_from(["set", "current", "end"]), st.integers(-20, 60)),
    ),
    max_size=12,
)
WHENCE = {"set": io.SEEK_SET, "current": io.SEEK_CUR, "end": io.SEEK_END}


@given(BUFFERS, STEPS)
def test_a_reader_does_what_one_of_the_joined_bytes_does(
    buffers: list[bytes], steps: list[tuple[str, int]]
) -> None:
    chunks = Chunks(buffers)
    ours, plain = chunks.open(), io.BytesIO(b"".join(buffers))
    for what, number in steps:
        if what == "read":
            assert ours.read(number) == plain.read(number)
        elif what == "set" and number < 0:
            continue  # both refuse
        else:
            size = {"set": 0, "current": plain.tell(), "end": chunks.size_bytes}[what]
            if size + number >= 0:
                assert ours.seek(number, WHENCE[what]) == plain.seek(number, WHENCE[what])
        assert ours.tell() == plain.tell()


@given(BUFFERS)
def test_size_digest_and_bytes_are_of_all_buffers(buffers: list[bytes]) -> None:
    chunks, whole = Chunks(buffers), b"".join(buffers)
    assert bytes(chunks) == whole
    assert chunks.size_bytes == len(whole)
    assert chunks.sha256() == chunks.sha256() == hashlib.sha256(whole).hexdigest()
