"""Vectors and ranks: /v1/embeddings, /embedding, /api/embed, /v1/rerank. A model that has none answers 400, not_supported."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.engine.encoder import Encoder
from tokamak.engine.llm import LLM
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.server import bodies
from tokamak.server.bodies import answer
from tokamak.server.guard import read_body
from tokamak.server.problems import Problem
from tokamak.server.registry import Served
from tokamak.server.schemas import TextPart
from tokamak.server.state import State
from tokamak.types import Floats

MAX_INPUTS = 2048
TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]


class Parts(Struct, forbid_unknown_fields=True):
    """A text in pieces, which are joined."""

    content: Annotated[list[TextPart], Meta(min_length=1)]


Texts = (
    str | Annotated[list[str | TokenId | list[TokenId] | Parts], Meta(min_length=1, max_length=MAX_INPUTS)]
)


class EmbeddingRequest(bodies.Body, kw_only=True, forbid_unknown_fields=True):
    """Body of /v1/embeddings. input: a text, ids, or a list of such. dimensions: the first so many, made of length 1 again."""

    unused: ClassVar[frozenset[str]] = frozenset({"user"})
    input: Texts
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class LlamaEmbeddingRequest(bodies.Body, kw_only=True):
    """Body of /embedding."""

    lenient: ClassVar[bool] = True
    aliases: ClassVar[dict[str, str]] = {"input": "content"}
    content: Texts
    model: str | None = None


class OllamaEmbedRequest(bodies.Body, kw_only=True):
    """Body of /api/embed. truncate: nothing is cut, whatever it says."""

    lenient: ClassVar[bool] = True
    unused: ClassVar[frozenset[str]] = frozenset({"truncate", "keep_alive", "options"})
    model: str
    input: Texts
    dimensions: Annotated[int, Meta(ge=1)] | None = None


Documents = Annotated[list[str], Meta(min_length=1, max_length=MAX_INPUTS)]


class RerankRequest(bodies.Body, kw_only=True):
    """Body of /v1/rerank. documents: texts. top_n: only the best so many. texts: the same, for an answer as TEI gives it, a list."""

    lenient: ClassVar[bool] = True
    query: str
    documents: Documents | None = None
    texts: Documents | None = None
    model: str | None = None
    top_n: Annotated[int, Meta(ge=1)] | None = None


class EmbeddingEntry(Struct):
    """One vector: floats, or the base64 of little-endian 32-bit floats."""

    embedding: list[float] | str
    index: int
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Struct):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(Struct):
    """Answer of /v1/embeddings."""

    data: list[EmbeddingEntry]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


OPERATIONS = (
    ("/v1/embeddings", "post", EmbeddingRequest, EmbeddingAnswer, "Vectors of texts."),
    ("/embedding", "post", LlamaEmbeddingRequest, None, "Vectors of texts (llama-server)."),
    ("/embeddings", "post", LlamaEmbeddingRequest, None, "The same as /embedding."),
    ("/api/embed", "post", OllamaEmbedRequest, None, "Vectors of texts (Ollama)."),
    *(
        (path, "post", RerankRequest, None, "Documents by how well they answer.")
        for path in ("/v1/rerank", "/rerank")
    ),
)


def routes(state: State) -> list[Route]:
    """All of them; the vectors are computed in a thread, at a place like any completion."""

    def route(path: str, kind: type[Any], work: Callable[[Served, Any], object]) -> Route:
        async def endpoint(request: Request) -> Response:
            data = await read_body(request.receive, state.config)
            asked, request.scope["ignored"] = bodies.read(kind, data)
            async with (
                state.models.use(asked.model) as served,
                state.admitted(served, request.scope["salt"], 1),
            ):
                request.scope["model"] = served.name
                return answer(await asyncio.to_thread(work, served, asked))

        return Route(path, endpoint, methods=["POST"])

    return [
        route("/v1/embeddings", EmbeddingRequest, embeddings),
        route("/embedding", LlamaEmbeddingRequest, llama_embedding),
        route("/embeddings", LlamaEmbeddingRequest, llama_embedding),
        route("/api/embed", OllamaEmbedRequest, ollama_embed),
        route("/v1/rerank", RerankRequest, rerank),
        route("/rerank", RerankRequest, rerank),
    ]


def one_by_one(texts: Texts) -> list[Any]:
    """A text or ids each.  Raises: InvalidParams for texts and single ids mixed."""
    if isinstance(texts, str):
        return [texts]
    joined = ["".join(p.text for p in text.content) if isinstance(text, Parts) else text for text in texts]
    kinds = {isinstance(text, int) for text in joined}
    if len(kinds) > 1:
        raise InvalidParams(
            "input has texts and single token ids; it must be one text, ids, or a list of such"
        )
    return [joined] if kinds == {True} else joined


def vectors_of(llm: LLM, texts: Texts) -> Floats:
    """f32[n, hidden_size].  Raises: Problem 400 if the model has no vectors."""
    try:
        return llm.embed(one_by_one(texts))
    except UnsupportedError as error:
        raise Problem(400, str(error), code="not_supported") from error


def shortened(vectors: Floats, dimensions: int | None) -> Floats:
    """The first dimensions of each, of length 1.  Raises: InvalidParams for more than there are."""
    if dimensions is None:
        return vectors
    if dimensions > vectors.shape[1]:
        raise InvalidParams(f"dimensions is {dimensions}; the vectors of this model have {vectors.shape[1]}")
    cut = vectors[:, :dimensions]
    return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def num_tokens(llm: LLM, texts: Texts) -> int:
    """Of all texts, with the model's own special tokens."""
    tokenizer = llm.tokenizer
    return sum(
        len(text) if not isinstance(text, str) else len(tokenizer.encode(text)) if tokenizer else 0
        for text in one_by_one(texts)
    )


