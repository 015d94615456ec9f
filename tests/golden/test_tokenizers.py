"""Ids equal to those recorded from llama.cpp, for the vocabularies that lie here."""

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
SAME_VOCABULARY = {"arch/llama-small-bias/model-f16.gguf": "arch/bitnet/model-f32.gguf"}
NAMES = (
    *("gpt-2", "llama-bpe", "qwen2", "llama-spm", "phi-3", "baichuan"),
    *("tiny-bpe-gpt2", "tiny-bpe-llama3", "tiny-bpe-qwen2", "tiny-spm", "tiny-spm512"),
)


def vocabulary(file: str) -> Path | None:
    if GOLDEN is None:
        return None
    data = unpacked()
    places = [GOLDEN / SAME_VOCABULARY.get(file, file)]
    places += [data / "tokenizers" / "llamacpp" / file] if data else []
    return next((p for p in places if p.is_file()), None)


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_the_recorded_ones(name):
    texts = json.loads((GOLDEN / "tokenizers" / "texts.json").read_text())
    record = json.loads((GOLDEN / "tokenizers" / f"{name}.json").read_text())
    path = vocabulary(record["meta"]["file"])
    if path is None:
        pytest.skip(f"{record['meta']['file']} is not among the reference data")
    tokenizer = Tokenizer.load(path)
    wrong = []
    for case in record["cases"]:
        entry = texts[case["i"]]
        text = bytes.fromhex(entry["hex"]) if "hex" in entry else entry["t"]
        if entry.get("hex") in DEVIATIONS and record["meta"]["type"] == "SPM":
            continue
        for key, add, parse in (
            ("ids", False, False),
            ("ids_special", False, True),
            ("ids_add_special", True, True),
        ):
            if key in case and tokenizer.encode(text, add, parse) != case[key]:
                wrong.append((key, text))
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
