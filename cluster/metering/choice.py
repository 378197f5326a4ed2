"""What a selection of meters says: a source, and why nothing better."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.metering.guarded import Guarded
from cluster.metering.source import Refused, Source


@dataclass(frozen=True)
class Refusal:
    """A better provider that cannot be had: which, why, and what the user may do about it.

    device: whose, if it is not the device that the refusal stands at. harmless: nothing is lost by
    it, as where the device is metered otherwise.
    """

    provider: str
    reason: str
    mend: str | None = None
    device: str | None = None
    harmless: bool = False

    @classmethod
    def of(cls, provider: str, refused: Refused, device: str | None = None) -> Refusal:
        return cls(provider, refused.reason, refused.mend, device)


@dataclass(frozen=True)
class Choice:
    """The best source of one device, and the better ones that were refused, best first."""

    source: Source
    refused: tuple[Refusal, ...] = ()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Those that were refused, and the source itself if its readings turned out impossible."""
        source = self.source
        if not isinstance(source, Guarded) or source.refused is None:
            return self.refused
        return (*self.refused, Refusal.of(source.guarded, source.refused))


@dataclass(frozen=True)
class MachineMeters:
    """The sources of a machine. ``notes``: what is not among them, and why."""

    choices: tuple[Choice, ...]
    notes: tuple[Refusal, ...] = ()

    def close(self) -> None:
        for choice in self.choices:
            choice.source.close()
