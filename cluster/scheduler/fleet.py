"""The fleet's replicas: which are parked, waking, awake, idle. Pure.

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
class Replica:
    """One device, or share of a node's CPUs, that can hold one model.

    Change ``state``, ``model``, ``power_mw``, ``assignments`` and ``draining`` only inside
    ``Fleet.changing``.
    """

    replica_id: str
    node_id: str
    #: Hardware class: the devices of one class are interchangeable.
    hardware: str
    state: ReplicaState = ReplicaState.PARKED
    #: The model that it holds, loads or unloads; "" while parked.
    model: str = ""
    #: The point of its newest assignment, or the one it was woken for; None while parked.
    point: OperatingPoint | None = None
    #: Power it may draw under the decisions made so far, mW; 0 while parked.
    power_mw: int = 0
    #: Open assignments, oldest first: it works on the first. Only while awake.
    assignments: list[Assignment] = field(default_factory=list)
    #: When it entered this state or became idle, s.
    since_s: float = 0.0
    #: When its idle timer expires, s; -1: none is set. Set by ``Core.rest``.
    look_s: float = -1.0
    #: It was woken only to be measured. Cleared when it is awake.
    probe: bool = False
    #: Its node is going away: it gets no more work. Set by ``NodeDraining``.
    draining: bool = False
    #: Work that would end later is run elsewhere, s; None: no such limit.
    drain_until_s: float | None = None
    #: Why it is in this state, for people.
    why: str = "has joined"

    @property
    def up(self) -> bool:
        """Whether it holds or loads a model."""
        return self.state.is_up

    @property
    def idle(self) -> bool:
        """Whether it holds a model and has no assignment."""
        return self.state == ReplicaState.AWAKE and not self.assignments


@dataclass
class Group:
    """The replicas of one hardware class that may get work (not draining), by what they do.

    Replica ids are the keys of dicts, which keep the order in which they were added. Maintained by
    ``Fleet``.
    """

    #: Parked replicas, the longest parked first.
    parked: dict[str, None] = field(default_factory=dict)
    #: By model: replicas that hold or load it.
    up: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    #: By model, then by number of assignments: awake replicas with room for another assignment.
    hungry: dict[str, list[dict[str, None]]] = field(default_factory=dict)
    #: Number of replicas that are unloading their model.
    others: int = 0

    def total(self) -> int:
        """Number of replicas in the group."""
        return len(self.parked) + self.others + sum(map(len, self.up.values()))

    def up_with(self, model: str) -> int:
        """Number of replicas that hold or load the model."""
        return len(self.up.get(model, ()))


class Fleet:
    """All replicas. Change one only inside ``changing``, which keeps the counts."""

    def __init__(self, assignments_per_replica: int) -> None:
        self._assignments_per_replica = assignments_per_replica
        #: Replicas by id.
        self.replicas: dict[str, Replica] = {}
        #: Ids of a node's replicas, by node id.
        self.nodes: dict[str, dict[str, None]] = defaultdict(dict)
        #: Replicas that may get work, by hardware class.
        self.groups: dict[str, Group] = defaultdict(Group)
        #: Sum of the replicas' ``power_mw``. Whole numbers: it never drifts.
        self.power_mw = 0

    def join(self, replica: Replica) -> None:
        """Add a replica."""
        self.replicas[replica.replica_id] = replica
        self.nodes[replica.node_id][replica.replica_id] = None
        self._place(replica)

    def leave(self, replica: Replica) -> None:
        """Remove a replica."""
        self._lift(replica)
        del self.replicas[replica.replica_id]
        del self.nodes[replica.node_id][replica.replica_id]
        if not self.nodes[replica.node_id]:
            del self.nodes[replica.node_id]

    @contextmanager
    def changing(self, replica: Replica) -> Iterator[None]:
        """Change a replica in a ``with`` block: the counts follow when the block ends."""
        self._lift(replica)
        try:
            yield
        finally:
            self._place(replica)

    def _lift(self, replica: Replica) -> None:
        group = self.groups[replica.hardware]
        self.power_mw -= replica.power_mw
        if replica.draining:
            return
        if replica.state == ReplicaState.PARKED:
            group.parked.pop(replica.replica_id, None)
        elif replica.state == ReplicaState.PARKING:
            group.others -= 1
        else:
            group.up[replica.model].pop(replica.replica_id, None)
            for waiting in group.hungry.get(replica.model, ()):
                waiting.pop(replica.replica_id, None)

    def _place(self, replica: Replica) -> None:
        group = self.groups[replica.hardware]
        self.power_mw += replica.power_mw
        if replica.draining:
            return
        if replica.state == ReplicaState.PARKED:
            group.parked[replica.replica_id] = None
        elif replica.state == ReplicaState.PARKING:
            group.others += 1
        else:
            group.up[replica.model][replica.replica_id] = None
            room = len(replica.assignments) < self._assignments_per_replica
            if replica.state == ReplicaState.AWAKE and room:
                self._hungry(group, replica.model)[len(replica.assignments)][replica.replica_id] = (
                    None
                )

    def hungry(self, hardware: str, model: str, assignments: int) -> Iterator[Replica]:
        """Awake replicas with exactly ``assignments`` assignments and room for more.

        The latest come first, so that those that have been idle for long stay idle and get parked.
        Assign to each one before asking for the next.
        """
        waiting = self._hungry(self.groups[hardware], model)[assignments]
        while waiting:
            yield self.replicas[next(reversed(waiting))]

    def with_assignments(
        self, hardware: str, model: str, assignments: int, most: int = 1
    ) -> list[Replica]:
        """At most ``most`` awake replicas with exactly ``assignments`` assignments and room."""
        waiting = self._hungry(self.groups[hardware], model)[assignments]
        return [self.replicas[name] for name in islice(waiting, max(0, most))]

    def parked(self, hardware: str, most: int = 1) -> list[Replica]:
        """At most ``most`` parked replicas of this hardware, the longest parked first."""
        names = islice(self.groups[hardware].parked, max(0, most))
        return [self.replicas[name] for name in names]

    def _hungry(self, group: Group, model: str) -> list[dict[str, None]]:
        if model not in group.hungry:
            group.hungry[model] = [{} for _ in range(self._assignments_per_replica)]
        return group.hungry[model]

    def validate(self) -> None:
        """Raise AssertionError if the counts are not those of the replicas."""
        for hardware, group in self.groups.items():
            able = [r for r in self.replicas.values() if r.hardware == hardware and not r.draining]
            assert group.total() == len(able), "a replica is not counted"
            parked = {r.replica_id for r in able if r.state == ReplicaState.PARKED}
            assert set(group.parked) == parked
            for model, names in group.up.items():
                assert set(names) == {r.replica_id for r in able if r.up and r.model == model}
        for replica in self.replicas.values():
            awake = replica.state == ReplicaState.AWAKE
            assert awake or not replica.assignments, "a lease of a sleeping replica"
            assert len(replica.assignments) <= self._assignments_per_replica, "too many leases"
        assert self.power_mw == sum(r.power_mw for r in self.replicas.values())
