"""Write a report in the chosen format, to a file or standard output."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from rich.console import Console

from cluster.errors import UserError
from jobs.cli.options import show_table
from jobs.report.build import Report
from jobs.report.html import page
from jobs.report.text import as_csv, as_parquet, rows_table, totals_text

FORMATS = ("table", "json", "csv", "parquet", "html")


def write_report(report: Report, format: str, out: Path | None) -> None:
    """To the file, whose name is then printed, or to standard output.

    Raises UserError if the file cannot be written.
    """
    if format == "table" and out is None:
        print(totals_text(report))
        if report.by:
            print()
            show_table(rows_table(report), give_way=("cost", "carbon", "wasted", "idle"))
        return
    data = _rendered(report, format)
    if out is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)  # UTF-8 whatever the terminal's encoding
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    print(out)


def _rendered(report: Report, format: str) -> bytes:
    if format == "json":
        return (json.dumps(report.view().model_dump(mode="json"), indent=2) + "\n").encode()
    if format == "csv":
        return as_csv(report)
    if format == "parquet":
        return as_parquet(report)
    if format == "html":
        return page(report).encode()
    text = io.StringIO()
    text.write(totals_text(report) + "\n")
    if report.by:
        text.write("\n")
        Console(file=text, width=4000).print(rows_table(report))
    return text.getvalue().encode()
