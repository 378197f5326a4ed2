"""The promise of the sampler: image i depends on (model, seed, i, class) and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from un0 import Sampler
from un0.engine import ENGINES, Precision, build_engine
from un0.engine.base import to_uint8
from un0.engine.cpu import CpuEngine
from un0.engine.team import Part
from un0.errors import InputError
from un0.noise import MAX_INDEX, MAX_SEED, initial_phases
from un0.testing import random_model
from un0.workers import Together

Images = NDArray[np.uint8]
SEED, START, COUNT = 11, 1000, 257
CLASSES = np.arange(COUNT) * 7 % 10


# The engines and precisions that this machine has.
WAYS = [
    (kind.name, precision)
    for kind in ENGINES
    for precision in ("fp32", "bf16", "int8")
    if kind.fits(random_model().config, torch.device("cpu"), precision)  # type: ignore[arg-type]
]


def sampler_of(way: tuple[str, Precision], **options: Any) -> Sampler:
    model = random_model(n=128, n_cond=8, relativization="mean_relative")
    return Sampler(model, device="cpu", engine=way[0], precision=way[1], **options)


@pytest.fixture(
    scope="module",
    params=[
        # PyTorch's own bf16 takes seconds where the processor has no instructions for it
        pytest.param(way, marks=pytest.mark.slow if way == ("eager", "bf16") else ())
        for way in WAYS
    ],
    ids="-".join,
)
def way(request: pytest.FixtureRequest) -> tuple[str, Precision]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def sampler(way: tuple[str, Precision]) -> Sampler:
    return sampler_of(way)


@pytest.fixture(scope="module")
def images(sampler: Sampler) -> Images:
    return sampler.generate(SEED, START, CLASSES)


def test_images_are_those_of_the_readable_model(images: Images, way: tuple[str, Precision]) -> None:
    model = random_model(n=128, n_cond=8, relativization="mean_relative")
    phases = initial_phases(SEED, range(START, START + COUNT), 128 + 8)
    readable = to_uint8(model(phases, torch.from_numpy(CLASSES)).permute(0, 2, 3, 1)).numpy()
    off = np.abs(images.astype(int) - readable)
    if way[1] == "fp32":
        assert off.max() <= 1
        assert (off > 0).mean() < 1e-3
    assert off.mean() < 4
    assert images.std() > 20  # pictures, not a flat field


@pytest.mark.parametrize("batch", [1, 3, 64, 257])
def test_batch_size_changes_no_byte(sampler: Sampler, images: Images, batch: int) -> None:
    count = min(COUNT, 6 * batch)
    parts = [
        sampler.generate(SEED, START + k, CLASSES[k : min(k + batch, count)])
        for k in range(0, count, batch)
    ]
    assert np.array_equal(np.concatenate(parts), images[:count])


def test_position_in_a_batch_changes_no_byte(sampler: Sampler, images: Images) -> None:
    for first in (1, 5, 31, 32, 33):
        again = sampler.generate(SEED, START + first, CLASSES[first : first + 40])
        assert np.array_equal(again, images[first : first + 40])


def test_neighbours_change_no_byte(sampler: Sampler, images: Images) -> None:
    classes = (CLASSES + 1) % 10
    classes[100] = CLASSES[100]
    again = sampler.generate(SEED, START, classes)
    assert np.array_equal(again[100], images[100])
    assert not np.array_equal(again[101], images[101])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_byte(images: Images, way: tuple[str, Precision], threads: int) -> None:
    again = sampler_of(way, threads=threads).generate(SEED, START, CLASSES)
    assert np.array_equal(again, images)


def test_pytorch_threads_change_no_byte(images: Images, way: tuple[str, Precision]) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            assert np.array_equal(sampler_of(way).generate(SEED, START, CLASSES), images)
            assert torch.get_num_threads() == threads  # and the caller's setting is left alone
    finally:
        torch.set_num_threads(before)


def test_workers_compute_alone_whatever_they_did_before() -> None:
    """PyTorch hands its default to a thread at its first product."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        sampler = Sampler(random_model(), device="cpu", threads=2)
        sampler.warm_up()
        product = sampler._pool.submit(lambda: torch.ones(256, 256) @ torch.ones(256, 256))
        product.result()
        counts = [sampler._pool.submit(torch.get_num_threads).result() for _ in range(8)]
        assert counts == [1] * 8
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("n", "n_cond"), [(512, 1), (1024, 8)])
@pytest.mark.parametrize("engine", [kind.name for kind in ENGINES if kind.name != "cuda"])
def test_the_promise_holds_at_real_sizes(engine: str, n: int, n_cond: int) -> None:
    """Libraries pick other kernels for other shapes."""
    model = random_model(n=n, n_cond=n_cond)
    sampler = Sampler(model, device="cpu", threads=2, engine=engine)
    whole = sampler.generate(3, 0, CLASSES[:70])
    assert np.array_equal(sampler.generate(3, 69, CLASSES[69:70])[0], whole[69])
    assert np.array_equal(sampler.generate(3, 20, CLASSES[20:30]), whole[20:30])


