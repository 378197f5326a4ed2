"""Put a trained model into the package: ``python -m un0.train.bundle MODEL DATA [--seeds 3]``.

Judges it on several sampling seeds, writes it with its scores among the assets and registers its
sha256. For maintainers; the package must be an editable checkout.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from un0.catalog import ASSETS
from un0.checkpoint import load_model, save_model
from un0.errors import InputError
from un0.train.data import load_images
from un0.train.evaluate import Judge, Scores, evaluate


def bundle(model_path: Path, data: str, seeds: range, cache_dir: Path | None) -> list[Scores]:
    """Write the asset and its registry entry; returns the scores by seed. Refuses a collapse."""
    model = load_model(model_path)
    size = model.config.image_size
    judge = Judge(
        load_images(data, "train", size), load_images(data, "test", size), cache_dir=cache_dir
    )
    scores = []
    for seed in seeds:
        scores.append(evaluate(model, judge, seed))
        print(json.dumps(asdict(scores[-1])), flush=True)
    if any(s.collapsed for s in scores):
        raise InputError(f"{model_path}: the samples collapsed; it is not worth bundling")
    name: str = model.metadata["name"]
    file = name.replace("/", "_") + ".safetensors"
    metadata = {**model.metadata, "scores": [asdict(s) for s in scores]}
    sha256 = save_model(model, ASSETS / file, extra_metadata=metadata)
    registry_path = ASSETS / "registry.json"
    registry = json.loads(registry_path.read_text())
    registry[name] = {"file": file, "sha256": sha256}
    registry_path.write_text(json.dumps(registry, indent=2) + "\n")
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache-dir", type=Path)
    args = parser.parse_args()
    bundle(args.model, args.data, range(args.seeds), args.cache_dir)


if __name__ == "__main__":
    main()
