"""The command line: `demo` runs a small flow, `view` prints the traces of a file, `doctor` finds what is wrong."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from .._version import __version__
from ..errors import ConfigError
from ..flows.totals import DEFAULT_JAEGER, JAEGER_VARIABLE
from ..otel.setup.settings import ExportConfig, export_config
from .breakdown import GroupBy, breakdown, model_calls, sums_of
from .otlp_file import FileSpan, OTLPFileError, read_spans

if TYPE_CHECKING:
    from rich.console import Console

_DEFAULT_OTLP = "http://localhost:4318"
_PROGRAM = "tracemind-otel"
_UNLIMITED = 1_000_000
"""Columns of an output that is not a terminal, where lines are never wrapped."""
_OWN_FLUSH_S = 2.0
"""Seconds that `view` waits for the program around it."""
_MAX_LISTED = 5
"""The number of trace ids that a message lists."""

_EXIT_FAILED = 1
_EXIT_INTERRUPTED = 130
_EXIT_BROKEN_PIPE = 141


class CommandError(Exception):
    """A fault in one line: what happened and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments) or 0)
    except (CommandError, ConfigError) as error:
        _print_error(str(error))
        return _EXIT_FAILED
    except BrokenPipeError:
        _drop_stdout()
        return _EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def _print_error(message: str) -> None:
    sys.stderr.write(f"{_PROGRAM}: {message}\n")


