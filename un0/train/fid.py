"""clean-FID, for users with a network: the optional extra ``fid``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from torch import Tensor

from un0.errors import InputError
from un0.model import Un0Model
from un0.train.data import ImageSet
from un0.train.evaluate import sample


def clean_fid(model: Un0Model, test: ImageSet, count: int = 10_000, seed: int = 0) -> float:
    """clean-FID (Parmar et al. 2022) of ``count`` samples against the test images.

    Raises InputError without the extra, or where its Inception weights cannot be fetched.
    """
    try:
        from cleanfid import fid  # type: ignore[import-not-found,unused-ignore]
    except ImportError as e:
        raise InputError("clean-FID needs the extra: pip install 'un0-cluster[fid]'") from e
    images, _ = sample(model, count, seed)
    with TemporaryDirectory() as folder:
        ours, real = Path(folder, "samples"), Path(folder, "real")
        _write_pictures(((images + 1) * 127.5).round().clamp(0, 255).byte(), ours)
        _write_pictures(test.images_NCHW, real)
        try:
            return float(fid.compute_fid(str(ours), str(real), mode="clean", verbose=False))
        except OSError as e:
            raise InputError(
                f"clean-FID: its Inception weights could not be fetched ({e}); check the network"
            ) from e


def _write_pictures(images_NCHW: Tensor, folder: Path) -> None:
    folder.mkdir()
    for i, picture in enumerate(images_NCHW.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(picture).save(folder / f"{i:06d}.png")
