"""Images in prompts: the encoder against its NumPy twin, rows in their places, caches by content, errors by type."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace

import numpy as np
import pytest

import tiny
import tokamak
import vision_models
from tokamak import executors
from tokamak.engine.illustrated import Illustrated, Placed, expanded, keys
from tokamak.engine.pictures import grid, pixels, read_picture
from tokamak.engine.vision import open_vision, side_by_side
from tokamak.errors import InvalidParams, ModelFileError, UnsupportedError
from tokamak.loaders import open_checkpoint
from tokamak.loaders.vision import Preprocessing, open_image_encoder
from tokamak.types import Limits

PNG = vision_models.png(vision_models.picture())
needs_pillow = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("PIL") is None, reason="Pillow is not installed"
)
GREEDY = {"max_tokens": 6, "temperature": 0.0, "ignore_eos": True}


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def about(text: str, *images: bytes):
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    text = tiny.gguf(
        folder / "text.gguf", "llama", "f32", metadata={"tokenizer.chat_template": tiny.TEMPLATE}
    )
    return text, vision_models.gguf(folder / "mmproj.gguf")


@pytest.fixture(scope="module")
def llm(files):
    with tokamak.load(files[0], mmproj=files[1], threads=2, context=256) as loaded:
        yield loaded


@pytest.mark.parametrize("executor", ["reference", "cpu"])
@pytest.mark.parametrize("kind", vision_models.PROJECTORS)
def test_rows_of_an_image_are_those_of_the_twin(tmp_path, kind, executor):
    checkpoint = open_image_encoder(vision_models.gguf(tmp_path / "mmproj.gguf", kind))
    vision = open_vision(checkpoint, executors.get(executor), Limits(num_blocks=1))
    image = np.random.default_rng(3).standard_normal((3, 28, 28)).astype(np.float32)
    expected = vision_models.twin(kind, vision_models.tensors(kind), image)
    found = vision.encode(image)
    assert found.shape == expected.shape == (checkpoint.num_rows, 64)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()  # float32 through two layers
    vision.close()


def test_feed_forwards_named_the_early_way_round_are_told_by_their_shape(tmp_path):
    def swapped(found):
        def other(name):
            return name.replace("ffn_up", "?").replace("ffn_down", "ffn_up").replace("?", "ffn_down")

        return {other(name): x for name, x in found.items()}

    image = np.random.default_rng(3).standard_normal((3, 28, 28)).astype(np.float32)
    rows = []
    for change in (None, swapped):
        checkpoint = open_image_encoder(vision_models.gguf(tmp_path / "mmproj.gguf", change=change))
        rows.append(open_vision(checkpoint, executors.get("cpu"), Limits(num_blocks=1)).encode(image))
    assert np.array_equal(*rows)


def test_neighbours_are_merged_row_by_row():
    grid = np.arange(16, dtype=np.float32).reshape(16, 1)
    assert side_by_side(grid, 2).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_vectors_stand_for_the_rows_of_tokens(llm):
    """The rows that tokens would have, given as vectors, give the very logits of the tokens."""
    ids = list(range(20, 60))
    table = open_checkpoint(llm.facts["path"]).weights["embed_tokens.weight"].rows().view(np.float32)
    prompt = Illustrated([*ids[:10], *[0] * 20, *ids[30:]], (Placed(10, table[ids[10:30]].copy(), 1 << 30),))
    assert np.array_equal(llm.logits(prompt), llm.logits(ids))


@needs_pillow
def test_an_image_in_a_message_counts_all_its_rows_and_changes_the_answer(llm):
    blank = vision_models.png(np.zeros((40, 56, 3), np.uint8))
    seen, other = (llm.chat(about("What is it?", image), **GREEDY, logprobs=0) for image in (PNG, blank))
    without = llm.chat(about("What is it?"), **GREEDY, logprobs=0)
    assert seen.usage.prompt_tokens == len(llm.chat_prompt(about("What is it?", PNG)))
    assert seen.usage.prompt_tokens >= without.usage.prompt_tokens + llm.vision.num_rows
    assert len({tuple(e.logprob for e in done.logprobs) for done in (seen, other, without)}) == 3


@needs_pillow
def test_bytes_paths_arrays_and_pictures_are_the_same_image(llm, tmp_path):
    from PIL import Image

    array = vision_models.picture()
    (tmp_path / "a.png").write_bytes(PNG)
    ways = [PNG, tmp_path / "a.png", str(tmp_path / "a.png"), data_url(PNG), array, Image.fromarray(array)]
    assert len({llm.vision.see(way).number for way in ways}) == 1


@needs_pillow
def test_beside_others_an_image_is_read_with_the_same_bits(llm):
    prompts = [
        llm.chat_prompt(about(text, *images))
        for text, images in (("a", [PNG]), ("Hello you", []), ("b c", [PNG, PNG]))
    ]
    alone = [llm.generate(p, **GREEDY, logprobs=2, cache_salt=f"alone {i}") for i, p in enumerate(prompts)]
    together = llm.generate(prompts, **GREEDY, logprobs=2, cache_salt="together")
    assert [done.logprobs for done in together] == [done.logprobs for done in alone]


@needs_pillow
def test_chunks_of_a_prompt_may_end_inside_an_image(files):
    with tokamak.load(files[0], mmproj=files[1], threads=1, context=256, max_batch_rows=7) as narrow:
        prompt = narrow.chat_prompt(about("What is it?", PNG, PNG))
        few = narrow.generate(prompt, **GREEDY, logprobs=2)
    with tokamak.load(files[0], mmproj=files[1], threads=1, context=256) as wide:
        many = wide.generate(wide.chat_prompt(about("What is it?", PNG, PNG)), **GREEDY, logprobs=2)
    assert few.logprobs == many.logprobs


@needs_pillow
def test_a_prefix_is_found_again_for_the_same_image_only(llm):
    long = "once upon a time there was a little girl who lived near the river " * 3

    def cached(image):
        return llm.chat(about(long, image), **GREEDY, cache_salt="prefix").usage.cached_tokens

    other = vision_models.png(vision_models.picture(1))
    assert cached(PNG) == 0
    assert cached(PNG) >= 64
    assert cached(other) < llm.vision.num_rows  # what stands before the image at most
    assert cached(other) >= 64


def test_images_of_the_same_place_have_other_keys_and_tokens_none():
    rows = np.zeros((3, 4), np.float32)
    tokens = np.arange(8, dtype=np.int32)
    assert keys(tokens, 0, (Placed(2, rows, 7),)).tolist() == [0, 1, -7, -7, -7, 5, 6, 7]
    assert keys(tokens, 4, (Placed(2, rows, 7), Placed(10, rows, 8))).tolist() == [-7, 1, 2, 3, 4, 5, -8, -8]
    assert keys(tokens, 5, (Placed(2, rows, 7),)) is tokens


def test_images_are_put_between_pieces_of_text():
    from tokamak.engine.vision import Seen

    seen = [Seen(number, np.zeros((2, 4), np.float32)) for number in (1, 2)]
    prompt = expanded([[5], [], [6, 7]], seen, 9)
    assert prompt.token_ids == [5, 9, 9, 9, 9, 6, 7]
    assert [(p.start, p.stop, p.number) for p in prompt.pictures] == [(1, 3, 1), (3, 5, 2)]


@needs_pillow
@pytest.mark.parametrize(
    ("height", "width", "how"),
    [(20, 30, "crop"), (31, 17, "crop"), (9, 40, "squash")],
)
def test_pixels_are_resized_cut_and_normalised(height, width, how):
    from PIL import Image

    array = vision_models.picture(2, height, width)
    (found,) = pixels(array, Preprocessing(12, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), how, 14))
    size = (
        (12, 12)
        if how == "squash"
        else (14, int(14 * height / width))
        if width <= height
        else (int(14 * width / height), 14)
    )
    resized = np.asarray(Image.fromarray(array).resize(size, resample=3), np.float64)
    top, left = ((n - 12) // 2 for n in resized.shape[:2])
    wanted = (resized[top : top + 12, left : left + 12] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    assert np.abs(found - wanted.transpose(2, 0, 1)).max() < 1e-6


@needs_pillow
@pytest.mark.parametrize(
    ("height", "width", "tiles"),
    [
        (12, 12, (1, 1)),
        (12, 24, (2, 1)),
        (40, 12, (1, 3)),
        (100, 100, (2, 2)),
        (30, 240, (4, 1)),
        (20, 20, (2, 2)),
        (14, 14, (1, 1)),
    ],
)
def test_a_large_picture_is_cut_into_tiles_of_its_proportions(height, width, tiles):
    how = Preprocessing(12, (0.5,) * 3, (0.5,) * 3, "squash", 12, 3, (1, 4))
    array = vision_models.picture(2, height, width)
    assert grid(width, height, how) == tiles
    found, whole = pixels(array, how), pixels(array, replace(how, tiles=(1, 1)))
    count = tiles[0] * tiles[1]
    assert len(found) == (1 if count == 1 else count + 1)
    assert np.array_equal(found[-1:], whole)


@needs_pillow
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        PNG[:60],
        vision_models.png_of(60000, 60000, b""),
        vision_models.png_of(50000, 1, b""),
        vision_models.png_of(0, 7, b""),
        vision_models.png_of(8, 8, b"no zlib"),
    ],
    ids=["empty", "short", "svg", "cut", "bomb", "strip", "no pixel", "body"],
)
def test_what_is_no_picture_or_too_large_is_refused(content):
    with pytest.raises(InvalidParams):
        read_picture(content)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "data:image/png,abc",
        "data:image/png;base64,###",
    ],
)
def test_an_address_in_a_message_is_never_fetched_nor_opened(llm, url):
    with pytest.raises(InvalidParams):
        llm.chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], **GREEDY)


def test_an_image_without_an_encoder_is_refused(files):
    with tokamak.load(files[0], threads=1, context=64) as blind:
        with pytest.raises(UnsupportedError, match="mmproj"):
            blind.chat(about("What is it?", PNG), **GREEDY)
        with pytest.raises(InvalidParams, match="rows"):
            blind.generate(Illustrated([1, 0], (Placed(1, np.zeros((1, 64), np.float32), 1),)), **GREEDY)


def test_an_encoder_is_no_model_and_a_model_no_encoder(files):
    with pytest.raises(UnsupportedError, match="image encoder"):
        tokamak.load(files[1])
    with pytest.raises(UnsupportedError, match="not an image encoder"):
        tokamak.load(files[0], mmproj=files[0])


def test_an_encoder_of_another_model_is_refused(files, tmp_path):
    other = vision_models.gguf(tmp_path / "other.gguf", hidden_size=32)
    with pytest.raises(ModelFileError, match="another model"):
        tokamak.load(files[0], mmproj=other)


@needs_pillow
def test_what_would_move_or_lose_an_image_is_refused(llm, tmp_path):
    prompt = llm.chat_prompt(about("What is it?", PNG))
    for params in (
        {"context_shift": True},
        {"negative_prompt": "no", "guidance_scale": 2.0},
        {"token_healing": True},
    ):
        with pytest.raises(UnsupportedError):
            llm.generate(prompt, **GREEDY, **params)
    with pytest.raises(UnsupportedError):
        llm.save_state(tmp_path / "state", prompt)
    with pytest.raises(UnsupportedError):
        llm.embed(prompt)


@needs_pillow
def test_a_text_says_where_its_images_are(llm):
    inside, before = llm.illustrate("A<image>B", [PNG]), llm.illustrate("AB", [PNG])
    assert inside.pictures[0].start > before.pictures[0].start
    with pytest.raises(InvalidParams):
        llm.illustrate("<image> and <image>", [PNG])


@needs_pillow
def test_a_noncharacter_of_a_user_makes_no_place_for_an_image(llm):
    parts = about("What \ufde8 is it?", PNG)
    with pytest.raises(InvalidParams):
        llm.chat(parts, **GREEDY)


def test_more_images_than_a_context_holds_are_refused_before_one_is_read(llm, monkeypatch):
    monkeypatch.setattr(llm.vision, "see", None)
    with pytest.raises(tokamak.ContextOverflow, match="17 images"):
        llm.chat(about("What?", *[PNG] * 17), **GREEDY)


def test_without_pillow_files_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(tokamak.UnavailableError, match="vision"):
        read_picture(PNG)
