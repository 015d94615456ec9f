"""The verbs that open a model, on tiny models: what they print, what their JSON holds, what they return."""

from __future__ import annotations

import io
import json

import pytest

from command import tokamak
from tokamak.cli import main as cli

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


class Piped(io.TextIOWrapper):
    """A stdin that is no terminal."""

    def __init__(self, text):
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the command in this process: (exit code, stdout, stderr)."""

    def run(*words, stdin=""):
        monkeypatch.setattr("sys.stdin", Piped(stdin))
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def plain_model(tiny_gguf):
    """Without a chat template, so that text is continued as it is."""
    return tiny_gguf("llama", "q8_0", metadata={"tokenizer.chat_template": None})


@pytest.fixture(scope="module")
def chat_model(tiny_gguf):
    return tiny_gguf("llama", "q8_0", metadata={"tokenizer.chat_template": TEMPLATE})


def test_run_streams_prompt_and_completion_and_reports_on_stderr(call, plain_model):
    code, out, err = call("run", plain_model, "-p", "Once upon a time", "-n", 8, "--seed", 3, "--ignore-eos")
    assert code == 0
    assert out.startswith("Once upon a time")
    assert "+ 8 tokens" in err
    assert "seed 3" in err


def test_run_json_is_what_python_generates(call, plain_model):
    import tokamak as package

    words = (
        "-p",
        "Once",
        "-n",
        6,
        "--temperature",
        0.9,
        "--top-k",
        20,
        "--seed",
        5,
        "--json",
        "--logprobs",
        2,
    )
    code, out, err = call("run", plain_model, *words)
    got = json.loads(out)
    with package.load(plain_model) as llm:
        want = llm.generate("Once", max_tokens=6, temperature=0.9, top_k=20, seed=5, logprobs=2)
    assert (code, err) == (0, "")
    assert (got["text"], got["token_ids"], got["finish_reason"]) == (
        want.text,
        want.token_ids,
        want.finish_reason,
    )
    assert (got["prompt_tokens"], got["completion_tokens"]) == (want.usage.prompt_tokens, len(want.token_ids))
    assert set(got["timings"]) == {"load_s", "ttft_s", "prefill_tok_s", "decode_tok_s"}
    assert [len(entry["top"]) for entry in got["logprobs"]] == [2] * len(want.token_ids)
    assert got["seed"] == 5


def test_streamed_text_equals_the_json_text(call, plain_model):
    words = ("run", plain_model, "-p", "The", "-n", 12, "--seed", 9)
    _, streamed, _ = call(*words, "--quiet")
    _, whole, _ = call(*words, "--json")
    assert streamed == "The" + json.loads(whole)["text"] + "\n"


def test_run_reads_its_prompt_from_a_pipe(call, plain_model):
    words = ("-n", 4, "--temperature", 0, "--json")
    assert call("run", plain_model, *words, stdin="Once")[1] != ""
    from_pipe = json.loads(call("run", plain_model, *words, stdin="Once")[1])
    from_option = json.loads(call("run", plain_model, "-p", "Once", *words)[1])
    assert from_pipe["token_ids"] == from_option["token_ids"]


def test_run_uses_the_chat_template_unless_raw(call, chat_model):
    words = ("run", chat_model, "-p", "Once", "-n", 1, "--json")
    templated = json.loads(call(*words)[1])["prompt_tokens"]
    raw = json.loads(call(*words, "--raw")[1])["prompt_tokens"]
    assert templated > raw


def test_the_demo_tells_a_story_of_at_least_120_words(call):
    """What `make demo` runs, for a few seeds: ends are banned before 160 tokens and the story finds its own."""
    for seed in (1, 2, 3):
        words = ("-n", 320, "--min-tokens", 160, "--seed", seed, "--quiet")
        code, out, _ = call("run", "-p", "Once upon a time", *words)
        assert code == 0
        assert len(out.split()) >= 120


def test_quiet_leaves_stderr_empty(call, plain_model):
    assert call("run", plain_model, "-p", "Once", "-n", 2, "--quiet")[2] == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("-p", "x", "--temperature", -1), 2, "temperature is -1.0"),
        (("-p", "x", "--preset", "wild"), 2, "preset is 'wild'"),
        (("-p", "x", "--executor", "abacus"), 2, "abacus"),
        (("-p", "x", "-n", 100000), 1, "context"),
        (("-p", "x", "--threads", 0), 2, "threads='0'"),
    ],
)
def test_a_wrong_option_is_one_line_and_its_exit_code(call, plain_model, words, code, says):
    got, out, err = call("run", plain_model, *words)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert says in err


def test_a_file_that_is_no_model_is_refused_with_its_name(call, tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 60)
    code, _, err = call("run", path, "-p", "x")
    assert (code, err.count("\n")) == (3, 1)
    assert "broken.gguf" in err
    assert call("inspect", tmp_path / "absent.gguf")[0] == 3


def test_an_architecture_that_is_not_implemented_is_refused_by_name(call, tmp_path, plain_model):
    path = tmp_path / "other.gguf"
    path.write_bytes(plain_model.read_bytes().replace(b"llama", b"abcde"))
    code, _, err = call("inspect", path)
    assert code == 3
    assert "abcde" in err


def test_tokenize_json_has_ids_pieces_offsets(call, plain_model):
    text = "Once upon a tïme"
    code, out, _ = call("tokenize", plain_model, text, "--json")
    got = json.loads(out)
    assert code == 0
    assert len(got["ids"]) == len(got["pieces"]) == len(got["offsets"])
    spans = [span for span in got["offsets"] if span != [0, 0]]
    assert (min(s for s, _ in spans), max(e for _, e in spans)) == (0, len(text))


def test_tokenize_reads_a_file_and_leaves_special_tokens_out(call, plain_model, tmp_path):
    (tmp_path / "text.txt").write_text("Once upon", encoding="utf-8")
    with_bos = json.loads(call("tokenize", plain_model, "Once upon", "--json")[1])["ids"]
    plain = json.loads(
        call("tokenize", plain_model, "--file", tmp_path / "text.txt", "--no-special", "--json")[1]
    )["ids"]
    assert with_bos[1:] == plain
    assert call("tokenize", plain_model, "--file", tmp_path / "absent.txt")[0] == 2


def test_detokenize_turns_what_tokenize_gave_back_into_text(call, plain_model):
    text = "Once upon a time, é!"
    document = call("tokenize", plain_model, text, "--no-special", "--json")[1]
    assert call("detokenize", plain_model, stdin=document)[1] == text + "\n"
    ids = json.loads(document)["ids"]
    assert json.loads(call("detokenize", plain_model, *ids, "--json")[1]) == {"text": text}
    assert call("detokenize", plain_model, ",".join(map(str, ids)))[1] == text + "\n"


@pytest.mark.parametrize("ids", ["1 two", "999999", "-4"])
def test_detokenize_refuses_what_is_no_token(call, plain_model, ids):
    code, out, err = call("detokenize", plain_model, stdin=ids)
    assert (code, out) == (2, "")
    assert ids.split()[-1] in err


def test_inspect_json_adds_up(call, plain_model):
    code, out, _ = call("inspect", plain_model, "--json", "--tensors", "--graph")
    got = json.loads(out)
    assert (code, got["architecture"]) == (0, "llama")
    assert sum(f["tensors"] for f in got["formats"]) == len(got["tensors"])
    assert got["memory"]["weights_nbytes"] <= got["memory"]["file_nbytes"] == plain_model.stat().st_size
    assert got["memory"]["kv_nbytes"]["f32"] == 2 * got["memory"]["kv_nbytes"]["f16"]
    assert "return" in got["graph"]
    assert got["metadata"]["general.architecture"] == "llama"


def test_inspect_for_people_shows_tensors_only_when_asked(call, plain_model):
    assert "q_proj" not in call("inspect", plain_model)[1]
    assert "blk.0.attn_q.weight" in call("inspect", plain_model, "--tensors")[1]
    assert "= linear(" in call("inspect", plain_model, "--graph")[1]


def test_diff_of_two_executors_that_agree(call, tiny_gguf):
    code, out, _ = call("diff", tiny_gguf("llama", "f32"), "--json", "--all")
    got = json.loads(out)
    assert (code, got["first"]) == (0, None)
    assert got["compared"] == len(got["nodes"]) > 10


def test_diff_names_the_first_node_and_returns_5(call, plain_model):
    code, out, _ = call("diff", plain_model, "--tolerance", 0, "--json")
    assert code == 5
    assert json.loads(out)["first"]["error"] > 0
    code, out, _ = call("diff", plain_model, "--tolerance", 0)
    assert (code, out.startswith("first difference: ")) == (5, True)


def test_bench_json_has_rates_shares_samples_and_a_receipt(call, plain_model, tmp_path, monkeypatch):
    monkeypatch.setattr("tokamak.bench.probes.READ_NBYTES", 8 << 20)
    receipt = tmp_path / "receipt.json"
    words = ("-p", 16, "-n", 4, "-b", "1,2", "--repeat", 2, "--json", "--quiet", "--receipt", receipt)
    code, out, err = call("bench", plain_model, *words)
    got = json.loads(out)
    assert (code, err) == (0, "")
    assert [(r["kind"], r["num_tokens"], r["batch"]) for r in got["results"]] == [
        *(("prompt", 16, 1), ("prompt", 16, 2), ("decode", 4, 1), ("decode", 4, 2)),
    ]
    for result in got["results"]:
        assert [s["amount"] for s in result["samples"]] == [result["num_tokens"] * result["batch"]] * 2
        assert set(result["share_of_limit"]) == {"bandwidth", "arithmetic"}
        assert min(result["share_of_limit"].values()) > 0
    written = json.loads(receipt.read_text())
    assert written["results"]["prompt_tokens"] == 2 * (16 + 32)
    assert any(k["kernel"].startswith("linear.q8_0") for k in written["kernels"])
    assert not any("." not in k["kernel"] for k in written["kernels"])


def test_run_writes_a_receipt_that_holds_and_says_how_much_was_cached(call, plain_model, tmp_path):
    receipt = tmp_path / "receipt.json"
    words = ("run", plain_model, "--raw", "-p", "Once upon a time", "-n", 4, "--temperature", 0)
    code, out, _ = call(*words, "--receipt", receipt)
    assert (code, out.startswith("Once upon a time")) == (0, True)
    written = json.loads(receipt.read_text())
    assert (written["results"]["generated_tokens"], written["overrides"]) == (4, {})
    assert written["samples"][0]["tokens"] == written["results"]["prompt_tokens"] + 4
    assert call("bench", "verify", receipt, "--model", plain_model)[0] == 0
    written["results"]["generated_tokens"] = 400
    receipt.write_text(json.dumps(written))
    code, out, err = call("bench", "verify", receipt)
    assert (code, "400" in out + err or "samples" in out + err) == (5, True)
    code, out, _ = call(*words, "--json", "--quiet", "--receipt", receipt)
    assert (
        json.loads(out)["completion_tokens"] == json.loads(receipt.read_text())["results"]["generated_tokens"]
    )


def test_bench_refuses_lengths_that_are_none(call, plain_model):
    code, _, err = call("bench", plain_model, "-p", "many")
    assert (code, "--prompt 'many'" in err) == (2, True)


def test_chat_in_a_pipe_answers_and_obeys_commands(call, chat_model):
    code, out, _ = call(
        "chat", chat_model, "-n", 4, "--seed", 1, stdin="Hello\n/metrics\n/help\n/frob\n/clear\n/exit\n"
    )
    assert code == 0
    assert "1 answers" in out
    assert "/clear    forget the conversation" in out
    assert "/frob is unknown" in out
    assert out.endswith("The conversation is forgotten.\n")


def test_chat_json_is_the_whole_conversation(call, chat_model):
    words = ("-n", 4, "--seed", 1, "--system", "Be brief.", "--json")
    code, out, _ = call("chat", chat_model, *words, stdin="Hello\nAgain\n")
    got = json.loads(out)
    assert code == 0
    assert [m["role"] for m in got["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert got["messages"][2]["content"] == got["answers"][0]["text"]
    assert got["answers"][1]["prompt_tokens"] > got["answers"][0]["prompt_tokens"]


def test_chat_without_a_template_is_refused(call, plain_model):
    code, _, err = call("chat", plain_model, stdin="Hello\n")
    assert (code, "no chat template" in err) == (3, True)


def test_a_closed_pipe_ends_quietly(plain_model):
    """`tokamak ... | head -c 4`: the reader leaves while the story goes on."""
    import subprocess
    import sys

    from command import environment

    command = [
        sys.executable,
        "-m",
        "tokamak",
        "run",
        str(plain_model),
        "-p",
        "Once",
        "-n",
        "400",
        "--ignore-eos",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    process.stdout.read(4)
    process.stdout.close()
    stderr = process.stderr.read().decode()
    process.stderr.close()
    assert (process.wait(60), "Traceback" in stderr, "BrokenPipe" in stderr) == (0, False, False)


def test_stdout_holds_only_the_document_in_a_pipe(plain_model):
    done = tokamak("run", plain_model, "-p", "Once", "-n", 2, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["completion_tokens"] <= 2
    assert done.stderr == ""
