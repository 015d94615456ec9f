"""Texts to vectors on the same BERT directory: tokamak, sentence-transformers, transformers and onnxruntime.

Each engine lives in its own process and is asked in turns; the one not asked sleeps. One question is `--calls` calls of a batch
of English-like texts that no engine has seen, text in, pooled vectors of length 1 out: tokenizing, padding, the network and
pooling count for everybody. onnxruntime runs an export of the same weights with pooling in the graph, all its rewrites on,
and tokenizes with the `tokenizers` library, as transformers here does. Vectors are compared: the least cosine is printed.
`tokamak:f16` (any mix of `--to`) rounds its weights at load; `onnxruntime:int8` has its matrices quantised by its own tool.

usage: compare_encoders.py DIRECTORY [--threads 2] [--batch 1,32] [--words 8,40] [--pairs 7] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ENGINES = ("tokamak", "onnxruntime", "sentence-transformers", "transformers")
TEXT = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from which one had or "
    "were there been their has more will would who when some them time these about market system government people "
    "history language science temperature river mountain energy battery neural retrieval embedding semantic question "
    "answer travel music painting medicine patient treatment economy inflation interest bank legal contract court "
    "evidence judge planet orbit telescope galaxy biology protein membrane chemistry reaction catalyst software "
    "compiler kernel thread memory latency throughput photosynthesis electromagnetism counterrevolutionary"
)
WORDS = TEXT.split()


def texts(count: int, words: tuple[int, int], seed: int) -> list[str]:
    """Sentences of some words, the same for everybody who asks with this seed."""
    rng = random.Random(seed)
    return [
        " ".join(rng.choices(WORDS, k=rng.randint(*words))).capitalize() + rng.choice(".?!")
        for _ in range(count)
    ]


def normalised(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of the rows that are text, of length 1."""
    vectors = (states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Tokamak:
    def __init__(self, directory: str, threads: int, form: str) -> None:
        import tokamak

        self.llm = tokamak.load(directory, threads=threads, to=form or None)
        self.version = tokamak.__version__

    def embed(self, batch: list[str]) -> np.ndarray:
        return self.llm.embed(batch)


class SentenceTransformers:
    def __init__(self, directory: str, threads: int, _: str) -> None:
        import sentence_transformers
        import torch

        torch.set_num_threads(threads)
        self.model = sentence_transformers.SentenceTransformer(directory, device="cpu")
        self.version = f"{sentence_transformers.__version__} (torch {torch.__version__})"

    def embed(self, batch: list[str]) -> np.ndarray:
        return self.model.encode(batch, batch_size=64, normalize_embeddings=True, show_progress_bar=False)


class Padded:
    """The `tokenizers` library: ids and masks of a batch, padded to its longest text."""

    def __init__(self, directory: str) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))
        self.tokenizer.enable_padding()
        self.tokenizer.enable_truncation(512)

    def __call__(self, batch: list[str]) -> tuple[np.ndarray, np.ndarray]:
        found = self.tokenizer.encode_batch(batch)
        return np.array([e.ids for e in found]), np.array([e.attention_mask for e in found])


