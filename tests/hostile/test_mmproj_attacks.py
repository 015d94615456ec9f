"""A stranger's mmproj file is refused with a typed error that names the key or the tensor, before anything large is made."""

from __future__ import annotations

import numpy as np
import pytest

import vision_models
from tokamak import models
from tokamak.errors import ModelFileError, TokamakError, UnsupportedError
from tokamak.loaders.vision import open_image_encoder

BIG = 1 << 31


def opened(path):
    checkpoint = open_image_encoder(path)
    models.build_image_encoder(checkpoint.projector, checkpoint.config, checkpoint.tower, checkpoint.weights)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"clip.projector_type": "zork"}, UnsupportedError),
        ({"clip.projector_type": "gemma3"}, UnsupportedError),
        ({"clip.projector_type": 7}, UnsupportedError),
        ({"clip.vision.block_count": BIG}, ModelFileError),
        ({"clip.vision.block_count": 0}, ModelFileError),
        ({"clip.vision.block_count": 900}, ModelFileError),
        ({"clip.vision.image_size": BIG}, ModelFileError),
        ({"clip.vision.image_size": 65536, "clip.vision.patch_size": 1}, ModelFileError),
        ({"clip.vision.image_size": 29}, ModelFileError),
        ({"clip.vision.patch_size": 0}, ModelFileError),
        ({"clip.vision.patch_size": None}, ModelFileError),
        ({"clip.vision.patch_size": "7"}, ModelFileError),
        ({"clip.vision.attention.head_count": 5}, ModelFileError),
        ({"clip.vision.attention.layer_norm_epsilon": -1.0}, ModelFileError),
        ({"clip.vision.attention.layer_norm_epsilon": float("nan")}, ModelFileError),
        ({"clip.vision.feed_forward_length": 50}, ModelFileError),
        ({"clip.vision.image_mean": [0.5]}, ModelFileError),
        ({"clip.vision.image_std": [0.5, 0.0, 0.5]}, ModelFileError),
        ({"clip.vision.feature_layer": [1, 2]}, UnsupportedError),
        ({"clip.vision.feature_layer": [99]}, UnsupportedError),
        ({"clip.use_silu": True}, UnsupportedError),
        ({"clip.has_audio_encoder": True}, UnsupportedError),
        ({"clip.vision.mm_patch_merge_type": "spatial_unpad"}, UnsupportedError),
        ({"clip.vision.window_size": 8}, UnsupportedError),
    ],
    ids=str,
)
def test_keys_that_cannot_be_kept_are_refused(tmp_path, keys, error):
    with pytest.raises(error) as caught:
        opened(vision_models.gguf(tmp_path / "mmproj.gguf", keys=keys))
    assert "mmproj.gguf" in str(caught.value) or isinstance(caught.value, ModelFileError)


@pytest.mark.parametrize("name", sorted(vision_models.tensors()))
def test_a_tensor_of_another_shape_is_refused(tmp_path, name):
    def bent(found):
        shape = found[name].shape
        return {**found, name: np.zeros((shape[0] + 1, *shape[1:]), np.float32)}

    with pytest.raises(TokamakError):
        opened(vision_models.gguf(tmp_path / "mmproj.gguf", change=bent))


@pytest.mark.parametrize(
    "name", ["v.patch_embd.weight", "v.position_embd.weight", "v.blk.1.attn_q.weight", "mm.0.weight"]
)
def test_a_missing_tensor_is_named(tmp_path, name):
    def without(found):
        return {n: x for n, x in found.items() if n != name}

    with pytest.raises(ModelFileError, match="has no"):
        opened(vision_models.gguf(tmp_path / "mmproj.gguf", change=without))


def test_a_tensor_too_many_is_named(tmp_path):
    def more(found):
        return {**found, "mm.7.weight": np.zeros((2, 2), np.float32)}

    with pytest.raises(UnsupportedError, match=r"mm\.7\.weight"):
        opened(vision_models.gguf(tmp_path / "mmproj.gguf", change=more))
