"""Named models: what there is, where it is, and what is said when it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import un0
from tests.support.checkpoints import write_released
from un0 import (
    DEFAULT_MODEL,
    Sampler,
    catalog,
    from_pretrained,
    list_models,
    load_model,
    resolve_classes,
)
from un0.errors import InputError, ModelFormatError, ModelNotFoundError
from un0.testing import random_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache as a download leaves it, holding a small stand-in of cifar10/n1024."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cache = tmp_path / "hub"
    repo = cache / "models--un-ai--Un-0"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    write_released(snapshot / "cifar10_n1024.pt", random_model(), infix="_orig_mod.")
    return cache


def test_the_bundled_model_works_from_end_to_end() -> None:
    model = load_model(DEFAULT_MODEL)
    assert model.config.image_size == 32
    assert model.labels[resolve_classes(["sneaker"], model.labels, 10)[0]] == "Sneaker"
    images = Sampler(model, device="cpu").generate(0, 0, [0, 7])
    assert images.shape == (2, 32, 32, 3)


def test_every_bundled_file_is_listed_and_matches_its_entry() -> None:
    registry = json.loads((catalog.ASSETS / "registry.json").read_text())
    assert DEFAULT_MODEL in registry
    for name, entry in registry.items():
        assert load_model(name).rev == entry["sha256"]
    files = {path.name for path in catalog.ASSETS.glob("*.safetensors")}
    assert files == {entry["file"] for entry in registry.values()}


def test_a_changed_asset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    un0.save_model(random_model(), tmp_path / "m.safetensors")
    (tmp_path / "registry.json").write_text(
        json.dumps({"mine": {"file": "m.safetensors", "sha256": "0" * 64}})
    )
    monkeypatch.setattr(catalog, "ASSETS", tmp_path)
    catalog._registry.cache_clear()
    try:
        with pytest.raises(ModelFormatError, match=r"SHA-256 is .*catalogue states 0000"):
            load_model("mine")
    finally:
        catalog._registry.cache_clear()


def test_list_models(hub_cache: Path) -> None:
    models = {model.name: model for model in list_models(cache_dir=hub_cache)}
    assert next(iter(models)) == DEFAULT_MODEL

    bundled = models[DEFAULT_MODEL]
    assert bundled.where == "bundled"
    assert bundled.size_bytes == Path(bundled.path or "").stat().st_size
    assert bundled.params == sum(t.numel() for t in load_model(DEFAULT_MODEL).state_dict().values())
    assert len(bundled.labels) == bundled.num_classes == 10

    cached = models["cifar10/n1024"]
    assert cached.where == "cached"
    assert cached.path is not None
    assert (cached.fid, cached.fid_evaluator, cached.licence) == (11.16, "clean-fid", "MIT")
    assert cached.labels[3] == "cat"

    absent = models["imagenet64/n16384"]
    assert (absent.where, absent.path, absent.size_bytes) == ("not here", None, None)
    assert (absent.image_size, absent.num_classes) == (64, 1000)
    json.dumps([vars(model) for model in models.values()])


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("cifar10/n1024", 1.3),
        ("cifar10/n2048", 4.9),
        ("cifar10/n4096", 19.4),
        ("imagenet64/n6656", 57),
        ("imagenet64/n10240", 130),
        ("imagenet64/n16384", 322),
    ],
)
def test_released_sizes_are_the_published_ones(name: str, millions: float) -> None:
    params = next(model.params for model in list_models() if model.name == name)
    assert params / 1e6 == pytest.approx(millions, rel=0.01)


def test_from_pretrained_reads_the_hub_cache(hub_cache: Path) -> None:
    model = from_pretrained("cifar10/n1024", cache_dir=hub_cache, local_files_only=True)
    assert torch.equal(model.K, random_model().K)
    assert model.labels == catalog.CIFAR10_LABELS  # the released file names none


@pytest.mark.slow
def test_load_model_finds_the_cache_of_the_environment(hub_cache: Path) -> None:
    """In a fresh process, as users have it: HF_HUB_CACHE is read when the library starts."""
    code = "import un0; print(un0.load_model('cifar10/n1024').rev)"
    env = {"HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=Path(un0.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == from_pretrained("cifar10/n1024", cache_dir=hub_cache).rev


@pytest.mark.parametrize("local_files_only", [True, False])
def test_a_released_model_out_of_reach(hub_cache: Path, local_files_only: bool) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        from_pretrained("cifar10/n2048", cache_dir=hub_cache, local_files_only=local_files_only)
    for text in (
        "cifar10/n2048",
        "hf download un-ai/Un-0 cifar10_n2048.pt",
        "HF_HUB_CACHE",
        "path",
    ):
        assert text in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match=r"did you mean 'cifar10/n1024'\?"):
        load_model("cifar10/n1042")
    with pytest.raises(ModelNotFoundError, match=r"named 'zzz' and there is no such file; names"):
        load_model("zzz")


def test_a_name_wins_over_a_path_and_a_path_can_be_spelt_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fashion32").mkdir()
    rev = un0.save_model(random_model(), Path(DEFAULT_MODEL))
    assert load_model(DEFAULT_MODEL).rev != rev
    assert load_model(f"./{DEFAULT_MODEL}").rev == rev


class TestClasses:
    LABELS = ("T-shirt/top", "Trouser", "Bag", "7")

    def test_labels_ids_and_ids_as_text(self) -> None:
        wanted = ["trouser", "3", 2, " BAG ", "T-SHIRT/TOP", 0]
        assert resolve_classes(wanted, self.LABELS, 4) == [1, 3, 2, 2, 0, 0]

    def test_a_label_that_looks_like_an_id_is_a_label(self) -> None:
        assert resolve_classes(["7"], self.LABELS, 4) == [3]

    def test_models_without_labels_take_ids(self) -> None:
        assert resolve_classes(["999", 0], (), 1000) == [999, 0]

    @pytest.mark.parametrize(
        ("item", "labels", "says"),
        [
            ("Hat", LABELS, "class 'Hat' is unknown; this model has T-shirt/top, Trouser, Bag, 7"),
            ("Hat", (), "this model names no classes; give ids from 0 to 3"),
            (4, LABELS, "class id 4 is out of range; this model has classes 0 to 3"),
            ("-1", LABELS, "class id -1 is out of range"),
            (1.5, LABELS, "class 1.5 is neither a label nor an id"),
            (True, LABELS, "class True is neither a label nor an id"),
            (None, LABELS, "class None is neither a label nor an id"),
        ],
    )
    def test_what_is_no_class(self, item: object, labels: tuple[str, ...], says: str) -> None:
        with pytest.raises(InputError, match=says):
            resolve_classes([item], labels, 4)  # type: ignore[list-item]


def test_importing_is_quick_because_it_leaves_the_heavy_things_out() -> None:
    code = (
        "import sys, un0; un0.DEFAULT_MODEL, un0.resolve_classes, un0.ModelConfig\n"
        "print([name for name in ('torch', 'numba', 'huggingface_hub') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_exist() -> None:
    for name in un0.__all__:
        assert getattr(un0, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        un0.nothing  # noqa: B018
