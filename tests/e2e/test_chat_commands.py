"""What the commands of `tokamak chat` and the options of `tokamak run` do, over pipes, on small files."""

import io
import json
from dataclasses import dataclass

import pytest

import tiny
from tokamak.cli import main as cli

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    return tiny.gguf(folder / "m.gguf", metadata={"tokenizer.chat_template": TEMPLATE, "tokenizer.ggml.fim_pre_token_id": 40,
                                                  "tokenizer.ggml.fim_suf_token_id": 41, "tokenizer.ggml.fim_mid_token_id": 42})  # fmt: skip


class Piped(io.TextIOWrapper):
    """A stdin that is no terminal."""

    def __init__(self, text):
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")


@dataclass
class Done:
    stdout: str
    stderr: str


@pytest.fixture
def tokamak(capsys, monkeypatch):
    """Run the command in this process."""

    def run(*words, given="", code=0):
        monkeypatch.setattr("sys.stdin", Piped(given))
        try:
            found = cli.main([str(word) for word in words])
        except SystemExit as end:  # usage
            found = end.code
        done = Done(*capsys.readouterr())
        assert found == code, done.stderr
        return done

    return run


@pytest.fixture
def chat(tokamak, model):
    def talk(given, *words):
        asked = ("chat", model, "--json", "-n", 4, "--seed", 1, "--ignore-eos", *words)
        return json.loads(tokamak(*asked, given=given).stdout)

    return talk


@pytest.fixture
def run(tokamak, model):
    def complete(*words):
        return json.loads(
            tokamak("run", model, "--json", "-n", 8, "--ignore-eos", "--temp", 0, *words).stdout
        )

    return complete


def roles(document):
    return [(m["role"], m["content"]) for m in document["messages"] if m["role"] != "assistant"]


def test_texts_of_several_lines(tokamak, chat, run, model):
    out = chat('one \\\ntwo\n"""\nthree\n\n/four\n"""\n/exit\n')
    assert roles(out) == [("user", "one \ntwo"), ("user", "three\n\n/four")]


def test_undo_retry_and_another_system_message(tokamak, chat, run, model, tmp_path):
    out = chat("one\ntwo\n/undo\nthree\n/retry\n")
    assert roles(out) == [("user", "one"), ("user", "three")]
    assert len(out["answers"]) == 4
    out = chat("one\n/system be brief\ntwo\n", "--system", "be long")
    assert roles(out) == [("system", "be brief"), ("user", "two")]


def test_a_conversation_is_saved_and_loaded(tokamak, chat, run, model, tmp_path):
    path = tmp_path / "talk.json"
    first = chat(f"one\n/save {path}\n")
    assert json.loads(path.read_text()) == first["messages"]
    again = chat(f"/load {path}\ntwo\n")
    assert again["messages"][:2] == first["messages"]
    question = tmp_path / "q.txt"
    question.write_text("what\nis this")
    assert roles(chat(f"/file {question}\n")) == [("user", "what\nis this")]


def test_settings_change_and_mistakes_leave_the_conversation(tokamak, chat, run, model):
    done = tokamak(
        "chat",
        model,
        "-n",
        3,
        given="/set top_k 0\n/settings\n/set top_x 1\n/tokens\n/undo\n/nonsense\n/load nowhere\nhi\n/metrics\n",
    )
    assert '"top_k": 0' in done.stdout
    assert "0 tokens of" in done.stdout
    assert "/nonsense is unknown" in done.stdout
    assert "1 answers" in done.stdout
    for text in ("top_x is not a sampling parameter", "nothing has been asked", "nowhere: cannot be read"):
        assert text in done.stderr


def test_a_prompt_cache_is_read_and_written_and_one_of_another_model_is_named(
    tokamak, chat, run, model, tmp_path
):
    cache = tmp_path / "p.kv"
    prompt = "Once upon a time there was a little girl who lived near the river with her mother. " * 3
    asked = ["--raw", "-p", prompt, "--prompt-cache", cache]
    cold, warm = run(*asked), run(*asked)
    assert warm["text"] == cold["text"]
    assert (cold["cached_tokens"], warm["cached_tokens"] % 32) == (0, 0)
    assert warm["cached_tokens"] > 64
    written = cache.stat().st_mtime_ns
    other = tiny.gguf(tmp_path / "other.gguf", seed=1)
    done = tokamak("run", other, "--json", "-n", 2, *asked, "--prompt-cache-ro")
    assert "was saved with model" in done.stderr
    assert cache.stat().st_mtime_ns == written


def test_llama_cpp_names_are_the_same_options(tokamak, chat, run, model, tmp_path):
    ours = run("--raw", "-p", "Once", "--repetition-penalty", 1.5, "--repetition-last-n", 8, "--context", 128)
    theirs = run(
        "--raw", "-p", "Once", "--repeat-penalty", 1.5, "--repeat-last-n", 8, "-c", 128, "--predict", 8
    )
    assert ours["token_ids"] == theirs["token_ids"]
    text = tmp_path / "p.txt"
    text.write_text("Once")
    assert run("--raw", "-f", text)["token_ids"] == run("--raw", "-p", "Once")["token_ids"]
    biased = run("--raw", "-p", "Once", "--logit-bias", "300=100")
    assert set(biased["token_ids"]) == {300}
    assert set(run("--raw", "-p", "Once", "--logit-bias", "301+100")["token_ids"]) == {301}


def test_constraints_from_the_command_line(tokamak, chat, run, model, tmp_path):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "yes" | "no"')
    assert tokamak("run", model, "--json", "-p", "x", "--grammar-file", grammar).stdout.count('"yes"') + 1
    assert json.loads(tokamak("run", model, "--json", "-p", "x", "--grammar-file", grammar).stdout)[
        "text"
    ] in ("yes", "no")
    schema = tmp_path / "s.json"
    schema.write_text('{"enum": ["a", "b"]}')
    assert json.loads(
        json.loads(tokamak("run", model, "--json", "-p", "x", "--json-schema-file", schema).stdout)["text"]
    ) in ("a", "b")
    tokamak("run", model, "-p", "x", "--json-schema", "{", code=2)
    assert "must be TOKEN=AMOUNT" in tokamak("run", model, "-p", "x", "--logit-bias", "x", code=2).stderr


def test_beams_drafts_infill_and_shifts(tokamak, chat, run, model):
    beams = json.loads(
        tokamak(
            "run", model, "--json", "--raw", "-p", "Once", "-n", 6, "--num-beams", 3, "--length-penalty", 0
        ).stdout
    )
    assert 1 <= len(beams["token_ids"]) <= 6
    plain = run("--raw", "-p", "Once upon a time")
    guessed = run("--raw", "-p", "Once upon a time", "--draft", model)
    assert guessed["token_ids"] == plain["token_ids"]
    assert guessed["accepted_tokens"] == guessed["drafted_tokens"] > 0
    assert run("--raw", "-p", "a", "--suffix", "b")["prompt_tokens"] >= 5
    long = json.loads(
        tokamak(
            "run",
            model,
            "--json",
            "--raw",
            "-p",
            "Once",
            "-n",
            150,
            "-c",
            96,
            "--ignore-eos",
            "--context-shift",
            "--keep",
            4,
        ).stdout
    )
    assert (long["completion_tokens"], long["finish_reason"]) == (150, "length")
    assert long["shifted_tokens"] > 0
