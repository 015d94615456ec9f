"""Unicode tables of the releases that are followed, read once per process when a tokenizer needs them.

Ids depend on them: a letter that one version of Unicode has and another has not is cut off in one and not in the other.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from tokamak import _native
from tokamak.errors import InvalidParams

DEFAULT = "tokenizers-0.23"
# Release -> name of the tables in native code; "" are those built in. 0.23.3, as tiktoken 0.14, has Unicode 16 in patterns and
# Unicode 12 in normal forms; the pre-release 1.0.0rc3 has Unicode 17 in both.
COMPAT = {DEFAULT: "", "tokenizers-1.0": "1.0"}
NORMALIZED = frozenset(
    ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer")
)  # steps that need tables


def load_tables(compat: str, steps: Iterable[str]) -> str:
    """Make the tables there that normalizers of these types need; returns their name in native code.

    Raises: InvalidParams for a release that is not followed.
    """
    if compat not in COMPAT:
        raise InvalidParams(f"compat = {compat!r}: one of {', '.join(COMPAT)}")
    name = COMPAT[compat]
    if name:
        _load_classes(name)
    if not NORMALIZED.isdisjoint(steps):
        _load_normalization(name)
    return name


@cache
def _load_classes(name: str) -> None:
    """See tools/generate_unicode.py for what these files are."""
    _, properties, runs = _read(f"classes-{name}").decode().split("\n")
    _native.load_classes(name, [int(p, 16) for p in properties.split()], [int(r, 16) for r in runs.split()])


@cache
def _load_normalization(name: str) -> None:
    _native.load_normalization(_read(f"normalization-{name or '0.23'}"), name)


@cache
def script_runs() -> bytes:
    """u32[N], little endian, rising: first code point << 8 | script as UnicodeScripts tells them apart, 0 for none of its own."""
    runs = [int(r, 16) for r in _read("scripts-0.23").split()]
    return struct.pack(f"<{len(runs)}I", *runs)


def _read(stem: str) -> bytes:
    return zlib.decompress(files("tokamak.tokenizers").joinpath(f"data/{stem}.txt.z").read_bytes())
