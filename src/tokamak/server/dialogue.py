"""A conversation with tools, whatever protocol it came by: to a prompt in the model's own form, and back to pieces.

A model whose template knows no tools is told of them in the system message, and their results come from the user;
a file without a template gets the plain form of `PLAIN`. Both are said in the header x-tokamak-notes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokamak.engine.illustrated import Illustrated
from tokamak.engine.llm import LLM, Prepared
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.sampling import SamplingParams
from tokamak.sampling.params import CONSTRAINTS
from tokamak.server.schemas import spelled
from tokamak.server.tools import ForcedReader, FreeReader, Reader, Tool, forced_schema

PLAIN = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
PLAIN_STOP = "\nUser:"
NOTE_PLAIN = "the model has no chat template; messages are written as 'Role: text' lines"
NOTE_TOOLS = "the model's chat template knows no tools; they are described in the system message"
TOLD = (
    "You can call these functions:\n{tools}\n"
    'To call one, answer with <tool_call>{{"name": NAME, "arguments": {{...}}}}</tool_call> and nothing else.'
)
_NINE = re.compile(r"[A-Za-z0-9]{9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """messages: role and content each, with tool_calls whose arguments are objects, "tool" messages with tool_call_id.

    choice: "auto", "none", "required", or "function" with the one in `only`. parallel: more than one call an answer.
    variables: of the template. reasoning: whether <think> is told apart from the text.
    resumed: the last message is the assistant's and is gone on with, not answered.
    capped: a limit of tokens that is more than the context leaves is taken as that, and said; otherwise it is refused.
    """

    messages: Sequence[Mapping[str, Any]]
    params: SamplingParams
    tools: tuple[Tool, ...] = ()
    choice: str = "auto"
    only: str = ""
    parallel: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)
    reasoning: bool = True
    capped: bool = False
    resumed: bool = False

    @property
    def offered(self) -> tuple[Tool, ...]:
        """The tools that may be called."""
        return () if self.choice == "none" else self.tools

    @property
    def forced(self) -> bool:
        """Whether the answer has to be a call."""
        return self.choice in ("required", "function")

    @property
    def constrained(self) -> bool:
        """Whether the text has to follow something."""
        return any(getattr(self.params, name) is not None for name in CONSTRAINTS)

    def checked(self) -> Dialogue:
        """Itself.  Raises: InvalidParams for a choice that cannot be kept."""
        if self.resumed and not resumes(self.messages):
            raise InvalidParams("messages must end with a text of the assistant that can be gone on with")
        if self.resumed and len(self.messages) > 1 and self.messages[-2]["role"] == "assistant":
            raise InvalidParams(
                "messages end with two of the assistant; which one is gone on with is not clear"
            )
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise InvalidParams("tools has two functions of one name")
        if self.forced and not self.tools:
            raise InvalidParams("tool_choice asks for a call, and tools has no function")
        if self.choice == "function" and self.only not in names:
            raise InvalidParams(f"tool_choice is {self.only[:64]!r}, which is none of tools")
        if self.constrained and self.offered:
            raise InvalidParams(
                "tool_choice is not 'none' and the text has to follow a format or grammar; an answer cannot do both"
            )
        return self


def resumes(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last one is a beginning of an answer."""
    last = messages[-1] if messages else {}
    return last.get("role") == "assistant" and bool(last.get("content")) and not last.get("tool_calls")


@dataclass(frozen=True, slots=True)
class Written:
    """A dialogue as the model reads it. notes: what had to be made up."""

    prompt: list[int] | Illustrated
    text: str
    notes: tuple[str, ...]

    @property
    def token_ids(self) -> list[int]:
        """Where an image is, its placeholder for each of its rows."""
        return self.prompt.token_ids if isinstance(self.prompt, Illustrated) else self.prompt


