"""How much work comes, as far as can be told from what came: it is made room for in advance. Pure.

Doing all work just in time is thrifty only if nothing comes after it. Where work keeps coming, less
energy is spent by never falling behind its mean rate: what is faster than that costs more per image.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass
class _Stream:
    """Images that came, those of long ago counting less; and the mean time they had."""

    since_s: float
    at_s: float
    images: float = 0.0
    slack_s: float = 0.0
    weight: float = 0.0


class Forecast:
    """The mean rate at which work with deadlines comes, per key.

    slacks: how long the memory is, in times to the deadline: within the time that jobs have, work
    can be moved about, so that their mean over a few such times is what must be kept up with.
    """

    def __init__(self, slacks: float) -> None:
        self._slacks = slacks
        self._streams: dict[Hashable, _Stream] = {}

    def came(self, key: Hashable, images: int, slack_s: float, now_s: float) -> None:
        """A job is there that has so long until its deadline."""
        stream = self._streams.setdefault(key, _Stream(now_s, now_s))
        if slack_s <= 0 or not self._slacks:
            return
        self._fade(stream, now_s)
        stream.images += images
        stream.slack_s += images * slack_s
        stream.weight += images

    def rate(self, key: Hashable, now_s: float) -> float:
        """Images/s to be expected; 0 where nothing is known."""
        stream = self._streams.get(key)
        if stream is None or not stream.weight or not self._slacks:
            return 0.0
        self._fade(stream, now_s)
        memory_s = self._memory_s(stream)
        known_s = max(now_s - stream.since_s, memory_s / 4)  # the first jobs do not make a rate
        return stream.images / (memory_s * -math.expm1(-known_s / memory_s))

    def _memory_s(self, stream: _Stream) -> float:
        return self._slacks * stream.slack_s / stream.weight

    def _fade(self, stream: _Stream, now_s: float) -> None:
        if stream.weight:
            fade = math.exp(-(now_s - stream.at_s) / self._memory_s(stream))
            stream.images *= fade
        stream.at_s = now_s
