"""Words to paste, by which a job's images are read without this project. Pure."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from typing import Literal, get_args
from urllib.parse import unquote, urlsplit

from cluster.errors import UserError
from jobs.service.views import Results

Library = Literal["duckdb", "pandas", "datasets"]
LIBRARIES: tuple[Library, ...] = get_args(Library)
_FILES = "attempts/*/*/images.parquet"


def snippet(
    library: Library, results: Results, uris: Sequence[str], endpoint_url: str | None = None
) -> str:
    """Python that reads the images which are committed now.

    Of a complete job its folder is named, in which there is nothing else; of any other the files
    one by one. endpoint_url: of an S3 server that is not AWS. Raises UserError where nothing is
    committed.
    """
    if not uris:
        raise UserError(f"{results.uri}: no image is committed yet; `un0 watch` shows when one is")
    if urlsplit(uris[0]).scheme in ("http", "https"):
        return _of_server(library, uris)
    if urlsplit(results.uri).scheme == "s3":
        return _of_s3(library, results, uris, endpoint_url)
    return _of_files(library, results, uris)


def _of_files(library: Library, results: Results, uris: Sequence[str]) -> str:
    where = _path(results.uri)
    if results.complete:
        files = f"files = {f'{glob.escape(where)}/{_FILES}'!r}"
    else:
        paths = map(_path, uris)  # `datasets` takes each for a pattern
        files = _listed([glob.escape(p) if library == "datasets" else p for p in paths])
    if library == "duckdb":
        return "\n".join(
            (
                "import duckdb",
                files,
                "images = duckdb.read_parquet(files)",
                'print(duckdb.sql("select label, count(*) from images group by all order by all"))',
            )
        )
    if library == "datasets":
        return "\n".join(
            (
                "from datasets import load_dataset",
                files,
                'images = load_dataset("parquet", data_files=files, split="train")',
                "print(images)",
            )
        )
    read = "images = pd.concat(map(pd.read_parquet, files), ignore_index=True)"
    if results.complete:
        files, read = f"files = {f'{where}/attempts'!r}", "images = pd.read_parquet(files)"
    return "\n".join(("import pandas as pd", files, read, "print(images.label.value_counts())"))


def _of_server(library: Library, uris: Sequence[str]) -> str:
    """One file after the other, with the token that the environment has."""
    reads = {
        "duckdb": (
            "import duckdb",
            'print(duckdb.sql("select label, count(*) from images group by all order by all"))',
        ),
        "pandas": ("import pandas", "print(images.to_pandas().label.value_counts())"),
        "datasets": ("from datasets import Dataset", "print(Dataset(images))"),
    }
    wanted, use = reads[library]
    return "\n".join(
        (
            "import os",
            "from io import BytesIO",
            "from urllib.request import Request, urlopen",
            wanted,
            "import pyarrow",
            "import pyarrow.parquet",
            _listed(uris),
            'token = os.environ.get("UN0_TOKEN")',
            'headers = {"Authorization": f"Bearer {token}"} if token else {}',
            "answers = (urlopen(Request(file, headers=headers)).read() for file in files)",
            "tables = [pyarrow.parquet.read_table(BytesIO(answer)) for answer in answers]",
            "images = pyarrow.concat_tables(tables)",
            use,
        )
    )


def _of_s3(
    library: Library, results: Results, uris: Sequence[str], endpoint_url: str | None
) -> str:
    """By PyArrow's file system, which needs no other package and finds credentials as AWS does."""
    keys = [uri.removeprefix("s3://") for uri in uris]
    where = results.uri.removeprefix("s3://")
    files = f"files = {f'{where}/attempts'!r}" if results.complete else _listed(keys)
    server = f"endpoint_override={endpoint_url!r}" if endpoint_url else ""
    reads = {
        "duckdb": (
            "import duckdb",
            'print(duckdb.sql("select label, count(*) from images group by all order by all"))',
        ),
        "pandas": (
            "import pandas",
            "print(images.to_table().to_pandas().label.value_counts())",
        ),
        "datasets": (
            "from datasets import Dataset",
            "print(Dataset(images.to_table()))",
        ),
    }
    wanted, use = reads[library]
    return "\n".join(
        (
            wanted,
            "import pyarrow.dataset",
            "from pyarrow.fs import S3FileSystem",
            files,
            f"images = pyarrow.dataset.dataset(files, filesystem=S3FileSystem({server}))",
            use,
        )
    )


def _listed(files: Sequence[str]) -> str:
    return "\n".join(("files = [", *(f"    {file!r}," for file in files), "]"))


def _path(uri: str) -> str:
    return unquote(urlsplit(uri).path)
