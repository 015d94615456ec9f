"""Train the model that ships inside the package: tokenizer, ternary Llama, GGUF file.

    python tools/sample_stories.py stories260K.gguf --out stories
    python tools/train_default_model.py --stories stories --prose pride.txt shakespeare.txt \\
        --minutes 80 --out run \\
        --export src/tokamak/assets/default.gguf

Needs the extra `train` (torch, tokenizers). Runs on one CPU core; checkpoints every few minutes, and
`--resume` goes on from one. The rate falls to zero at the end of `--minutes` (or `--steps`), whichever is first.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from story_export import export
from story_model import Muon, Shape, StoryModel
from story_text import SEPARATOR
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

END = SEPARATOR  # also the name of the token between documents
HELD_OUT_EVERY = 40  # one document in 40 is never trained on
LONG_SHARE = 0.1  # share of steps whose rows are as long as the context
PROSE_CHARS = 1200


@dataclass(frozen=True, slots=True)
class Document:
    """One text as token ids (END left out), and its length in UTF-8 bytes."""

    ids: list[int]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents to learn from, and those kept apart to measure with."""

    train: list[Document]
    stories: list[Document]  # held out
    prose: list[Document]  # held out


def read_stories(folder: Path) -> list[str]:
    """Stories of every .txt file in `folder`, each once, in a fixed order."""
    files = sorted(folder.glob("*.txt"))
    parts = [part.strip() for path in files for part in path.read_text("utf-8").split(SEPARATOR)]
    stories = list(dict.fromkeys(part for part in parts if part))
    random.Random(0).shuffle(stories)
    return stories


def read_prose(path: Path) -> list[str]:
    """Passages of about `PROSE_CHARS` characters, cut at the end of a sentence; a publisher's notices are left out."""
    passages, passage = [], ""
    for line in path.read_text("utf-8-sig").splitlines():
        passage += line.rstrip() + "\n"
        if len(passage) >= PROSE_CHARS and line.rstrip().endswith((".", "!", "?", '"')):
            passages.append(passage.strip())
            passage = ""
    return [passage for passage in passages if "Gutenberg" not in passage]


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE with GPT-2's split; END is token 0, the 256 bytes follow, so any UTF-8 can be written."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_corpus(
    stories: list[str], unseen: list[str], prose: list[str], prose_share: float, tokenizer: Tokenizer
) -> Corpus:
    """Encode, and mix prose in until it is `prose_share` of the training bytes.

    unseen: stories to measure with; if there are none, every 40th of `stories` is kept apart. So is every 40th passage.
    """

    def documents(texts: list[str]) -> list[Document]:
        encoded = tokenizer.encode_batch(texts)
        return [Document(e.ids, len(t.encode())) for e, t in zip(encoded, texts, strict=True)]

    tales, passages = documents(stories), documents(prose)
    learnt = list(tales) if unseen else [d for i, d in enumerate(tales) if i % HELD_OUT_EVERY]
    room = sum(d.nbytes for d in learnt) * prose_share / (1 - prose_share)
    for passage in (d for i, d in enumerate(passages) if i % HELD_OUT_EVERY):
        if room <= 0:
            break
        learnt.append(passage)
        room -= passage.nbytes
    return Corpus(learnt, documents(unseen) or tales[::HELD_OUT_EVERY], passages[::HELD_OUT_EVERY])


