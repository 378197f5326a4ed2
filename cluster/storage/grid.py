"""A contact sheet of a job: one row of images per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cluster.errors import Fatal, UserError
from cluster.storage.image_rows import decode_image
from cluster.storage.job_rows import rows_of
from cluster.storage.object_store import ObjectStore
from cluster.storage.reader import read_rows
from cluster.storage.summaries import JobSummary, summarise

_SHEET_SIDE = 1200  # pixels that an automatic scale aims at
_SMALL_SIDE = 64  # images are enlarged at least to this
_BACKGROUND, _INK = (250, 250, 248), (60, 60, 60)
_MAX_PIXELS = 100_000_000
_LABEL_LENGTH = 32


def grid(
    store: ObjectStore, job_id: str, *, per_class: int = 10, scale: int | None = None
) -> Image.Image:
    """The first ``per_class`` committed images of each class, one row per class, by class id.

    scale: whole-number enlargement of each image; by default chosen by the size of the sheet.
    Reads only the row groups that hold these images. Raises UserError for an unknown
    job, one without any committed image, and a sheet too large to be drawn.
    """
    if per_class < 1 or (scale is not None and scale < 1):
        raise UserError(f"grid: per_class {per_class} and scale {scale} must be 1 or more")
    job = summarise(store, job_id)
    if not job.commits:
        raise UserError(f"job {job_id} has no committed images yet; `un0 resume {job_id}` goes on")
    workload = job.workload
    classes = sorted(set(workload.class_ids))
    width, height = workload.width, workload.height
    scale = scale or _scale(max(width, height), per_class, len(classes))
    cell = (width * scale, height * scale)
    if per_class * len(classes) * cell[0] * cell[1] > _MAX_PIXELS:
        raise UserError(
            f"grid: {len(classes)} rows of {per_class} images of {cell[0]}x{cell[1]} pixels are "
            "too many for one sheet; lower --per-class"
        )
    labels = {c: _shown(workload.label_of(c) or f"class {c}") for c in classes}
    sheet = _Sheet(labels, per_class, cell)
    for class_id, column, picture in _pictures(store, job, per_class):
        sheet.place(class_id, column, picture)
    return sheet.image


def _shown(label: str) -> str:
    line = " ".join(label.split())
    return line if len(line) <= _LABEL_LENGTH else line[: _LABEL_LENGTH - 1].rstrip(" ,") + "…"


def _scale(side: int, columns: int, rows: int) -> int:
    fits = _SHEET_SIDE // (side * max(columns, rows))
    return max(1, min(fits, -(-256 // side)), -(-_SMALL_SIDE // side))


def _pictures(
    store: ObjectStore, job: JobSummary, per_class: int
) -> Iterator[tuple[int, int, Image.Image]]:
    """(class, column, image) of the first images of each class; classes are known beforehand."""
    lacking = dict.fromkeys(job.workload.class_ids, per_class)
    for commit in job.commits:
        classes = rows_of(store, job.workload, commit.start, commit.stop).class_ids
        wanted = [np.flatnonzero(classes == c)[:lack] for c, lack in lacking.items()]
        for row in read_rows(
            store, commit, np.sort(np.concatenate(wanted)), ["index", "class_id", "image"]
        ):
            class_id = row["class_id"]
            try:
                picture = decode_image(row)
            except ValueError as error:
                raise Fatal(f"{commit.objects[0].key}: index {row['index']} {error}") from error
            yield class_id, per_class - lacking[class_id], picture
            lacking[class_id] -= 1
        lacking = {c: lack for c, lack in lacking.items() if lack}
        if not lacking:
            return


class _Sheet:
    """The sheet: labelled rows of cells that images are drawn into."""

    def __init__(self, labels: Mapping[int, str], columns: int, cell: tuple[int, int]) -> None:
        self._cell = cell
        self._gap = max(2, min(cell) // 16)
        self._rows = {class_id: row for row, class_id in enumerate(labels)}
        size = float(min(22, max(11, cell[1] // 4)))
        font = ImageFont.load_default(size)
        self._margin = round(size)
        widest = max(font.getlength(label) for label in labels.values())
        self._left = 2 * self._margin + round(widest)
        width = self._left + columns * (cell[0] + self._gap) - self._gap + self._margin
        height = 2 * self._margin + len(labels) * (cell[1] + self._gap) - self._gap
        self.image = Image.new("RGB", (width, height), _BACKGROUND)
        draw = ImageDraw.Draw(self.image)
        for class_id, label in labels.items():
            middle = self._top(class_id) + cell[1] / 2
            draw.text((self._left - self._margin, middle), label, _INK, font, anchor="rm")

    def place(self, class_id: int, column: int, picture: Image.Image) -> None:
        scaled = picture.resize(self._cell, Image.Resampling.NEAREST)
        left = self._left + column * (self._cell[0] + self._gap)
        self.image.paste(scaled, (left, self._top(class_id)))

    def _top(self, class_id: int) -> int:
        return self._margin + self._rows[class_id] * (self._cell[1] + self._gap)
