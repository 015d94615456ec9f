"""Write native/quant/grids_data.inl: the lattices of the iq formats as bitmaps, from quant/grids.py."""

from __future__ import annotations

import base64
import pathlib
import zlib

from tokamak.quant.grids import _LATTICES

OUT = pathlib.Path(__file__).resolve().parent.parent / "native" / "quant" / "grids_data.inl"


def text() -> str:
    """The file: one array of 64-bit words per lattice, lowest bit first."""
    parts = ["// Made by tools/make_grids.py: which points of a lattice may be stored, lowest bit first.\n"]
    for name, (_levels, _dimensions, packed) in sorted(_LATTICES.items()):
        bitmap = zlib.decompress(base64.b85decode(packed))
        bitmap += bytes(-len(bitmap) % 8)
        words = [f"0x{int.from_bytes(bitmap[i : i + 8], 'little'):x}" for i in range(0, len(bitmap), 8)]
        rows = [", ".join(words[i : i + 4]) for i in range(0, len(words), 4)]
        body = ",\n    ".join(rows)
        parts.append(f"inline constexpr uint64_t k{name.upper()}Bits[] = {{\n    {body}}};\n")
    return "\n".join(parts)


if __name__ == "__main__":
    OUT.write_text(text(), encoding="utf-8")
