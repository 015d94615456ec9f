"""Reading `tokenizer.*` metadata: what is filled in, what is refused, what is said."""

import numpy as np
import pytest

from tokamak import _native
from tokamak.errors import InvalidParams, TokenizerFileError, UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files.gguf import BITNET_TOKENS, spec_from_metadata
from vocabularies import byte_level, sentencepiece


def metadata(spec, **more):
    data = {
        "tokenizer.ggml.model": "gpt2" if spec.kind == "bpe" else "llama",
        "tokenizer.ggml.tokens": [t.decode() for t in spec.tokens],
        "tokenizer.ggml.token_type": spec.roles.astype(np.int32),
    }
    if spec.kind == "bpe":
        data |= {"tokenizer.ggml.merges": [m.decode() for m in spec.merges], "tokenizer.ggml.pre": spec.pre}
    else:
        data["tokenizer.ggml.scores"] = spec.scores.tolist()
    data |= {f"tokenizer.ggml.{k}": v for k, v in more.items()}
    return {k: v for k, v in data.items() if v is not None}


BYTE = byte_level()
PIECE = sentencepiece()


def test_sentencepiece_defaults_are_those_of_the_format():
    spec = spec_from_metadata(metadata(PIECE))
    assert (spec.bos_id, spec.eos_id, spec.unk_id, spec.prefix, spec.suffix) == (1, 2, 0, (1,), ())
    assert spec.strip_space and spec.eog_ids == {2} and spec.notes == ()
    assert Tokenizer(spec).encode("the end") == Tokenizer(PIECE).encode("the end")
    assert not spec_from_metadata(metadata(PIECE, add_space_prefix=False)).strip_space


def test_byte_level_needs_merges_and_has_no_default_bos():
    spec = spec_from_metadata(metadata(BYTE))
    assert spec.bos_id is None and not spec.prefix
    assert Tokenizer(spec).encode("the end") == Tokenizer(BYTE).encode("the end", add_special=False)
    with pytest.raises(TokenizerFileError, match=r"tokenizer\.ggml\.merges"):
        spec_from_metadata(metadata(BYTE, merges=None))


def test_native_string_tables_are_borrowed():
    data = metadata(BYTE)
    data["tokenizer.ggml.tokens"] = _native.StringTable(list(BYTE.tokens))
    data["tokenizer.ggml.merges"] = _native.StringTable(list(BYTE.merges))
    spec = spec_from_metadata(data)
    assert Tokenizer(spec).encode("the theme") == Tokenizer(BYTE).encode("the theme", add_special=False)
    assert np.shares_memory(spec.tokens.blob, data["tokenizer.ggml.tokens"].blob)


@pytest.mark.parametrize("alias", ["llama3", "llama-v3", "llama-bpe"])
def test_llama_3_looks_words_up_before_merging(alias):
    spec = spec_from_metadata(metadata(BYTE, pre=alias, bos_token_id=300))
    assert spec.ignore_merges and spec.prefix == (300,)


def test_a_missing_pre_tokenizer_is_assumed_aloud():
    plain = spec_from_metadata(metadata(BYTE, pre=None))
    assert plain.pre == "default" and "the default of llama.cpp" in plain.notes[0]
    tokens = [t.decode() for t in BYTE.tokens]
    tokens += [f"<extra {i}>" for i in range(BITNET_TOKENS - len(tokens))]
    data = metadata(BYTE, pre=None, tokens=tokens, token_type=None)
    repaired = spec_from_metadata(data, "bitnet-b1.58")
    assert repaired.pre == "llama-bpe" and repaired.ignore_merges and "llama-bpe" in repaired.notes[0]
    assert spec_from_metadata(data, "llama").pre == "default"


def test_end_tokens_are_known_by_id_and_by_name():
    tokens = [t.decode() for t in BYTE.tokens]
    tokens[-3:] = ["<|eot_id|>", "<|eom_id|>", "<tool>"]
    size = len(tokens)
    spec = spec_from_metadata(metadata(BYTE, tokens=tokens, eos_token_id=5))
    assert spec.eog_ids == {5, size - 3, size - 2}
    assert spec_from_metadata(metadata(BYTE, eot_token_id=7)).eog_ids >= {7}


def test_phi_3_strips_after_its_turn_markers():
    data = metadata(PIECE) | {"general.name": "Phi-3-mini"}
    strips = {t.content: t.rstrip for t in spec_from_metadata(data).added}
    assert strips == {"<unk>": False, "<s>": False, "</s>": True}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": None}, TokenizerFileError),
        ({"model": "plamo2"}, UnsupportedError),
        ({"model": 7}, TokenizerFileError),
        ({"tokens": None}, TokenizerFileError),
        ({"tokens": []}, TokenizerFileError),
        ({"tokens": "x"}, TokenizerFileError),
        ({"pre": "pre-of-the-future"}, UnsupportedError),
        ({"token_type": [1, 2]}, TokenizerFileError),
        ({"bos_token_id": 10**7}, TokenizerFileError),
        ({"eot_token_id": 10**7}, TokenizerFileError),
    ],
)
def test_what_is_missing_or_contradicts_is_refused(change, error):
    with pytest.raises(error):
        spec_from_metadata(metadata(BYTE, **change))


def test_no_bos_written_as_minus_one_is_no_bos():
    assert spec_from_metadata(metadata(BYTE, bos_token_id=0xFFFFFFFF)).bos_id is None


def test_load_tells_files_by_content(tmp_path):
    other = tmp_path / "model.gguf"
    other.write_bytes(b"not a model")
    with pytest.raises(UnsupportedError, match=r"model\.gguf"):
        Tokenizer.load(other)
    with pytest.raises(InvalidParams, match="absent"):
        Tokenizer.load(tmp_path / "absent")


def test_bitnet_without_a_template_speaks_as_user_and_assistant():
    spec = spec_from_metadata(metadata(PIECE), "bitnet-b1.58")
    tokenizer = Tokenizer(spec)
    text = tokenizer.render_chat([{"role": "user", "content": " hi "}])
    assert text == "<s>User: hi</s>Assistant: "
    assert tokenizer.encode_chat([{"role": "user", "content": "hi"}]).count(tokenizer.bos_id) == 1
    assert any("chat template" in n for n in spec.notes)
    with pytest.raises(UnsupportedError, match="chat template"):
        Tokenizer(spec_from_metadata(metadata(PIECE), "llama")).render_chat(
            [{"role": "user", "content": "hi"}]
        )
