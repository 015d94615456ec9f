"""Experts that a directory holds in MXFP4: the same codes and exponents in the blocks that GGUF has.

Of a matrix [experts, outputs, inputs] there are `X_blocks` u8[E, N, K / 32, 16], two codes a byte, neighbours, the first one low; and
`X_scales` u8[E, N, K / 32], exponents. A block of GGUF is its exponent and 16 bytes, columns 0 .. 15 low and 16 .. 31 high.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from tokamak.errors import ModelFileError
from tokamak.loaders.hf_quantised import Unpacked
from tokamak.loaders.safetensors import StoredTensor
from tokamak.types import Array

__all__ = ["with_experts_unpacked"]

BLOCKS, SCALES = "_blocks", "_scales"
BLOCK_COLUMNS = 32


def with_experts_unpacked(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor | Unpacked]:
    """The tensors with matrices in `mxfp4` for pairs of blocks and scales.  Raises: ModelFileError."""
    found: dict[str, StoredTensor | Unpacked] = {}
    for name, tensor in stored.items():
        stem = name.removesuffix(BLOCKS)
        if stem == name:
            if not name.endswith(SCALES) or name.removesuffix(SCALES) + BLOCKS not in stored:
                found[name] = tensor
            continue
        scales = stored.get(stem + SCALES)
        if scales is None:
            raise ModelFileError(f"has no tensor {stem}{SCALES}")
        shape = tensor.shape
        if (tensor.dtype, scales.dtype) != ("U8", "U8") or len(shape) != 4 or shape[3] != BLOCK_COLUMNS // 2:
            raise ModelFileError(f"tensor {name} is {tensor.dtype}{list(shape)}, no blocks of MXFP4")
        if scales.shape != shape[:3]:
            raise ModelFileError(
                f"tensor {scales.name} has the shape {list(scales.shape)}, not {list(shape[:3])}"
            )
        whole = (*shape[:2], shape[2] * BLOCK_COLUMNS)
        found[stem] = Unpacked(stem, "mxfp4", whole, (tensor, scales), partial(_groups, tensor, scales))
    return found


def _groups(blocks: StoredTensor, scales: StoredTensor) -> Array:
    """u8[E * N * K / 32 * 17], an expert at a time."""
    experts = blocks.shape[0]
    codes = blocks.data().reshape(experts, -1, BLOCK_COLUMNS // 2)
    out = np.empty((*codes.shape[:2], 1 + BLOCK_COLUMNS // 2), dtype=np.uint8)
    out[..., 0] = scales.data().reshape(experts, -1)
    for expert in range(experts):
        pairs = np.stack([codes[expert] & np.uint8(15), codes[expert] >> np.uint8(4)], axis=-1)
        columns = pairs.reshape(-1, BLOCK_COLUMNS)
        out[expert, :, 1:] = columns[:, :16] | (columns[:, 16:] << np.uint8(4))
    return out.reshape(-1)
