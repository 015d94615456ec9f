"""Patterns of tokenizer.json, which `tokenizers` gives to Oniguruma, in the dialect of patterns here (that of Perl and Rust).

What the two read in another way is written out where it can be, else refused by name.
"""

from __future__ import annotations

import re

from tokamak.errors import UnsupportedError

_ATOM = re.compile(r"\\[pPx]\{[^}]*\}|\\.", re.DOTALL)
_NO_CASE = re.compile(r"\(\?i:([^()]*)\)")
# In the skeleton, where escapes are "E" and classes "C".
_REFUSED = (
    (re.compile(r"\{\d+\}\?"), "{n}? is what may be missing there"),
    (re.compile(r"\{,\d+\}"), "{,n} is a repeat there"),
    (re.compile(r"[*+?}]\{|\}[*]|\{(?!1,)[\d,]*\}\+"), "repeats of repeats are not supported"),
)
# Several characters that are one without case, in Unicode's full case folding.
_FOLDED = re.compile("ss|st|ff|fi|fl|[\u02bc\u0300-\u036f\u03b9]", re.IGNORECASE)


def translated(pattern: str) -> str:
    """The same pattern for `native/text/regex.cpp`. Raises: UnsupportedError for what would be read otherwise.

    `$` is the end of a line there, `{1,n}+` any number and not as many as there are.
    """
    skeleton = _skeleton(pattern)
    for refused, why in _REFUSED:
        if refused.search(skeleton):
            raise UnsupportedError(f"pattern {pattern}: {why}")
    if re.search(r"\\[pP](?!\{)", pattern):
        raise UnsupportedError(f"pattern {pattern}: \\p without braces is a letter there")
    _check_cases(pattern)
    return _written_out(pattern) if "$" in skeleton or "}+" in skeleton else pattern


def _parts(pattern: str) -> list[str]:
    """Escapes, whole classes, and other characters one by one."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        atom = _ATOM.match(pattern, at)
        end = atom.end() if atom else at + 1
        if pattern[at] == "[":
            depth = 1
            while depth and end < len(pattern):
                inner = _ATOM.match(pattern, end)
                depth += {"[": 1, "]": -1}.get(pattern[end], 0)
                end = inner.end() if inner else end + 1
        parts.append(pattern[at:end])
        at = end
    return parts


def _skeleton(pattern: str) -> str:
    return "".join("E" if p[0] == "\\" else "C" if p[0] == "[" else p for p in _parts(pattern))


def _check_cases(pattern: str) -> None:
    groups = _NO_CASE.findall(pattern)
    if "(?i" in _NO_CASE.sub("", pattern):
        groups.append(pattern)
    for group in groups:
        if _FOLDED.search(group) or "[^" in group:
            raise UnsupportedError(f"pattern {pattern}: {group} without case has other matches there")


def _written_out(pattern: str) -> str:
    out = ""
    for part in _parts(pattern):
        if part == "$" and not out.endswith("\\s++"):  # after all white space it is either
            out += r"(?![^\n])"
        elif part == "+" and (repeat := re.search(r"(?<!\\[pPx])\{1,\d*\}$", out)):
            out = out[: repeat.start()] + "+"
        else:
            out += part
    return out
