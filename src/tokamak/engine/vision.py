"""`Vision`: an image encoder beside a model. Pictures in, rows of the decoder out; a picture that came before is not encoded again."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tokamak import models
from tokamak.engine.encoder import whole_texts
from tokamak.engine.pictures import PictureLike, digest, pixels, read_picture
from tokamak.errors import Cancelled
from tokamak.ir import passes
from tokamak.loaders.vision import VisionCheckpoint, has_vision, open_image_encoder
from tokamak.types import Array, Executor, Floats, Given, Limits, Program

NUMBERS = count(1)  # of contents, in all of the program: a prefix of one model's pictures is never another's
KEPT_NBYTES = 256 << 20  # of encoded pictures that may come again


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture as a decoder takes it. number: of its content, never given to another one. vectors: f32[n, hidden_size]."""

    number: int
    vectors: Floats


class Vision:
    """See above. Any number of threads may use it; one picture is encoded at a time."""

    def __init__(self, tower: Program, projector: Program, checkpoint: VisionCheckpoint) -> None:
        self.checkpoint = checkpoint
        self._tower, self._projector = tower, projector
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Seen] = OrderedDict()
        self._kept_nbytes = 0
        self._open = True

    @property
    def hidden_size(self) -> int:
        """Width of its rows, which is the decoder's."""
        return self._projector.vocab_size

    @property
    def num_rows(self) -> int:
        """Rows that a picture takes, or each of its tiles."""
        return self.checkpoint.num_rows

    def see(self, given: PictureLike) -> Seen:
        """A picture as rows.  Raises: InvalidParams, UnavailableError, as `read_picture`; Cancelled after `close`."""
        with self._lock:
            if not self._open:
                raise Cancelled("no picture can be read any more: the model is closed")
            picture = read_picture(given)
            key = digest(picture)
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            tiles = pixels(picture, self.checkpoint.preprocessing)
            seen = Seen(next(NUMBERS), np.concatenate([self.encode(tile) for tile in tiles]))
            self._kept[key] = seen
            self._kept_nbytes += seen.vectors.nbytes
            while self._kept_nbytes > KEPT_NBYTES and len(self._kept) > 1:
                self._kept_nbytes -= self._kept.popitem(last=False)[1].vectors.nbytes
            return seen

    def encode(self, image: Floats) -> Floats:
        """f32[num_rows, hidden_size] of pixels f32[3, size, size]."""
        checkpoint = self.checkpoint
        patches, first = unfolded(image, int(checkpoint.config["patch_size"])), checkpoint.class_rows
        rows = np.arange(len(patches), dtype=np.int32) + np.int32(first)
        states = _run(self._tower, len(patches) + first, Given(rows, patches), rows)
        merged = side_by_side(states, checkpoint.merge)
        every = np.arange(len(merged), dtype=np.int32)
        return _run(self._projector, len(merged), Given(every, merged), every)

    def memory(self) -> Mapping[str, int]:
        """Bytes of its weights and its working memory."""
        both = [self._tower.memory(), self._projector.memory()]
        return {name: sum(one.get(name, 0) for one in both) for name in both[0]}

    def facts(self) -> dict[str, Any]:
        """What `LLM.facts` says of it."""
        c = self.checkpoint
        return {
            "path": c.path,
            "projector": c.projector,
            "image_size": c.preprocessing.size,
            "rows": self.num_rows,
            "nbytes": c.nbytes,
        }

    def close(self) -> None:
        """After the picture that is encoded now."""
        with self._lock:
            self._open = False
            self._kept.clear()
            self._tower.close()
            self._projector.close()


def find_vision(
    mmproj: str | os.PathLike[str] | None, model: str | os.PathLike[str] | None
) -> VisionCheckpoint | None:
    """What is asked for, else what the directory of the model has; None if neither.  Raises: as `open_image_encoder`."""
    if mmproj is not None:
        return open_image_encoder(Path(mmproj))
    return open_image_encoder(Path(model)) if model is not None and has_vision(Path(model)) else None


def open_vision(checkpoint: VisionCheckpoint, executor: Executor, limits: Limits) -> Vision:
    """Compile an image encoder.  Raises: as `models.build`."""
    tower, projector = models.build_image_encoder(
        checkpoint.projector, checkpoint.config, checkpoint.tower, checkpoint.weights
    )
    rows = checkpoint.side**2 + checkpoint.class_rows
    blocks = -(-rows // limits.block_size)
    exact = replace(
        limits, num_blocks=blocks, recent_blocks=0, max_rows=rows, max_sequences=1, kv_dtype="f32"
    )
    seeing = executor.compile(passes.optimize(tower), checkpoint.tower, exact)
    blocks = -(-checkpoint.num_rows // limits.block_size)
    fewer = replace(exact, num_blocks=blocks, max_rows=checkpoint.num_rows)
    return Vision(seeing, executor.compile(passes.optimize(projector), checkpoint.weights, fewer), checkpoint)


def unfolded(image: Floats, size: int) -> Floats:
    """f32[patches, 3 * size * size] of f32[3, H, W], patches row by row: a convolution with as large steps is then a matrix."""
    channels, height, width = image.shape
    cut = image.reshape(channels, height // size, size, width // size, size)
    return np.ascontiguousarray(cut.transpose(1, 3, 0, 2, 4).reshape(-1, channels * size * size))


def side_by_side(states: Floats, merge: int) -> Floats:
    """Squares of merge x merge neighbours of a square of rows f32[n * n, D] as one row each, f32[., merge * merge * D]."""
    side, width = round(len(states) ** 0.5), states.shape[1]
    squares = states.reshape(side // merge, merge, side // merge, merge, width)
    merged: Array = squares.transpose(0, 2, 1, 3, 4).reshape(-1, merge * merge * width)
    return np.ascontiguousarray(merged)


def _run(program: Program, num_rows: int, given: Given, wanted: Array) -> Floats:
    batch = whole_texts([np.zeros(num_rows, dtype=np.int32)], program.limits.block_size)  # type: ignore[list-item]
    return program.run(replace(batch, given=given, logit_rows=wanted))
