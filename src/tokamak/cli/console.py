"""What the verbs print with: JSON and text on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Progress = Callable[[int, int], None]


def print_json(value: object) -> None:
    """Print one JSON document on stdout. Text keeps its characters; NaN and infinity are refused by JSON."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2 if sys.stdout.isatty() else None))


def remark(text: str, *, quiet: bool) -> None:
    """Print a line for people on stderr, unless --quiet."""
    if not quiet:
        print(text, file=sys.stderr)


def wants_progress(*, quiet: bool) -> bool:
    """True when someone can see a bar: stderr is a terminal and --quiet is absent."""
    return sys.stderr.isatty() and not quiet


@contextmanager
def loading_bar(title: str, *, quiet: bool) -> Iterator[Progress | None]:
    """Give a `progress(done_nbytes, total_nbytes)` that draws a bar on stderr, or None where nobody looks."""
    if not wants_progress(quiet=quiet):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def counting_bar(title: str, *, quiet: bool) -> Iterator[Progress | None]:
    """Give a `progress(done, total)` that counts on stderr, or None where nobody looks."""
    if not wants_progress(quiet=quiet):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned with spaces: numbers to the right, the rest to the left."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    right = [
        bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(headers))
    ]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(list(headers)), *(line(row) for row in cells)])


def human_nbytes(nbytes: int) -> str:
    """Bytes for people: 512 B, 3.1 MB, 2.4 GB (powers of ten)."""
    value, units = float(nbytes), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.3g} {units[0]}"
