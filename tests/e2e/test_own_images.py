"""docs/tutorials/train-your-own.md as a user follows it: train, evaluate, generate, read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import un0, un0_json
from un0.train.examples import write_coloured_shapes

RECIPE = {
    "name": "shapes",
    "model": {"n": 64},
    "loss": {"generated_per_class": 6, "positives_per_class": 24, "views": {"pixels": 1.0}},
    "optim": {"steps": 60, "warmup_steps": 10, "ema_decay": 0.9},
}


@pytest.mark.ray
@pytest.mark.slow
def test_a_folder_of_pictures_becomes_a_model_that_the_cluster_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = write_coloured_shapes(tmp_path / "pictures", per_class=120)
    recipe, model, store = tmp_path / "recipe.yaml", tmp_path / "m.safetensors", tmp_path / "store"
    recipe.write_text(json.dumps(RECIPE))

    trained = un0("train", str(recipe), "--data", str(data), "--out", str(model))
    assert trained.returncode == 0, trained.stderr
    again = un0("train", str(recipe), "--data", str(data), "--out", str(model))
    assert again.returncode == 2
    assert "--resume" in again.stderr

    scores = un0_json("evaluate", str(model), "--data", str(data), "--count", "100")
    for name in ("accuracy", "recall", "coverage", "precision", "shattered_share"):
        assert 0 <= scores[name] <= 1
    assert scores["cnn_frechet"] > scores["cnn_frechet_floor"] > 0

    result = un0_json("generate", str(model), "--count", "80", "--classes", "circle,square",
                      "--store", str(store), "--replicas", "1", "--job-id", "shapes")  # fmt: skip
    assert (result["state"], result["images"]) == ("completed", 80)
    rows = un0_json("query", "select label, count(*) n from images group by label",
                    "--store", str(store))  # fmt: skip
    assert {row["label"]: row["n"] for row in rows} == {"circle": 40, "square": 40}
