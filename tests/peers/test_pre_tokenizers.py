"""Every `tokenizer.ggml.pre` that is known here against llama.cpp, on GGUF files that hold a vocabulary only.

The vocabulary has a merge for every two neighbours of an alphabet, so that ids show where words are cut.
"""

import random

import pytest

from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.bpe import BYTE_TO_CHAR
from tokamak.tokenizers.patterns import PRE_TOKENIZERS

gguf = pytest.importorskip("gguf")
llama_cpp = pytest.importorskip("llama_cpp")
ALPHABET = [*" aAsT1'.\n\t", "\u00e9", "\u4f60", "/"]
# Where the rules of llama.cpp are an approximation, ids of the original library are the authority.
DIFFERENT = {
    **dict.fromkeys(
        ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m", "tekken"),
        "takes small letters outside ASCII for capitals too",
    ),
    **dict.fromkeys(
        ("kimi-k2", "youtu", "tiny_aya"), "does not tell capitals from small letters: 'aTs' is one word"
    ),
    "falcon": "does not cut at digits of the byte alphabet, as tokenizers does",
    "deepseek-llm": "does not cut digits one by one, as tokenizers does",
}


def coded(text):
    return "".join(BYTE_TO_CHAR[b] for b in text.encode())


def write(path, pre):
    """A file with the vocabulary; merges in the order in which they are found."""
    tokens = list(BYTE_TO_CHAR.values())
    merges = []
    letters = [coded(c) for c in ALPHABET]
    for letter in letters:
        if len(letter) > 1:  # bytes of a character first
            for end in range(2, len(letter) + 1):
                merges.append(f"{letter[: end - 1]} {letter[end - 1]}")
                tokens.append(letter[:end])
    for left in letters:
        for right in letters:
            merges.append(f"{left} {right}")
            tokens.append(left + right)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*dict.fromkeys(tokens), "<|end|>"])
    writer.add_token_types([1] * len(dict.fromkeys(tokens)) + [3])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(dict.fromkeys(tokens)))
    writer.add_eos_token_id(len(dict.fromkeys(tokens)))
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def texts():
    rng = random.Random(1)
    fixed = [
        "a b",
        "  a",
        "'s's 'T",
        "11111 1",
        "a1a",
        "\n\n a",
        "A\u00e9 \u4f60\u4f60a",
        "a.\n\n/1",
        ".a .A",
        "aTs As",
    ]
    return fixed + ["".join(rng.choices(ALPHABET, k=rng.randrange(2, 13))) for _ in range(150)]


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_words_are_cut_where_llama_cpp_cuts_them(pre, tmp_path):
    path = write(tmp_path / "v.gguf", pre)
    try:
        peer = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    except ValueError as e:
        pytest.skip(f"llama.cpp does not open it: {e}")
    ours = Tokenizer.load(path)
    wrong = [
        t for t in texts() if ours.encode(t, False) != peer.tokenize(t.encode(), add_bos=False, special=False)
    ]
    assert bool(wrong) == (pre in DIFFERENT), wrong[:5]
