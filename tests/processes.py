"""`tokamak serve` as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager

from command import environment


@contextmanager
def serving(model, *options):
    """(process, url) of a server on a free port, which has to stop by itself on SIGTERM. model: one or a list, None for the embedded one."""
    models = model if isinstance(model, list) else [] if model is None else [model]
    words = [sys.executable, "-m", "tokamak", "serve", *models]
    words += ["--port", "0", "--json", "--threads", "1", *options]
    with subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)["url"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, process.stderr.read()
        finally:
            process.kill()
