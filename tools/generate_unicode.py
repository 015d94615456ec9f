"""Write the Unicode tables: character classes for patterns, and what normalizers do to each code point.

Everything is asked from a pinned `tokenizers` release, because equality with its ids is the goal and its parts follow
different Unicode versions; grapheme classes, which it does not show, come from the `regex` package.
usage: generate_unicode.py   (from the root of the repository, in an environment with both)
"""

from __future__ import annotations

import sys
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import regex
import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

UNICODE = {"0.23.3": "16.0"}
CLASSES = Path("native/text/unicode_data.inl")
NORMALIZATION = Path("src/tokamak/tokenizers/data/normalization-0.23.txt.z")
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
SCRIPTS = "Han Hiragana Katakana Hangul Cyrillic Latin Greek Arabic Hebrew Thai".split()  # noqa: SIM905
GRAPHEMES = "CN EX ZWJ PP SM L V T LV LVT RI".split()  # noqa: SIM905  short names of Grapheme_Cluster_Break
NUM_CODE_POINTS = 0x110000
POINTS = np.r_[0:0xD800, 0xE000:NUM_CODE_POINTS]
TEXT = "".join(map(chr, POINTS))


def kept(pre_tokenizer: object, text: str) -> np.ndarray:
    """Which characters stay in some piece: bool[len(text)]."""
    inside = np.zeros(len(text), bool)
    for _, (start, end) in pre_tokenizer.pre_tokenize_str(text):
        inside[start:end] = True
    return inside


def scatter(flags: np.ndarray) -> np.ndarray:
    found = np.zeros(NUM_CODE_POINTS, bool)
    found[POINTS[flags]] = True
    return found


def matching(pattern: str) -> np.ndarray:
    return scatter(~kept(pre_tokenizers.Split(Regex(f"{pattern}+"), "removed"), TEXT))


def isolated(pre_tokenizer: object) -> np.ndarray:
    """Which characters are cut off from letters around them."""
    text = "a" + "".join(f"{c}a" for c in TEXT)
    alone = np.zeros(len(text), bool)
    for _, (start, end) in pre_tokenizer.pre_tokenize_str(text):
        alone[start] = end == start + 1
    return scatter(alone[1::2])


def results(normalizer: object) -> dict[str, str]:
    """What each code point becomes, where it changes."""
    return {c: r for c in TEXT if (r := normalizer.normalize_str(c)) != c}


def where(rows: dict[str, str], result: str) -> np.ndarray:
    found = np.zeros(NUM_CODE_POINTS, bool)
    found[[ord(c) for c, r in rows.items() if r == result]] = True
    return found


def properties() -> list[np.ndarray]:
    """In the order of kProperties in unicode.cpp."""
    names = [*(rf"\p{{{c}}}" for c in CATEGORIES), r"\s", r"\w", *(rf"\p{{{s}}}" for s in SCRIPTS)]
    sets = [matching(name) for name in names]
    sets[CATEGORIES.index("Cs")][0xD800:0xE000] = True
    clean = results(normalizers.BertNormalizer(True, False, False, False))
    chinese = results(normalizers.BertNormalizer(False, True, False, False))
    nmt = results(normalizers.Nmt())
    sets += [isolated(pre_tokenizers.Digits(individual_digits=True)), isolated(pre_tokenizers.Punctuation())]
    sets += [scatter(~kept(pre_tokenizers.WhitespaceSplit(), TEXT))]
    accents = results(normalizers.BertNormalizer(False, False, True, False))
    sets += [where(results(normalizers.StripAccents()), ""), where(accents, "")]
    sets += [where(clean, ""), where(clean, " ")]
    cjk = np.zeros(NUM_CODE_POINTS, bool)
    cjk[[ord(c) for c in chinese]] = True
    sets += [cjk, where(nmt, ""), where(nmt, " ")]
    for name in (*(f"GCB={g}" for g in GRAPHEMES), "Extended_Pictographic"):
        found = np.zeros(NUM_CODE_POINTS, bool)
        found[
            [
                m.start() + (0x800 if m.start() >= 0xD800 else 0)
                for m in regex.finditer(rf"\p{{{name}}}", TEXT)
            ]
        ] = True
        sets.append(found)
    return sets


def write_classes() -> None:
    mask = np.zeros(NUM_CODE_POINTS, np.uint64)
    for bit, members in enumerate(properties()):
        mask |= members.astype(np.uint64) << np.uint64(bit)
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
    lines += [f"    {', '.join(runs[i : i + 10])}," for i in range(0, len(runs), 10)]
    lines.append("};")
    CLASSES.write_text("\n".join(lines) + "\n")
    print(f"{len(classes)} classes, {len(runs)} runs")


def reorders(first: str, second: str) -> bool:
    return normalizers.NFD().normalize_str("a" + first + second) != "a" + first + second


def combining_classes() -> list[str]:
    """'c' lines: code point and combining class, for the marks that its tables know."""
    lines = []
    for c in TEXT:
        value = unicodedata.combining(c)
        if value and (
            reorders(c, "\u0334") or reorders("\u0345", c)
        ):  # classes 1 and 240: below and above nearly all
            lines.append(f"c{c}{value}")
    return lines


def compositions(canonical: dict[str, str]) -> list[str]:
    """'p' lines: two characters and what NFC makes of them (Hangul is arithmetic)."""
    nfc = normalizers.NFC()
    lines = []
    for c in canonical:
        pair = unicodedata.decomposition(c).split()
        if len(pair) == 2 and not pair[0].startswith("<") and not 0xAC00 <= ord(c) < 0xD7A4:
            two = "".join(chr(int(x, 16)) for x in pair)
            if nfc.normalize_str(two) == c or nfc.normalize_str(c) == c:
                lines.append(f"p{two}{c}")
    return lines


def write_normalization() -> None:
    """Lines of one letter for the table, the character, and what it becomes; zlib over UTF-8."""
    canonical, compatible = results(normalizers.NFD()), results(normalizers.NFKD())
    lines = [f"d{c}{r}" for c, r in canonical.items() if not 0xAC00 <= ord(c) < 0xD7A4]
    lines += [
        f"k{c}{r}" for c, r in compatible.items() if canonical.get(c) != r and not 0xAC00 <= ord(c) < 0xD7A4
    ]
    lines += [f"l{c}{r}" for c, r in results(normalizers.Lowercase()).items()]
    lines += combining_classes() + compositions(canonical)
    if any("\n" in line for line in lines):
        raise ValueError("a table line holds a newline")
    NORMALIZATION.parent.mkdir(exist_ok=True)
    NORMALIZATION.write_bytes(zlib.compress("\n".join(lines).encode(), 9))
    print(f"{len(lines)} normalization lines, {NORMALIZATION.stat().st_size} bytes")


if __name__ == "__main__":
    if tokenizers.__version__ not in UNICODE:
        sys.exit(f"unknown Unicode version of tokenizers {tokenizers.__version__}")
    write_normalization()
    write_classes()
