"""The simulated devices: they load, work, idle and fail on a virtual clock, and draw power."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import count

from cluster.scenario.faults import FaultKind, Faults
from cluster.scenario.fleet import FleetSpec
from cluster.scheduler import events
from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.request import Usage
from cluster.simulation.books import InvalidCommand, JobBook
from cluster.simulation.calendar import Calendar
from cluster.simulation.device import Device, Running, Truth
from cluster.simulation.energy import Bucket, Buckets, PowerTimeline

Tell = Callable[[events.Event], None]


class World:
    """Devices and their energy. ``tell`` is called with the events that production would report."""

    def __init__(
        self,
        fleet: FleetSpec,
        jobs: Mapping[str, JobBook],
        faults: Faults,
        seed: int,
        bin_s: float,
        tell: Tell,
    ) -> None:
        self.calendar = Calendar()
        self.buckets, self.power = Buckets(), PowerTimeline(bin_s)
        self.peak_w = 0.0
        self.probed_images = self.wakes = self.assignments = 0
        self.busy_s = self.present_s = self.parked_j = 0.0
        self._tell, self._jobs, self._faults, self._seed = tell, jobs, faults, seed
        self._truth = Truth(fleet.profiles())
        self._hardware = {hardware.name: hardware for hardware in fleet.hardware}
        self._devices: dict[str, Device] = {}
        self._on_node: dict[str, Device] = {}
        self._holder: dict[int, Device] = {}
        self._lives = count()
        self._stragglers = random.Random(f"{seed} stragglers")

    # What the scheduler asks for

    def wake(self, replica_id: str, model: str) -> None:
        """Load the model on a parked device. Raises InvalidCommand."""
        device = self._device(replica_id)
        if device.phase == "silent":
            return
        profile = self._truth.profile(device.hardware, model)
        if device.phase != "parked" or profile is None:
            raise InvalidCommand(f"wake {replica_id} with {model}: {device.phase}, or not for it")
        device.phase, device.model, device.standby = "waking", model, profile.standby
        self.wakes += 1
        load_s = max(profile.standby.load_s, 1e-3)
        self._draw(device, profile.standby.load_j / load_s)
        self._later(device, load_s, self._awake)

    def park(self, replica_id: str) -> None:
        """Unload an idle device's model. Raises InvalidCommand."""
        device = self._device(replica_id)
        if device.phase == "silent":
            return
        if device.phase != "awake" or device.running is not None:
            raise InvalidCommand(f"park {replica_id}: it is {device.phase}, or has a lease")
        device.phase = "parking"
        self._later(device, self._hardware[device.hardware].park_s, self._parked)

    def run(self, assignment: RunAssignment) -> None:
        """Append an assignment to the device's queue. Raises InvalidCommand."""
        device = self._device(assignment.replica_id)
        model = self._jobs[assignment.job_id].request.model
        if assignment.assignment_id in self._holder:
            raise InvalidCommand(f"{assignment}: that lease id is taken")
        self.assignments += 1
        self._holder[assignment.assignment_id] = device
        if device.phase != "silent":
            known = self._truth.performance(device.hardware, model, assignment.point)
            if device.phase != "awake" or device.model != model or known is None:
                raise InvalidCommand(
                    f"{assignment}: the replica is {device.phase} with model {device.model!r}, "
                    "or has no such operating point"
                )
        device.queue.append(assignment)
        if device.phase == "awake" and device.running is None:
            self._start(device)

    def revoke(self, assignment_id: int) -> None:
        """Give up the shards of an assignment that are not made. Ignored for finished ones."""
        device = self._holder.get(assignment_id)
        if device is None or device.phase == "silent":
            return
        running = device.running
        if running is not None and running.assignment.assignment_id == assignment_id:
            assignment, first = (
                running.assignment,
                running.assignment.first + running.made_shards(self._now_s),
            )
            done = self._close(device)
            self._go_on(device)
            if done is not None:
                self._tell(done)
        else:
            assignment = next(
                waiting for waiting in device.queue if waiting.assignment_id == assignment_id
            )
            first = assignment.first
            device.queue.remove(assignment)
            self._forget(assignment)
        for shard in range(first, assignment.stop):
            self._tell(_revoked(self._now_s, assignment, shard))

    # What devices do

    def join(self, node_id: str, hardware: str) -> None:
        """Add a node with one device."""
        replica_id = f"{node_id}/{next(self._lives)}"
        device = Device(replica_id, node_id, hardware, joined_s=self._now_s)
        self._devices[replica_id] = self._on_node[node_id] = device
        self._tell(events.ReplicaJoined(self._now_s, replica_id, node_id, hardware))

    def _awake(self, device: Device) -> None:
        load_j, load_s = self._settle(device, "overhead"), device.standby.load_s
        device.phase = "awake"
        self._draw(device, device.standby.idle_w)
        usage = Usage(0, load_s, int(1e3 * load_j), "measured_counter")
        self._tell(events.ReplicaAwake(self._now_s, device.replica_id, device.model, usage))

    def _parked(self, device: Device) -> None:
        self._settle(device, "idle")
        self._let_go(device)
        self._tell(events.ReplicaParked(self._now_s, device.replica_id))

    def _let_go(self, device: Device) -> None:
        device.phase, device.model = "parked", ""
        device.epoch += 1
        self._draw(device, 0.0)

    def _start(self, device: Device) -> None:
        """Start the next assignment."""
        self._settle(device, "idle")
        assignment = device.queue.popleft()
        request = self._jobs[assignment.job_id].request
        performance = self._truth.performance(device.hardware, request.model, assignment.point)
        assert performance is not None  # the assignment was checked
        rate = performance.images_per_s
        rate *= self._faults.pace(device.hardware, self._now_s, self._seed)
        share = self._faults.straggler_share
        if share and self._stragglers.random() < share:
            rate /= self._faults.straggler_factor
        images = request.images_in(assignment.first, assignment.stop)
        device.running = Running(assignment, request.shard_images, images, self._now_s, rate)
        self._draw(device, performance.power_w)
        self._later(device, images / rate, self._ended)

    def _ended(self, device: Device) -> None:
        done = self._close(device, whole=True)
        self._go_on(device)
        assert done is not None
        self._tell(done)

    def _go_on(self, device: Device) -> None:
        """Start the next assignment, if there is one."""
        if device.queue:
            self._start(device)
        else:
            self._draw(device, device.standby.idle_w)

    def _close(self, device: Device, whole: bool = False) -> events.ShardsCommitted | None:
        """Account for the assignment in hand up to now: the event for its finished shards, if any.

        whole: it has come to its end, whatever the last digits of the clock say.
        """
        running = device.running
        assert running is not None
        device.running, assignment = None, running.assignment
        device.epoch += 1
        energy_j, spent_s = device.spend(self._now_s), self._now_s - running.started_s
        self.busy_s += spent_s
        self._forget(assignment)
        stop = assignment.stop if whole else assignment.first + running.made_shards(self._now_s)
        book = self._jobs[assignment.job_id]
        images = book.request.images_in(assignment.first, stop) if stop > assignment.first else 0
        fresh = book.commit(assignment.first, stop, self._now_s) if images else 0
        made = float(images) if whole else max(spent_s * running.images_per_s, float(images))
        useful_j = energy_j * (fresh / made) if fresh else 0.0
        self.buckets.add(device.hardware, "exploration" if assignment.probe else "job", useful_j)
        self.buckets.add(device.hardware, "wasted", energy_j - useful_j)
        self.probed_images += fresh if assignment.probe else 0
        if not images:
            return None
        part = images / made
        usage = Usage(images, part * spent_s, int(1e3 * part * energy_j), "measured_counter")
        return events.ShardsCommitted(
            self._now_s,
            device.replica_id,
            assignment.assignment_id,
            assignment.job_id,
            assignment.first,
            stop,
            usage,
        )

    # What goes wrong

    def fault(self, kind: FaultKind, node_id: str) -> None:
        """It happens to the device of this node, if it is there and has something to lose."""
        device = self._on_node.get(node_id)
        if device is None:
            return
        if kind == "node":
            del self._on_node[node_id]
            self._fall_silent(device)
            self._lose(device)
            self._leave(device)
            self.calendar.at(
                self._now_s + self._faults.repair_s, lambda: self.join(node_id, device.hardware)
            )
            self._tell(events.NodeLost(self._now_s, node_id, "node lost"))
        elif device.phase in ("waking", "awake"):
            self._fall_silent(device)
            self._later(device, 0.0 if kind == "crash" else self._faults.silent_s, self._give_up)

    def _fall_silent(self, device: Device) -> None:
        """The device hangs: its commits are reported, and its energy from now on is lost."""
        was, device.phase = device.phase, "silent"
        device.epoch += 1
        done = None
        if device.running is not None:
            done = self._close(device)
        else:
            self._settle(device, "wasted" if was == "waking" else "idle")
        if was != "parked":
            self._draw(device, device.standby.idle_w)
        if done is not None:
            self._tell(done)

    def _give_up(self, device: Device) -> None:
        self._lose(device)
        self._tell(events.ReplicaLost(self._now_s, device.replica_id, "replica lost"))

    def _lose(self, device: Device) -> None:
        self._settle(device, "wasted")
        for assignment in device.queue:
            self._forget(assignment)
        device.queue.clear()
        self._let_go(device)

    # Books

    @property
    def _now_s(self) -> float:
        return self.calendar.now_s

    def advance(self, now_s: float) -> None:
        """It is later."""
        self.power.advance(now_s)
        self.calendar.now_s = max(now_s, self.calendar.now_s)

    def close(self) -> None:
        """It is over: account for everything up to now."""
        last: dict[str, Bucket] = {"waking": "overhead", "silent": "wasted"}
        for device in list(self._devices.values()):
            if device.running is not None:
                self._close(device)
            self._settle(device, last.get(device.phase, "idle"))
            self._leave(device)

    def _leave(self, device: Device) -> None:
        present_s = self._now_s - device.joined_s
        self.present_s += present_s
        self.parked_j += present_s * self._hardware[device.hardware].parked_w
        del self._devices[device.replica_id]

    def _device(self, replica_id: str) -> Device:
        if replica_id not in self._devices:
            raise InvalidCommand(f"there is no replica {replica_id!r}")
        return self._devices[replica_id]

    def _forget(self, assignment: RunAssignment) -> None:
        self._holder.pop(assignment.assignment_id, None)
        self._jobs[assignment.job_id].end_assignment(assignment)

    def _later(self, device: Device, delay_s: float, action: Callable[[Device], None]) -> None:
        """Schedule a call for the device, dropped if something else happens to it first."""
        device.epoch += 1
        epoch = device.epoch
        self.calendar.at(
            self._now_s + delay_s, lambda: action(device) if device.epoch == epoch else None
        )

    def _draw(self, device: Device, watts: float) -> None:
        """Set the device's power from now on; energy up to now must be accounted for already."""
        self.power.change(watts - device.watts)
        device.watts, device.since_s = watts, self._now_s
        self.peak_w = max(self.peak_w, self.power.watts)

    def _settle(self, device: Device, bucket: Bucket) -> float:
        energy_j = device.spend(self._now_s)
        self.buckets.add(device.hardware, bucket, energy_j)
        return energy_j


def _revoked(at_s: float, assignment: RunAssignment, shard: int) -> events.ShardFailed:
    return events.ShardFailed(
        at_s,
        assignment.replica_id,
        assignment.assignment_id,
        assignment.job_id,
        shard,
        "revoked",
        revoked=True,
    )
