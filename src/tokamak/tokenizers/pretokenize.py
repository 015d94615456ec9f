"""Pre-tokenizer patterns on Python's `re`: the plain twin of native/text/pattern.cpp, for tests.

Unicode classes are written out as ranges of the Unicode version that the engine follows, so only the matching
itself is Python's: a backtracking engine beside our automaton.
"""

from __future__ import annotations

import re
from functools import cache

from tokamak import _native

CLASS = re.compile(r"\\([pP])\{(\^?)(\w+)\}|\\([sSdDwW])|\\x\{([0-9a-fA-F]+)\}")
SHORT = {"s": "White_Space", "d": "Nd", "w": "Word"}


@cache
def ranges(name: str, negated: bool) -> str:
    """The inside of a bracket expression for a Unicode class."""
    found = _native.unicode_property(name)
    if negated:
        edges = [-1, *(x for pair in found for x in pair), 0x110000]
        found = [(a + 1, b - 1) for a, b in zip(edges[::2], edges[1::2], strict=True) if a + 1 <= b - 1]
    return "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in found)


def to_python(pattern: str) -> str:
    """The same pattern for `re`: classes become explicit ranges."""
    out: list[str] = []
    in_bracket = False
    at = 0
    while at < len(pattern):
        match = CLASS.match(pattern, at)
        if match:
            if match[5]:
                out.append(f"\\U{int(match[5], 16):08x}")
                at = match.end()
                continue
            if match[4]:
                text = ranges(SHORT[match[4].lower()], match[4].isupper())
            else:
                text = ranges(match[3], (match[1] == "P") != bool(match[2]))
            out.append(text if in_bracket else f"[{text}]")
            at = match.end()
            continue
        step = 2 if pattern[at] == "\\" else 1
        in_bracket = pattern[at] == "[" or (in_bracket and pattern[at] != "]")
        out.append(pattern[at : at + step])
        at += step
    return "".join(out)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(to_python(pattern))


def split(patterns: tuple[str, ...], text: str) -> list[str]:
    """Words of a text: each pattern cuts what the one before left; text between matches is a word too."""
    words = [text] if text else []
    for pattern in patterns:
        cut: list[str] = []
        for word in words:
            at = 0
            for match in _compiled(pattern).finditer(word):
                if match.end() > match.start():
                    cut += [word[at : match.start()]] if match.start() > at else []
                    cut.append(match[0])
                    at = match.end()
            cut += [word[at:]] if at < len(word) else []
        words = cut
    return words
