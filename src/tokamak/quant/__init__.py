"""Weight formats: codecs between bytes on disk and float32, in NumPy, one file per family."""

from __future__ import annotations

from tokamak.quant.format import FORMATS, Format, by_type_id

__all__ = ["FORMATS", "Format", "by_type_id"]
