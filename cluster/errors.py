"""Errors of the cluster, by what the caller should do about them."""

from __future__ import annotations


class ClusterError(Exception):
    """Base of every error this package raises on purpose.

    fix: the part of the message that says what to do, where that is known apart.
    """

    def __init__(self, message: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


class UserError(ClusterError):
    """The user can fix it: the message names the thing, the value and the fix. Exit code 2."""


class StoreGone(UserError):
    """The store as a whole was there and is no more: its directory or bucket was removed."""


class Retryable(ClusterError):
    """It may work if tried again: a time-out, a 5xx, a lost connection."""


class Fatal(ClusterError):
    """Trying again cannot help, and no input of the user's is to blame."""


class NotFound(ClusterError):
    """No object of that key. Never retried: the stores this project accepts are consistent."""


class CommitStateUnknown(Retryable):
    """A conditional write may or may not have been applied: read it back to know."""
