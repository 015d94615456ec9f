"""What `save` writes, `load` opens as the same tokenizer; what a format cannot say is refused."""

import json

import pytest

from reference_data import unpacked
from tokamak.errors import InvalidParams, TokenizerFileError, UnsupportedError
from tokamak.tokenizers import Tokenizer
from vocabularies import TEXT, byte_level, sentencepiece

SPECS = {"bpe": byte_level(), "spm": sentencepiece()}


@pytest.mark.parametrize("name", SPECS)
def test_the_form_of_our_own_holds_everything(name, tmp_path):
    tokenizer = Tokenizer(SPECS[name])
    tokenizer.save(tmp_path / "t.json", form="spec")
    again = Tokenizer.load(tmp_path / "t.json")
    assert again == tokenizer and hash(again) == hash(tokenizer)
    assert again.encode(TEXT) == tokenizer.encode(TEXT)


def test_auto_writes_tokenizer_json_where_it_can(tmp_path):
    tokenizer = Tokenizer(byte_level())
    tokenizer.save(tmp_path / "tokenizer.json")
    assert "model" in json.loads((tmp_path / "tokenizer.json").read_text())
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    for text in (TEXT, "<|end|>a<tool>"):
        assert again.encode(text, parse_special=True) == tokenizer.encode(text, parse_special=True)
        assert again.decode(again.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    original = pytest.importorskip("tokenizers").Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert original.encode(TEXT).ids == tokenizer.encode(TEXT)


def test_what_tokenizer_json_cannot_say_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="spm"):
        Tokenizer(SPECS["spm"]).save(tmp_path / "t.json", form="tokenizer.json")
    Tokenizer(SPECS["spm"]).save(tmp_path / "t.json")
    assert Tokenizer.load(tmp_path / "t.json") == Tokenizer(SPECS["spm"])
    with pytest.raises(InvalidParams, match="form"):
        Tokenizer(SPECS["spm"]).save(tmp_path / "t.json", form="yaml")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokamak_tokenizer": 9}, "version|reads 1"),
        ({"strange": 1}, "strange"),
        ({"tokens": {"strings": [1, 2]}}, "form"),
        ({"tokens": "x"}, "form"),
        ({"roles": {"array": "AAAA", "dtype": "<i4"}}, "form"),
        ({"roles": {"array": "!!", "dtype": "|u1"}}, "form"),
        ({"added": 3}, "form"),
        ({"eos_id": 10**7}, "vocabulary"),
    ],
)
def test_a_broken_file_of_our_own_form_is_refused(change, says, tmp_path):
    path = tmp_path / "t.json"
    Tokenizer(SPECS["bpe"]).save(path, form="spec")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TokenizerFileError, match=says):
        Tokenizer.load(path).encode("a")


@pytest.mark.skipif(unpacked() is None, reason="no reference data beside the repository")
def test_real_tokenizer_jsons_survive_being_written(tmp_path):
    folder = unpacked() / "tokenizers/kitoken/models/tokenizers"
    for name in ("bert_base_cased", "gte", "hw_doc_summarizer"):
        tokenizer = Tokenizer.load(folder / f"{name}.json")
        tokenizer.save(tmp_path / "tokenizer.json", form="tokenizer.json")
        again = Tokenizer.load(tmp_path / "tokenizer.json")
        assert again.encode_pair("Hello there, it\u00e9's", "world 12") == tokenizer.encode_pair(
            "Hello there, it\u00e9's", "world 12"
        )
