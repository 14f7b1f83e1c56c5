"""The command line, run in a process of its own as a user runs it."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.programs import Finished, clean_environment, run
from tests.servers.fixture import closed_port
from tracemind_otel import __version__
from tracemind_otel.cli.otlp_file import FileSpan, read_spans

MODULE = ("-m", "tracemind_otel")

TREE = """\
tracemind-demo  trace ID
└── invoke_workflow answer_ticket  TIME  3 calls, 3 retries, 1,420 in / 506 out, $0.0005166, $0.0000006 presumed in all
    ├── classify  TIME
    │   └── chat demo-small  TIME  420 in / 6 out  $0.0000666
    ├── draft_reply  TIME
    │   └── chat demo-small  TIME  1,000 in (256 cached) / 500 out (128 reasoning)  $0.00045
    │       ├── retry 1/3 rate_limit (429), waited 0.2 s
    │       └── retry 2/3 timeout, waited JITTER s, $0.0000006 presumed
    └── translate_reply  TIME
        └── chat demo-small  TIME  ERROR 503: HTTP 503: scripted
            └── retry 1/2 server_error (503), waited 0.3 s
"""


def without_chance(text: str) -> str:
    """The output, with everything replaced that differs from run to run."""
    text = re.sub(r"\b[0-9a-f]{32}\b", "ID", text)
    text = re.sub(r"  \d[\d.]* m?s\b", "  TIME", text)
    return re.sub(r"timeout, waited [\d.]+ s", "timeout, waited JITTER s", text)


def spans_of(path: Path) -> list[FileSpan]:
    """What a file holds."""
    with path.open(encoding="utf-8") as lines:
        return list(read_spans(lines))


def one_line(done: Finished) -> str:
    """The message of a failed command: one line on stderr, nothing on stdout."""
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("tracemind-otel: ")
    return line


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """The demo, run once, and the file that it wrote."""
    directory = tmp_path_factory.mktemp("demo")
    path = directory / "demo.otlp.jsonl"
    return run(*MODULE, "demo", "--file", path, directory=directory), path


@pytest.fixture
def two_traces(demo: tuple[Finished, Path], tmp_path: Path) -> tuple[Path, str, str]:
    """A file with the demo's trace and a copy of it under another id; the two ids."""
    text = demo[1].read_text(encoding="utf-8")
    first = spans_of(demo[1])[0].trace_id
    second = first.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
    path = tmp_path / "two.otlp.jsonl"
    path.write_text(text + text.replace(first, second), encoding="utf-8")
    return path, first, second


# --- demo


@pytest.mark.smoke
def test_the_demo_shows_a_success_a_recovery_and_a_failure(demo: tuple[Finished, Path]) -> None:
    """With nothing installed or running, a newcomer sees durations, tokens, costs, and each retry with its reason."""
    done, path = demo
    assert (done.returncode, done.stderr) == (0, "")
    assert TREE in without_chance(done.stdout)
    assert "Its replies, token counts and prices are scripted." in done.stdout
    assert f"Spans written to {path}" in done.stdout
    assert f"python -m tracemind_otel view {path}" in done.stdout
    assert "Jaeger:" not in done.stdout


def test_view_prints_the_same_tree_from_the_file(demo: tuple[Finished, Path]) -> None:
    """The command that the demo suggests shows the same tree as the demo."""
    done, path = demo
    seen = run(*MODULE, "view", path, directory=path.parent)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout in done.stdout


def test_the_demo_writes_to_a_file_that_it_names(tmp_path: Path) -> None:
    """Without `--file` the demo writes to a new temporary file, and touches none of the user's files."""
    done = run(*MODULE, "demo", directory=tmp_path, environment={"TMPDIR": str(tmp_path)})
    [path] = tmp_path.iterdir()
    assert f"Spans written to {path}" in done.stdout
    assert len(spans_of(path)) == 12


