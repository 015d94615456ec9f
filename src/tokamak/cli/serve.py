"""`tokamak serve`: the HTTP server."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokamak.cli.arguments import add_loading, add_model, load_model
from tokamak.cli.console import remark
from tokamak.errors import InvalidParams, UnavailableError
from tokamak.settings import Settings

SUMMARY = "Serve a model over HTTP: OpenAI's chat and text completions, models, health and metrics."
EXAMPLES = """  tokamak serve
  tokamak serve model.gguf --port 8000 --alias chat
  tokamak serve model.gguf --host 0.0.0.0 --api-key-file keys.txt
  curl -s http://127.0.0.1:8080/v1/completions -d '{"prompt": "Once upon a time"}'
"""
ALERTS = (
    ("latency", 5.0, "seconds of the 95th percentile of whole requests"),
    ("memory", 1024.0, "MB of growth since the start"),
    ("errors", 0.01, "share of answers with status 5xx"),
    ("throughput", 0.0, "tokens made per second at least while requests run, 0: no alert"),
)
NEEDED = ("starlette", "uvicorn", "h11", "msgspec")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the address, keys and limits."""
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=8080, metavar="N", help="port; 0: a free one (default 8080)"
    )
    parser.add_argument("--alias", metavar="NAME", help="the model's name for clients (default: of the file)")
    group = parser.add_argument_group("keys (needed for an address that others can reach)")
    group.add_argument(
        "--api-key", action="append", metavar="K", help="may be repeated; others see it in `ps`"
    )
    group.add_argument("--api-key-file", metavar="FILE", help="one key a line")
    group = parser.add_argument_group("limits")
    group.add_argument("--max-batch-rows", type=int, metavar="N", help="rows of one step (default 512)")
    group.add_argument("--max-sequences", type=int, metavar="N", help="sequences of one step (default 64)")
    group.add_argument(
        "--max-queue", type=int, default=64, metavar="N", help="more that may wait (default 64)"
    )
    group.add_argument(
        "--max-body", type=int, default=8 << 20, metavar="BYTES", help="of a request (default 8 MiB)"
    )
    group.add_argument(
        "--drain", type=int, default=30, metavar="S", help="seconds to finish on SIGTERM (default 30)"
    )
    add_evidence(parser)
    add_loading(parser)


def add_evidence(parser: argparse.ArgumentParser) -> None:
    """What is kept of what happened, and who hears when it is bad."""
    group = parser.add_argument_group("history and alerts")
    group.add_argument(
        "--history",
        metavar="FILE",
        help="samples of every 10 s, for 90 days (default: in the cache directory)",
    )
    group.add_argument("--no-history", action="store_true", help="keep none")
    group.add_argument(
        "--alert-webhook", metavar="URL", help="gets a JSON object for every alert; the log always does"
    )
    for name, usual, text in ALERTS:
        group.add_argument(
            f"--alert-{name}", type=float, default=usual, metavar="X", help=f"{text} (default {usual:g})"
        )


def evidence(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of ServerConfig for those options."""
    from tokamak.observe.alerts import default_rules

    rules = default_rules(
        latency_s=args.alert_latency,
        memory_nbytes=args.alert_memory * 1e6,
        error_share=args.alert_errors,
        tokens_per_s=args.alert_throughput,
    )
    usual = Settings.load().cache_dir / "history.sqlite"
    history = None if args.no_history else args.history or str(usual)
    return {"history": history, "alerts": rules, "alert_webhook": args.alert_webhook}


def keys(args: argparse.Namespace) -> tuple[str, ...]:
    """All keys that were given.  Raises: InvalidParams if the file cannot be read or has none."""
    given = list(args.api_key or [])
    if args.api_key_file is not None:
        try:
            lines = Path(args.api_key_file).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParams(f"{args.api_key_file}: cannot be read: {error}") from error
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise InvalidParams(f"{args.api_key_file}: has no key")
        given += found
    return tuple(given)


def check_installed() -> None:
    """Raises: UnavailableError with the command that installs what is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UnavailableError(f"the server needs {', '.join(missing)}: pip install 'tokamak[server]'")


def execute(args: argparse.Namespace) -> int:
    """Bind, load, serve until SIGTERM or Ctrl-C."""
    check_installed()
    from tokamak.server.app import create_app
    from tokamak.server.serving import check_exposure, listen, serve
    from tokamak.server.state import ServerConfig

    config = ServerConfig(
        model=args.alias,
        api_keys=keys(args),
        host=args.host,
        max_waiting=args.max_queue,
        max_body_nbytes=args.max_body,
        **evidence(args),
    )
    check_exposure(args.host, config.api_keys)
    if args.drain < 0:
        raise InvalidParams(f"--drain is {args.drain}; it must be 0 or more seconds")
    sizes: dict[str, Any] = {"max_batch_rows": args.max_batch_rows, "max_sequences": args.max_sequences}
    # Bound before the model is loaded, so that a taken port is known at once; not listening yet, so nobody waits.
    with listen(args.host, args.port) as bound, load_model(args, **sizes) as llm:
        app = create_app(llm, config)
        name = f"[{args.host}]" if ":" in args.host else args.host
        url = f"http://{name}:{bound.getsockname()[1]}"

        def ready() -> None:
            if args.json:
                print(json.dumps({"url": url, "model": app.state.models.every[0].name}))
                sys.stdout.flush()
            else:
                remark(
                    f"{app.state.models.every[0].name} at {url} (OpenAI: {url}/v1); Ctrl-C stops",
                    quiet=args.quiet,
                )

        serve(app, bound, drain_s=args.drain, ready=ready)
    return 0
