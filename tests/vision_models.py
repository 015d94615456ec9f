"""Tiny image encoders as mmproj files with random weights, what they compute in plain NumPy, and pictures.

path = vision_models.gguf(tmp_path / "mmproj.gguf", hidden_size=64)
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from tokamak.loaders.writer import TensorSource, write_gguf

SIDE, PATCH, WIDE, INNER, HEADS, LAYERS, EPS = 28, 7, 32, 48, 2, 2, 1e-5
KEYS = {
    "general.architecture": "clip",
    "general.type": "mmproj",
    "clip.has_vision_encoder": True,
    "clip.projector_type": "mlp",
    "clip.vision.image_size": SIDE,
    "clip.vision.patch_size": PATCH,
    "clip.vision.embedding_length": WIDE,
    "clip.vision.feed_forward_length": INNER,
    "clip.vision.projection_dim": 64,
    "clip.vision.block_count": LAYERS,
    "clip.vision.attention.head_count": HEADS,
    "clip.vision.attention.layer_norm_epsilon": EPS,
    "clip.vision.image_mean": [0.5, 0.4, 0.3],
    "clip.vision.image_std": [0.3, 0.2, 0.25],
}
PROJECTORS = {
    "mlp": {"mm.0": (64, WIDE), "mm.2": (64, 64)},
    "internvl": {
        "mm.model.mlp.0": (4 * WIDE,),
        "mm.model.mlp.1": (64, 4 * WIDE),
        "mm.model.mlp.3": (64, 64),
    },
}


def tensors(kind: str = "mlp", hidden_size: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """float32 tensors by their names in the file."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), seed])

    def pair(name: str, *shape: int) -> dict[str, np.ndarray]:
        near = 1.0 if len(shape) == 1 else 0.0  # norms
        weight = near + rng.standard_normal(shape) / math.sqrt(shape[-1])
        return {f"{name}.weight": weight, f"{name}.bias": 0.1 * rng.standard_normal(shape[0])}

    patches = (SIDE // PATCH) ** 2
    found = {
        "v.class_embd": rng.standard_normal(WIDE),
        "v.patch_embd.weight": rng.standard_normal((WIDE, 3, PATCH, PATCH)) / PATCH,
        "v.position_embd.weight": 0.3 * rng.standard_normal((patches + 1, WIDE)),
    }
    if kind == "mlp":
        found |= pair("v.pre_ln", WIDE)
    else:
        found["v.patch_embd.bias"] = rng.standard_normal(WIDE)
    for layer in range(LAYERS):
        blk = f"v.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            found |= pair(blk + name, WIDE, WIDE)
        found |= pair(blk + "ln1", WIDE) | pair(blk + "ln2", WIDE)
        found |= pair(blk + "ffn_up", INNER, WIDE) | pair(blk + "ffn_down", WIDE, INNER)
        if kind == "internvl":
            found |= {f"{blk}ls{i}.weight": rng.standard_normal(WIDE) for i in (1, 2)}
    for name, shape in PROJECTORS[kind].items():
        found |= pair(name, *(hidden_size if n == 64 else n for n in shape))
    return {name: np.asarray(x, np.float32) for name, x in found.items()}


def gguf(path: Path | str, kind: str = "mlp", *, keys: dict | None = None, change=None, **sizes) -> Path:
    """Write an image encoder. keys: more metadata, None removes one. change: what happens to the tensors before."""
    found = tensors(kind, **sizes)
    if change is not None:
        found = change(found)
    own = {"clip.projector_type": kind, "clip.use_gelu": kind != "mlp"}
    values = {k: v for k, v in {**KEYS, **own, **(keys or {})}.items() if v is not None}
    sources = [
        TensorSource(n, "f32", x.shape, lambda x=x: np.ascontiguousarray(x).reshape(-1).view(np.uint8))
        for n, x in found.items()
    ]
    write_gguf(path, values, sources)
    return Path(path)


def twin(kind: str, found: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """Rows of the decoder of pixels [3, SIDE, SIDE], in float64 and as the papers have it: the authority of these tests."""
    w = {name: x.astype(np.float64) for name, x in found.items()}

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x, eps=EPS):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    def erf_gelu(x):
        return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    side = SIDE // PATCH
    rows = [w["v.class_embd"]]
    for i in range(side):
        for j in range(side):
            patch = image[:, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH]
            row = np.einsum("cyx,dcyx->d", patch.astype(np.float64), w["v.patch_embd.weight"])
            rows.append(row + w.get("v.patch_embd.bias", 0))
    x = np.array(rows) + w["v.position_embd.weight"]
    x = norm("v.pre_ln", x) if "v.pre_ln.weight" in w else x
    for layer in range(LAYERS):
        blk = f"v.blk.{layer}."
        y = norm(blk + "ln1", x)
        q, k, v = (
            linear(blk + n, y).reshape(len(y), HEADS, -1).transpose(1, 0, 2)
            for n in ("attn_q", "attn_k", "attn_v")
        )
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(WIDE // HEADS))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(y), WIDE)
        x = x + linear(blk + "attn_out", mixed) * w.get(blk + "ls1.weight", 1)
        up = linear(blk + "ffn_up", norm(blk + "ln2", x))
        hidden = up / (1 + np.exp(-1.702 * up)) if kind == "mlp" else erf_gelu(up)
        x = x + linear(blk + "ffn_down", hidden) * w.get(blk + "ls2.weight", 1)
    x = x[1:]
    if kind == "mlp":
        return linear("mm.2", erf_gelu(linear("mm.0", x)))
    grid = x.reshape(side, side, WIDE)
    merged = [
        np.concatenate([grid[2 * i + a, 2 * j + b] for a in (0, 1) for b in (0, 1)])
        for i in range(side // 2)
        for j in range(side // 2)
    ]
    hidden = erf_gelu(linear("mm.model.mlp.1", norm("mm.model.mlp.0", np.array(merged))))
    return linear("mm.model.mlp.3", hidden)


def picture(seed: int = 0, height: int = 40, width: int = 56) -> np.ndarray:
    """uint8[height, width, 3]: smooth, as pictures are, and different for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(a * x / width + b * y / height + c) for a, b, c in rng.uniform(1, 9, (3, 3))]
    return np.stack([127 + 120 * wave for wave in waves], axis=2).astype(np.uint8)


def png(array: np.ndarray) -> bytes:
    """The file of a picture, without a library."""
    height, width, _ = array.shape
    lines = b"".join(b"\0" + row.tobytes() for row in array)
    return png_of(width, height, zlib.compress(lines))


def png_of(width: int, height: int, body: bytes) -> bytes:
    """A PNG of that size by its header, whatever the body holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
