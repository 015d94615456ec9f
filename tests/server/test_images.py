"""Images over HTTP: data URLs in chat messages are seen and counted; nothing is fetched."""

from __future__ import annotations

import base64

import pytest

import tiny
import tokamak
import vision_models
from http_client import events, request
from tokamak.server.app import create_app
from tokamak.server.state import ServerConfig

CHAT = "/v1/chat/completions"
PNG = vision_models.png(vision_models.picture())

pytest.importorskip("PIL", reason="Pillow is not installed")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    text = tiny.gguf(
        folder / "text.gguf", "llama", "f32", metadata={"tokenizer.chat_template": tiny.TEMPLATE}
    )
    with tokamak.load(
        text, mmproj=vision_models.gguf(folder / "mmproj.gguf"), threads=1, context=256
    ) as loaded:
        yield loaded


def asked(url: str, **more):
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "auto"}},
    ]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": 4, "temperature": 0, **more}


def test_an_image_is_answered_and_its_rows_are_counted(seeing):
    app, url = (
        create_app(seeing, ServerConfig(model="m")),
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
    )
    whole = request(app, CHAT, asked(url)).json()
    body = asked(url)
    direct = seeing.chat(body["messages"], max_tokens=4, temperature=0.0)
    assert whole["choices"][0]["message"]["content"] == direct.text
    assert whole["usage"]["prompt_tokens"] == direct.usage.prompt_tokens > seeing.vision.num_rows
    counted = request(app, f"{CHAT}/input_tokens", asked(url)).json()
    assert counted["input_tokens"] == direct.usage.prompt_tokens
    chunks = events(request(app, CHAT, asked(url, stream=True)).text)[:-1]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == direct.text
    assert request(app, "/props").json()["modalities"]["vision"] is True


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "data:image/png;base64,AAAA",
    ],
)
def test_what_is_no_content_of_an_image_is_refused(seeing, url):
    answer = request(create_app(seeing, ServerConfig(model="m")), CHAT, asked(url))
    assert answer.status_code == 400, answer.text
    assert "root:" not in answer.text


def test_a_model_without_an_image_encoder_says_so(app):
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    answer = request(app, CHAT, asked(url))
    assert answer.status_code in (400, 501), answer.text
    assert "mmproj" in answer.json()["error"]["message"]


def test_a_body_with_a_large_image_meets_the_limit_of_bodies(seeing):
    app = create_app(seeing, ServerConfig(model="m", max_body_nbytes=1000))
    assert request(app, CHAT, asked("data:image/png;base64," + "A" * 2000)).status_code == 413


def test_ollama_and_anthropic_show_the_same_image(seeing):
    app, content = create_app(seeing, ServerConfig(model="m")), base64.b64encode(PNG).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}}
    direct = seeing.chat(
        [{"role": "user", "content": [image, {"type": "text", "text": "Hi"}]}], max_tokens=4, temperature=0.0
    )
    options = {"temperature": 0, "num_predict": 4}
    message = {"role": "user", "content": "Hi", "images": [content]}
    body = {"model": "m", "messages": [message], "stream": False, "options": options}
    chat = request(app, "/api/chat", body).json()
    assert (chat["message"]["content"], chat["prompt_eval_count"]) == (
        direct.text,
        direct.usage.prompt_tokens,
    )
    body = {"model": "m", "prompt": "Hi", "images": [content], "stream": False, "options": options}
    assert request(app, "/api/generate", body).json()["response"] == direct.text
    raw = request(app, "/api/generate", {**body, "raw": True}).json()
    assert raw["prompt_eval_count"] == len(seeing.illustrate("Hi", [PNG]))
    source = {"type": "base64", "media_type": "image/png", "data": content}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "Hi"}]
    body = {"model": "m", "max_tokens": 4, "temperature": 0, "messages": [{"role": "user", "content": parts}]}
    answer = request(app, "/v1/messages", body).json()
    assert (
        answer["content"][0]["text"],
        answer["usage"]["input_tokens"] + answer["usage"].get("cache_read_input_tokens", 0),
    ) == (
        direct.text,
        direct.usage.prompt_tokens,
    )


def input_image(**more):
    return {
        "role": "user",
        "content": [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", **more}],
    }


def test_responses_see_an_image_and_remember_it(seeing):
    app = create_app(seeing, ServerConfig(model="m"))
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    direct = seeing.chat(asked(url)["messages"], max_tokens=4, temperature=0.0)
    body = {"input": [input_image(image_url=url, detail="low")], "max_output_tokens": 4, "temperature": 0}
    first = request(app, "/v1/responses", body).json()
    (said,) = first["output"]
    assert said["content"][0]["text"] == direct.text
    assert first["usage"]["input_tokens"] == direct.usage.prompt_tokens
    count = request(app, "/v1/responses/input_tokens", {"input": body["input"]}).json()
    assert count["input_tokens"] == direct.usage.prompt_tokens
    (kept,) = request(app, f"/v1/responses/{first['id']}/input_items").json()["data"]
    assert [part["type"] for part in kept["content"]] == ["input_text", "input_image"]
    assert kept["content"][1]["image_url"] == url
    after = {"input": "And?", "previous_response_id": first["id"], "max_output_tokens": 1}
    more = request(app, "/v1/responses", after).json()["usage"]
    assert more["input_tokens"] > direct.usage.prompt_tokens
    assert more["input_tokens_details"]["cached_tokens"] >= 32  # of the image as well: it is the same one


@pytest.mark.parametrize(
    "item",
    [
        input_image(image_url="https://example.org/a.png"),
        input_image(image_url="/etc/passwd"),
        input_image(file_id="file-1"),
        input_image(),
        {**input_image(image_url="data:image/png;base64,AAAA"), "role": "assistant"},
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": input_image(image_url="data:,")["content"],
        },
    ],
    ids=["address", "path", "id of a file", "nothing", "of the assistant", "of a tool"],
)
def test_images_of_responses_without_content_are_refused(seeing, item):
    body = {"input": [item], "max_output_tokens": 4}
    assert request(create_app(seeing, ServerConfig(model="m")), "/v1/responses", body).status_code == 400


@pytest.mark.parametrize(
    "messages",
    [
        [
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}],
            }
        ],
        [{"role": "user", "content": [{"type": "image"}]}],
        [
            {
                "role": "assistant",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
                ],
            }
        ],
    ],
    ids=["address", "no source", "of the assistant"],
)
def test_images_of_anthropic_without_content_are_refused(seeing, messages):
    body = {"model": "m", "max_tokens": 4, "messages": messages}
    assert request(create_app(seeing, ServerConfig(model="m")), "/v1/messages", body).status_code == 400