def write(llm: LLM, asked: Dialogue, *, add_generation_prompt: bool = True) -> Written:
    """The prompt.  Raises: InvalidParams if the template refuses it, UnsupportedError without a tokenizer."""
    tokenizer = llm.tokenizer
    if tokenizer is None:
        raise UnsupportedError(
            "the model file has no tokenizer, so no chat; use /v1/completions with token ids"
        )
    source = tokenizer.spec.chat_template
    messages, notes = list(asked.messages), [] if source else [NOTE_PLAIN]
    begun = str(messages.pop()["content"]) if asked.resumed else ""
    knows = source is not None and "tools" in source
    variables = dict(asked.variables)
    if asked.constrained or asked.forced:
        variables.setdefault("enable_thinking", False)
    if knows and "[TOOL_CALLS]" in str(source):
        messages = [_with_nine(message) for message in messages]
    if knows and asked.offered:
        variables["tools"] = [tool.described() for tool in asked.offered]
    elif not knows and (asked.offered or any("tool_calls" in m or m["role"] == "tool" for m in messages)):
        notes.append(NOTE_TOOLS)
        messages = told(messages, asked.offered)
    template = PLAIN if source is None else None
    described = [tool.described()["function"] for tool in asked.offered]
    variables.setdefault("functions", json.dumps(described) if described else "")  # what Firefunction reads
    prompt, shown = llm.write_chat(messages, add_generation_prompt, template, begun, **variables)
    text = tokenizer.render_chat(shown, add_generation_prompt, template, **variables) + begun
    return Written(prompt, text, tuple(notes))


def prepare(llm: LLM, asked: Dialogue, salt: str) -> tuple[Prepared, Written]:
    """A request of the engine.  Raises: as `LLM.prepare`; nothing runs without a constraint it was asked for."""
    written, params = write(llm, asked), asked.params
    if NOTE_PLAIN in written.notes:
        params = params.replaced(stop=(*params.stops, PLAIN_STOP))
    room, limit = llm.context - len(written.token_ids), params.max_tokens
    if asked.capped and limit is not None and limit > room > 0:
        params = params.replaced(max_tokens=room)
        note = f"at most {limit} tokens are asked for; the context leaves {room}"
        written = Written(written.prompt, written.text, (*written.notes, note))
    if asked.forced:
        tools = [t for t in asked.tools if asked.choice != "function" or t.name == asked.only]
        several = asked.parallel and asked.choice != "function"
        params = params.replaced(json_schema=spelled(forced_schema(tools, several=several)))
    return llm.prepare(written.prompt, params, salt=salt), written


def reader_of(llm: LLM, asked: Dialogue, written: Written) -> Reader:
    """What takes an answer to the dialogue apart."""
    if asked.forced:
        return ForcedReader([tool.name for tool in asked.offered])
    source = llm.tokenizer.spec.chat_template if llm.tokenizer else None
    template = source if source and ("tools" in source or not asked.offered) else None
    reasoning = asked.reasoning and not asked.constrained
    return FreeReader(template, asked.offered, prompt=written.text, reasoning=reasoning)


def told(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[Mapping[str, Any]]:
    """Tools as text, for a template that does not know them."""
    out: list[Mapping[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            out.append(
                {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
            )
        elif message.get("tool_calls"):
            calls = [json.dumps(c["function"], ensure_ascii=False) for c in message["tool_calls"]]
            lines = [message["content"], *(f"<tool_call>{call}</tool_call>" for call in calls)]
            out.append({"role": "assistant", "content": "\n".join(line for line in lines if line)})
        else:
            out.append(message)
    if tools:
        listed = "\n".join(json.dumps(tool.described()["function"], ensure_ascii=False) for tool in tools)
        about = TOLD.format(tools=listed)
        first = out[0] if out and out[0]["role"] == "system" else None
        system = {"role": "system", "content": f"{first['content']}\n\n{about}" if first else about}
        out = [system, *out[1 if first else 0 :]]
    return out


def _with_nine(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message whose call ids are of nine letters and digits, which Mistral's templates insist on."""

    def nine(call_id: str) -> str:
        return call_id if _NINE.fullmatch(call_id) else hashlib.sha256(call_id.encode()).hexdigest()[:9]

    out = dict(message)
    if "tool_call_id" in out:
        out["tool_call_id"] = nine(out["tool_call_id"])
    if "tool_calls" in out:
        out["tool_calls"] = [{**call, "id": nine(call["id"])} for call in out["tool_calls"]]
    return out
