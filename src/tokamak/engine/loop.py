"""The thread that steps an `EngineCore`: callers of any thread hand requests in and are called back.

Started with the first request, ended by `close`. Ctrl-C interrupts the caller that waits, never a step.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import TypeVar

from tokamak.engine.core import EngineCore
from tokamak.engine.request import Request, StepOutput
from tokamak.errors import Cancelled, UnavailableError

T = TypeVar("T")
RETRY_S = 0.05  # between looks at requests whose readers lag, should a wake be lost
Deliver = Callable[[StepOutput], None]
"""Called in the engine's thread with each output of a request, in order; must not block."""


class EngineLoop:
    """Owns a core and the only thread that touches it."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self._changed = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._deliver: dict[int, Deliver] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._failure: Exception | None = None
        self._pid = os.getpid()
        self.num_turns = 0

    @property
    def problem(self) -> str | None:
        """Why nothing is stepped any more, None while the thread works or waits."""
        if self._failure is not None:
            return f"the engine ended with {type(self._failure).__name__}: {self._failure}"
        return "the engine is closed" if self._closed else None

    def submit(self, request: Request, deliver: Deliver) -> None:
        """Queue a request; every output, the last with a finish_reason, goes to `deliver`.

        Raises: Cancelled after `close`, UnavailableError in a forked process.
        """
        self._enqueue(lambda: self._add(request, deliver))

    def _enqueue(self, command: Callable[[], None]) -> None:
        self._check_process()
        with self._changed:
            if self._closed:
                raise Cancelled("this LLM is closed; load the model again") from self._failure
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tokamak-engine", daemon=True)
                self._thread.start()
            self._commands.append(command)
            self._changed.notify()

    def cancel(self, request_id: int) -> None:
        """Drop a request before the next step; its outputs end with "abort". Nothing if it is done."""
        if os.getpid() != self._pid:
            return
        self._commands.append(lambda: self._emit(self.core.cancel(request_id)))
        self.wake()

    def perform(self, work: Callable[[], T]) -> T:
        """Do something between two steps, in the engine's thread, and wait for it.  Raises: what it raises; as `submit`."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  # it belongs to the caller
                future.set_exception(error)

        self._enqueue(run)
        return future.result()

    def each(self, work: Generator[T]) -> Iterator[T]:
        """What a generator yields, one between two steps each; it runs and is closed in the engine's thread."""
        try:
            while (found := self.perform(lambda: next(work, None))) is not None:
                yield found
        finally:
            self.perform(work.close)

    def wake(self) -> None:
        """Look again for work: a reader has made room."""
        with self._changed:
            self._changed.notify()

    def close(self) -> bool:
        """Cancel everything and end the thread; waiting callers get "abort". False if it is not ours to end (a fork)."""
        if os.getpid() != self._pid:
            return False  # the thread and the program's threads did not survive
        with self._changed:
            self._closed = True
            self._changed.notify()
        thread = self._thread
        self.core.program.cancel()  # do not wait for the rest of a long step
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._failure = None  # what is closed is not restarted
        return True

    def restart(self, make: Callable[[], EngineCore]) -> bool:
        """Go on with another core after a defect ended the thread; False if none did. Waits until whoever had a request has
        been told."""
        self._check_process()
        thread = self._thread
        if self._failure is None or thread is None or thread is threading.current_thread():
            return False
        thread.join()
        with self._changed:
            if self._failure is None:  # closed meanwhile, or restarted by another thread
                return False
            self._deliver.clear()
            self.core, self._thread, self._failure, self._closed = make(), None, None, False
        return True

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise UnavailableError(
                f"this LLM was loaded in process {self._pid}; threads and cache do not survive a fork. "
                "Load the model after forking, or use the 'spawn' start method"
            )

    def _add(self, request: Request, deliver: Deliver) -> None:
        self._deliver[request.id] = deliver
        try:
            self.core.add(request)
        except Exception as error:  # noqa: BLE001  # the caller waits in another thread
            self._emit([StepOutput(request, 0, None, "", finish_reason="abort", error=error)])

    def _emit(self, outputs: list[StepOutput]) -> None:
        for output in outputs:
            deliver = self._deliver.get(output.request.id)
            if deliver is not None:
                deliver(output)
        for output in outputs:  # afterwards: several samples of a request may end in one step
            if output.finish_reason is not None and output.request.id not in self.core:
                self._deliver.pop(output.request.id, None)

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                while self._commands:
                    self._commands.popleft()()
                self._emit(self.core.step())
                self.num_turns += 1
        except Exception as error:  # noqa: BLE001  # a defect of the engine: nobody may wait forever for it
            self._failure = error
        with self._changed:  # whoever was let in before has put its command there; nobody is let in after
            self._closed = True
        while self._commands:  # requests handed in too late are cancelled with the others
            self._commands.popleft()()
        for request_id in list(self._deliver):
            outputs = self.core.cancel(request_id)
            self._emit([dataclasses.replace(o, error=self._failure) for o in outputs])

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to step or to do; False when closed."""
        core = self.core
        if core.stalled or not (self._commands or self._closed or core.has_work):
            with self._changed:
                while not (self._commands or self._closed or (core.has_work and not core.stalled)):
                    self._changed.wait(RETRY_S if core.has_work else None)
                    core.stalled = False  # a reader may have made room: try
        return not self._closed
