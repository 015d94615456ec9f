"""The application on a socket: uvicorn with h11, limits of time and size, and a drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from tokamak.errors import InvalidParams, UnavailableError
from tokamak.server.guard import Guard, is_loopback

HEAD_NBYTES = 64 << 10  # of a request's line and headers
HEAD_S = 10.0  # for them to come
IDLE_S = 30.0  # a connection between requests
BACKLOG = 512


class TimedProtocol(H11Protocol):
    """Closes a connection whose next request's head has begun, or never begins, and is not there after HEAD_S."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base does
        """The clock runs from the first moment."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """It stops with the head; it starts with the next one's first byte."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to close."""
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class DrainingServer(Server):
    """Stops on SIGTERM and SIGINT: refuses new work, finishes what runs, ends without raising the signal again."""

    def __init__(self, config: Config, app: Guard, ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._guard, self._ready = app, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says that it is ready when it is: handlers of signals are in place, connections are taken."""
        await super().startup(sockets)
        state = self._guard.state
        self._recording = asyncio.create_task(state.recorder.run())
        self._unloading = asyncio.create_task(state.models.watch(state.config.idle_s))
        self._tending = asyncio.create_task(state.models.tend())
        if self._ready is not None:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The recorder goes on while requests drain."""
        await super().shutdown(sockets)
        tasks = (self._recording, self._unloading, self._tending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._guard.state.recorder.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handlers while it serves; only the main thread may have any."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first one drains; a second Ctrl-C does not wait."""
        self._guard.state.draining = True
        super().handle_exit(sig, frame)


@contextlib.contextmanager
def listen(hosts: Sequence[str], port: int) -> Iterator[list[socket.socket]]:
    """A bound socket for each address, closed at the end; port 0: the system chooses one for all.

    Raises: InvalidParams, UnavailableError if it is taken.
    """
    with contextlib.ExitStack() as opened:
        bound: list[socket.socket] = []
        for host in hosts:
            chosen = bound[0].getsockname()[1] if bound else port
            bound.append(opened.enter_context(bind(host, chosen)))
        yield bound


def bind(host: str, port: int) -> socket.socket:
    """One of them."""
    if not 0 <= port < 1 << 16:
        raise InvalidParams(f"port is {port}; it must be from 0 to 65535")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, proto)
    except OSError as error:
        raise InvalidParams(f"host {host!r} is no address of this machine: {error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UnavailableError(f"{host}:{port} cannot be bound: {error.strerror}") from error
    return bound


def check_exposure(host: str, api_keys: tuple[str, ...]) -> None:
    """Raises: InvalidParams for an address that others can reach, without a key."""
    if not is_loopback(host) and not api_keys:
        raise InvalidParams(
            f"host {host!r} can be reached from other machines; give an API key, or use 127.0.0.1"
        )


def written_as_usual(app: ASGIApp) -> ASGIApp:
    """The names of headers as HTTP/1.1 servers write them: some clients compare them letter by letter."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def titled(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name.title(), value) for name, value in message["headers"]]
            await send(message)

        await app(scope, receive, titled)

    return answer


def serve(
    app: Guard, bound: list[socket.socket], *, drain_s: int = 30, ready: Callable[[], None] | None = None
) -> None:
    """Serve on bound sockets until SIGTERM or SIGINT, then drain for drain_s at most. ready: called when it listens."""
    # One line for everything that is no HTTP: strangers could fill a disk, or a pipe, which then holds the loop up.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = Config(
        written_as_usual(app),
        http=TimedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=HEAD_NBYTES,
        timeout_keep_alive=int(IDLE_S),
        timeout_graceful_shutdown=drain_s,
    )
    DrainingServer(config, app, ready).run(sockets=bound)
