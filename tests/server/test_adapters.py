"""The `lora` field of requests: which adapters count, and how much, over HTTP as in Python."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import tokamak
from http_client import client, request
from tokamak.loaders import TensorSource, open_gguf, write_gguf
from tokamak.server.app import create_app
from tokamak.server.state import ServerConfig

RANK = 4
NAMES = ("blk.0.attn_q.weight", "blk.1.ffn_down.weight", "output.weight")


def lora_file(path, model, seed):
    """A random adapter of three matrices, the head one of them."""
    rng = np.random.default_rng(seed)
    tensors = []
    for name in NAMES:
        rows, columns = open_gguf(model).tensors[name].shape
        for end, shape in (("a", (RANK, columns)), ("b", (rows, RANK))):
            content = (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
            tensors.append(
                TensorSource(
                    f"{name}.lora_{end}", "f32", shape, lambda x=content: x.reshape(-1).view(np.uint8)
                )
            )
    keys = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    write_gguf(path, keys | {"adapter.lora.alpha": 8.0}, tensors)
    return path


@pytest.fixture(scope="module")
def adapted(tiny_gguf, tmp_path_factory):
    model, folder = tiny_gguf(fmt="f32"), tmp_path_factory.mktemp("lora")
    files = [lora_file(folder / f"{name}.gguf", model, seed) for seed, name in enumerate(("one", "two"))]
    with tokamak.load(model, adapters=[(files[0], 0.5), files[1]], threads=1, kv_dtype="f32") as llm:
        yield llm, create_app(llm, ServerConfig(model="tiny"))


ASKED = [
    None,
    [],
    [{"id": 0, "scale": 2.0}],
    [{"id": 1, "scale": -1.0}],
    [{"id": 0, "scale": 1}, {"id": 1, "scale": 1}],
]


def in_python(lora):
    return None if lora is None else {one["id"]: one["scale"] for one in lora}


def test_every_route_computes_what_python_does_with_the_same_adapters(adapted):
    llm, app = adapted
    texts = set()
    for lora in ASKED:
        more = {} if lora is None else {"lora": lora}
        want = llm.generate("Once upon", max_tokens=12, temperature=0, adapters=in_python(lora)).text
        body = {"prompt": "Once upon", "temperature": 0, **more}
        assert request(app, "/completion", body | {"n_predict": 12}).json()["content"] == want
        got = request(app, "/v1/completions", body | {"max_tokens": 12, "model": "tiny"}).json()
        assert got["choices"][0]["text"] == want
        texts.add(want)
    assert len(texts) == len(ASKED)


def test_requests_with_other_adapters_at_once_get_what_they_get_alone(adapted):
    _, app = adapted

    bodies = [{"prompt": "The big fish", "n_predict": 16, "temperature": 0, "lora": x or []} for x in ASKED]
    alone = [request(app, "/completion", body).json()["content"] for body in bodies]

    async def together():
        async with client(app) as c:
            return await asyncio.gather(*(c.post("/completion", json=body) for body in bodies))

    assert [answer.json()["content"] for answer in asyncio.run(together())] == alone


def test_adapters_are_listed_and_one_that_is_not_loaded_is_refused(adapted):
    _, app = adapted
    listed = request(app, "/lora-adapters", method="GET").json()
    assert [(one["id"], one["path"], one["scale"]) for one in listed] == [
        (0, "one.gguf", 0.5),
        (1, "two.gguf", 1.0),
    ]
    answer = request(app, "/completion", {"prompt": "a", "lora": [{"id": 7, "scale": 1.0}]})
    assert answer.status_code == 400
    assert "7" in answer.json()["error"]["message"]
    for odd in ("x", [{"scale": 1}], [{"id": "one", "scale": 1}], [{"id": 0, "scale": "big"}]):
        assert request(app, "/completion", {"prompt": "a", "lora": odd}).status_code == 400
