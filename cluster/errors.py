"""Errors of this package, by what the caller can do about them."""

from __future__ import annotations


class ClusterError(Exception):
    """Base of every error this package raises on purpose.

    fix: the part of the message that says what to do, if it is available separately.
    """

    def __init__(self, message: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


class UserError(ClusterError):
    """The user can fix it: the message names the thing, the value and the fix. Exit code 2."""


class StoreGone(UserError):
    """The store no longer exists: its directory or bucket was removed during use."""


class Retryable(ClusterError):
    """A retry may succeed: a time-out, a 5xx, a lost connection."""


class Fatal(ClusterError):
    """A retry cannot succeed, and the user's input is not the cause."""


class FleetLost(Retryable):
    """The coordinator, or the Ray that it ran on, is gone or silent. What was asked of it may have
    been done."""


class NotFound(ClusterError):
    """No object of that key. Never retried: the stores this project accepts are consistent."""


class CommitStateUnknown(Retryable):
    """A conditional write may or may not have been applied: read it back to know."""
