"""What a chat template may use: limits, and the checks of operations that could multiply sizes.

Each check gets the arguments of an operation before it runs and raises `BudgetExceeded` if its result would be too
large. `sandbox.py` calls them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MAX_TEXT = 4 << 20  # characters printed in all, captured blocks included; weight of one value
ELEMENT = 16  # weight of an element of a list; a character weighs 1
MAX_BITS = 4096  # of one integer
WIDE = re.compile(r"\d{5,}|\*")  # widths in format strings


class BudgetExceeded(Exception):
    """A template asked for more than it may have."""


def limit(size: int, most: int) -> None:
    if size > most:
        raise BudgetExceeded(f"a value of size {size}, more than {most}")


def weight(value: Any) -> int:
    """Weight of a value written out as a tree; raises as soon as it is too much."""
    total = 0
    stack = [value]
    while stack:
        item = stack.pop()
        total += ELEMENT
        if isinstance(item, (str, bytes)):
            total += len(item)
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
        limit(total, MAX_TEXT)
    return total


def _size(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    return weight(value) if isinstance(value, (list, tuple)) else 0


def _bits(value: Any) -> int:
    return int(value).bit_length() if isinstance(value, (int, bool)) else 0


def check_add(left: Any, right: Any) -> None:
    limit(_size(left) + _size(right), MAX_TEXT)
    limit(max(_bits(left), _bits(right)), MAX_BITS)


def check_multiply(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        limit(_bits(left) + _bits(right), MAX_BITS)
    for value, times in ((left, right), (right, left)):
        if _size(value) and isinstance(times, int):
            limit(_size(value) * max(0, times), MAX_TEXT)


def check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        limit(_bits(left) * abs(right), MAX_BITS)


def check_modulo(left: Any, right: Any) -> None:
    del right
    if isinstance(left, (str, bytes)):
        check_format(left)


def check_format(form: Any, *args: Any, **kwargs: Any) -> None:
    text = form if isinstance(form, str) else str(form)
    if WIDE.search(text) or re.search(r"\{[^{}]*\{", text):
        raise BudgetExceeded("a format of unreasonable width")
    limit(len(text) + sum(len(str(a)) for a in (*args, *kwargs.values())) * (text.count("{") + 1), MAX_TEXT)


def check_width(value: Any, width: Any = 80, *args: Any, **kwargs: Any) -> None:
    del value, args
    for number in (width, *kwargs.values()):
        if isinstance(number, int):
            limit(number, 100_000)


def check_indent(value: Any, width: Any = 4, *args: Any, **kwargs: Any) -> None:
    del args
    width = kwargs.get("width", width)
    limit((str(value).count("\n") + 1) * (width if isinstance(width, int) else _size(width)), MAX_TEXT)


def check_replace(value: Any, old: Any = "", new: Any = "", *args: Any, **kwargs: Any) -> None:
    del args
    old, new = str(kwargs.get("old", old)), str(kwargs.get("new", new))
    times = len(str(value)) + 1 if not old else str(value).count(old)
    limit(len(str(value)) + times * len(new), MAX_TEXT)


def check_join(value: Any, separator: Any = "", *args: Any, **kwargs: Any) -> None:
    del args
    separator = kwargs.get("d", separator)
    if isinstance(value, (list, tuple)):
        limit(
            sum(len(v) if isinstance(v, str) else 32 for v in value) + len(value) * _size(separator), MAX_TEXT
        )


def check_str_join(separator: str, values: Any = ()) -> None:
    check_join(values if isinstance(values, (list, tuple)) else list(values)[:0], separator)
    if not isinstance(values, (str, list, tuple)):
        raise BudgetExceeded("join of something that is not a list")


def refuse(*args: Any, **kwargs: Any) -> None:
    del args, kwargs
    raise BudgetExceeded("a method that templates may not call")


BINOPS: dict[str, Callable[[Any, Any], None]] = {
    "+": check_add,
    "*": check_multiply,
    "**": check_power,
    "%": check_modulo,
}
METHODS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill", "expandtabs"), check_width),
    "replace": check_replace,
    "join": check_str_join,
    "format": check_format,
    "format_map": check_format,
    "translate": refuse,
}
