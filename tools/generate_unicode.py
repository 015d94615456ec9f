"""Write native/text/unicode_data.inl: the character classes that pre-tokenizer patterns name.

The classes are asked from the regex engine of a pinned `tokenizers` release (Oniguruma), because equality with
its ids is the goal: run it once per Unicode version that is followed. usage: generate_unicode.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, pre_tokenizers

UNICODE = {"0.23.3": "16.0"}
CATEGORIES = [
    "Lu",
    "Ll",
    "Lt",
    "Lm",
    "Lo",
    "Mn",
    "Mc",
    "Me",
    "Nd",
    "Nl",
    "No",
    "Pc",
    "Pd",
    "Ps",
    "Pe",
    "Pi",
    "Pf",
    "Po",
    "Sm",
    "Sc",
    "Sk",
    "So",
    "Zs",
    "Zl",
    "Zp",
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
]
SCRIPTS = [
    "Han",
    "Hiragana",
    "Katakana",
    "Hangul",
    "Cyrillic",
    "Latin",
    "Greek",
    "Arabic",
    "Hebrew",
    "Thai",
    "Devanagari",
]
NUM_CODE_POINTS = 0x110000


def members(pattern: str, text: str, points: np.ndarray) -> np.ndarray:
    """Which code points match `pattern`, a class: bool[0x110000]."""
    found = np.zeros(NUM_CODE_POINTS, bool)
    split = pre_tokenizers.Split(Regex(f"{pattern}+"), "removed")
    inside = np.ones(len(text), bool)
    for _, (start, end) in split.pre_tokenize_str(text):
        inside[start:end] = False
    found[points[inside]] = True
    return found


def main(out: str) -> None:
    points = np.r_[0:0xD800, 0xE000:NUM_CODE_POINTS]
    text = "".join(map(chr, points))
    mask = np.zeros(NUM_CODE_POINTS, np.uint64)
    names = [*(rf"\p{{{c}}}" for c in CATEGORIES), r"\s", r"\w", *(rf"\p{{{s}}}" for s in SCRIPTS)]
    for bit, name in enumerate(names):
        mask |= members(name, text, points).astype(np.uint64) << np.uint64(bit)
    mask[0xD800:0xE000] = 1 << CATEGORIES.index("Cs")
    classes, index = np.unique(mask, return_inverse=True)
    starts = np.flatnonzero(np.r_[True, np.diff(index) != 0])
    version = UNICODE[tokenizers.__version__]
    lines = [
        f"// Made by tools/generate_unicode.py from tokenizers {tokenizers.__version__} (Unicode {version}). Do not edit.",
        f'constexpr char kUnicodeVersion[] = "{version}";',
        "// Properties of each class: bit i is the i-th name of kProperties in unicode.cpp.",
        "constexpr uint64_t kClassProperties[] = {",
        *(
            f"    {', '.join(f'0x{int(v):x}' for v in classes[i : i + 5])},"
            for i in range(0, len(classes), 5)
        ),
        "};",
        "// Runs of equal class: first code point << 8 | class, rising, up to the next run.",
        "constexpr uint32_t kClassRuns[] = {",
    ]
    runs = [f"0x{(int(s) << 8) | int(index[s]):x}" for s in starts]
    lines += [f"    {', '.join(runs[i : i + 9])}," for i in range(0, len(runs), 9)]
    lines.append("};")
    Path(out).write_text("\n".join(lines) + "\n")
    print(f"{len(classes)} classes, {len(runs)} runs")


if __name__ == "__main__":
    main(sys.argv[1])
