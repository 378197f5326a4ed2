"""Reads that many share, and calls in a bounded number of threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobs.server import pool as module
from jobs.server.pool import Busy, Pool, Shared


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module, "monotonic_s", lambda: now[0])
    return now


def counted(values: list[Any]) -> Callable[[str], Awaitable[Any]]:
    async def read(_: str) -> Any:
        await asyncio.sleep(0)
        value = values.pop(0)
        if isinstance(value, Exception):
            raise value
        return value

    return read


def test_a_thousand_readers_cost_one_read(clock: list[float]) -> None:
    async def main() -> None:
        shared = Shared(counted([1, 2]), 0.5)
        assert set(await asyncio.gather(*(shared.get("job") for _ in range(1000)))) == {1}
        clock[0] += 0.4
        assert await shared.get("job") == 1
        clock[0] += 0.2
        assert set(await asyncio.gather(*(shared.get("job") for _ in range(1000)))) == {2}
        assert shared.reads == 2

    asyncio.run(main())


@pytest.mark.usefixtures("clock")
def test_an_error_goes_to_all_who_wait_and_is_not_kept() -> None:
    async def main() -> None:
        shared = Shared(counted([ValueError("away"), 2]), 0.5)
        found = await asyncio.gather(*(shared.get("a") for _ in range(3)), return_exceptions=True)
        assert [str(each) for each in found] == ["away"] * 3
        assert await shared.get("a") == 2

    asyncio.run(main())


@pytest.mark.usefixtures("clock")
def test_who_gives_up_takes_nothing_from_the_others() -> None:
    async def main() -> None:
        shared = Shared(counted([1]), 0.5)
        first, second = (asyncio.ensure_future(shared.get("a")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 1

    asyncio.run(main())


@pytest.mark.usefixtures("clock")
def test_what_was_put_is_not_replaced_by_an_older_read() -> None:
    async def main() -> None:
        shared: Shared[str, int] = Shared(counted([1]), 0.5)
        older = asyncio.ensure_future(shared.get("a"))
        await asyncio.sleep(0)
        shared.put("a", 2)
        assert await older == 1
        assert await shared.get("a") == 2

    asyncio.run(main())


@pytest.mark.usefixtures("clock")
def test_it_keeps_so_many_and_no_more() -> None:
    async def main() -> None:
        shared = Shared(counted(list(range(200))), 0.5, most=10)
        for key in range(100):
            await shared.get(str(key))
        assert len(shared._readings) == 10

    asyncio.run(main())


def test_calls_beyond_the_queue_are_refused() -> None:
    async def main() -> None:
        pool, hold = Pool(threads=2, waiting=1), threading.Event()
        calls = [asyncio.ensure_future(pool.run(hold.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="try again"):
            await pool.run(hold.wait)
        hold.set()
        assert await asyncio.gather(*calls) == [True] * 3
        assert pool.inside == 0

    asyncio.run(main())
