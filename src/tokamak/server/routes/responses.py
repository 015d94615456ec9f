"""/v1/responses: stateful answers, kept in memory for whoever made them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from tokamak.engine.llm import Prepared
from tokamak.errors import InvalidParams
from tokamak.sampling import SamplingParams
from tokamak.server import bodies
from tokamak.server.answers import InputTokens
from tokamak.server.bodies import answer
from tokamak.server.dialogue import Dialogue, prepare, reader_of, write
from tokamak.server.guard import read_body
from tokamak.server.items import Item, Store, item_of, messages_of, shown
from tokamak.server.problems import Problem, problem_of
from tokamak.server.routes.generation import Context, Work, generate, run
from tokamak.server.routes.response_form import ResponseForm
from tokamak.server.schemas import MAX_MESSAGES, MAX_TOOLS, bounded
from tokamak.server.state import State
from tokamak.server.stream import COMMENT, SSE, Form
from tokamak.server.tools import FreeReader, Tool

PATH = "/v1/responses"
RUNNING = ("queued", "in_progress")
LOOK_S = 0.1  # between looks whether a response in the background has ended


class ResponseTool(Struct):
    """A function. Tools that run at a service are refused."""

    type: Literal["function"]
    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.:-]{1,128}$")]
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ChosenFunction(Struct):
    """This function has to be called."""

    type: Literal["function"]
    name: str


class TextFormat(Struct):
    """text, any JSON object, or JSON of a schema, which is always strict."""

    type: Literal["text", "json_object", "json_schema"]
    schema: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(Struct):
    """format of the text. verbosity: accepted, without effect."""

    format: TextFormat | None = None
    verbosity: str | None = None


class Reasoning(Struct):
    """effort: "none" turns reasoning off where the template can; other words are for templates that know them."""

    effort: str | None = None
    summary: str | None = None


class CountInputRequest(bodies.Body, kw_only=True):
    """Body of /v1/responses/input_tokens. A field that is not known is listed in x-tokamak-ignored."""

    lenient: ClassVar[bool] = True
    input: str | Annotated[list[Item], Meta(max_length=MAX_MESSAGES)] | None = None
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None


class ResponsesRequest(CountInputRequest, kw_only=True):
    """Body of /v1/responses. store: true unless false. background: answers at once, the work goes on; needs store.

    truncation: "auto" is taken as "disabled": nothing is cut. conversation, prompt: refused, nothing is stored under them.
    """

    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=0)] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    user: str | None = None
    conversation: None = None
    prompt: None = None


OPERATIONS = (
    (PATH, "post", ResponsesRequest, None, "Answer, and remember the answer."),
    (
        f"{PATH}/input_tokens",
        "post",
        CountInputRequest,
        InputTokens,
        "Tokens of an input as the model reads it.",
    ),
    (f"{PATH}/{{id}}", "get", None, None, "A stored response; ?stream=true: its events, once it has ended."),
    (f"{PATH}/{{id}}", "delete", None, None, "Forget a response."),
    (f"{PATH}/{{id}}/input_items", "get", None, None, "What a response was asked."),
    (f"{PATH}/{{id}}/cancel", "post", None, None, "Stop a response in the background."),
)


def routes(state: State) -> list[Route]:
    """All of them, over one store."""
    server = Responses(state)
    return [
        Route(PATH, Create(server), methods=["POST"]),
        Route(f"{PATH}/input_tokens", server.count, methods=["POST"]),
        Route(f"{PATH}/{{id}}/input_items", server.input_items),
        Route(f"{PATH}/{{id}}/cancel", server.cancel, methods=["POST"]),
        Route(f"{PATH}/{{id}}", server.one, methods=["GET", "DELETE"]),
    ]


class Create:
    """ASGI endpoint of the POST: Starlette calls an object's __call__ with the scope."""

    def __init__(self, server: Responses) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Responses.create`."""
        await self._server.create(scope, receive, send)


class Responses:
    """The routes of one server."""

    def __init__(self, state: State) -> None:
        self.state, self.store = state, Store()
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST: answer now, or later in the background."""
        state = self.state
        data = await read_body(receive, state.config)
        asked, scope["ignored"] = bodies.read(ResponsesRequest, data, state.config.defaults)
        if not asked.background:
            await generate(state, scope, receive, send, self.plan, asked)
            return
        if asked.stream or asked.store is False:
            raise InvalidParams("background is true; it needs store, and cannot stream")
        async with state.models.use(asked.model) as served:
            planned = Planned(self, Context(state, served, scope), asked)
        planned.head["status"] = "queued"
        kept = planned.keep(planned.head)
        task = asyncio.ensure_future(self._work(scope, planned))
        kept.stop = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await answer(planned.head)(scope, receive, send)

    async def _work(self, scope: Scope, planned: Planned) -> None:
        async def nowhere(_: Message) -> None:
            pass

        own = {**scope, "counts": {}, "notes": []}
        try:
            async with self.state.models.use(planned.context.served.name) as served:
                planned.head["status"] = "in_progress"
                await run(self.state, own, nowhere, served, planned.work())
        except asyncio.CancelledError:
            planned.keep({**planned.head, "status": "cancelled"})
        except Exception as error:  # noqa: BLE001  # kept for whoever asks for the response
            facts = problem_of(error, scope["request_id"]).facts
            error_facts = {"code": "server_error", "message": facts.message}
            planned.keep({**planned.head, "status": "failed", "error": error_facts})

    def plan(self, context: Context, asked: ResponsesRequest) -> Work:
        """One prompt, one answer."""
        return Planned(self, context, asked).work()

    async def count(self, request: Request) -> Response:
        """POST input_tokens."""
        data = await read_body(request.receive, self.state.config)
        asked, request.scope["ignored"] = bodies.read(CountInputRequest, data)
        items = self.items(asked, request.scope["salt"])
        dialogue = dialogue_of(asked, items, SamplingParams())
        async with self.state.models.use(asked.model) as served:
            written = await asyncio.to_thread(write, served.llm, dialogue)
        return answer(InputTokens(len(written.token_ids)))

    async def one(self, request: Request) -> Response:
        """GET or DELETE of a response."""
        number, salt = request.path_params["id"], request.scope["salt"]
        kept = self.store.get(salt, number)
        if request.method == "DELETE":
            if kept.stop is not None:
                kept.stop()
            self.store.drop(salt, number)
            return answer({"id": number, "object": "response", "deleted": True})
        if request.query_params.get("stream", "false") in ("false", "0"):
            return answer(kept.answer)
        after = request.query_params.get("starting_after", "-1")
        if not after.removeprefix("-").isdecimal() or len(after) > 9:
            raise Problem(400, "starting_after: must be the number of an event", param="starting_after")
        events = self._events(salt, number, int(after))
        return StreamingResponse(events, media_type=SSE.decode(), headers={"cache-control": "no-cache"})

    async def _events(self, salt: str, number: str, after: int) -> AsyncIterator[bytes]:
        """Of a stored response, once it has ended; those up to the number `after` are left out."""
        kept, quiet_s = self.store.get(salt, number), 0.0
        head = {**kept.answer, "status": "in_progress", "output": [], "usage": None}
        form = ResponseForm(head, FreeReader(None, ()), len, lambda _: None)
        yield b"".join(list(form.opening())[after + 1 :])
        try:
            while (kept := self.store.get(salt, number)).answer["status"] in RUNNING:
                await asyncio.sleep(LOOK_S)
                quiet_s += LOOK_S
                if quiet_s >= self.state.config.ping_s:
                    yield COMMENT
                    quiet_s = 0.0
            yield b"".join(list(form.again(kept.answer))[max(0, after - 1) :])
        except Problem as problem:  # it was deleted
            yield form.failure(problem)

    async def cancel(self, request: Request) -> Response:
        """POST cancel, of one in the background."""
        kept = self.store.get(request.scope["salt"], request.path_params["id"])
        if not kept.answer.get("background"):
            raise Problem(400, "only a response in the background can be cancelled", code="not_background")
        if kept.answer["status"] in RUNNING and kept.stop is not None:
            kept.stop()
            kept.answer["status"] = "cancelled"
        return answer(kept.answer)

    async def input_items(self, request: Request) -> Response:
        """GET input_items, in pages."""
        kept, query = self.store.get(request.scope["salt"], request.path_params["id"]), request.query_params
        entries = kept.given if query.get("order") == "asc" else kept.given[::-1]
        ids = [entry["id"] for entry in entries]
        after = query.get("after")
        if after is not None and after not in ids:
            raise Problem(
                404, f"after: the item {after[:100]!r} is not here", param="after", code="item_not_found"
            )
        begin = 0 if after is None else ids.index(after) + 1
        given = query.get("limit", "20")
        limit = max(1, min(100, int(given))) if given.isdecimal() and len(given) < 9 else 20
        page = entries[begin : begin + limit]
        edges = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
        return answer({"object": "list", "data": page, **edges, "has_more": begin + limit < len(entries)})

    def items(self, asked: CountInputRequest, salt: str) -> list[Item]:
        """What came before, and the new input.  Raises: Problem 404 for what is not stored."""
        before = self.store.get(salt, asked.previous_response_id).items if asked.previous_response_id else []
        given = (
            [Item(role="user", content=asked.input)] if isinstance(asked.input, str) else asked.input or []
        )
        known = {item.id: item for item in before if item.id}
        for item in given:
            if item.type == "item_reference" and item.id not in known:
                raise Problem(
                    404, f"the item {str(item.id)[:100]!r} is not here", param="input", code="item_not_found"
                )
        return [*before, *(known[str(i.id)] if i.type == "item_reference" else i for i in given)]


class Planned:
    """One response: what it is asked, and the answer before there is output."""

    def __init__(self, server: Responses, context: Context, asked: ResponsesRequest) -> None:
        self.server, self.context, self.asked = server, context, asked
        self.salt = context.scope.get("salt", "")
        self.items = server.items(asked, self.salt)
        self.num_before = len(self.items) - (1 if isinstance(asked.input, str) else len(asked.input or []))
        given = {n: getattr(asked, n) for n in ("temperature", "top_p") if getattr(asked, n) is not None}
        form = asked.text.format if asked.text else None
        if form is not None and form.type != "text":
            if form.type == "json_schema" and form.schema is None:
                raise InvalidParams("text has a format json_schema without a schema")
            given["json_schema"] = bounded(form.schema or {"type": "object"})
        limit = -1 if asked.max_output_tokens is None else asked.max_output_tokens
        self.params = SamplingParams(max_tokens=limit, **given)
        self.dialogue = dialogue_of(asked, self.items, self.params)
        self.given = [shown(item) for item in self.items[self.num_before :]]
        self.head = self._head()

    def keep(self, response: dict[str, Any]) -> Any:
        """Store it as it is now, if it may be stored."""
        if self.asked.store is False:
            return None
        output = [item_of(item) for item in response["output"]]
        return self.server.store.put(self.salt, response, self.given, [*self.items, *output])

    def work(self) -> Work:
        """For the engine."""
        llm = self.context.llm

        def ready(salt: str) -> tuple[list[Prepared], Form]:
            prepared, written = prepare(llm, self.dialogue, salt)
            self.context.note(*written.notes)
            tokenizer = llm.tokenizer
            count = tokenizer.count if tokenizer else len
            return [prepared], ResponseForm(
                self.head, reader_of(llm, self.dialogue, written), count, self.keep
            )

        return Work(1, ready, bool(self.asked.stream) and not self.asked.background)

    def _head(self) -> dict[str, Any]:
        asked, params = self.asked, self.params
        form = asked.text.format if asked.text and asked.text.format else TextFormat("text")
        shape = {"type": form.type}
        if form.type == "json_schema":
            shape |= {"name": form.name or "schema", "schema": form.schema, "strict": True}  # type: ignore[dict-item]
        choice: Any = asked.tool_choice or "auto"
        reasoning = asked.reasoning or Reasoning()
        return {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": bool(asked.background),
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self.context.served.name,
            "output": [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
            "store": asked.store is not False,
            "temperature": params.temperature,
            "text": {"format": shape},
            "tool_choice": choice if isinstance(choice, str) else {"type": "function", "name": choice.name},
            "tools": [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters or {},
                    "strict": bool(tool.strict),
                }
                for tool in asked.tools or ()
            ],
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.user,
        }


def dialogue_of(asked: CountInputRequest, items: list[Item], params: SamplingParams) -> Dialogue:
    """Raises: InvalidParams."""
    choice, reasoning = asked.tool_choice or "auto", asked.reasoning or Reasoning()
    named = None if isinstance(choice, str) else choice.name
    variables: dict[str, Any] = {}
    if reasoning.effort is not None:
        variables["reasoning_effort"] = reasoning.effort
        if reasoning.effort == "none":
            variables["enable_thinking"] = False
    system = [{"role": "system", "content": asked.instructions}] if asked.instructions else []
    messages = [*system, *messages_of(items)]
    return Dialogue(
        messages=messages or [{"role": "user", "content": ""}],
        params=params,
        tools=tuple(Tool(t.name, t.description or "", t.parameters or {}) for t in asked.tools or ()),
        choice="function" if named else str(choice),
        only=named or "",
        parallel=asked.parallel_tool_calls is not False,
        variables=variables,
    ).checked()