def _drop_stdout() -> None:
    """Keep the interpreter from reporting, when it flushes at exit, that the reader is gone."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="See what the model calls in your flows did, why they were retried, and what they cost.",
        epilog="Exit codes: 0 done; 1 failed, with the reason on stderr, or doctor found an error; 2 wrong usage. "
        "NO_COLOR=1 gives plain text.",
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands.add_parser("demo", help="run a small flow and print its trace", description=_DEMO))
    _add_view(commands.add_parser("view", help="print the traces of an OTLP JSON-lines file", description=_VIEW))
    _add_doctor(commands.add_parser("doctor", help="find what is wrong with the set-up", description=_DOCTOR))
    return parser


_DEMO = (
    "Run a flow with three model calls on the fake provider: one succeeds, one recovers after a 429 and a time-out, "
    "one fails for good. Its spans are written as OTLP JSON lines and printed as a tree. "
    "Needs no key, no server and no network. If an endpoint is set, the trace is also sent there."
)
_VIEW = (
    "Print each trace of an OTLP JSON-lines file as a tree, with durations, tokens, cost and retries. "
    "Takes any OTLP file, such as one of configure(file=...) or of the Collector's file exporter. "
    "With --by, print what the model calls did and cost by step, model, flow, tool or user; with --html, write a page."
)
_DOCTOR = (
    "Say what configure() does here and why, and find what is wrong: wrong variables, receivers that take no export, "
    "providers that compete, missing prices. Each finding comes with its fix. The exit code is 1 if there is an error."
)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_demo)
    parser.add_argument("--file", metavar="PATH", help="file to append the spans to (default: a new temporary file)")
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        type=_endpoint,
        help=f"base URL of an OTLP receiver, such as {_DEFAULT_OTLP} (default: OTEL_EXPORTER_OTLP_ENDPOINT, else none)",
    )
    parser.add_argument(
        "--jaeger",
        metavar="URL",
        default=os.getenv(JAEGER_VARIABLE) or DEFAULT_JAEGER,
        help=f"base URL of Jaeger's UI, for the link (default: {JAEGER_VARIABLE}, else {DEFAULT_JAEGER})",
    )


def _add_view(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_view)
    parser.add_argument("files", metavar="FILE", nargs="+", help="paths of files; - for standard input")
    parser.add_argument(
        "--trace", metavar="TRACE_ID", help="show only this trace; the first characters of the id are enough"
    )
    parser.add_argument("--unfold", action="store_true", help="show equal spans one by one, without a count")
    parser.add_argument(
        "--by",
        choices=get_args(GroupBy),
        help="print a table of the model calls by this instead: calls, tokens, cost, retries, durations",
    )
    parser.add_argument("--top", metavar="N", type=_count, help="with --by: the N most expensive rows only")
    parser.add_argument("--json", action="store_true", help="with --by: print JSON instead of a table")
    parser.add_argument("--html", metavar="PATH", help="write a page with the waterfall of each trace instead")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_doctor)
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="OTLP JSON-lines files to look at; - for standard input"
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="say what this backend will show of the files, and what not and why, instead of looking for faults",
    )
    parser.add_argument("--app", metavar="MODULE:FUNCTION", help="run this function, and look at the process after it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above 0")
    return int(value)


def _endpoint(value: str) -> str:
    try:
        export_config(endpoint=value, protocol="http/protobuf", headers=None, file=None)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value


def _view(arguments: argparse.Namespace) -> None:
    if (arguments.top or arguments.json) and arguments.by is None:
        raise CommandError("--top and --json belong to --by; add --by step, for instance")
    if arguments.by is not None and arguments.html is not None:
        raise CommandError("--by prints a table and --html writes a page, which has the table by step; leave one out")
    if arguments.html is not None:
        _check_page(arguments.html, arguments.files)
    _write_own_spans()
    spans = _spans_of(arguments.files, arguments.trace)
    if arguments.by is not None:
        _print_sums(spans, arguments.by, arguments.top, as_json=arguments.json)
    elif arguments.html is not None:
        _write_page(spans, arguments.files, arguments.html)
    else:
        _print_traces(_console(), spans, is_folded=not arguments.unfold)


def _write_own_spans() -> None:
    """Where `view` runs inside a program that records, let its file have what has ended so far."""
    telemetry = sys.modules.get("tracemind_otel.otel.setup.telemetry")
    if telemetry is not None and (active := telemetry.active()) is not None:
        active.flush(timeout_s=_OWN_FLUSH_S)


def _spans_of(paths: Sequence[str], trace_id: str | None) -> list[FileSpan]:
    names = ", ".join(map(_name, paths))
    wanted = (trace_id or "").strip().lower()
    seen: dict[str, None] = {}
    kept: list[FileSpan] = []
    for span in itertools.chain.from_iterable(map(_read, paths)):
        seen.setdefault(span.trace_id)
        if span.trace_id.startswith(wanted):
            kept.append(span)
    files_have = f"{names} {'has' if len(paths) == 1 else 'have'}"
    if not seen:
        raise CommandError(f"{files_have} no spans; pass a file of OTLP JSON lines, such as configure(file=...) writes")
    if not kept:
        more = f" and {len(seen) - _MAX_LISTED} more" if len(seen) > _MAX_LISTED else ""
        choices = ", ".join(itertools.islice(seen, _MAX_LISTED)) + more
        raise CommandError(f"{files_have} no trace {trace_id}; choose one of {choices}")
    return kept


def _print_sums(spans: Sequence[FileSpan], by: GroupBy, top: int | None, *, as_json: bool) -> None:
    from rich.measure import Measurement

    from .sums_table import sums_json, sums_table

    rows, total = breakdown(spans, by), sums_of("all", list(model_calls(spans)))
    shown = rows[:top]
    if as_json:
        sys.stdout.write(sums_json(by, shown, total) + "\n")
    else:
        console, table = _console(), sums_table(by, shown, total, left_out=len(rows) - len(shown))
        # A terminal that is too narrow for the table wraps its lines; rich would cut the names.
        console.width = max(
            console.width, Measurement.get(console, console.options.update(max_width=_UNLIMITED), table).maximum
        )
        console.print(table)


def _check_page(page: str, paths: Sequence[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # `_read` reports a path that cannot be read
            if path != "-" and os.path.samefile(path, page):
                raise CommandError(f"--html {page} is a file to read, and the page would replace it; name another file")


def _write_page(spans: Sequence[FileSpan], names: Sequence[str], path: str) -> None:
    from .html_page import html_page

    try:
        with open(path, "w", encoding="utf-8") as page:
            page.writelines(html_page(spans, title=", ".join(names)))
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}; check the path") from error
    plural = "" if len(spans) == 1 else "s"
    sys.stdout.write(f"{path} has {len(spans):,} span{plural}; open it in a browser\n")


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _read(path: str) -> Iterable[FileSpan]:
    name = _name(path)

    def warn(line_number: int) -> None:
        _print_error(f"warning: line {line_number} of {name} is not JSON and is skipped; the other lines are shown")

    try:
        # OTLP's encoding is UTF-8; an invalid byte affects one value only.
        source = 0 if path == "-" else path
        with open(source, encoding="utf-8-sig", errors="replace", closefd=path != "-") as lines:
            yield from read_spans(lines, on_torn=warn)
    except OTLPFileError as error:
        raise CommandError(
            f"{name}: {error}; each line must be one JSON object; convert a document with `jq -c . FILE`"
        ) from error
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror or error}; check the path") from error


def _console() -> Console:
    from rich.console import Console

    class PipedConsole(Console):
        """Leaves a broken pipe to `main`; rich would exit by itself."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    width = None if sys.stdout.isatty() else _UNLIMITED
    colors: Literal["auto"] | None = None if os.getenv("NO_COLOR") else "auto"
    return PipedConsole(highlight=False, markup=False, emoji=False, color_system=colors, width=width)


