"""Names that are near to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], *, then: str = "", most: int = 3) -> str:
    """``did you mean 'bag' or 'bags'?``, nearest first, and then ``then``; that alone if no name
    is near.

    Neither case nor '-' for '_' makes a difference; a name that differs in nothing else is the
    only one offered.
    """
    folded = {_fold(name): name for name in known}
    if (wanted := _fold(word)) in folded:
        close = [wanted]
    else:
        near = difflib.get_close_matches(wanted, sorted(folded), n=most, cutoff=0.6)
        close = sorted(near, key=lambda name: (-_likeness(wanted, name), name))
    names = " or ".join(repr(folded[name]) for name in close)
    return " ".join(filter(None, [f"did you mean {names}?" if names else "", then]))


def choose(word: str, known: Iterable[str]) -> str:
    """The near names, and ``choose one of a, b, c``: for a word from a short list."""
    names = list(known)
    return did_you_mean(word, names, then=f"choose one of {', '.join(names)}")


def _likeness(wanted: str, name: str) -> float:
    return difflib.SequenceMatcher(None, name, wanted).ratio()


def _fold(name: str) -> str:
    return name.casefold().replace("-", "_")
