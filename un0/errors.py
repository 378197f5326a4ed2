"""Errors a user of the model can cause. Each message names the thing, the value and the fix."""

from __future__ import annotations


class Un0Error(Exception):
    """Base of every error this package raises on purpose."""


class ModelNotFoundError(Un0Error):
    """No model of that name or at that path."""


class ModelFormatError(Un0Error):
    """A checkpoint that cannot be used: wrong layout, shape, values or an unsafe pickle."""


class InputError(Un0Error):
    """An argument outside what the model accepts (class id, seed, index, precision)."""
