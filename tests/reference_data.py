"""Where the reference data lies: recorded answers of other engines, and unpacked real files."""

import os
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def shared() -> Path | None:
    """The folder named by TOKAMAK_SHARED, else ../shared beside the repository."""
    folder = Path(os.environ.get("TOKAMAK_SHARED") or ROOT.parent / "shared")
    return folder if folder.is_dir() else None


def golden() -> Path | None:
    """golden/ of the reference data."""
    folder = shared()
    return folder / "golden" if folder and (folder / "golden").is_dir() else None


@cache
def unpacked() -> Path | None:
    """The unpacked real models, vocabularies and texts, where `unpack` leaves them."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache_home / "tokamak-reference"
    return folder if (folder / "models").is_dir() else None
