"""The HTTP server: OpenAI's routes and a few of llama-server's over one `LLM`.

Needs the extra `server` (starlette, uvicorn, msgspec); nothing is imported here. `app.create_app` gives an
ASGI application for an LLM, `serving.serve` runs it on a socket.
"""
