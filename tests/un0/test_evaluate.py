"""The measures: right on sets whose answer is known, and alarmed by what is bad."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from un0.errors import InputError
from un0.testing import random_model
from un0.train import metrics
from un0.train.data import ImageSet, load_images, to_float
from un0.train.evaluate import Judge, Scores, evaluate
from un0.train.examples import write_coloured_shapes
from un0.train.fid import clean_fid

pytestmark = pytest.mark.timeout(900)  # training takes minutes on a busy machine


def gaussian(count: int, seed: int, mean: float = 0.0) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) + mean


def test_frechet_of_shifted_gaussians_is_the_squared_shift() -> None:
    a = gaussian(4000, 0)
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet(a, a + 0.5) == pytest.approx(8 * 0.25, rel=1e-6)
    assert metrics.frechet(a, 3 * a) == pytest.approx(4 * float(a.var(0).sum()), rel=0.01)


def test_manifold_measures_of_equal_distributions_are_high() -> None:
    m = metrics.manifold(gaussian(1500, 0), gaussian(1500, 1))
    assert m.precision > 0.8
    assert m.recall > 0.8
    assert m.coverage > 0.9
    assert m.density == pytest.approx(1, abs=0.15)


def test_a_collapsed_set_has_precision_but_no_recall_or_coverage() -> None:
    m = metrics.manifold(gaussian(1500, 0), gaussian(1500, 1) * 0.01)
    assert m.precision > 0.95
    assert m.recall < 0.05
    assert m.coverage < 0.05


def test_a_set_elsewhere_has_nothing_in_common() -> None:
    m = metrics.manifold(gaussian(500, 0), gaussian(500, 1, mean=20.0))
    assert (m.precision, m.recall, m.density, m.coverage) == (0, 0, 0, 0)


def test_manifold_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0], [10.0]])
    fake = torch.tensor([[0.5], [2.5], [30.0]])
    # k = 1: real radii 1, 1, 9; fake radii 2, 2, 27.5
    m = metrics.manifold(real, fake, k=1)
    assert m.precision == pytest.approx(2 / 3)  # 30 is in no real's ball
    assert m.density == pytest.approx(3 / 3)  # 0.5 in two balls, 2.5 in one
    assert m.recall == pytest.approx(1)  # 10 is within 27.5 of 30
    assert m.coverage == pytest.approx(1)  # 10's nearest fake, 2.5, is 7.5 away, within 9


def test_blur_lowers_sharpness() -> None:
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    blurred = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    assert (metrics.sharpness(blurred) < metrics.sharpness(x)).all()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    folder = write_coloured_shapes(tmp_path_factory.mktemp("shapes"), per_class=200)
    return load_images(folder, "train"), load_images(folder, "test")


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def judge(shapes: tuple[ImageSet, ImageSet], cache_dir: Path) -> Judge:
    return Judge(*shapes, cache_dir=cache_dir)


def balanced(data: ImageSet, judge: Judge) -> tuple[Tensor, Tensor]:
    """Training images, as many as the judge compares with, as if a model had made them."""
    rows = torch.arange(0, len(data), len(data) // judge.count)[: judge.count]
    return to_float(data.images_NCHW[rows]), data.class_ids_N[rows]


def scores_of(judge: Judge, images: Tensor, class_ids: Tensor) -> Scores:
    return judge.score(images, class_ids)


@pytest.mark.slow
def test_real_images_score_as_real(judge: Judge, shapes: tuple[ImageSet, ImageSet]) -> None:
    scores = scores_of(judge, *balanced(shapes[0], judge))
    assert scores.accuracy > 0.8
    assert scores.cnn_frechet < 2 * scores.cnn_frechet_floor
    assert scores.coverage > 0.8
    assert scores.shattered_share < 0.05
    assert not scores.collapsed


@pytest.mark.slow
def test_copies_of_training_images_show_as_memorised(
    judge: Judge, shapes: tuple[ImageSet, ImageSet]
) -> None:
    assert scores_of(judge, *balanced(shapes[0], judge)).memorisation < 0.1


@pytest.mark.slow
def test_one_picture_per_class_is_called_collapsed(
    judge: Judge, shapes: tuple[ImageSet, ImageSet]
) -> None:
    images, class_ids = balanced(shapes[0], judge)
    for c in class_ids.unique():
        images[class_ids == c] = images[class_ids == c][:1].clone()
    scores = scores_of(judge, images, class_ids)
    assert scores.collapsed
    assert scores.accuracy >= 0.75  # which alone would have praised it


@pytest.mark.slow
def test_black_pictures_are_called_collapsed(
    judge: Judge, shapes: tuple[ImageSet, ImageSet]
) -> None:
    images, class_ids = balanced(shapes[0], judge)
    assert scores_of(judge, torch.full_like(images, -1), class_ids).collapsed


@pytest.mark.slow
def test_shards_in_place_of_shapes_count_as_shattered(
    judge: Judge, shapes: tuple[ImageSet, ImageSet]
) -> None:
    images, class_ids = balanced(shapes[0], judge)
    g = torch.Generator().manual_seed(0)
    tiles = images.unflatten(2, (8, 4)).unflatten(4, (8, 4)).transpose(3, 4).flatten(2, 3)
    shuffled = tiles[:, :, torch.randperm(64, generator=g)]
    shards = shuffled.unflatten(2, (8, 8)).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    scores = scores_of(judge, shards, class_ids)
    assert scores.shattered_share > 0.5
    assert scores.cnn_frechet > 5 * scores.cnn_frechet_floor


@pytest.mark.slow
def test_the_judge_is_made_once_for_a_data_set(
    shapes: tuple[ImageSet, ImageSet], judge: Judge, cache_dir: Path
) -> None:
    (kept,) = cache_dir.iterdir()
    written = kept.stat().st_mtime_ns
    again = Judge(*shapes, cache_dir=cache_dir)
    assert kept.stat().st_mtime_ns == written
    assert torch.equal(judge.test_features, again.test_features)


@pytest.mark.slow
def test_a_model_of_other_classes_is_refused(judge: Judge) -> None:
    with pytest.raises(InputError, match="10 classes, the data 4"):
        evaluate(random_model(), judge)
    labelled = random_model(num_classes=4, labels=("a", "b", "c", "d"))
    with pytest.raises(InputError, match="circle"):
        evaluate(labelled, judge)


@pytest.mark.slow
def test_an_untrained_model_scores_badly(judge: Judge) -> None:
    scores = evaluate(random_model(num_classes=4), judge)
    assert scores.cnn_frechet > 5 * scores.cnn_frechet_floor
    assert scores.shattered_share > 0.5


@pytest.mark.skipif(find_spec("cleanfid") is not None, reason="the extra fid is installed")
def test_clean_fid_without_its_extra_says_how_to_get_it(
    shapes: tuple[ImageSet, ImageSet],
) -> None:
    with pytest.raises(InputError, match=r"pip install .*fid"):
        clean_fid(random_model(num_classes=4), shapes[1], count=4)