def test_callers_at_once_get_their_own_images(sampler: Sampler, images: Images) -> None:
    with ThreadPoolExecutor(4) as callers:
        starts = [0, 60, 120, 180]
        parts = callers.map(
            lambda k: sampler.generate(SEED, START + k, CLASSES[k : k + 60]), starts
        )
        assert np.array_equal(np.concatenate(list(parts)), images[:240])


def test_seed_index_and_class_each_matter(sampler: Sampler) -> None:
    variants = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    pictures = {sampler.generate(seed, i, [c]).tobytes() for seed, i, c in variants}
    assert len(pictures) == 4


def test_tiles_come_in_order_and_cover_everything(sampler: Sampler, images: Images) -> None:
    tiles = list(sampler.generate_tiles(SEED, START, CLASSES))
    offsets = [offset for offset, _ in tiles]
    assert offsets == list(np.cumsum([0] + [len(part) for _, part in tiles])[:-1])
    assert 1 < max(len(part) for _, part in tiles) <= sampler.tile
    assert np.array_equal(np.concatenate([part for _, part in tiles]), images)


def test_tiles_are_computed_ahead_of_a_slow_reader() -> None:
    """While the reader holds the first tile, the next ones are finished."""
    sampler = Sampler(random_model(), device="cpu", threads=1)
    done = threading.Semaphore(0)
    engine = sampler._engine

    class Counting:
        name, tile, any_rows = engine.name, engine.tile, engine.any_rows

        def __call__(self, phases: torch.Tensor, class_ids: torch.Tensor) -> torch.Tensor:
            out = engine(phases, class_ids)
            done.release()
            return out

    sampler._engine = Counting()
    tiles = sampler.generate_tiles(0, 0, [0] * (4 * sampler.tile))
    next(tiles)
    for _ in range(2):
        assert done.acquire(timeout=60)
    tiles.close()  # type: ignore[attr-defined]
    assert len(sampler.generate(0, 0, [1])) == 1


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7, 12])
def test_small_requests_are_shared_so_that_no_thread_is_idle(threads: int) -> None:
    sampler = Sampler(random_model(n=256), device="cpu", threads=threads)  # 8 panels: teams of 4
    for count in range(1, 9 * threads):
        tiles = list(sampler._cut(0, np.zeros(count, dtype=np.int64)))
        starts = [tile.start for tile in tiles]
        assert np.array_equal(starts, np.cumsum([0] + [tile.size for tile in tiles])[:-1])
        assert sum(tile.size for tile in tiles) == count
        (members,) = {tile.members for tile in tiles}
        assert members <= 4
        assert members * len(tiles) <= threads
        assert members * len(tiles) == threads or len(tiles) == count or members == 1
        if members > 1:
            assert count <= 8 * threads
        if threads in (2, 4) and count <= 8:
            assert members == threads


def test_teams_of_callers_at_once_do_not_wait_for_each_other() -> None:
    """A mix of members would never end."""
    sampler = Sampler(random_model(n=256), device="cpu", threads=3)
    expected = sampler.generate(5, 0, CLASSES[:40])
    sampler._busy = -100  # or whoever comes second would be served by one thread
    with ThreadPoolExecutor(8) as callers:
        made = callers.map(lambda i: sampler.generate(5, i, CLASSES[i : i + 1]), range(40))
        assert np.array_equal(np.concatenate(list(made)), expected)


def test_a_member_that_fails_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler(random_model(n=256), device="cpu", threads=3)
    expected = sampler.generate(5, 0, [1])
    decode = CpuEngine.decode

    def failing(engine: CpuEngine, part: Part, *rest: Any) -> None:
        if part.member == 1:
            raise MemoryError("no room")
        decode(engine, part, *rest)

    monkeypatch.setattr(CpuEngine, "decode", failing)
    with pytest.raises(MemoryError, match="no room"):
        sampler.generate(5, 0, [1])
    monkeypatch.undo()
    assert np.array_equal(sampler.generate(5, 0, [1]), expected)


