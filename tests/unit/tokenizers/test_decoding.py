"""Decoding through the table of 16 bytes per id: the same texts as token by token."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tokamak.tokenizers import Step, Strings, Tokenizer, TokenizerSpec
from tokamak.tokenizers.spec import BYTE, roles_of
from vocabularies import byte_level

PIECES = [
    "a",
    "\u2581b",
    "##c",
    "\u2581",
    "d.",
    "\u00e9" * 7,
    "x" * 15,
    "y" * 16,
    "\u2581" + "z" * 40,
    " .",
    "\u4e16\u754c",
    "",
]
DECODERS = {
    "wordpiece": (Step.of("WordPiece", prefix="##", cleanup=True),),
    "metaspace": (Step.of("Metaspace", replacement="\u2581", prepend_scheme="always"),),
    "replaced": (
        Step.of("Replace", string="\u2581", content="_"),
        Step.of("WordPiece", prefix="##", cleanup=False),
    ),
}


def spec(**fields) -> TokenizerSpec:
    return TokenizerSpec(kind="words", tokens=Strings.of(PIECES), roles=roles_of(len(PIECES)), **fields)


@pytest.mark.parametrize("decoders", [*DECODERS, "joined"])
def test_the_table_says_what_the_steps_say(decoders):
    fields = {"join_with_space": True} if decoders == "joined" else {"decoders": DECODERS[decoders]}
    draw = random.Random(3)
    # Enough ids that the first calls, of one token, do not pay for the table.
    rows = [[i] for i in range(len(PIECES))] + [
        draw.choices(range(len(PIECES)), k=k) for k in (2, 3, 50, 3000)
    ]
    spare = [*PIECES, *(f"spare{i}" for i in range(200_000))]
    large = TokenizerSpec(kind="words", tokens=Strings.of(spare), roles=roles_of(len(spare)), **fields)
    by_steps, by_table = Tokenizer(large), Tokenizer(spec(**fields))
    for row in rows:
        assert by_steps.decode(row) == by_table.decode(row)


def test_long_and_short_tokens_join():
    tokenizer = Tokenizer(spec())
    ids = random.Random(4).choices(range(len(PIECES)), k=5000)
    expected = "".join(PIECES[i] for i in ids)
    assert (
        tokenizer.decode(ids)
        == tokenizer.decode(np.array(ids, np.int32))
        == tokenizer.decode(tuple(ids))
        == expected
    )
    assert tokenizer.decode_bytes(ids) == expected.encode()
    assert tokenizer.decode([6] * 4000) == PIECES[6] * 4000  # ASCII


def test_runs_of_byte_tokens_are_read_as_wholes():
    tokens = ["\u2581a", "b", *(f"<0x{b:02X}>" for b in range(256))]
    roles = roles_of(len(tokens), [(i, BYTE) for i in range(2, 258)])
    fields = {"space_texts": True, "byte_runs": True, "strip_space": True, "scores": np.zeros(len(tokens))}
    tokenizer = Tokenizer(TokenizerSpec(kind="spm", tokens=Strings.of(tokens), roles=roles, **fields))

    def byte(*values):
        return [v + 2 for v in values]

    rows = {
        (0, 1): "ab",
        (0, *byte(0xC3, 0xA9), 1): "a\u00e9b",
        (0, *byte(0xC3), 1, *byte(0xA9)): "a\ufffdb\ufffd",
        (*byte(0x20, 0xC3), 1): "\ufffdb",
        (*byte(0x20, 0xC3, 0xA9), 1): "\u00e9b",
        (*byte(0x41), *byte(0xFF), 0): "\ufffd\ufffd a",
        (): "",
    }
    for ids, text in rows.items():
        assert tokenizer.decode(ids) == text
        longer = text + " ab" * 2000
        assert tokenizer.decode([*ids, *[0, 1] * 2000]) == (longer if ids else longer[1:])


def test_special_tokens_are_left_out_of_long_texts():
    tokenizer = Tokenizer(byte_level())
    special = next(iter(tokenizer.special_tokens.values()), None)
    ids = [i for i in range(256) if i != special] * 20
    with_special = [*ids[:100], *([] if special is None else [special]), *ids[100:]]
    assert tokenizer.decode(with_special, skip_special=True) == tokenizer.decode(ids)