def _print_traces(console: Console, spans: Iterable[FileSpan], *, is_folded: bool = True) -> None:
    from .folding import FOLDED_FROM
    from .trace_tree import needed_columns, trace_trees

    columns = console.width
    for index, tree in enumerate(trace_trees(spans, fold_from=FOLDED_FROM if is_folded else sys.maxsize)):
        if index:
            console.print()
        # A terminal that is too narrow for the indents wraps the lines itself; rich would cut them.
        console.width = max(columns, needed_columns(tree))
        console.print(tree)


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor.evidence import SpanSource
    from .doctor.examination import examine, findings_of
    from .doctor.report import exit_code, report_json, report_text

    if arguments.backend is not None:
        _say_what_shows(arguments)
        return 0
    sources = [SpanSource(name=_name(path), spans=list(_read(path))) for path in dict.fromkeys(arguments.files)]
    evidence = examine(arguments.app, sources)
    findings = findings_of(evidence)
    sys.stdout.write((report_json if arguments.json else report_text)(evidence, findings))
    return exit_code(findings)


def _say_what_shows(arguments: argparse.Namespace) -> None:
    from ..otel.backends.lookup import backend_named
    from .doctor.backend_report import backend_json, backend_lines, backend_text

    backend = backend_named(arguments.backend.strip().lower(), "--backend")
    if not arguments.files or arguments.app is not None:
        raise CommandError(f"--backend {backend.name} needs files, and no --app; pass one of configure(file=...)")
    paths = dict.fromkeys(arguments.files)
    name = ", ".join(map(_name, paths))
    lines = backend_lines(backend, itertools.chain.from_iterable(map(_read, paths)))
    sys.stdout.write((backend_json if arguments.json else backend_text)(backend, name, lines))


def _demo(arguments: argparse.Namespace) -> None:
    from .demo import run_demo

    # The tree shows the failures and a line of its own the losses, so they are not logged as well.
    for name in ("opentelemetry", "tracemind_otel.call"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    console = _console()
    _print_line(console, "Three model calls on the fake provider. Its replies, token counts and prices are scripted.\n")
    file = arguments.file or _new_file()
    config = export_config(endpoint=arguments.endpoint, protocol=None, headers=None, file=file)
    path = config.file or ""
    trace_id, has_arrived = run_demo(file=path, endpoint=arguments.endpoint)
    _print_traces(console, _spans_of_demo(path, trace_id))
    _print_line(console, f"\nSpans written to {path}")
    if "traces" in config.signals:
        _print_export(console, config, f"{arguments.jaeger.rstrip('/')}/trace/{trace_id}", arrived=has_arrived)
    _print_next_steps(console, path)


def _new_file() -> str:
    descriptor, path = tempfile.mkstemp(prefix="tracemind-demo-", suffix=".otlp.jsonl")
    os.close(descriptor)
    return path


def _spans_of_demo(path: str, trace_id: str) -> list[FileSpan]:
    spans = [span for span in _read(path) if span.trace_id == trace_id]
    if not spans:
        raise CommandError(
            "the demo's trace was not recorded; unset OTEL_SDK_DISABLED and OTEL_TRACES_SAMPLER, then try again"
        )
    return spans


def _print_export(console: Console, config: ExportConfig, link: str, *, arrived: bool) -> None:
    receiver = config.destination("traces")
    if arrived:
        _print_line(console, f"Exported to {receiver}; see it in Jaeger: {link}")
    else:
        console.print(f"Spans were lost on the way to {receiver}; `make stack` starts a Collector and Jaeger")


def _print_next_steps(console: Console, path: str) -> None:
    rows = (
        (f"{_python()} -m tracemind_otel view {shlex.quote(path)}", "this tree again, from the file"),
        ("make stack", "in a checkout: a Collector, Jaeger and Prometheus on this machine"),
        (f"{_python()} -m tracemind_otel demo --endpoint {_DEFAULT_OTLP}", "the same trace in Jaeger"),
        ("@tracemind_otel.flow", "on your own function: traces its model calls, with their cost"),
    )
    _print_line(console, "\nNext:")
    for what, why in rows:
        _print_line(console, f"  {what}\n      {why}")


def _python() -> str:
    """The command of this interpreter: `python` if that finds it, else its path."""
    if shutil.which("python") == sys.executable:
        return "python"
    below_here = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if below_here.startswith(os.pardir) else below_here)


def _print_line(console: Console, text: str) -> None:
    """Print without wrapping, so that paths, links and commands can be copied."""
    console.print(text, soft_wrap=True)
