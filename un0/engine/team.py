"""Threads that compute one tile together, for requests of few images: who does which part, and
where they wait for each other. A thread that works alone is a team of one and never waits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from un0.jit import compiled

ARRIVALS, LEFT, ROUNDS = 0, 1, 2  # words of a meeting; from ROUNDS on one for each member
_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Part(NamedTuple):
    """One member's place. meeting: int64, the same array for all members."""

    member: int
    members: int
    meeting: NDArray[np.int64]


def team_of(members: int) -> list[Part]:
    """All places of a team that has not met yet."""
    meeting = np.zeros(ROUNDS + members, dtype=np.int64)
    return [Part(member, members, meeting) for member in range(members)]


def leave(part: Part) -> None:
    """Nobody waits any more: those who are left end at their next meeting, with nothing made. For
    a member that fails, or a team that does not come together."""
    part.meeting[LEFT] = 1


@compiled
def share(part: Part, whole: int) -> tuple[int, int]:
    """The member's even share of ``whole`` things: from the first to before the second."""
    return whole * part.member // part.members, whole * (part.member + 1) // part.members


@compiled
def meet(part: Part) -> bool:
    """Wait until every member has come as often: what they wrote before can be read after it.

    Waiting gives the core to whoever wants it, a late member perhaps. False if one has left.
    """
    if part.members == 1:
        return True
    own = ROUNDS + part.member
    part.meeting[own] += 1
    wanted = part.meeting[own] * part.members
    arrivals, left = part.meeting.ctypes.data, part.meeting.ctypes.data + 8 * LEFT
    _arrive(arrivals)
    while _read(arrivals) < wanted and _read(left) == 0:
        _pause()
    return bool(_read(left) == 0)


def _pointer(b: Any, address: Any) -> Any:
    return b.inttoptr(address, _I64.as_pointer())


@intrinsic
def _arrive(_context, address):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def build(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        b.atomic_rmw("add", _pointer(b, arguments[0]), ir.Constant(_I64, 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64), build


@intrinsic
def _read(_context, address):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def build(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        return b.load_atomic(_pointer(b, arguments[0]), "acquire", 8)

    return types.int64(types.int64), build


@intrinsic
def _pause(_context):  # type: ignore[no-untyped-def]
    def build(context: Any, b: Any, _signature: Any, _arguments: Any) -> Any:
        kind = ir.FunctionType(_I32, [])
        b.call(cgutils.get_or_insert_function(b.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), build
