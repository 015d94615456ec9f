"""Ids equal to those recorded from llama.cpp and from the originals, for the vocabularies that lie here."""

import json
from pathlib import Path

import pytest

from reference_data import golden, unpacked
from tokamak.tokenizers import Tokenizer

GOLDEN = golden()
pytestmark = pytest.mark.skipif(GOLDEN is None, reason="no reference data beside the repository")

# llama.cpp takes the three bytes after an invalid 0xFF for one character with it; we give each byte its token.
DEVIATIONS = {"61ff62", "48656c6c6f20ffff20776f726c64"}
# The recorded file, where it is not among the fixtures, has the vocabulary of this one.
SAME_VOCABULARY = {
    "arch/llama-small-bias/model-f16.gguf": "arch/bitnet/model-f32.gguf",
    "arch/rwkv7/model-f16.gguf": "arch/rwkv6/model-f16.gguf",
}
RECORDED = sorted(p.stem for p in (GOLDEN / "tokenizers").glob("*.json")) if GOLDEN else []
NAMES = [n for n in RECORDED if n not in ("DIFFERENCES", "texts")]


def vocabulary(file: str) -> Path | None:
    if GOLDEN is None:
        return None
    data = unpacked()
    places = [GOLDEN / SAME_VOCABULARY.get(file, file)]
    places += [data / "tokenizers" / "llamacpp" / file] if data else []
    return next((p for p in places if p.is_file()), None)


def read(name: str):
    return json.loads((GOLDEN / "tokenizers" / f"{name}.json").read_text())


def originals(name: str) -> dict[int, list[int]]:
    """Ids of the original tokenizer, by text, where llama.cpp gives others; bytes that differ alike."""
    cases = read("DIFFERENCES").get(name, {}).get("cases", [])
    return {c["i"]: c["reference_ids"] for c in cases if "reference_ids" in c}


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_the_recorded_ones_or_the_originals(name):
    texts, record = read("texts"), read(name)
    path = vocabulary(record["meta"]["file"])
    if path is None:
        pytest.skip(f"{record['meta']['file']} is not among the reference data")
    tokenizer = Tokenizer.load(path)
    differing = originals("bert-bge" if name == "tiny-wpm" else name)
    wrong = []
    for case in record["cases"]:
        entry = texts[case["i"]]
        text = bytes.fromhex(entry["hex"]) if "hex" in entry else entry["t"]
        if entry.get("hex") in DEVIATIONS and record["meta"]["type"] == "SPM":
            continue
        if case["i"] in differing:
            if (
                name != "tiny-wpm"
                and "t" in entry
                and tokenizer.encode(text, False, False) != differing[case["i"]]
            ):
                wrong.append(("original", text))
            continue
        for key, add, parse in (
            ("ids", False, False),
            ("ids_special", False, True),
            ("ids_add_special", True, True),
        ):
            if key in case and tokenizer.encode(text, add, parse) != case[key]:
                wrong.append((key, text))
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("llama-bpe", "tiktoken/llama3_tokenizer.model"),
        ("qwen2", "tiktoken/qwen.tiktoken"),
        ("extra-cl100k", "kitoken/models/tiktoken/cl100k_base.tiktoken"),
        ("extra-llama4", "kitoken/models/tiktoken/llama4.tiktoken"),
        ("extra-mistral-v3", "mistral/mistral_instruct_tokenizer_240323.model.v3"),
        ("extra-t5-nai", "kitoken/models/sentencepiece/nai-t5.model"),
        ("llama-spm", "kitoken/models/sentencepiece/llama2.model"),
        ("gpt-2", "kitoken/models/tokenizers/gpt2.json"),
        ("gpt-2", "gpt2/vocab.json"),
        ("bert-bge", "bert/bert-base-uncased/tokenizer.json"),
    ],
)
def test_the_vocabulary_gives_the_same_ids_from_its_own_file(name, file):
    data = unpacked()
    path = data / "tokenizers" / file if data else None
    if path is None or not path.is_file():
        pytest.skip(f"{file} is not among the reference data")
    texts, record, differing = read("texts"), read(name), originals(name)
    tokenizer = Tokenizer.load(path)
    wrong = []
    for case in record["cases"]:
        entry = texts[case["i"]]
        want = differing.get(case["i"], case["ids"])
        if "t" in entry and tokenizer.encode(entry["t"], False, False) != want:
            wrong.append((entry["t"], want))
    assert wrong == []


def test_rendered_templates_equal_the_recorded_ones():
    data = unpacked()
    if data is None:
        pytest.skip("the reference data is not unpacked")
    from tokamak.tokenizers.chat import ChatTemplate

    record = json.loads((data / "models" / "derived-cases" / "llamacpp_chat_template.json").read_text())
    same = 0
    for case in record["cases"]:
        want = case["expected_jinja"] or case["expected_builtin"]
        try:
            got = ChatTemplate(case["template"]).render(
                record["messages"], bos_token=case["bos_token"], eos_token=case["eos_token"]
            )
        except ValueError:
            continue  # llama.cpp rewrites conversations that a template refuses
        same += got == want
    assert same == 26  # the rest: llama.cpp's built-in forms and its rewriting of system messages


def test_jinja_cases_render_as_recorded():
    data = unpacked()
    if data is None:
        pytest.skip("the reference data is not unpacked")
    from tokamak.errors import TokenizerFileError
    from tokamak.tokenizers.chat import ChatTemplate

    wrong = []
    for case in json.loads((data / "models" / "derived-cases" / "llamacpp_jinja.json").read_text()):
        names = dict(case["context"])
        messages = names.pop("messages", [])
        try:
            got = ChatTemplate(case["template"]).render(messages, add_generation_prompt=False, **names)
        except TokenizerFileError:
            if "arr." in case["template"]:  # arguments are immutable here, as for Hugging Face
                continue
            raise
        if got != case["expected"]:
            wrong.append(case["name"])
    assert wrong == []
