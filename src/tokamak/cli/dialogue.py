"""The conversation of `tokamak chat`: messages, what they cost, and what the commands that begin with a slash do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokamak.cli.arguments import file_text
from tokamak.cli.run import speed, stream_out
from tokamak.errors import Cancelled, InvalidParams

if TYPE_CHECKING:
    from tokamak.engine.completion import Completion
    from tokamak.engine.llm import LLM
    from tokamak.sampling import SamplingParams

DEFAULT_ANSWER = 512
HELP = """/help     this text
/clear    forget the conversation          /undo     forget the last question and its answer
/retry    answer the last question anew    /system T  another system message, and a new conversation
/set N V  a sampling setting: /set temperature 0.2     /settings  those that are not usual
/file F   ask with the text of a file      /save F   /load F   the conversation as JSON
/image F  show an image with the next question
/tokens   tokens of the conversation       /metrics  tokens and speed so far
/exit     leave (also Ctrl-D)
Lines that end in \\ go on; \"\"\" alone on a line begins and ends a text of several lines.
Ctrl-C stops an answer; at the prompt it leaves."""


class Conversation:
    """Messages so far, and what they cost."""

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None) -> None:
        self.llm, self.params = llm, params
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.messages = list(self.system)
        self.answers: list[Completion] = []
        self.images: list[str] = []  # of the next question

    def clear(self) -> None:
        """Forget everything but the system message."""
        self.messages = list(self.system)

    def ask(self, text: str) -> Completion | None:
        """Stream the answer to `text` and remember both; None, and nothing remembered, when it was stopped."""
        messages = [*self.messages, {"role": "user", "content": self.shown(text)}]
        prompt = self.llm.chat_prompt(messages)
        params = self.params
        if params.max_tokens is None and not params.context_shift:
            room = max(1, self.llm.context - len(prompt))
            params = params.replaced(max_tokens=min(DEFAULT_ANSWER, room))
        try:
            done = stream_out(self.llm, prompt, params)
        except (KeyboardInterrupt, Cancelled):
            return None
        self.messages, self.images = [*messages, {"role": "assistant", "content": done.text}], []
        self.answers.append(done)
        return done

    def shown(self, text: str) -> Any:
        """A question with the images that wait for it."""
        parts = [{"type": "image", "image": image} for image in self.images]
        return [*parts, {"type": "text", "text": text}] if parts else text

    def last_question(self) -> str:
        """Take the last question and its answer back.  Raises: InvalidParams if there is none."""
        at = next(
            (i for i in range(len(self.messages) - 1, -1, -1) if self.messages[i]["role"] == "user"), None
        )
        if at is None:
            raise InvalidParams("nothing has been asked yet")
        question = self.messages[at]["content"]
        self.messages = self.messages[:at]
        if isinstance(question, str):
            return question
        self.images = [part["image"] for part in question if part["type"] == "image"]
        return str(question[-1]["text"])

    def metrics(self) -> str:
        """What /metrics prints."""
        prompt = sum(a.usage.prompt_tokens for a in self.answers)
        made = sum(a.usage.completion_tokens for a in self.answers)
        cached = sum(a.usage.cached_tokens for a in self.answers)
        drafted = sum(a.usage.drafted_tokens for a in self.answers)
        lines = [
            f"{len(self.answers)} answers, {prompt} prompt tokens ({cached} from the cache), {made} generated"
        ]
        if drafted:
            lines += [f"{sum(a.usage.accepted_tokens for a in self.answers)} of {drafted} guesses were right"]
        return "\n".join([*lines, *(speed(a, self.llm.context) for a in self.answers[-1:])])

    def tokens(self) -> str:
        """What /tokens prints."""
        count = len(self.llm.chat_prompt(self.messages)) if self.messages else 0
        return f"{count} tokens of {self.llm.context}, {len(self.messages)} messages"


def _set(conversation: Conversation, rest: str) -> str:
    name, _, text = rest.partition(" ")
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = text
    conversation.params = conversation.params.replaced(**{name.replace("-", "_"): value})
    return f"{name} is {value}"


def _system(conversation: Conversation, rest: str) -> str:
    conversation.system = [{"role": "system", "content": rest}] if rest else []
    conversation.clear()
    return "A new conversation begins."


def _image(conversation: Conversation, rest: str) -> str:
    if conversation.llm.vision is None:
        raise InvalidParams("the model was loaded without an image encoder; give --mmproj")
    if not Path(rest).is_file():
        raise InvalidParams(f"{rest or '/image'}: is no file; write /image FILE")
    conversation.images.append(rest)
    return f"{rest} goes with the next message"


def _clear(conversation: Conversation, _: str) -> str:
    conversation.clear()
    return "The conversation is forgotten."


def _undo(conversation: Conversation, _: str) -> str:
    return f"Forgotten: {conversation.last_question()[:60]}"


def _save(conversation: Conversation, rest: str) -> str:
    if not rest:
        raise InvalidParams("/save needs the name of a file")
    try:
        Path(rest).write_text(
            json.dumps(conversation.messages, ensure_ascii=False, indent=1), encoding="utf-8"
        )
    except OSError as error:
        raise InvalidParams(f"{rest}: cannot be written: {error.strerror}") from error
    return f"{len(conversation.messages)} messages are in {rest}"


def _loaded(content: Any) -> Any:
    """A message's content: a text, or images and then a text, as _save writes them."""
    if not isinstance(content, list):
        return str(content)
    images = [{"type": "image", "image": str(part["image"])} for part in content[:-1]]
    return [*images, {"type": "text", "text": str(content[-1]["text"])}]


def _load(conversation: Conversation, rest: str) -> str:
    try:
        messages = json.loads(file_text(rest))
        kept = [{"role": str(m["role"]), "content": _loaded(m["content"])} for m in messages]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidParams(f"{rest}: is no conversation: {error}") from error
    conversation.messages = kept
    return f"{len(kept)} messages"


ANSWERS: dict[str, Callable[[Conversation, str], str]] = {
    "help": lambda _, __: HELP,
    "clear": _clear,
    "metrics": lambda c, _: c.metrics(),
    "tokens": lambda c, _: c.tokens(),
    "set": _set,
    "settings": lambda c, _: json.dumps(c.params.as_dict(), ensure_ascii=False, default=str),
    "system": _system,
    "undo": _undo,
    "save": _save,
    "load": _load,
    "image": _image,
}
QUESTIONS: dict[str, Callable[[Conversation, str], str]] = {  # give a text to ask
    "retry": lambda c, _: c.last_question(),
    "file": lambda _, rest: file_text(rest),
}


def command(conversation: Conversation, line: str) -> str | None:
    """Do what a line beginning with '/' says; a text to ask, if it gives one.  Raises: InvalidParams, EOFError to leave."""
    name, _, rest = line[1:].partition(" ")
    if name == "exit":
        raise EOFError
    if name in QUESTIONS:
        return QUESTIONS[name](conversation, rest.strip())
    if name in ANSWERS:
        print(ANSWERS[name](conversation, rest.strip()))
    else:
        print(f"/{name} is unknown.\n{HELP}")
    sys.stdout.flush()
    return None