def test_the_demo_adds_to_a_file_and_shows_its_own_trace_only(two_traces: tuple[Path, str, str]) -> None:
    """A second run appends to the file, and prints only its own trace."""
    path, *before = two_traces
    done = run(*MODULE, "demo", "--file", path, directory=path.parent)
    assert TREE in without_chance(done.stdout)
    assert not any(trace_id in done.stdout for trace_id in before)
    assert len({span.trace_id for span in spans_of(path)}) == 3


@dataclass
class Receiver:
    """An OTLP endpoint that takes everything."""

    port: int
    bodies: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])


@contextmanager
def receiving() -> Generator[Receiver]:
    """Run an OTLP endpoint that accepts everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_gzip = self.headers.get("Content-Encoding") == "gzip"
            found.bodies.setdefault(self.path, []).append(gzip.decompress(body) if is_gzip else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An OTLP endpoint."""
    with receiving() as found:
        yield found


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_the_demo_exports_to_an_endpoint_and_links_to_jaeger(way: str, receiver: Receiver, tmp_path: Path) -> None:
    """The trace also goes to an endpoint that is set in either way, and a link leads to it."""
    endpoint = f"http://127.0.0.1:{receiver.port}"
    path = tmp_path / "demo.otlp.jsonl"
    arguments, environment = ["demo", "--file", str(path)], {"NO_PROXY": "*"}
    if way == "argument":
        arguments += ["--endpoint", endpoint, "--jaeger", "http://jaeger.example/ui/"]
        base = "http://jaeger.example/ui"
    else:
        environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "TRACEMIND_JAEGER_URL": "http://jaeger.example:1"}
        base = "http://jaeger.example:1"
    done = run(*MODULE, *arguments, directory=tmp_path, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    trace_id = spans_of(path)[0].trace_id
    assert f"Exported to {endpoint}/v1/traces; see it in Jaeger: {base}/trace/{trace_id}\n" in done.stdout
    assert any(bytes.fromhex(trace_id) in body for body in receiver.bodies["/v1/traces"])
    assert b"tracemind.llm.cost" in b"".join(receiver.bodies["/v1/metrics"])


def test_the_demo_with_an_unreachable_endpoint_still_shows_its_tree(tmp_path: Path) -> None:
    """The demo prints its tree and writes its file while the Collector is down, and one line says what was lost."""
    endpoint = f"http://127.0.0.1:{closed_port()}"
    done = run(
        *MODULE,
        "demo",
        "--endpoint",
        endpoint,
        directory=tmp_path,
        environment={"TMPDIR": str(tmp_path), "NO_PROXY": "*"},
    )
    assert done.returncode == 0
    assert TREE in without_chance(done.stdout)
    assert "see it in Jaeger" not in done.stdout
    [line] = done.stderr.splitlines()
    assert "12 of 12 spans did not reach" in line


def test_the_demo_says_when_telemetry_is_switched_off(tmp_path: Path) -> None:
    """With the SDK disabled there is no tree, and the output says why."""
    environment = {"OTEL_SDK_DISABLED": "true", "TMPDIR": str(tmp_path)}
    done = run(*MODULE, "demo", directory=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "unset OTEL_SDK_DISABLED" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_demo_says_when_its_file_cannot_be_written(tmp_path: Path) -> None:
    """A wrong path gives one line, not a traceback."""
    done = run(*MODULE, "demo", "--file", tmp_path / "missing" / "x", directory=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("cannot be written: No such file or directory\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_demo_ends_without_a_traceback(tmp_path: Path) -> None:
    """Ctrl-C ends the demo with the usual exit code and no other output."""
    with subprocess.Popen(
        [sys.executable, "-u", *MODULE, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(TMPDIR=str(tmp_path)),
        # A test run in the background may ignore the signal, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    # Where the signal meets code that is being imported, Python ends by the signal itself: a shell shows 130 for both.
    assert (process.returncode in {130, -signal.SIGINT}, stderr) == (True, "")


# --- view


def test_view_shows_every_trace_or_the_one_asked_for(two_traces: tuple[Path, str, str]) -> None:
    """`view` shows all traces of a file, or the one whose id begins with the argument."""
    path, first, second = two_traces
    both = run(*MODULE, "view", path, directory=path.parent).stdout
    assert without_chance(both) == f"{TREE}\n{TREE}"
    one = run(*MODULE, "view", path, "--trace", second[:12].upper(), directory=path.parent).stdout
    assert without_chance(one) == TREE
    assert second in one
    assert first not in one


def test_view_reads_standard_input(demo: tuple[Finished, Path], tmp_path: Path) -> None:
    """`ssh host cat traces.jsonl | ... view -` works."""
    text = demo[1].read_text(encoding="utf-8")
    done = run(*MODULE, "view", "-", directory=tmp_path, standard_input=text)
    assert without_chance(done.stdout) == TREE


def test_view_says_that_a_file_is_missing(tmp_path: Path) -> None:
    """A path without a file is named in the message."""
    assert "cannot read gone.jsonl: No such file" in one_line(run(*MODULE, "view", "gone.jsonl", directory=tmp_path))


def test_view_says_that_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder gives a message, as any file that cannot be read."""
    assert "cannot read ." in one_line(run(*MODULE, "view", ".", directory=tmp_path))


@pytest.mark.parametrize("content", ["", "\n\n", '{"resourceMetrics":[]}\n'])
def test_view_says_that_a_file_has_no_spans(content: str, tmp_path: Path) -> None:
    """A file without spans gives a message that says which kind of file works."""
    (tmp_path / "empty.jsonl").write_text(content, encoding="utf-8")
    line = one_line(run(*MODULE, "view", "empty.jsonl", directory=tmp_path))
    assert "empty.jsonl has no spans; pass a file of OTLP JSON lines" in line


def test_view_names_the_line_that_is_not_json(demo: tuple[Finished, Path], tmp_path: Path) -> None:
    """The message names the line that is not JSON; a line that a crash cut short costs only itself."""
    text = demo[1].read_text(encoding="utf-8")
    (tmp_path / "bad.jsonl").write_text("oops\nand again\n", encoding="utf-8")
    assert "bad.jsonl: line 1 is not JSON" in one_line(run(*MODULE, "view", "bad.jsonl", directory=tmp_path))
    (tmp_path / "resumed.jsonl").write_text(f"{text[:100]}\n{text}", encoding="utf-8")
    done = run(*MODULE, "view", "resumed.jsonl", directory=tmp_path)
    assert (done.returncode, without_chance(done.stdout)) == (0, TREE)
    assert "line 1 of resumed.jsonl is not JSON and is skipped" in done.stderr


def test_view_skips_a_torn_last_line_with_a_warning(demo: tuple[Finished, Path], tmp_path: Path) -> None:
    """After a crash while writing, everything before the torn line is shown."""
    text = demo[1].read_text(encoding="utf-8")
    (tmp_path / "torn.jsonl").write_bytes(text.encode() + text.encode()[:100] + b"\xc3")
    done = run(*MODULE, "view", "torn.jsonl", directory=tmp_path)
    assert done.returncode == 0
    assert without_chance(done.stdout) == TREE
    [line] = done.stderr.splitlines()
    assert "warning" in line
    assert "is skipped; the other lines are shown" in line


def test_view_lists_the_traces_when_one_is_unknown(two_traces: tuple[Path, str, str]) -> None:
    """The message for an unknown id lists the ids in the file."""
    path, first, second = two_traces
    line = one_line(run(*MODULE, "view", path, "--trace", "nope", directory=path.parent))
    assert f"has no trace nope; choose one of {first}, {second}" in line


# --- output


def test_output_to_a_file_is_plain_and_never_cut(demo: tuple[Finished, Path], tmp_path: Path) -> None:
    """Piped output has no escape codes, and long lines stay whole whatever COLUMNS says."""
    text = demo[1].read_text(encoding="utf-8").replace("scripted", "long " * 50 + "end")
    done = run(*MODULE, "view", "-", directory=tmp_path, environment={"COLUMNS": "20"}, standard_input=text)
    assert "\x1b" not in done.stdout
    assert "ERROR 503: HTTP 503: " + "long " * 50 + "end\n" in done.stdout


@pytest.mark.skipif(shutil.which("script") is None, reason="needs script(1) for a terminal")
@pytest.mark.parametrize(("variables", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_asked_not_to(
    variables: dict[str, str], has_colours: bool, demo: tuple[Finished, Path]
) -> None:
    """NO_COLOR switches off every escape code on a terminal; without it there are colours."""
    command = f"'{sys.executable}' -m tracemind_otel view '{demo[1]}'"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        env=clean_environment(TERM="xterm-256color", **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert ("\x1b[" in done.stdout) is has_colours
    assert "rate_limit (429)" in done.stdout


def test_an_output_that_lacks_a_character_gets_another(demo: tuple[Finished, Path], tmp_path: Path) -> None:
    """A terminal without UTF-8 gets an ASCII tree instead of a traceback."""
    text = demo[1].read_text(encoding="utf-8").replace("scripted", "gescheitert: zu spät")
    environment = {"PYTHONIOENCODING": "ascii"}
    done = run(*MODULE, "view", "-", directory=tmp_path, environment=environment, standard_input=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"ERROR 503: HTTP 503: gescheitert: zu sp\xe4t" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of another kind")
def test_a_reader_that_goes_away_ends_view_quietly(demo: tuple[Finished, Path], tmp_path: Path) -> None:
    """`view FILE | head -1` ends without a traceback, however much output is left."""
    text = demo[1].read_text(encoding="utf-8")
    first = spans_of(demo[1])[0].trace_id
    path = tmp_path / "many.jsonl"
    path.write_text("".join(text.replace(first, f"{number:032x}") for number in range(200)), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, *MODULE, "view", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"tracemind-demo")
        process.stdout.close()
        stderr = process.stderr.read()
    assert (process.returncode, stderr) == (141, b"")


# --- usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required: COMMAND"),
        (("paint",), "invalid choice: 'paint'"),
        (("view",), "required: FILE"),
        (("demo", "--endpoint", "localhost"), "it must be a base URL like http://localhost:4318"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """A mistyped command says what is expected, with the usual exit code 2."""
    done = run(*MODULE, *arguments, directory=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.smoke
def test_the_version_is_printed(tmp_path: Path) -> None:
    """A bug report can name the version."""
    assert run(*MODULE, "--version", directory=tmp_path).stdout == f"tracemind-otel {__version__}\n"


@pytest.mark.smoke
def test_the_installed_command_is_the_module(tmp_path: Path) -> None:
    """`tracemind-otel` and `python -m tracemind_otel` are the same program, whose help names every command."""
    script = Path(sys.executable).with_name("tracemind-otel" + (".exe" if os.name == "nt" else ""))
    helped = subprocess.run([script, "--help"], capture_output=True, text=True, env=clean_environment(), check=True)
    assert helped.stdout == run(*MODULE, "--help", directory=tmp_path).stdout
    assert "demo" in helped.stdout
    assert "view" in helped.stdout


def test_importing_the_package_loads_nothing_of_the_command_line(tmp_path: Path) -> None:
    """An application that does not use the command line does not load it."""
    source = (
        "import sys, tracemind_otel; print([m for m in ('rich', 'argparse', 'opentelemetry.sdk') if m in sys.modules])"
    )
    assert run("-c", source, directory=tmp_path).stdout == "[]\n"


@pytest.mark.skipif(shutil.which("script") is None, reason="needs script(1) for a terminal")
def test_a_narrow_terminal_still_gets_the_names_of_the_steps(demo: tuple[Finished, Path]) -> None:
    """A table that is wider than the terminal wraps, and loses no name and no digit of a cost."""
    command = f"stty cols 60; '{sys.executable}' -m tracemind_otel view '{demo[1]}' --by step"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        env=clean_environment(TERM="xterm", NO_COLOR="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert "draft_reply" in done.stdout
    assert "$0.0005166" in done.stdout
