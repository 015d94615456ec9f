"""`tokamak chat` at a terminal, played through a pty: prompt, answer, commands, Ctrl-C, Ctrl-D."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from command import environment

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "


class Terminal:
    """A command with a pty for stdin, stdout and stderr."""

    def __init__(self, *words):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tokamak", *map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(TERM="dumb"),
            start_new_session=True,
            close_fds=True,
        )
        os.close(slave)
        self.seen = ""

    def expect(self, text, seconds=60):
        """Read until `text` shows up after what was expected before; what came until then."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"{text!r} did not come within {seconds} s, but {self.seen!r}")
            self.seen += self.read()
        before, _, self.seen = self.seen.partition(text)
        return before

    def read(self):
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            raise AssertionError(f"the command ended with {self.process.wait()}; {self.seen!r}")
        return data.decode("utf-8", "replace")

    def send(self, text):
        os.write(self.master, text.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(tiny_gguf):
    opened = []

    def start(*words):
        model = tiny_gguf("llama", "q8_0", metadata={"tokenizer.chat_template": TEMPLATE})
        opened.append(Terminal("chat", model, *words))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_conversation_at_a_terminal(terminal):
    chat = terminal("-n", 4, "--seed", 1)
    chat.expect("/help lists the commands")
    chat.expect("> ")
    chat.send("Hello\n")
    chat.expect("tokens of 512, ")  # the line about speed after the answer
    chat.expect("> ")
    chat.send("/metrics\n")
    chat.expect("1 answers")
    chat.expect("> ")
    chat.send("/clear\n")
    chat.expect("forgotten")
    chat.expect("> ")
    chat.send("/help\n")
    chat.expect("/exit     leave")
    chat.expect("> ")
    chat.send("/exit\n")
    assert chat.process.wait(30) == 0


def test_control_c_stops_an_answer_and_at_the_prompt_leaves_with_130(terminal):
    chat = terminal("-n", 500, "--ignore-eos")
    chat.expect("> ")
    chat.send("Hello\n")
    chat.expect("Hello")  # the echo of the terminal; the answer begins after it
    time.sleep(0.05)
    os.killpg(chat.process.pid, signal.SIGINT)
    chat.expect("> ")
    os.killpg(chat.process.pid, signal.SIGINT)
    assert chat.process.wait(30) == 130


def test_control_d_leaves_with_0(terminal):
    chat = terminal("-n", 2)
    chat.expect("> ")
    chat.send("\x04")
    assert chat.process.wait(30) == 0
