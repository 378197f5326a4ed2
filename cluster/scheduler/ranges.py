"""Sets of shard numbers as ranges: memory grows with the holes, not with the shards. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of whole numbers kept as sorted, disjoint, non-touching ranges (first, stop)."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._stops: list[int] = []
        self._size = 0
        for first, stop in ranges:
            self.add(first, stop)

    def __repr__(self) -> str:
        return f"Ranges({list(self)})"

    def __bool__(self) -> bool:
        return self._size > 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._firsts, self._stops, strict=True)))

    @property
    def size(self) -> int:
        """How many numbers are in. Not its length: it iterates over ranges."""
        return self._size

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number < self._stops[at]

    def add(self, first: int, stop: int) -> int:
        """Put the range in; how many of its numbers were not in before."""
        if first >= stop:
            return 0
        low = bisect_left(self._stops, first)  # the ranges that it touches are low .. high - 1
        high = bisect_right(self._firsts, stop)
        before = self._size_of(low, high)
        if low < high:
            first = min(first, self._firsts[low])
            stop = max(stop, self._stops[high - 1])
        self._firsts[low:high] = [first]
        self._stops[low:high] = [stop]
        self._size += stop - first - before
        return stop - first - before

    def remove(self, first: int, stop: int) -> int:
        """Take the range out; how many of its numbers were in."""
        if first >= stop:
            return 0
        low = bisect_right(self._stops, first)  # the ranges that it overlaps are low .. high - 1
        high = bisect_left(self._firsts, stop)
        if low >= high:
            return 0
        before = self._size_of(low, high)
        left = (self._firsts[low], min(first, self._stops[low]))
        right = (max(stop, self._firsts[high - 1]), self._stops[high - 1])
        kept = [part for part in (left, right) if part[0] < part[1]]
        self._firsts[low:high] = [part[0] for part in kept]
        self._stops[low:high] = [part[1] for part in kept]
        taken = before - sum(stop - first for first, stop in kept)
        self._size -= taken
        return taken

    def take(self, most: int) -> tuple[int, int]:
        """Take out and return the lowest run of at most so many numbers. Raises IndexError."""
        first = self._firsts[0]
        stop = min(self._stops[0], first + most)
        self.remove(first, stop)
        return first, stop

    def overlaps(self, first: int, stop: int) -> bool:
        """Whether a number of the range is in."""
        at = bisect_right(self._stops, first)
        return at < len(self._firsts) and self._firsts[at] < stop

    def missing(self, first: int, stop: int) -> list[tuple[int, int]]:
        """The parts of the range that are not in the set."""
        holes: list[tuple[int, int]] = []
        for at in range(bisect_right(self._stops, first), bisect_left(self._firsts, stop)):
            if first < self._firsts[at]:
                holes.append((first, self._firsts[at]))
            first = self._stops[at]
        if first < stop:
            holes.append((first, stop))
        return holes

    def _size_of(self, low: int, high: int) -> int:
        return sum(self._stops[low:high]) - sum(self._firsts[low:high])


def runs(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as ranges (first, stop)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return tuple(found)
