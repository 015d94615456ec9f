"""`tokamak serve`: the HTTP server."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tokamak.cli.arguments import add_loading, file_text, load_model
from tokamak.cli.console import remark
from tokamak.cli.sampling import OPTIONS
from tokamak.engine.loading import default_model
from tokamak.errors import InvalidParams, UnavailableError
from tokamak.settings import Settings
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.chat_formats import FORMATS

if TYPE_CHECKING:
    from tokamak.engine.llm import LLM
    from tokamak.server.state import ServerConfig

SUMMARY = (
    "Serve models over HTTP: the APIs of OpenAI, Anthropic, Ollama and llama-server, health and metrics."
)
EXAMPLES = """  tokamak serve
  tokamak serve model.gguf --port 8000 --alias chat
  tokamak serve chat.gguf code.gguf --alias chat --alias code,gpt-4o --admin-key-file admin.txt
  tokamak serve model.gguf --host 0.0.0.0 --api-key-file keys.txt
  curl -s http://127.0.0.1:8080/v1/completions -d '{"prompt": "Once upon a time"}'
"""
ALERTS = (
    ("latency", 5.0, "seconds of the 95th percentile of whole requests"),
    ("memory", 1024.0, "MB of growth since the start"),
    ("errors", 0.01, "share of answers with status 5xx"),
    ("throughput", 0.0, "tokens made per second at least while requests run, 0: no alert"),
)
PROBE_NBYTES = 64 << 20  # more than caches hold, read in some hundredths of a second
TODAY = {"date_string": "strftime_now('%d %b %Y')", "datetime": "strftime_now('%b %d %Y')"}
CLOSABLE = ("metrics", "slots")
ALWAYS = (
    ("--metrics",),
    ("--slots",),
    ("--jinja",),
    ("--embedding", "--embeddings"),
    ("--cont-batching", "-cb"),
)
NEEDED = ("starlette", "uvicorn", "h11", "msgspec")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The models, the address, keys and limits."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="model files (default: the embedded one); the first is loaded now, others when they are asked for",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address, or several by commas (default 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, default=8080, metavar="N", help="port; 0: a free one (default 8080)"
    )
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAMES",
        help="names of a model for clients, by commas (default: of the file); of several models one --alias each, in order",
    )
    add_names(parser)
    parser.add_argument(
        "--log-requests",
        action="store_true",
        help="a line of JSON on stderr for each request, without its texts",
    )
    group = parser.add_argument_group("keys (needed for an address that others can reach)")
    group.add_argument(
        "--api-key", action="append", metavar="K", help="may be repeated; others see it in `ps`"
    )
    group.add_argument("--api-key-file", metavar="FILE", help="one key a line")
    group.add_argument("--admin-key", action="append", metavar="K", help="opens loading and unloading too")
    group.add_argument("--admin-key-file", metavar="FILE", help="one key a line")
    group.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="O",
        help="a page that may call this; localhost: those of this machine, *: all",
    )
    add_limits(parser)
    add_defaults(parser)
    add_evidence(parser)
    add_loading(parser)
    add_templates(parser)
    add_switches(parser)


def add_switches(parser: argparse.ArgumentParser) -> None:
    """Of llama-server: what is always so here."""
    group = parser.add_argument_group("of llama-server")
    group.add_argument(
        "--model", "-m", dest="named", action="append", default=[], metavar="FILE", help="as MODEL"
    )
    for flags in ALWAYS:
        group.add_argument(*flags, action="store_true", help="taken; it is always so")


def add_templates(parser: argparse.ArgumentParser) -> None:
    """What the model's chat template is, and what it is told."""
    group = parser.add_argument_group("chat template")
    group.add_argument(
        "--chat-template", choices=sorted(FORMATS), metavar="NAME",
        help=f"a known form in the place of the model's own: {', '.join(sorted(FORMATS))}",
    )  # fmt: skip
    group.add_argument(
        "--reasoning", choices=("on", "off", "auto"),
        help="whether models whose template has a switch for it reason, where a request does not say (default: as the "
        "template does without; auto: on)",
    )  # fmt: skip
    group.add_argument(
        "--chat-template-file", metavar="FILE", help="a Jinja template in the place of the model's own"
    )
    group.add_argument(
        "--today", action="store_true",
        help="tell templates that ask for date_string or datetime the date (default: as they do without)",
    )  # fmt: skip
    group.add_argument(
        "--verbose", dest="default_verbose", action="store_true", default=None,
        help="chat answers have the prompt as the model reads it, in __verbose",
    )  # fmt: skip


def add_names(parser: argparse.ArgumentParser) -> None:
    """Which names of models are answered."""
    parser.add_argument(
        "--exact-names",
        action="store_true",
        help="refuse gpt-4o, claude-... and other names clients have built in",
    )
    parser.add_argument(
        "--any-name", action="store_true", help="a server of one model answers every model name"
    )


