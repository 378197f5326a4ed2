"""Why something on Ray failed, in one plain line: Ray's own words are pages, in colour."""

from __future__ import annotations

import re

from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from cluster.errors import ClusterError
from un0.errors import Un0Error

MOST_CHARS = 400
_COLOUR = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_DETAIL = re.compile(r"Worker exit detail: (.*?)(?: There are some potential root causes.*)?$")
_CUT_OFF = re.compile(r"connection error code 2|End of file")
# What Ray puts before the reason: whom it is about
_FACTS = re.compile(r"\b(class_name|actor_id|pid|name|namespace|ip): \S+ ?")


def reason_of(error: BaseException, silence: str) -> str:
    """Why a call to an actor failed. silence: to be said where no answer came in time."""
    if isinstance(error, TimeoutError) and not isinstance(error, RayTaskError):
        return silence
    return plain(error)


def plain(error: BaseException) -> str:
    """The cause of the error, in one line without colours or Ray's class names."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause  # what was raised on the other side, which may have asked a third
    text = one_line(str(error))
    if isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError):
        return _of_death(text, str(error))
    if isinstance(error, RayError | ClusterError | Un0Error) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line(text: str) -> str:
    """Without colours and line breaks, and not too long to read."""
    line = " ".join(_COLOUR.sub("", text).split())
    return line if len(line) <= MOST_CHARS else f"{line[: MOST_CHARS - 3]}..."


def _of_death(text: str, whole: str) -> str:
    """Of an actor whose process is gone: what ended it, if Ray knows."""
    if "raised in its creation task" in text:  # with the traceback; its last line is the cause
        return one_line(whole.strip().splitlines()[-1])
    detail = _DETAIL.search(" ".join(_COLOUR.sub("", whole).split()))
    if detail is None:
        return one_line(_FACTS.sub("", text))
    if _CUT_OFF.search(detail[1]):
        return (
            "its process ended without a word: killed from outside, as the system does when memory "
            "runs out, or crashed"
        )
    return one_line(f"its process ended: {detail[1]}")
