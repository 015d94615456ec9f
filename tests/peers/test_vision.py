"""Tiny random LLaVA and InternVL models saved by transformers: pixels, rows of images, logits and greedy tokens are the same,
read from their directory and from GGUF files."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tokamak
import vision_models
from tokamak.engine.illustrated import expanded
from tokamak.engine.pictures import pixels
from tokamak.loaders.vision import open_image_encoder, write_image_encoder

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")

LIMIT = 1e-4  # of the spread: float32 against float32 in another order
TEXT = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
SEEN = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 7,
}
IMAGE = 5
TEMPLATE = (  # of LLaVA 1.5: parts in lists, images first
    "{% for message in messages %}{{ message['role'].upper() + ': '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
PIECES = [[1, 7, 8, 30], [9, 10], [11, 12, 13]]
PICTURES = [vision_models.picture(1, 50, 40), vision_models.picture(2, 33, 64)]


def llava(tower):
    return transformers.LlavaConfig(
        vision_config=tower, text_config=transformers.LlamaConfig(**TEXT), image_token_index=IMAGE
    )


def with_clip():
    config = llava(transformers.CLIPVisionConfig(**SEEN, image_size=28, projection_dim=32))
    return transformers.LlavaForConditionalGeneration(config), transformers.CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )


def with_siglip():
    config = llava(transformers.SiglipVisionConfig(**SEEN, image_size=28))
    config.vision_feature_layer, config.vision_feature_select_strategy = -1, "full"
    return transformers.LlavaForConditionalGeneration(config), transformers.SiglipImageProcessor(
        size={"height": 28, "width": 28}
    )


def intern():
    tower = transformers.InternVLVisionConfig(
        **{**SEEN, "patch_size": [7, 7]}, image_size=[28, 28], layer_scale_init_value=0.5
    )
    config = transformers.InternVLConfig(
        vision_config=tower,
        text_config=transformers.Qwen2Config(**TEXT),
        image_token_id=IMAGE,
        image_seq_length=4,
    )
    return transformers.InternVLForConditionalGeneration(config), transformers.GotOcr2ImageProcessor(
        size={"height": 28, "width": 28}
    )


def tokenizer():
    """Bytes, as many as there is room for, and the placeholder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = [chr(c) for c in range(33, 127)] + ["\u0120", "\u010a"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": IMAGE}
    free = iter(i for i in range(TEXT["vocab_size"]) if i not in vocab.values())
    made = Tokenizer(models.BPE({**vocab, **{x: next(free) for x in letters}}, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<unk>", "<s>", "</s>", "<image>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )


CASES = {"clip": with_clip, "siglip": with_siglip, "internvl": intern}


@dataclasses.dataclass
class Peer:
    model: object
    processor: object
    folder: object

    def pixels(self):
        from PIL import Image

        cut = {"crop_to_patches": True} if hasattr(self.processor, "crop_to_patches") else {}
        made = self.processor([Image.fromarray(p) for p in PICTURES], return_tensors="pt", **cut)
        counts = made.get("num_patches", [1] * len(PICTURES))
        return made["pixel_values"], [int(n) for n in counts]

    def rows(self):
        values, counts = self.pixels()
        with torch.no_grad():
            found = self.model.get_image_features(values)
        found = np.stack([x.numpy() for x in getattr(found, "pooler_output", found)])
        parts = np.split(found, np.cumsum(counts)[:-1])
        return [part.reshape(-1, TEXT["hidden_size"]) for part in parts]


@pytest.fixture(scope="module", params=CASES)
def peer(request, tmp_path_factory):
    torch.manual_seed(7)
    torch.set_num_threads(1)
    model, processor = CASES[request.param]()
    with torch.no_grad():
        for parameter in model.parameters():  # larger than they begin, so that every part shows
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp(request.param)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return Peer(model, processor, folder)


def test_pixels_are_those_of_the_processor(peer):
    how = open_image_encoder(peer.folder).preprocessing
    found = [pixels(picture, how) for picture in PICTURES]
    values, counts = peer.pixels()
    assert [len(tiles) for tiles in found] == counts
    assert np.abs(np.concatenate(found) - values.numpy()).max() < 1e-5


@pytest.mark.parametrize("executor", ["reference", "cpu"])
def test_rows_logits_and_greedy_tokens_are_those_of_transformers(peer, executor):
    with tokamak.load(peer.folder, executor=executor, context=128, kv_dtype="f32", threads=2) as llm:
        check(llm, peer)


def test_a_conversation_is_written_as_the_processor_writes_it(peer):
    images = [{"type": "image", "image": picture} for picture in PICTURES]
    messages = [
        {"role": "user", "content": [images[0], {"type": "text", "text": "What <image> is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "text", "text": "And this?"}, images[1]]},
    ]
    with tokamak.load(peer.folder, context=128, kv_dtype="f32", threads=1) as llm:
        prompt = llm.chat_prompt(messages)
        rows, last = (len(llm.vision.see(picture).vectors) for picture in PICTURES)
        assert llm.chat_prompt([{"role": "user", "content": "Hi"}]) == llm.tokenizer.encode(
            "USER: Hi ASSISTANT:", add_special=False
        )
    messages[0]["content"][1]["text"] = "What { is it?"  # transformers takes the name in a text for a place
    text = tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    first, second, third = text.split("<image>")
    whole = f"{first}{'<image>' * rows}{second}{'<image>' * last}{third}"
    expected = tokenizer()(whole)["input_ids"]
    found = list(prompt.token_ids)
    assert [p.start for p in prompt.pictures] == [6, found.index(IMAGE, 6 + rows)]
    assert len(found) == len(expected) + len("<image>") - len("{")
    assert found[: 6 + rows] == expected[: 6 + rows]
    assert found[-last - 20 :] == expected[-last - 20 :]


def test_from_two_gguf_files_they_are_the_same(peer, tmp_path):
    tokamak.quantize(peer.folder, tmp_path / "text.gguf", "f32")
    write_image_encoder(peer.folder, tmp_path / "mmproj.gguf")
    with tokamak.load(
        tmp_path / "text.gguf", mmproj=tmp_path / "mmproj.gguf", context=128, kv_dtype="f32", threads=2
    ) as llm:
        check(llm, peer)


def check(llm, peer):
    seen = [llm.vision.see(picture) for picture in PICTURES]
    for one, expected in zip(seen, peer.rows(), strict=True):
        assert np.abs(one.vectors - expected).max() < LIMIT * expected.std()
    prompt = expanded(PIECES, seen, IMAGE)
    ids, (values, _) = torch.tensor([prompt.token_ids]), peer.pixels()
    with torch.no_grad():
        expected = peer.model(input_ids=ids, pixel_values=values).logits[0].numpy()
        written = peer.model.generate(
            input_ids=ids,
            pixel_values=values,
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert np.abs(llm.logits(prompt) - expected).max() < LIMIT * expected.std()
    done = llm.generate(prompt, max_tokens=8, temperature=0.0, ignore_eos=True)
    assert done.token_ids == written[0, -8:].tolist()
