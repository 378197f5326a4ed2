"""Who is alive, for readers that live on and for commands that look once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cluster.storage.object_store import ObjectStore
from jobs.service.presence import SILENCE_S, Presence
from tests.support.fake_server import FakeServer


class Time:
    """Seconds that pass only while somebody sleeps; ``meanwhile`` is what others do then."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.now_s, self.slept, self.meanwhile = 0.0, 0, meanwhile

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept += 1
        self.meanwhile()


LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


def test_who_lives_on_sees_a_count_stand_still(local: ObjectStore) -> None:
    server, other, time = FakeServer(local, "a"), FakeServer(local, "b"), Time()
    presence = Presence(local, now_s=time)
    server.beat()
    other.beat()
    assert presence.alive() == {"a", "b"}
    for _ in range(6):
        time.now_s += SILENCE_S / 4
        other.beat()
        presence.alive()
    assert presence.alive() == {"b"}
    server.beat()  # it only stood still
    time.now_s += 2
    assert presence.alive() == {"a", "b"}
    other.sign_off()
    time.now_s += 2
    assert presence.alive() == {"a"}


def test_one_look_at_a_fresh_sign_of_life_takes_no_time(local: ObjectStore) -> None:
    FakeServer(local, "a").beat()
    time = Time()
    assert Presence(local, patience_s=5, now_s=time, sleep=time.sleep).alive() == {"a"}
    assert time.slept == 0


def test_an_old_sign_of_life_is_looked_at_twice(local: ObjectStore) -> None:
    FakeServer(local, "dead").beat(LONG_AGO)
    time = Time()
    presence = Presence(local, patience_s=5, now_s=time, sleep=time.sleep)
    assert presence.alive() == set()
    assert 0 < time.slept <= 10
    assert presence.alive() == set()


def test_a_clock_that_is_wrong_costs_time_and_decides_nothing(local: ObjectStore) -> None:
    server = FakeServer(local, "an hour behind")
    server.beat(LONG_AGO)
    time = Time(lambda: server.beat(LONG_AGO))
    presence = Presence(local, patience_s=5, now_s=time, sleep=time.sleep)
    assert presence.alive() == {"an hour behind"}
    assert time.slept == 1


def test_a_server_that_comes_back_is_alive_again(local: ObjectStore) -> None:
    server = FakeServer(local, "a")
    server.beat(LONG_AGO)
    time = Time()
    presence = Presence(local, patience_s=5, now_s=time, sleep=time.sleep)
    assert presence.alive() == set()
    server.beat()
    time.now_s += 2
    assert presence.alive() == {"a"}
