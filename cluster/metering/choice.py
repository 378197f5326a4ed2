"""The result of choosing meters: the best source of each device, and why no better one."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.metering.guarded import Guarded
from cluster.metering.source import Refused, Source


@dataclass(frozen=True)
class Refusal:
    """A better provider that cannot be used.

    reason: why. fix: what the user can do about it, if anything. device: the device concerned, if
    it is not the one whose choice this belongs to. harmless: no energy goes unmetered by it.
    """

    provider: str
    reason: str
    fix: str | None = None
    device: str | None = None
    harmless: bool = False

    @classmethod
    def of(cls, provider: str, refused: Refused, device: str | None = None) -> Refusal:
        return cls(provider, refused.reason, refused.fix, device)


@dataclass(frozen=True)
class Choice:
    """The best source of one device, and the better ones that were refused, best first."""

    source: Source
    refused: tuple[Refusal, ...] = ()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The refused providers, and the source's own if its readings were impossible."""
        source = self.source
        if not isinstance(source, Guarded) or source.refused is None:
            return self.refused
        return (*self.refused, Refusal.of(source.guarded, source.refused))


@dataclass(frozen=True)
class MachineMeters:
    """The sources of a machine. notes: devices and zones that have none, and why."""

    choices: tuple[Choice, ...]
    notes: tuple[Refusal, ...] = ()

    def close(self) -> None:
        for choice in self.choices:
            choice.source.close()
