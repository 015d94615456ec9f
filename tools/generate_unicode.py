"""Write the Unicode tables: character classes for patterns, and what normalizers do to each code point.

Everything is asked from the installed `tokenizers` release, because equality with its ids is the goal and its parts follow
different Unicode versions: 0.23.3 gives the tables built in, 1.0.0rc3 those of compat="tokenizers-1.0". What a release does
not show comes from packages of its Unicode version: grapheme classes from `regex`, combining classes from `unicodedata2` (17),
and for 1.0, which takes known patterns only, the classes of patterns from `regex` (2025.11.3: Unicode 17).
usage: PYTHONPATH=src generate_unicode.py   (from the root of the repository)
"""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import regex
import tokenizers
import unicodedata2

from tokamak.tokenizers.bpe import BYTE_TO_CHAR

UNICODE = {"0.23.3": "16.0", "1.0.0-rc.3": "17.0"}
LATER = tokenizers.__version__ != "0.23.3"
CLASSES = Path("native/text/unicode_data.inl")
DATA = Path("src/tokamak/tokenizers/data")
NORMALIZATION = DATA / f"normalization-{'1.0' if LATER else '0.23'}.txt.z"
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


def built(normalizer: dict | None, pre_tokenizer: dict, model: dict) -> tokenizers.Tokenizer:
    data = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "post_processor": None}
    data |= {"decoder": None, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(data, f)
        f.flush()
        return tokenizers.Tokenizer.from_file(f.name)


def asked(normalizer: dict | None = None, *pre_tokenizers: dict) -> tokenizers.Tokenizer:
    """A tokenizer whose ids are the bytes of what the normalizer makes and the pre-tokenizers leave."""
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    model = {"type": "BPE", "vocab": {c: b for b, c in BYTE_TO_CHAR.items()}, "merges": []}
    return built(normalizer, {"type": "Sequence", "pretokenizers": [*pre_tokenizers, last]}, model)


def became(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> list[str]:
    return [bytes(e.ids).decode() for e in tokenizer.encode_batch(list(texts))]


def flags(characters: Iterable[str]) -> np.ndarray:
    found = np.zeros(NUM_CODE_POINTS, bool)
    found[[ord(c) for c in characters]] = True
    return found


def removed(pre_tokenizer: dict) -> np.ndarray:
    """Which characters are in no piece."""
    return flags(set(TEXT) - set(became(asked(None, pre_tokenizer), [TEXT])[0]))


def split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": False}


def isolated(pre_tokenizer: dict) -> np.ndarray:
    """Which characters are cut off from letters around them: else the word is unknown."""
    model = {
        "type": "WordPiece",
        "unk_token": "?",
        "continuing_subword_prefix": "#",
        "max_input_chars_per_word": 9,
    }
    made = built(None, pre_tokenizer, {**model, "vocab": {"?": 0, "a": 1}}).encode_batch(
        [f"a{c}a" for c in TEXT]
    )
    return flags(c for c, e in zip(TEXT, made, strict=True) if len(e.ids) == 3)


def results(normalizer: str, **options: bool | None) -> dict[str, str]:
    """What each code point becomes, where it changes."""
    return {
        c: r
        for c, r in zip(TEXT, became(asked({"type": normalizer, **options}), TEXT), strict=True)
        if r != c
    }


def bert(**options: bool) -> dict[str, str]:
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return results("BertNormalizer", **{**off, **options})


def where(rows: dict[str, str], result: str) -> np.ndarray:
    return flags(c for c, r in rows.items() if r == result)


def properties() -> list[np.ndarray]:
    """In the order of kProperties in unicode.cpp."""
    names = [*(rf"\p{{{c}}}" for c in CATEGORIES), r"\s", r"\w", *(rf"\p{{{s}}}" for s in SCRIPTS)]
    sets = [flags(regex.findall(n, TEXT)) if LATER else removed(split(f"{n}+")) for n in names]
    sets[CATEGORIES.index("Cs")][0xD800:0xE000] = True
    clean, chinese = bert(clean_text=True), bert(handle_chinese_chars=True)
    nmt = results("Nmt")
    sets += [isolated({"type": "Digits", "individual_digits": True})]
    sets += [removed({"type": "Punctuation", "behavior": "Removed"}), removed({"type": "WhitespaceSplit"})]
    sets += [where(results("StripAccents"), ""), where(bert(strip_accents=True), "")]
    sets += [where(clean, ""), where(clean, " ")]
    sets += [flags(chinese), where(nmt, ""), where(nmt, " ")]
    for name in (*(f"GCB={g}" for g in GRAPHEMES), "Extended_Pictographic"):
        sets.append(flags(regex.findall(rf"\p{{{name}}}", TEXT)))
    return sets


def write_classes() -> None:
    mask = np.zeros(NUM_CODE_POINTS, np.uint64)
    for bit, members in enumerate(properties()):
        mask |= members.astype(np.uint64) << np.uint64(bit)
    classes, index = np.unique(mask, return_inverse=True)
    starts = np.flatnonzero(np.r_[True, np.diff(index) != 0])
    runs = [(int(s) << 8) | int(index[s]) for s in starts]
    write = write_data if LATER else write_source
    write(UNICODE[tokenizers.__version__], [int(c) for c in classes], runs)
    print(f"{len(classes)} classes, {len(runs)} runs")


def write_source(version: str, classes: list[int], runs: list[int]) -> None:
    lines = [
        f"// Made by tools/generate_unicode.py from tokenizers {tokenizers.__version__} (Unicode {version}). Do not edit.",
        f'constexpr char kUnicodeVersion[] = "{version}";',
        "// Properties of each class: bit i is the i-th name of kProperties in unicode.cpp.",
        "constexpr uint64_t kClassProperties[] = {",
        *(f"    {', '.join(f'0x{v:x}' for v in classes[i : i + 5])}," for i in range(0, len(classes), 5)),
        "};",
        "// Runs of equal class: first code point << 8 | class, rising, up to the next run.",
        "constexpr uint32_t kClassRuns[] = {",
        *(f"    {', '.join(f'0x{r:x}' for r in runs[i : i + 10])}," for i in range(0, len(runs), 10)),
        "};",
    ]
    CLASSES.write_text("\n".join(lines) + "\n")


def write_data(version: str, classes: list[int], runs: list[int]) -> None:
    """A line with the version, one with the properties of each class, one with the runs; numbers in hexadecimal."""
    lines = [version, *(" ".join(f"{n:x}" for n in numbers) for numbers in (classes, runs))]
    path = DATA / "classes-1.0.txt.z"
    path.write_bytes(zlib.compress("\n".join(lines).encode(), 9))


def combining_classes() -> list[str]:
    """'c' lines: code point and combining class, for the marks that its tables know."""
    marks = [c for c in TEXT if unicodedata2.combining(c)]
    nfd = asked({"type": "NFD"})
    texts = [f"a{c}\u0334" for c in marks] + [
        f"a\u0345{c}" for c in marks
    ]  # classes 1 and 240: below and above nearly all
    moved = [made != text for made, text in zip(became(nfd, texts), texts, strict=True)]
    pairs = zip(marks, moved[: len(marks)], moved[len(marks) :], strict=True)
    return [f"c{c}{unicodedata2.combining(c)}" for c, before, after in pairs if before or after]


def compositions(canonical: dict[str, str]) -> list[str]:
    """'p' lines: two characters and what NFC makes of them (Hangul is arithmetic)."""
    pairs = {}
    for c in canonical:
        pair = unicodedata2.decomposition(c).split()
        if len(pair) == 2 and not pair[0].startswith("<") and not 0xAC00 <= ord(c) < 0xD7A4:
            pairs[c] = "".join(chr(int(x, 16)) for x in pair)
    nfc = asked({"type": "NFC"})
    made = zip(pairs.items(), became(nfc, pairs.values()), became(nfc, pairs), strict=True)
    return [f"p{two}{c}" for (c, two), joined, alone in made if c in (joined, alone)]


def write_normalization() -> None:
    """Lines of one letter for the table, the character, and what it becomes; zlib over UTF-8."""
    canonical, compatible = results("NFD"), results("NFKD")
    lines = [f"d{c}{r}" for c, r in canonical.items() if not 0xAC00 <= ord(c) < 0xD7A4]
    lines += [
        f"k{c}{r}" for c, r in compatible.items() if canonical.get(c) != r and not 0xAC00 <= ord(c) < 0xD7A4
    ]
    lines += [f"l{c}{r}" for c, r in results("Lowercase").items()]
    lines += combining_classes() + compositions(canonical)
    if any("\n" in line for line in lines):
        raise ValueError("a table line holds a newline")
    NORMALIZATION.parent.mkdir(exist_ok=True)
    NORMALIZATION.write_bytes(zlib.compress("\n".join(lines).encode(), 9))
    print(f"{len(lines)} normalization lines, {NORMALIZATION.stat().st_size} bytes")


def write_scripts() -> None:
    """Runs of equal script as UnicodeScripts sees them, first code point << 8 | class; class 0 is what it joins to anything."""
    asked_of = tokenizers.pre_tokenizers.UnicodeScripts().pre_tokenize_str
    joins = [not asked_of(c) for c in TEXT]
    known: list[str] = []  # one character of each class above 0
    runs: list[int] = []
    last = -1
    for point, c, joined in zip(POINTS.tolist(), TEXT, joins, strict=True):
        if joined:
            found = 0
        elif last > 0 and len(asked_of(known[last - 1] + c)) == 1:
            found = last
        else:
            cuts = {start for _, (start, _) in asked_of("".join(c + k for k in known))}
            found = next((i + 1 for i in range(len(known)) if 2 * i + 1 not in cuts), len(known) + 1)
            if found > len(known):
                known.append(c)
        if found != last:
            runs.append(point << 8 | found)
        last = found
    path = DATA / "scripts-0.23.txt.z"
    path.write_bytes(zlib.compress(" ".join(f"{r:x}" for r in runs).encode(), 9))
    print(f"{len(known)} scripts, {len(runs)} runs, {path.stat().st_size} bytes")


if __name__ == "__main__":
    if tokenizers.__version__ not in UNICODE:
        sys.exit(f"unknown Unicode version of tokenizers {tokenizers.__version__}")
    write_normalization()
    write_classes()
    if not LATER:  # 1.0 has no other
        write_scripts()