def test_a_shared_tile_that_nobody_wants_any_more_ends() -> None:
    """One thread is busy, so the two others wait for its part; then the reader goes away."""
    sampler = Sampler(random_model(n=256), device="cpu", threads=3)
    let_go = threading.Event()
    busy = sampler._pool.submit(let_go.wait)
    shared = sampler._begin(5, next(sampler._cut(0, np.array([1]))))
    assert isinstance(shared, Together)
    deadline_s = monotonic() + 60
    while sum(part.running() for part in shared.parts) < 2 and monotonic() < deadline_s:
        sleep(0.001)
    shared.cancel()
    ended = [part for part in shared.parts if not part.cancelled()]
    assert len(ended) == 2
    assert [part.result(timeout=60) for part in ended] == [None, None]
    let_go.set()
    assert busy.result()
    assert len(sampler.generate(5, 0, [1])) == 1


def test_a_busy_sampler_gives_a_small_request_to_one_thread() -> None:
    sampler = Sampler(random_model(n=256), device="cpu", threads=3)
    expected = sampler.generate(5, 0, [1])
    let_go = threading.Event()
    busy = sampler._pool.submit(sampler._counted, let_go.wait)
    while not sampler._busy:
        sleep(0.001)
    assert np.array_equal(sampler.generate(5, 0, [1]), expected)
    let_go.set()
    assert busy.result()


def test_a_team_that_cannot_be_lined_up_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = Sampler(random_model(n=256), device="cpu", threads=3)
    submit, begun = sampler._pool.submit, []

    def second_fails(*given: Any) -> Any:
        if begun:
            raise RuntimeError("cannot schedule new futures after shutdown")
        begun.append(submit(*given))
        return begun[0]

    monkeypatch.setattr(sampler._pool, "submit", second_fails)
    with pytest.raises(RuntimeError, match="after shutdown"):
        sampler.generate(5, 0, [1])
    assert begun[0].cancelled() or begun[0].result(timeout=60) is None


def test_nothing_asked_is_nothing_given(sampler: Sampler) -> None:
    assert sampler.generate(0, 5, []).shape == (0, 32, 32, 3)


def test_the_last_index_there_is(sampler: Sampler) -> None:
    assert sampler.generate(MAX_SEED, MAX_INDEX, [3]).shape == (1, 32, 32, 3)
    with pytest.raises(InputError, match="start is"):
        sampler.generate(0, MAX_INDEX, [3, 3])


@pytest.mark.parametrize(
    ("seed", "start", "class_ids", "says"),
    [
        (-1, 0, [0], "seed is -1"),
        (2**64, 0, [0], "seed is 18446744073709551616"),
        (0.5, 0, [0], "seed is 0.5"),
        (0, -1, [0], "start is -1"),
        (0, 1.5, [0], "start is 1.5"),
        (0, 0, [10], "class id 10 is out of range; this model has classes 0 to 9"),
        (0, 0, [0, -1], "class id -1 is out of range"),
        (0, 0, [0.5], "give a flat list of whole numbers"),
        (0, 0, [[0]], "give a flat list of whole numbers"),
        (0, 0, ["Bag"], "give a flat list of whole numbers"),
    ],
)
def test_bad_requests_are_refused_before_any_work(
    sampler: Sampler, seed: int, start: int, class_ids: list[int], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        sampler.generate_tiles(seed, start, class_ids)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "tpu9"}, "device is 'tpu9'"),
        ({"device": "cuda:99"}, "device is 'cuda:99', but PyTorch sees"),
        ({"device": "cpu", "precision": "int4"}, "precision is 'int4'; choose one of fp32"),
        ({"device": "cpu", "precision": "fp16"}, "choose bf16 or fp32"),
        ({"device": "cpu", "tile": 0}, "tile is 0"),
        ({"device": "cpu", "threads": 0}, "threads is 0"),
        ({"device": "cpu", "engine": "warp"}, "no engine 'warp'"),
    ],
)
def test_what_the_machine_cannot_do_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Sampler(random_model(), **options)  # type: ignore[arg-type]


def test_it_says_what_it_is() -> None:
    model = random_model(num_blocks=4, labels=tuple("abcdefghij"))
    sampler = Sampler(model, device="cpu", precision="bf16", tile=8)
    sampler.warm_up()
    assert sampler.image_size == 64
    assert sampler.tile == 8
    assert sampler.engine_name == build_engine(model, "cpu", "bf16").name
    assert sampler.precision == "bf16"
    assert sampler.device_name
    assert sampler.labels == tuple("abcdefghij")
    assert sampler.model_rev == model.rev
