"""The fleet's slots: whose replicas are parked, waking, awake, idle. Pure.

Counts are kept per kind of hardware, so that no decision looks at every node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from cluster.scheduler.backlog import Assignment
from cluster.scheduler.request import OperatingPoint
from cluster.states import ReplicaState


@dataclass
class Slot:
    """One device, or share of a node's CPUs, that can hold one model.

    Change ``state``, ``model``, ``power_mw``, ``assignments`` and ``draining`` only inside
    ``Fleet.changing``.
    """

    replica_id: str
    node_id: str
    hardware: str
    state: ReplicaState = ReplicaState.PARKED
    model: str = ""
    point: OperatingPoint | None = None
    power_mw: int = 0  # that it may draw now, as far as was decided
    assignments: list[Assignment] = field(default_factory=list)  # oldest first
    since_s: float = 0.0  # in this state, or idle
    look_s: float = -1.0  # when its idleness is looked at next
    probe: bool = False  # it was woken only to be probed
    draining: bool = False
    drain_until_s: float | None = None
    why: str = "has joined"

    @property
    def up(self) -> bool:
        return self.state.is_up

    @property
    def idle(self) -> bool:
        return self.state == ReplicaState.AWAKE and not self.assignments

    def room(self, most: int) -> bool:
        """Whether it may have another assignment, of at most so many."""
        return len(self.assignments) < most and not any(held.alone for held in self.assignments)


@dataclass
class Group:
    """The replicas of one hardware class that may get work (not draining), by what they do.

    Replica ids are the keys of dicts, which keep the order in which they were added. Maintained by
    ``Fleet``.
    """

    parked: dict[str, None] = field(default_factory=dict)
    up: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))  # by model
    hungry: dict[str, list[dict[str, None]]] = field(default_factory=dict)
    others: int = 0  # parking

    def total(self) -> int:
        return len(self.parked) + self.others + sum(map(len, self.up.values()))

    def up_with(self, model: str) -> int:
        return len(self.up.get(model, ()))


class Fleet:
    """All slots. Change one only inside ``changing``, which keeps the counts."""

    def __init__(self, assignments_per_replica: int) -> None:
        self._assignments_per_replica = assignments_per_replica
        self.slots: dict[str, Slot] = {}
        self.nodes: dict[str, dict[str, None]] = defaultdict(dict)
        self.groups: dict[str, Group] = defaultdict(Group)
        self.power_mw = 0  # exact: what is added is taken off again

    def join(self, slot: Slot) -> None:
        self.slots[slot.replica_id] = slot
        self.nodes[slot.node_id][slot.replica_id] = None
        self._place(slot)

    def leave(self, slot: Slot) -> None:
        """Remove a replica."""
        self._lift(slot)
        del self.slots[slot.replica_id]
        del self.nodes[slot.node_id][slot.replica_id]
        if not self.nodes[slot.node_id]:
            del self.nodes[slot.node_id]

    @contextmanager
    def changing(self, slot: Slot) -> Iterator[None]:
        """Change a replica in a ``with`` block: the counts follow when the block ends."""
        self._lift(slot)
        try:
            yield
        finally:
            self._place(slot)

    def _lift(self, slot: Slot) -> None:
        group = self.groups[slot.hardware]
        self.power_mw -= slot.power_mw
        if slot.draining:
            return
        if slot.state == ReplicaState.PARKED:
            group.parked.pop(slot.replica_id, None)
        elif slot.state == ReplicaState.PARKING:
            group.others -= 1
        else:
            group.up[slot.model].pop(slot.replica_id, None)
            for waiting in group.hungry.get(slot.model, ()):
                waiting.pop(slot.replica_id, None)

    def _place(self, slot: Slot) -> None:
        group = self.groups[slot.hardware]
        self.power_mw += slot.power_mw
        if slot.draining:
            return
        if slot.state == ReplicaState.PARKED:
            group.parked[slot.replica_id] = None
        elif slot.state == ReplicaState.PARKING:
            group.others += 1
        else:
            group.up[slot.model][slot.replica_id] = None
            if slot.state == ReplicaState.AWAKE and slot.room(self._assignments_per_replica):
                self._hungry(group, slot.model)[len(slot.assignments)][slot.replica_id] = None

    def hungry(self, hardware: str, model: str, assignments: int) -> Iterator[Slot]:
        """Awake replicas with exactly ``assignments`` assignments and room for more.

        The latest come first, so that those that have been idle for long stay idle and get parked.
        Assign to each one before asking for the next.
        """
        waiting = self._hungry(self.groups[hardware], model)[assignments]
        while waiting:
            yield self.slots[next(reversed(waiting))]

    def with_assignments(
        self, hardware: str, model: str, assignments: int, most: int = 1
    ) -> list[Slot]:
        """At most ``most`` awake replicas with exactly ``assignments`` assignments and room."""
        waiting = self._hungry(self.groups[hardware], model)[assignments]
        return [self.slots[name] for name in islice(waiting, max(0, most))]

    def parked(self, hardware: str, most: int = 1) -> list[Slot]:
        """At most ``most`` parked replicas of this hardware, the longest parked first."""
        names = islice(self.groups[hardware].parked, max(0, most))
        return [self.slots[name] for name in names]

    def _hungry(self, group: Group, model: str) -> list[dict[str, None]]:
        if model not in group.hungry:
            group.hungry[model] = [{} for _ in range(self._assignments_per_replica)]
        return group.hungry[model]

    def validate(self) -> None:
        """Raise AssertionError if the counts are not those of the replicas."""
        for hardware, group in self.groups.items():
            able = [r for r in self.slots.values() if r.hardware == hardware and not r.draining]
            assert group.total() == len(able), "a replica is not counted"
            parked = {r.replica_id for r in able if r.state == ReplicaState.PARKED}
            assert set(group.parked) == parked
            for model, names in group.up.items():
                assert set(names) == {r.replica_id for r in able if r.up and r.model == model}
        for slot in self.slots.values():
            awake = slot.state == ReplicaState.AWAKE
            assert awake or not slot.assignments, "an assignment of a sleeping replica"
            assert len(slot.assignments) <= self._assignments_per_replica, "too many assignments"
        assert self.power_mw == sum(r.power_mw for r in self.slots.values())
