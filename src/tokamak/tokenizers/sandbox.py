"""Jinja that cannot run away: the sandbox of Jinja with a budget for steps, time and sizes.

Jinja's own sandbox keeps templates from Python's internals but not from loops without end or strings
without end. Here the syntax tree is rewritten before compiling: loop bodies, macros, printed values and literals of
lists call the budget; `+ * ** % ~` and the string methods that can multiply sizes are checked before they run. So no
value is ever larger than MAX_TEXT, weighed as a tree: characters and elements, shared parts as often as they occur.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from tokamak.tokenizers.budget import (
    BINOPS,
    MAX_TEXT,
    METHODS,
    BudgetExceeded,
    check_format,
    check_indent,
    check_join,
    check_replace,
    check_width,
    limit,
    weight,
)

MAX_SECONDS = 5.0
MAX_STEPS = 2_000_000  # loop turns, macro calls, printed values
REMOVED_FILTERS = ("urlize", "xmlattr", "pprint", "wordwrap", "random")  # no use here, unbounded work


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; rendering ignores it."""

    tags = {"generation"}  # noqa: RUF012  Jinja declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Meter(NodeTransformer):
    """Puts calls to the budget into a syntax tree."""

    @staticmethod
    def _call(name: str, *args: nodes.Expr) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)

    def _metered(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self._call("spend")).set_lineno(node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = _metered  # noqa: N815  names are Jinja's

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            n if isinstance(n, nodes.TemplateData) else self._call("printed", n) for n in node.nodes
        ]
        return node

    def _weighed(self, node: Any) -> Any:
        self.generic_visit(node)
        return self._call("weighed", node) if getattr(node, "ctx", "load") == "load" else node

    visit_List = visit_Tuple = visit_Dict = _weighed  # noqa: N815  names are Jinja's

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return self._call("concatenated", *node.nodes)


class BudgetedEnvironment(ImmutableSandboxedEnvironment):
    """The environment of chat templates, as Hugging Face sets it up, with the budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        self._state = threading.local()
        self.globals.pop("lipsum", None)
        for name in REMOVED_FILTERS:
            self.filters.pop(name, None)
        checks: dict[str, Callable[..., None]] = {
            "center": check_width,
            "indent": check_indent,
            "replace": check_replace,
            "join": check_join,
        }
        checks |= {"format": check_format, "batch": check_width, "slice": check_width}
        for name, call in list(self.filters.items()):
            self.filters[name] = self.measured(call, checks.get(name))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        metered: nodes.Template = _Meter().visit(tree)
        metered.set_environment(self)
        return metered

    @contextmanager
    def budget(self) -> Iterator[None]:
        """Start counting for one rendering on this thread."""
        self._state.steps = 0
        self._state.text = 0
        self._state.deadline = time.monotonic() + MAX_SECONDS
        try:
            yield
        finally:
            self._state.deadline = 0.0

    def spend(self, steps: int = 1) -> str:
        """Count steps; called from compiled templates."""
        state = self._state
        before = state.steps
        state.steps += steps
        if state.steps > MAX_STEPS:
            raise BudgetExceeded(f"more than {MAX_STEPS} steps")
        if before >> 8 != state.steps >> 8 and time.monotonic() > state.deadline:
            raise BudgetExceeded(f"more than {MAX_SECONDS:g} seconds")
        return ""

    def printed(self, value: Any) -> str:
        """Count a value that is about to be printed, maybe into a captured block."""
        text = str(self.weighed(value))
        self.spend(1 + (len(text) >> 10))
        self._state.text += len(text)
        if self._state.text > MAX_TEXT:
            raise BudgetExceeded(f"more than {MAX_TEXT} characters printed")
        return text

    def weighed(self, value: Any) -> Any:
        """The value, if it is small enough as a tree."""
        if isinstance(value, (list, tuple, dict)):
            self.spend(1 + (weight(value) >> 8))
        return value

    def concatenated(self, *values: Any) -> str:
        """The `~` operator."""
        texts = [str(self.weighed(v)) for v in values]
        limit(sum(map(len, texts)), MAX_TEXT)
        return "".join(texts)

    def measured(
        self, call: Callable[..., Any], check: Callable[..., None] | None = None
    ) -> Callable[..., Any]:
        """A filter that counts as a step, may not give a huge string, and is checked before where it could."""

        @functools.wraps(call)
        def measured(*args: Any, **kwargs: Any) -> Any:
            self.spend()
            if check is not None:
                check(*[a for a in args if not isinstance(a, (Context, EvalContext, Environment))], **kwargs)
            result = self.weighed(call(*args, **kwargs))
            if isinstance(result, str):
                limit(len(result), MAX_TEXT)
            return result

        return measured

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        BINOPS[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: PYI063  Jinja's signature
        method = getattr(__obj, "__wrapped__", __obj) if callable(__obj) else __obj  # Jinja wraps str.format
        owner = getattr(method, "__self__", None) if callable(method) else None
        if isinstance(owner, str):
            check = METHODS.get(method.__name__)
            if check is not None:
                check(owner, *args, **kwargs)
        return self.weighed(super().call(__context, __obj, *args, **kwargs))
