"""Chat templates: Jinja source from model files, rendered as a stranger's program.

The sandbox keeps templates away from Python; the budget keeps them finite: every loop turn, macro call and
printed value is counted, results that would be large are refused before they are made.
What is there beside Jinja is what Hugging Face defines for chat templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tokamak.errors import InvalidParams, TokamakError, TokenizerFileError
from tokamak.tokenizers.budget import BudgetExceeded

if TYPE_CHECKING:
    from tokamak.tokenizers.tokenizer import Tokenizer

MAX_SOURCE = 1 << 20  # characters of a template
MARKS = [chr(c) for c in range(0xFDD0, 0xFDF0)]  # noncharacters: text has no use for them


class TemplateRefusal(Exception):
    """The template called raise_exception."""


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(str(message))


def _strftime_now(form: str) -> str:
    if len(form) > 200 or re.search(r"\d{3,}", form):
        raise BudgetExceeded("a date format of unreasonable width")
    return datetime.now().astimezone().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON, unlike Jinja's own filter, which escapes for HTML."""
    if indent is not None and not 0 <= int(indent) <= 64:
        raise BudgetExceeded("an indent of unreasonable width")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class ChatTemplate:
    """One template, compiled once."""

    def __init__(self, source: str) -> None:
        """Raises: TokenizerFileError if the source is not a template."""
        self.source = source
        if len(source) > MAX_SOURCE:
            raise TokenizerFileError(
                f"the chat template has {len(source)} characters, more than {MAX_SOURCE}"
            )
        import jinja2

        from tokamak.tokenizers.sandbox import BudgetedEnvironment

        self._environment = BudgetedEnvironment()
        self._environment.filters["tojson"] = self._environment.measured(_to_json)
        self._environment.globals["raise_exception"] = _raise_exception
        self._environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as e:
            raise TokenizerFileError(f"chat template, line {e.lineno}: {e.message}") from e
        except Exception as e:  # what compiling strange source can raise is not a closed list
            raise TokenizerFileError(f"the chat template cannot be compiled: {type(e).__name__}: {e}") from e

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """Text of a conversation.

        Raises: InvalidParams if the template refuses these messages, TokenizerFileError if it breaks out of its bounds.
        """
        for i, message in enumerate(messages):
            if not isinstance(message, Mapping) or "role" not in message:
                raise InvalidParams(f"messages[{i}] is not a mapping with a role: {message!r:.80}")
        from jinja2.exceptions import SecurityError

        names = {"messages": list(messages), "add_generation_prompt": add_generation_prompt, **variables}
        try:
            with self._environment.budget():
                return self._template.render(names)
        except TemplateRefusal as e:
            raise InvalidParams(f"the chat template refuses these messages: {e}") from e
        except (BudgetExceeded, SecurityError, RecursionError, MemoryError, OverflowError) as e:
            raise TokenizerFileError(f"the chat template does not stay in its bounds: {e}") from e
        except TokamakError:
            raise
        except Exception as e:  # a template can raise whatever its expressions raise
            raise InvalidParams(f"the chat template fails on these messages: {type(e).__name__}: {e}") from e


def protect(
    messages: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[list[Mapping[str, Any]], tuple[str, str] | None]:
    """Mark names of special tokens inside what others wrote, so that `recover` can tell them from the template's own.

    Two noncharacters go into each name, after its first and after its last character. Messages of the assistant stay
    as they are: templates take them apart by such names.
    Returns: the messages, and the marks if any name was found.
    """
    if not names:
        return list(messages), None
    found = re.compile("|".join(re.escape(n) for n in sorted(names, key=len, reverse=True) if n))
    whole = json.dumps(list(messages), ensure_ascii=False, default=str)
    free = [m for m in MARKS if m not in whole]
    if len(free) < 2 or not found.search(whole.replace('\\"', '"').replace("\\n", "\n")):
        return list(messages), None
    marks = (free[0], free[1])

    def mark(value: Any) -> Any:
        if isinstance(value, str):
            return found.sub(lambda m: m[0][:1] + marks[0] + m[0][1:] + marks[1], value)
        if isinstance(value, Mapping):
            return {k: mark(v) for k, v in value.items()}
        return [mark(v) for v in value] if isinstance(value, (list, tuple)) else value

    return [m if m.get("role") == "assistant" else mark(m) for m in messages], marks


def recover(text: str, marks: tuple[str, str] | None) -> tuple[str, list[tuple[int, int]]]:
    """Take the marks out again; returns the text and the byte ranges of the names that are only text."""
    if marks is None:
        return text, []
    parts: list[str] = []
    plain: list[tuple[int, int]] = []
    at = 0
    start: int | None = None
    for piece in re.split(f"([{marks[0]}{marks[1]}])", text):
        if piece == marks[0]:
            start = max(0, at - len(parts[-1][-1:].encode())) if parts else 0
        elif piece == marks[1]:
            if start is not None:
                plain.append((start, at))
            start = None
        elif piece:
            parts.append(piece)
            at += len(piece.encode("utf-8", "replace"))
    return "".join(parts), plain


def parts_of(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = True,
    template: str | None = None,
    begun: str = "",
    *,
    mark: str = "",
    name: str = "",
    **variables: Any,
) -> list[tuple[str, list[tuple[int, int]]]]:
    """A rendered conversation, cut at `mark` where one is given; of each piece the byte ranges that are only text.

    name: of a special token that is put in place of each mark, instead of cutting.
    """
    guarded, marks = protect([*messages, {"content": begun}], tuple(tokenizer.special_tokens))
    rendered = tokenizer.render_chat(guarded[:-1], add_generation_prompt, template, **variables)
    whole = rendered + guarded[-1]["content"]
    if name and mark:
        whole, mark = whole.replace(mark, name), ""
    return [recover(piece, marks) for piece in (whole.split(mark) if mark else [whole])]