class Rows:
    """Endless rows of token ids: END, document, END, document, ...; every row starts with a document."""

    def __init__(self, documents: list[Document], seed: int) -> None:
        self.documents = documents
        self.rng = random.Random(seed)
        self.order: list[int] = []

    def row(self, length: int) -> list[int]:
        ids: list[int] = []
        while len(ids) <= length:
            if not self.order:
                self.order = self.rng.sample(range(len(self.documents)), len(self.documents))
            ids += [0, *self.documents[self.order.pop()].ids]
        return ids[: length + 1]

    def batch(self, num_tokens: int, short: int, long: int) -> Tensor:
        """i64[rows, length + 1] with rows * length = about `num_tokens`."""
        length = long if self.rng.random() < LONG_SHARE else short
        return torch.tensor([self.row(length) for _ in range(max(1, num_tokens // length))])


def loss_of(model: StoryModel, ids: Tensor) -> Tensor:
    """Mean negative log-likelihood, in nats, of every token of ids i64[B, T + 1] but the first of a row."""
    logits = model.logits(model(ids[:, :-1]))
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def held_out(model: StoryModel, documents: list[Document]) -> dict[str, float]:
    """Nats per token (END counted) and bits per byte over whole documents, each read alone from position 0."""
    nats = tokens = nbytes = 0.0
    model.freeze(on=True)
    for document in documents:
        ids = torch.tensor([[0, *document.ids, 0]])[:, : model.shape.max_position_embeddings + 1]
        count = ids.shape[1] - 1
        nats += float(loss_of(model, ids)) * count
        tokens += count
        nbytes += document.nbytes
    model.freeze(on=False)
    return {"nats_per_token": nats / tokens, "bits_per_byte": nats / nbytes / math.log(2), "tokens": tokens}


def rate_factor(step: int, progress: float) -> float:
    """Rise over 30 steps, stay, fall straight to zero over the second half."""
    return min(1.0, (step + 1) / 30, 2 * (1 - progress))


def optimizers(model: StoryModel, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the ternary matrices, Adam for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if "proj" in n]
    rest = [p for n, p in model.named_parameters() if "proj" not in n]
    return [
        Muon(matrices, lr=args.matrix_rate),
        torch.optim.Adam(rest, lr=args.vector_rate, betas=(0.9, 0.98), eps=1e-10),
    ]


def train(model: StoryModel, corpus: Corpus, args: argparse.Namespace) -> int:
    """Run the steps; returns how many. Writes `checkpoint.pt` into the run folder as it goes."""
    rows, opts = Rows(corpus.train, args.seed), optimizers(model, args)
    rates = [opt.param_groups[0]["lr"] for opt in opts]
    start = saved = time.monotonic()
    step, smooth = 0, 0.0
    while True:
        elapsed = (time.monotonic() - start) / 60
        progress = max(step / args.steps, elapsed / args.minutes)
        if progress >= 1:
            break
        for opt, rate in zip(opts, rates, strict=True):
            opt.param_groups[0]["lr"] = rate * rate_factor(step, progress)
        loss = loss_of(model, rows.batch(args.batch_tokens, args.row, model.shape.max_position_embeddings))
        loss.backward()  # type: ignore[no-untyped-call]
        for opt in opts:
            opt.step()
            opt.zero_grad()
        smooth = loss.item() if step == 0 else 0.95 * smooth + 0.05 * loss.item()
        step += 1
        if step % 20 == 0:
            print(f"step {step}  {elapsed:.1f} min  loss {smooth:.3f}", flush=True)
        if time.monotonic() - saved > args.checkpoint_minutes * 60:
            save(model, args.out)
            saved = time.monotonic()
    save(model, args.out)
    return step


def save(model: StoryModel, folder: Path) -> None:
    """Write weights and shape so that a crash never leaves half a file."""
    fresh = folder / "checkpoint.new"
    torch.save({"shape": asdict(model.shape), "weights": model.state_dict()}, fresh)
    fresh.replace(folder / "checkpoint.pt")


def load(path: Path) -> StoryModel:
    """The model of a checkpoint."""
    stored = torch.load(path, weights_only=True)
    model = StoryModel(Shape(**stored["shape"]))
    model.load_state_dict(stored["weights"])
    return model


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stories", type=Path, required=True, help="folder of .txt files made by sample_stories.py"
    )
    parser.add_argument(
        "--held-out", type=Path, help="folder of stories sampled with another seed, to measure with"
    )
    parser.add_argument("--prose", type=Path, nargs="*", default=[], help="plain text files")
    parser.add_argument(
        "--prose-share", type=float, default=0.06, help="share of prose in the training bytes"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder: tokenizer, checkpoints, losses")
    parser.add_argument("--export", type=Path, help="GGUF file to write at the end")
    parser.add_argument(
        "--resume", type=Path, help="checkpoint.pt to go on from; its tokenizer.json lies beside it"
    )
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--checkpoint-minutes", type=float, default=3)
    parser.add_argument("--batch-tokens", type=int, default=3072)
    parser.add_argument(
        "--row", type=int, default=256, help="tokens of a row; one step in ten takes the whole context"
    )
    parser.add_argument("--matrix-rate", type=float, default=0.02)
    parser.add_argument("--vector-rate", type=float, default=0.004)
    parser.add_argument("--vocab-size", type=int, default=1536)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--intermediate-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    stories, prose = read_stories(args.stories), [p for path in args.prose for p in read_prose(path)]
    random.Random(0).shuffle(prose)
    if args.resume:
        tokenizer, model = (
            Tokenizer.from_file(str(args.resume.with_name("tokenizer.json"))),
            load(args.resume),
        )
    else:
        tokenizer = train_tokenizer(stories + prose[: len(stories) // 10], args.vocab_size)
        sizes = {"num_hidden_layers": args.layers, "intermediate_size": args.intermediate_size}
        model = StoryModel(Shape(vocab_size=tokenizer.get_vocab_size(), **sizes))
    tokenizer.save(str(args.out / "tokenizer.json"))
    unseen = read_stories(args.held_out) if args.held_out else []
    corpus = make_corpus(stories, unseen, prose, args.prose_share, tokenizer)
    num_tokens = sum(len(d.ids) + 1 for d in corpus.train)
    print(
        f"{len(stories)} stories; {num_tokens} training tokens; {sum(p.numel() for p in model.parameters())} weights"
    )
    steps = train(model, corpus, args)
    losses = {"stories": held_out(model, corpus.stories), "prose": held_out(model, corpus.prose)}
    facts = {"steps": steps, "training_tokens": num_tokens, "num_stories": len(stories), "held_out": losses}
    (args.out / "losses.json").write_text(json.dumps(facts, indent=1))
    print(json.dumps(facts, indent=1))
    if args.export:
        print(f"{args.export}: {export(model, tokenizer, args.export)} bytes")


if __name__ == "__main__":
    main()