class Transformers:
    def __init__(self, directory: str, threads: int, _: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.padded = torch, Padded(directory)
        self.model = transformers.AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
        self.version = f"{transformers.__version__} (torch {torch.__version__})"

    def embed(self, batch: list[str]) -> np.ndarray:
        ids, mask = self.padded(batch)
        with self.torch.inference_mode():
            out = self.model(input_ids=self.torch.from_numpy(ids), attention_mask=self.torch.from_numpy(mask))
        return normalised(out.last_hidden_state.numpy(), mask)


class OnnxRuntime:
    def __init__(self, directory: str, threads: int, form: str) -> None:
        import onnxruntime

        self.padded = Padded(directory)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        with tempfile.TemporaryDirectory() as folder:
            path = exported(directory, Path(folder))
            if form == "int8":
                path = quantised(path)
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.version = onnxruntime.__version__

    def embed(self, batch: list[str]) -> np.ndarray:
        ids, mask = self.padded(batch)
        given = {"input_ids": ids.astype(np.int64), "attention_mask": mask.astype(np.int64)}
        return self.session.run(None, given)[0]


def exported(directory: str, folder: Path) -> str:
    """An ONNX file of the directory, with pooling, its attention and norms fused by onnxruntime's own tool."""
    import torch
    import transformers
    from onnxruntime.transformers import optimizer

    model = transformers.AutoModel.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    class Embedder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            vectors = (states * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(vectors, dim=1)

    plain, fused = folder / "plain.onnx", folder / "fused.onnx"
    names = ["input_ids", "attention_mask"]
    ids = torch.ones((2, 8), dtype=torch.int64)
    torch.onnx.export(
        Embedder(),
        (ids, ids),
        str(plain),
        input_names=names,
        output_names=["vectors"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
        opset_version=17,
        dynamo=False,
    )
    config = model.config
    found = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=1,
    )
    found.save_model_to_file(str(fused))
    print(f"onnxruntime fused {found.get_fused_operator_statistics()}", file=sys.stderr)
    return str(fused)


def quantised(path: str) -> str:
    """The same file with its matrices in int8 and activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = path.replace(".onnx", "-int8.onnx")
    floats = {"DefaultTensorType": 1}  # behind fused operators it cannot tell
    quantize_dynamic(path, out, weight_type=QuantType.QInt8, per_channel=True, extra_options=floats)
    return out


MAKERS = {
    "tokamak": Tokamak,
    "onnxruntime": OnnxRuntime,
    "sentence-transformers": SentenceTransformers,
    "transformers": Transformers,
}


def serve(engine: str, directory: str, threads: int, words: tuple[int, int]) -> None:
    """Answer lines `BATCH CALLS SEED` with the seconds of each call and the vectors of the first."""
    sys.path.remove(str(Path(__file__).resolve().parent))  # its tokenizers.py is not the library
    name, _, form = engine.partition(":")
    made = MAKERS[name](directory, threads, form)
    print(json.dumps({"version": made.version}), flush=True)
    for line in sys.stdin:
        batch, calls, seed = map(int, line.split())
        asked = [texts(batch, words, seed * 1000 + i) for i in range(calls)]
        seconds, vectors = [], []
        for one in asked:
            start = time.perf_counter()
            vectors.append(made.embed(one))
            seconds.append(time.perf_counter() - start)
        print(
            json.dumps({"seconds": seconds, "vectors": np.asarray(vectors[0], np.float64).tolist()}),
            flush=True,
        )


class Peer:
    """One engine in its own process."""

    def __init__(self, engine: str, args: argparse.Namespace) -> None:
        self.name = engine
        command = [sys.executable, __file__, args.directory, "--worker", engine, "--words", args.words]
        self.process = subprocess.Popen(
            [*command, "--threads", str(args.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
        )
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{engine}: the worker ended with code {self.process.wait()}")
        self.version = json.loads(line)["version"]

    def ask(self, batch: int, calls: int, seed: int) -> tuple[float, np.ndarray]:
        """Median seconds of a call, and the vectors of the first."""
        self.process.stdin.write(f"{batch} {calls} {seed}\n")
        self.process.stdin.flush()
        got = json.loads(self.process.stdout.readline())
        return statistics.median(got["seconds"]), np.array(got["vectors"])


def compare(peers: list[Peer], batch: int, calls: int, pairs: int) -> dict[str, object]:
    """Seconds per engine and round; the order of the engines turns round after each."""
    seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    cosine = {peer.name: 1.0 for peer in peers}
    for round_ in range(pairs + 1):
        vectors = {}
        for peer in peers if round_ % 2 == 0 else reversed(peers):
            took, vectors[peer.name] = peer.ask(batch, calls, 100 * batch + round_)
            if round_ > 0:  # the first warms up
                seconds[peer.name].append(took)
        for peer in peers:
            same = (vectors[peer.name] * vectors["tokamak"]).sum(axis=1).min()
            cosine[peer.name] = min(cosine[peer.name], float(same))
    return {"batch": batch, "seconds": seconds, "cosine": cosine}


def show(found: dict[str, object], versions: dict[str, str]) -> None:
    seconds, cosine = found["seconds"], found["cosine"]
    ours = seconds["tokamak"]
    print(
        f"\nbatch {found['batch']}\n{'engine':<24}{'ms':>10}{'ours is faster by':>20}   range        cosine"
    )
    for name, theirs in seconds.items():
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        print(
            f"{name:<24}{1e3 * statistics.median(theirs):>10.2f}{statistics.median(ratios):>20.2f}   "
            f"{min(ratios):.2f}..{max(ratios):.2f}   {cosine[name]:.6f}   {versions[name]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", default="1,32")
    parser.add_argument("--words", default="8,40", help="fewest and most words of a text")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--calls", type=int, help="per question (default: 640 / batch, at most 40)")
    parser.add_argument("--engines", default=",".join(ENGINES), help="tokamak first; NAME or NAME:FORM")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    low, high = map(int, args.words.split(","))
    if args.worker:
        serve(args.worker, args.directory, args.threads, (low, high))
        return
    from tokamak.observe.machine import Machine

    peers = [Peer(engine, args) for engine in args.engines.split(",")]
    versions = {peer.name: peer.version for peer in peers}
    batches = map(int, args.batch.split(","))
    found = [compare(peers, n, args.calls or max(2, min(40, 640 // n)), args.pairs) for n in batches]
    facts = {"machine": Machine.here().line(), "threads": args.threads, "words": args.words}
    if args.json:
        print(json.dumps(facts | {"versions": versions, "results": found}))
        return
    print(f"{facts['machine']}; {args.threads} threads; texts of {low} to {high} words")
    for one in found:
        show(one, versions)


if __name__ == "__main__":
    main()
