"""Against the original libraries, where they are installed: ids, offsets and texts of strings made to be nasty."""

import base64
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from reference_data import golden, unpacked
from tokamak.tokenizers import Tokenizer

DATA = unpacked()
GOLDEN = golden()
pytestmark = pytest.mark.skipif(
    DATA is None or GOLDEN is None, reason="no reference data beside the repository"
)
FOLDER = DATA / "tokenizers" if DATA else Path()
JSONS = sorted(FOLDER.glob("kitoken/models/tokenizers/*.json")) + sorted(FOLDER.glob("hf/*.json"))
MODELS = sorted({*FOLDER.glob("kitoken/models/sentencepiece/*.model"), *FOLDER.glob("s*/*.model")})
# NFC moves marks past each other and Hugging Face's spans then follow the old places; ours follow the characters.
REORDERING = ("gpt_neox", "clip", "sqlpilot", "xlnet")
STRINGS = 60


@pytest.fixture(scope="module")
def strings():
    script = GOLDEN / "unicode" / "fuzz_strings.py"
    done = subprocess.run(
        [sys.executable, str(script), str(STRINGS), "5"], capture_output=True, text=True, check=True
    )
    recorded = [t["t"] for t in json.loads((GOLDEN / "tokenizers" / "texts.json").read_text()) if "t" in t]
    return [json.loads(line) for line in done.stdout.splitlines()] + recorded[::8]


def installed(name: str):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return importlib.import_module(name)


@pytest.mark.parametrize("path", JSONS, ids=lambda p: p.stem)
def test_tokenizer_json_is_read_as_hugging_face_reads_it(path, strings):
    original = installed("tokenizers").Tokenizer.from_file(str(path))
    original.no_padding()
    original.no_truncation()
    ours = Tokenizer.load(path)
    literals = [t.content for t in ours.added_tokens[:8]]
    rng = random.Random(1)
    mixed = [
        "".join(rng.choice([*literals, " ", "a", " b", "\n", "x "]) for _ in range(8)) for _ in range(40)
    ]
    for text in strings + (mixed if literals else []):
        for special in (False, True):
            want = original.encode(text, add_special_tokens=special)
            full = ours.encode_full(text, special, parse_special=True)
            assert full.ids.tolist() == want.ids, text
            if not any(n in path.stem for n in REORDERING):
                assert [tuple(s) for s in full.char_spans.tolist()] == want.offsets, text
            for skip in (False, True):
                assert ours.decode(want.ids, skip) == original.decode(want.ids, skip_special_tokens=skip), (
                    text
                )


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_model_files_are_read_as_sentencepiece_reads_them(path, strings):
    original = installed("sentencepiece").SentencePieceProcessor(model_file=str(path))
    ours = Tokenizer.load(path)
    for text in strings:
        want = original.encode(text)
        assert ours.encode(text, False, False) == want, text
        assert ours.decode(want, skip_special=True) == original.decode(want), text


def test_sums_of_long_texts_follow_sentencepiece():
    """Past 100,000 the sums start afresh, which decides between nearly equal cuts."""
    path = FOLDER / "kitoken/models/sentencepiece/nai-t5.model"
    text = (FOLDER / "corpora/udhr_all.txt").read_text()[:200_000]
    original = installed("sentencepiece").SentencePieceProcessor(model_file=str(path))
    assert Tokenizer.load(path).encode(text, False, False) == original.encode(text)


@pytest.mark.parametrize("name", ["cl100k_base", "p50k_base"])
def test_tiktoken_files_are_read_as_tiktoken_reads_them(name, strings):
    from tokamak.tokenizers.files.tiktoken import PUBLISHED

    tiktoken = installed("tiktoken")
    path = FOLDER / f"kitoken/models/tiktoken/{name}.tiktoken"
    known = next(p for p in PUBLISHED.values() if p.name == name)
    ranks = {
        base64.b64decode(t): int(r) for t, r in (line.split() for line in path.read_bytes().splitlines())
    }
    original = tiktoken.Encoding(
        "x", pat_str=known.pattern, mergeable_ranks=ranks, special_tokens=dict(known.special)
    )
    ours = Tokenizer.load(path)
    for text in [*strings, "a<|endoftext|>b <|fim_prefix|>"]:
        assert ours.encode(text, False, False) == original.encode_ordinary(text), text
        assert ours.encode(text, False, True) == original.encode(text, allowed_special="all"), text
