"""`tokamak serve` takes the common options of llama-server under their own names."""

import shlex

import pytest

from tokamak.cli.main import parser_of

LINE = """-m a.gguf --host 127.0.0.1 --port 0 --alias x --ctx-size 512 --parallel 4 --n-predict 32 --batch-size 64 -b 64 -t 2
--temp 0.5 --seed 1 --top-k 3 --repeat-penalty 1.1 --api-key k --metrics --slots --jinja --embeddings -cb --context-shift
--chat-template chatml --reasoning off --reasoning-format none -md d.gguf -mm p.gguf --lora l.gguf"""


def test_a_line_of_options_means_the_same():
    pytest.importorskip("msgspec", reason="the server's extra is not installed")
    args = parser_of("serve").parse_args(shlex.split(LINE))
    assert args.named == ["a.gguf"]
    assert (args.context, args.max_sequences, args.max_batch_rows, args.threads) == (512, 4, 64, 2)
    assert (args.default_max_tokens, args.default_temperature, args.default_top_k) == (32, 0.5, 3)
    assert (args.draft, args.mmproj, args.lora) == ("d.gguf", "p.gguf", ["l.gguf"])


@pytest.mark.parametrize("option", ["--hf-repo", "--rpc", "--slot-save-path"])
def test_an_option_that_is_not_there_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        parser_of("serve").parse_args([option, "x"])
    assert option in capsys.readouterr().err
