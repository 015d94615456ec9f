"""Tables of normal forms, read once per process when a normalizer needs them."""

from __future__ import annotations

import zlib
from functools import cache
from importlib.resources import files

from tokamak import _native

NORMALIZED = frozenset(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer"))  # steps that need them


@cache
def load_normalization() -> None:
    """Hand the tables to native code; see tools/generate_unicode.py for what they are."""
    data = files("tokamak.tokenizers").joinpath("data/normalization-0.23.txt.z").read_bytes()
    _native.load_normalization(zlib.decompress(data))
