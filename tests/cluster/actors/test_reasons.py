"""Why a replica failed, as its user reads it."""

from __future__ import annotations

import pytest
from ray.exceptions import (
    ActorDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from cluster.actors.reasons import plain, reason_of
from cluster.errors import UserError

TRACE = (
    "\x1b[36mray::Replica.start()\x1b[39m (pid=7, ip=10.0.0.1)\n"
    '  File "pathlib.py", line 1, in home\n'
    "RuntimeError: Could not determine home directory."
)


def raised(cause: BaseException) -> RayError:
    """As ``ray.get`` raises what was raised in an actor."""
    error = RayTaskError("start", TRACE, cause, "ray::Replica", 7, "10.0.0.1")
    return error if isinstance(cause, RayError) else error.make_dual_exception_instance()


HOMELESS = RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (raised(HOMELESS), "RuntimeError: Could not determine home directory."),
        (raised(raised(HOMELESS)), "RuntimeError: Could not determine home directory."),
        (raised(UserError("model 'x' is another one")), "model 'x' is another one"),
        (raised(TimeoutError("the disk is slow")), "TimeoutError: the disk is slow"),
        (raised(ValueError("first\n  \x1b[31msecond\x1b[0m")), "ValueError: first second"),
        (raised(MemoryError()), "MemoryError"),
        (TimeoutError(), "silent for 60 s"),
        (RayError("\x1b[33mno such actor\x1b[0m"), "no such actor"),
    ],
)
def test_the_cause_in_one_line(error: BaseException, line: str) -> None:
    assert reason_of(error, "silent for 60 s") == line


def test_of_a_process_that_died_what_ended_it() -> None:
    failed_in_init = ActorDiedError(RayTaskError("init", TRACE, HOMELESS, "ray::R", 7, "10.0.0.1"))
    assert plain(failed_in_init) == "RuntimeError: Could not determine home directory."
    assert plain(ActorDiedError()) == "The actor died unexpectedly before finishing this task."


def died(detail: str) -> ActorDiedError:
    error = ActorDiedError()
    text = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: Replica\n"
        "\tactor_id: 6c22\n\tpid: 7\n\tnamespace: un0\n\tip: 10.0.0.1\nThe actor is dead because "
        f"its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: {detail}"
    )
    error.error_msg = text
    error.args = (text,)
    return error


def test_what_ray_knows_of_the_end_is_kept_and_the_rest_left_out() -> None:
    cut_off = died(
        "Worker unexpectedly exits with a connection error code 2. End of file. There are some "
        "potential root causes. (1) The process is killed by SIGKILL by OOM killer due to high "
        "memory usage."
    )
    assert plain(cut_off).startswith("its process ended without a word: killed from outside")
    known = died("Worker exits with SIGSEGV at \x1b[36m0x0\x1b[39m")
    assert plain(known) == "its process ended: Worker exits with SIGSEGV at 0x0"


@pytest.mark.parametrize(
    "error", [OutOfMemoryError("a\nb" * 1000), RuntimeEnvSetupError("pip\nfailed")]
)
def test_never_more_than_a_line_to_read(error: RayError) -> None:
    assert len(plain(error)) <= 400
    assert "\n" not in plain(error)