# option, field of ServerConfig, type, what it does
LIMITS = (
    ("max-queue", "max_waiting", int, "completions that may wait"),
    ("max-per-key", "max_each", int, "completions of one key at once, 0: all"),
    ("max-queue-tokens", "max_waiting_tokens", int, "tokens of prompts that wait"),
    ("max-body", "max_body_nbytes", int, "bytes of a request"),
    ("request-timeout", "request_s", float, "seconds for an answer"),
    ("sse-ping", "ping_s", float, "seconds of silence in a stream before a ping"),
    ("flush-tokens", "flush_tokens", int, "tokens of a stream that are sent together, 1: each at once"),
    ("flush-seconds", "flush_s", float, "seconds after which fewer are sent"),
    ("idle-unload", "idle_s", float, "seconds until an unused model leaves memory, 0: never"),
    ("max-memory", "memory_nbytes", int, "bytes for loaded models, 0: no limit"),
)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Of load, size and time. Defaults are those of ServerConfig."""
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--max-batch-rows", "--batch-size", "-b", type=int, metavar="N", help="rows of one step (default 512)"
    )
    group.add_argument(
        "--max-sequences",
        "--parallel",
        "-np",
        type=int,
        metavar="N",
        help="sequences of one step (default 64)",
    )
    group.add_argument(
        "--inter-token-target-ms", type=float, metavar="X",
        help="longest step while others wait for a token: prompts are read in chunks that fit "
        "(default: three times a step without a prompt)",
    )  # fmt: skip
    for name, field, kind, text in LIMITS:
        group.add_argument(
            f"--{name}", dest=field, type=kind, metavar="X" if kind is float else "N", help=text
        )
    group.add_argument(
        "--drain", type=int, default=30, metavar="S", help="seconds to finish on SIGTERM (default 30)"
    )


def limits_of(args: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as fields of ServerConfig."""
    given = {field: getattr(args, field) for _, field, _, _ in LIMITS}
    return {field: value for field, value in given.items() if value is not None}


# Of the options of `tokamak run`, those that are a number or a switch.
DEFAULTS = tuple(option for option in OPTIONS if option.kind in (int, float, bool))


def add_defaults(parser: argparse.ArgumentParser) -> None:
    """What a request means that leaves a field out."""
    group = parser.add_argument_group("defaults of requests that leave a field out")
    for option in DEFAULTS:
        flags, field = [f"--{name}" for name in option.names.split()], f"default_{option.field}"
        if option.kind is bool:
            group.add_argument(*flags, dest=field, action="store_true", default=None, help=option.help)
        else:
            metavar = "X" if option.kind is float else "N"
            kind = cast("type", option.kind)
            group.add_argument(*flags, dest=field, type=kind, metavar=metavar, help=option.help)
    group.add_argument(
        "--max-tokens", "--n-predict", "--predict", "-n", dest="default_max_tokens", type=int, metavar="N",
        help="tokens of a completion (default: as the protocol says)",
    )  # fmt: skip
    group.add_argument(
        "--reasoning-format",
        dest="default_reasoning_format",
        choices=("auto", "none", "deepseek"),
        help="none: reasoning stays in the text (default auto)",
    )


