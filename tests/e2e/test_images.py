"""Images on the command line."""

from __future__ import annotations

import json

import pytest

import tiny
import vision_models
from command import tokamak

pytest.importorskip("PIL", reason="Pillow is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    picture = folder / "a.png"
    picture.write_bytes(vision_models.png(vision_models.picture()))
    return tiny.gguf(folder / "text.gguf"), vision_models.gguf(folder / "mmproj.gguf"), picture


def test_an_image_is_shown_to_a_model(files):
    text, mmproj, picture = files
    words = ("run", text, "--mmproj", mmproj, "-p", "What is it?", "-n", "3", "--temp", "0", "--json")
    seen = tokamak(*words, "--image", picture, "--image", picture)
    assert seen.returncode == 0, seen.stderr
    counts = [json.loads(out)["prompt_tokens"] for out in (seen.stdout, tokamak(*words).stdout)]
    assert counts[0] >= counts[1] + 2 * 16
    missing = tokamak(*words, "--image", "nowhere.png")
    assert missing.returncode == 2
    assert "nowhere.png" in missing.stderr


def test_a_conversation_shows_images_and_keeps_them(files, tmp_path):
    text, mmproj, picture = files
    lines = [
        "/image nowhere.png",
        f"/image {picture}",
        "What is it?",
        "/tokens",
        "/retry",
        "And now?",
    ]
    lines += [f"/save {tmp_path / 'a.json'}", "/tokens", "/clear", f"/load {tmp_path / 'a.json'}", "/tokens"]
    shown = tokamak("chat", text, "--mmproj", mmproj, "-n", "2", "--temp", "0", stdin="\n".join(lines))
    assert shown.returncode == 0, shown.stderr
    counts = [
        int(line.split()[0])
        for line in shown.stdout.splitlines()
        if " messages" in line and "tokens of" in line
    ]
    assert counts[0] > 16
    assert counts[1] == counts[2] > counts[0]
    assert "nowhere.png" in shown.stdout + shown.stderr


def test_inspect_says_what_a_mmproj_file_is(files):
    shown = tokamak("inspect", files[1], "--tensors")
    assert shown.returncode == 0, shown.stderr
    for part in (
        "image encoder with projector mlp",
        "28 x 28 pixels",
        "takes 16 tokens",
        "v.blk.0.attn_q.weight",
    ):
        assert part in shown.stdout


def test_a_mmproj_file_is_no_model(files):
    refused = tokamak("run", files[1], "-p", "Hi")
    assert refused.returncode != 0
    assert "--mmproj" in refused.stderr