def embeddings(served: Served, asked: EmbeddingRequest) -> EmbeddingAnswer:
    """/v1/embeddings."""
    vectors = shortened(vectors_of(served.llm, asked.input), asked.dimensions)
    as_text = asked.encoding_format == "base64"
    entries = [
        EmbeddingEntry(base64.b64encode(v.astype("<f4").tobytes()).decode() if as_text else v.tolist(), i)
        for i, v in enumerate(vectors)
    ]
    num = num_tokens(served.llm, asked.input)
    return EmbeddingAnswer(entries, served.name, EmbeddingUsage(num, num))


def llama_embedding(served: Served, asked: LlamaEmbeddingRequest) -> object:
    """/embedding: a list of {index, embedding: [vector]}."""
    vectors = vectors_of(served.llm, asked.content)
    return [{"index": i, "embedding": [v.tolist()]} for i, v in enumerate(vectors)]


def ollama_embed(served: Served, asked: OllamaEmbedRequest) -> object:
    """/api/embed."""
    began = time.perf_counter()
    vectors = shortened(vectors_of(served.llm, asked.input), asked.dimensions)
    return {
        "model": served.name,
        "embeddings": vectors.tolist(),
        "total_duration": int(1e9 * (time.perf_counter() - began)),
        "load_duration": 0,
        "prompt_eval_count": num_tokens(served.llm, asked.input),
    }


def rerank(served: Served, asked: RerankRequest) -> object:
    """/v1/rerank, best first.  Raises: Problem 400 if the model has no head for it."""
    llm, documents = served.llm, asked.documents or asked.texts
    if documents is None:
        raise Problem(400, "documents is missing", param="documents", code="missing_field")
    if not isinstance(llm, Encoder):
        raise Problem(400, f"{served.name!r} has no head that ranks documents", code="not_supported")
    try:
        scores = llm.rerank(asked.query, documents)
    except UnsupportedError as error:
        raise Problem(400, str(error), code="not_supported") from error
    best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: asked.top_n]
    num = sum(num_tokens(llm, text) for text in (*[asked.query] * len(scores), *documents))
    if asked.texts:
        return [{"index": i, "score": float(scores[i])} for i in best]
    return {
        "object": "list",
        "model": served.name,
        "usage": {"prompt_tokens": num, "total_tokens": num},
        "results": [{"index": i, "relevance_score": float(scores[i])} for i in best],
    }