def defaults_of(args: argparse.Namespace) -> dict[str, Any]:
    """Fields for ServerConfig.defaults.  Raises: InvalidParams for values that no request could have."""
    from tokamak.sampling import SamplingParams

    names = [*(option.field for option in DEFAULTS), "max_tokens"]
    given = {name: getattr(args, f"default_{name}") for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    SamplingParams(**given)
    more = {name: getattr(args, f"default_{name}") for name in ("reasoning_format", "verbose")}
    given |= {name: value for name, value in more.items() if value is not None}
    return given


def add_evidence(parser: argparse.ArgumentParser) -> None:
    """What is kept of what happened, and who hears when it is bad."""
    group = parser.add_argument_group("history and alerts")
    group.add_argument(
        "--history",
        metavar="FILE",
        help="samples of every 10 s, for 90 days (default: in the cache directory)",
    )
    group.add_argument("--no-history", action="store_true", help="keep none")
    for name in CLOSABLE:
        group.add_argument(f"--no-{name}", action="store_true", help=f"/{name} is answered with 501")
    group.add_argument(
        "--alert-webhook", metavar="URL", help="gets a JSON object for every alert; the log always does"
    )
    group.add_argument(
        "--otlp-endpoint", metavar="URL", help="gets an OpenTelemetry span for every request (extra otel)"
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


def keys(given: list[str] | None, path: str | None) -> tuple[str, ...]:
    """All keys that were given.  Raises: InvalidParams if the file cannot be read or has none."""
    every = list(given or [])
    if path is not None:
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParams(f"{path}: cannot be read: {error}") from error
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise InvalidParams(f"{path}: has no key")
        every += found
    return tuple(every)


def check_installed() -> None:
    """Raises: UnavailableError with the command that installs what is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UnavailableError(f"the server needs {', '.join(missing)}: pip install 'tokamak[server]'")


def read_bandwidth(threads: int | None) -> float:
    """Bytes per second that so many threads read from memory: the best of three short looks."""
    from tokamak import _native

    count = threads or Settings.load().threads or os.cpu_count() or 1
    return PROBE_NBYTES / float(min(_native.probe_read_seconds(count, PROBE_NBYTES, 3)))


class Loader:
    """Loads one model again. path: of its file, None for the embedded one."""

    def __init__(self, args: argparse.Namespace, path: str | None) -> None:
        self.path, self._args = path, argparse.Namespace(**{**vars(args), "model": path})

    def __call__(self) -> LLM:
        """The model."""
        names = ("max_batch_rows", "max_sequences", "inter_token_target_ms")
        llm = load_model(self._args, **{name: getattr(self._args, name) for name in names})
        if llm.tokenizer is not None:
            spec = llm.tokenizer.spec
            text = template_of(self._args, spec.chat_template)
            if text != spec.chat_template:
                llm.tokenizer = Tokenizer(replace(spec, chat_template=text, chat_templates={}))
        return llm


def template_of(args: argparse.Namespace, own: str | None) -> str | None:
    """The chat template that the options make of the model's own.  Raises: InvalidParams."""
    if args.chat_template is not None and args.chat_template_file is not None:
        raise InvalidParams("--chat-template and --chat-template-file are given; one is enough")
    text = file_text(args.chat_template_file) if args.chat_template_file is not None else own
    text = FORMATS[args.chat_template] if args.chat_template is not None else text
    told = {"enable_thinking": "false" if args.reasoning == "off" else "true"} if args.reasoning else {}
    told |= TODAY if args.today else {}
    heads = "".join(f"{{%- set {name} = {name} | default({value}) %}}" for name, value in told.items())
    return text if text is None else heads + text


def names_of(args: argparse.Namespace) -> list[list[str]]:
    """Names of each model.  Raises: InvalidParams for more aliases than models, or a name twice."""
    paths, groups = args.models or [None], [text.split(",") for text in args.alias]
    if len(paths) == 1:
        groups = [[name for group in groups for name in group]] if groups else []
    if len(groups) > len(paths):
        raise InvalidParams(
            f"--alias is given {len(groups)} times for {len(paths)} models; one each, in order"
        )
    names = []
    for number, path in enumerate(paths):
        given = [name.strip() for name in groups[number] if name.strip()] if number < len(groups) else []
        names.append(given or [Path(path or default_model()).stem])
    every = [name for group in names for name in group]
    for name in every:
        if every.count(name) > 1:
            raise InvalidParams(f"two models are called {name!r}; give each a name with --alias")
    return names


def config_of(args: argparse.Namespace) -> ServerConfig:
    """What the options say.  Raises: InvalidParams."""
    from tokamak.server.state import ServerConfig
    from tokamak.server.traces import tracer_to

    return ServerConfig(
        api_keys=keys(args.api_key, args.api_key_file),
        admin_keys=keys(args.admin_key, args.admin_key_file),
        host=args.host,
        cors_origins=tuple(args.cors_origin),
        exact_names=args.exact_names,
        any_name=args.any_name,
        closed=tuple(f"/{name}" for name in CLOSABLE if getattr(args, f"no_{name}")),
        defaults=defaults_of(args),
        tracer=tracer_to(args.otlp_endpoint) if args.otlp_endpoint else None,
        read_bytes_s=read_bandwidth(args.threads_given),
        **limits_of(args),
        **evidence(args),
    )


def execute(args: argparse.Namespace) -> int:
    """Bind, load, serve until SIGTERM or Ctrl-C."""
    check_installed()
    args.models += args.named
    from tokamak.server import logs
    from tokamak.server.app import create_app
    from tokamak.server.registry import Models, Served
    from tokamak.server.serving import check_exposure, listen, serve

    config = config_of(args)
    hosts = [host.strip() for host in args.host.split(",")]
    for host in hosts:
        check_exposure(host, config.api_keys)
    if args.drain < 0:
        raise InvalidParams(f"--drain is {args.drain}; it must be 0 or more seconds")
    logs.start(Settings.load().log, requests=args.log_requests)
    names, paths = names_of(args), args.models or [None]
    queue = {"most_waiting": config.max_waiting, "most_each": config.max_each}
    # Bound before the model is loaded, so that a taken port is known at once; not listening yet, so nobody waits.
    with listen(hosts, args.port) as bound:
        loaders = [Loader(args, path) for path in paths]
        first = loaders[0]()
        served = [
            Served(own, first if number == 0 else None, loader, **queue)
            for number, (own, loader) in enumerate(zip(names, loaders, strict=True))
        ]
        models = Models(served)
        try:
            app = create_app(models, config)
            name = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
            url = f"http://{name}:{bound[0].getsockname()[1]}"
            serve(
                app, bound, drain_s=args.drain, ready=lambda: say_ready(args, url, [s.name for s in served])
            )
        finally:
            models.close()
    return 0


def say_ready(args: argparse.Namespace, url: str, names: list[str]) -> None:
    """On stdout for programs, on stderr for people."""
    if args.json:
        print(json.dumps({"url": url, "model": names[0], "models": names}))
        sys.stdout.flush()
    else:
        remark(f"{', '.join(names)} at {url} (OpenAI: {url}/v1); Ctrl-C stops", quiet=args.quiet)
