"""What GGUF files call things, family by family: tensors to parameter paths, with the shape each must have.

Tables only; `config.py` reads the keys and `checkpoint.py` applies the tables. A new family is a new row in one of
the tables here. Names of tensors: docs/gguf.md of ggml and gguf-py's tensor mapping.
"""

from __future__ import annotations

from collections.abc import Mapping

from tokamak.loaders.names.dense import DENSE_FAMILIES
from tokamak.loaders.names.encoders import ENCODERS
from tokamak.loaders.names.mixtures import MIXTURES
from tokamak.loaders.names.plain import PLAIN_FAMILIES
from tokamak.loaders.names.readers import READERS
from tokamak.loaders.names.recurrent import RECURRENT
from tokamak.loaders.names.rows import FamilyNames, Row

__all__ = ["FAMILIES", "FamilyNames", "Row"]

FAMILIES: Mapping[str, FamilyNames] = {
    **DENSE_FAMILIES,
    **PLAIN_FAMILIES,
    **MIXTURES,
    **RECURRENT,
    **ENCODERS,
    **READERS,
}
