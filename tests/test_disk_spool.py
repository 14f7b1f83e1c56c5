"""A disk spool outlives its process: whatever ends that one, the next sends each span once."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.programs import REPOSITORY, clean_environment, run_program
from tests.spooling import drained, numbered, numbers, spans
from tracemind_otel.otel.export import disk_spool
from tracemind_otel.otel.export.answers import Delivered, ignore
from tracemind_otel.otel.export.delivery_stats import SpoolStats
from tracemind_otel.otel.export.disk_spool import DiskSpool
from tracemind_otel.otel.export.process_directory import ProcessDirectory
from tracemind_otel.otel.export.sender import Sender


def answer(source: str, *arguments: object) -> dict[str, Any]:
    """What a program prints as JSON."""
    done = run_program(source, *arguments)
    assert done.returncode == 0, done.stderr
    return cast("dict[str, Any]", json.loads(done.stdout))


KILLED = """
import json, os, random, sys, tempfile
from tests.spooling import drained, forked, killed, numbers, spans, work_until_killed
from tracemind_otel.otel.export.disk_spool import DiskSpool

root, chance, told = sys.argv[1], random.Random(int(sys.argv[2])), []
for kill in range(50):
    process, report = forked(work_until_killed(root, 10_000 * kill, kill))
    told += killed(process, report, chance.randint(0, 10_000))
spool = DiskSpool(root)
spool.adopt()
left = drained(spool)
spool.close()
print(json.dumps({
    "left": numbers(left),
    "interrupted": [n for n, span in zip(numbers(left), spans(left)) if span.end_time_unix_nano],
    "dropped": [spool.dropped],
    "files": os.listdir(root),
    "told": told,
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_fifty_kills_lose_nothing_and_send_nothing_twice(tmp_path: Path, seed: int) -> None:
    """Each span that was kept arrives once, and each that had only started is ended by another process, once.

    A process that is killed between a receiver's answer and its note of it leaves that batch in doubt.
    """
    seen = answer(KILLED, tmp_path, seed)
    by_kind: dict[str, list[int]] = {"started": [], "kept": [], "sent": [], "settled": []}
    for what, told in seen["told"]:
        by_kind[what] += told
    settled, kept = by_kind["settled"], {*by_kind["kept"]}
    in_doubt = {*by_kind["sent"]} - {*settled}
    assert len(kept) > 500, "the processes were killed before they did anything"
    assert len(settled) > 100
    assert len(settled) == len({*settled}), "settled twice"
    assert not {*settled} & {*seen["left"]}, "sent again after it was settled"
    assert len(seen["left"]) == len({*seen["left"]}), "left twice"
    assert kept <= {*settled, *seen["left"]} | in_doubt, "lost"
    open_spans = {*by_kind["started"]} - kept
    assert open_spans <= {*settled, *seen["left"]} | in_doubt, "the start of a span is lost"
    assert not {*seen["interrupted"]} & kept, "a span that has ended is reported as interrupted"
    assert seen["dropped"] == [0]
    assert seen["files"] == []


ADOPTED = """
import json, os, sys
from tests.spooling import drained, ended, forked, numbered, numbers, read_all, tell
from tracemind_otel.otel.export.disk_spool import DiskSpool

root = sys.argv[1]

def leave(first):
    def work(report):
        spool = DiskSpool(root, 1 << 20)
        for number in range(first, first + 200):
            spool.append(numbered(number, 300))
    return work

for first in range(0, 2000, 200):
    ended(forked(leave(first))[0])

begin, told = os.pipe()
def adopt(report):
    spool = DiskSpool(root, 1 << 24)
    os.close(told)
    os.read(begin, 1)  # all begin at once: when the other end is closed
    spool.adopt()
    tell(report, "", *numbers(drained(spool)))
    spool.close()

adopters = [forked(adopt) for _ in range(5)]
os.close(told)
sent = [[*map(int, read_all(report).split())] for _, report in adopters]
for process, _ in adopters:
    ended(process)
print(json.dumps({"sent": sent, "files": os.listdir(root)}))
"""


@pytest.mark.slow
def test_processes_that_adopt_at_the_same_time_share_what_is_left(tmp_path: Path) -> None:
    """No two of them send the same span, none is left out, and nothing stays behind."""
    seen = answer(ADOPTED, tmp_path)
    assert sorted(number for each in seen["sent"] for number in each) == [*range(2000)]
    assert seen["files"] == []


LOOPED = """
import json, os, resource, sys
from tests.spooling import drained, ended, forked, numbered, numbers
from tracemind_otel.otel.export.disk_spool import DiskSpool

root = sys.argv[1]
for number in range(200):
    def crash(report):
        DiskSpool(root).append(numbered(number))
    process, report = forked(crash)
    os.close(report)
    ended(process)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
spool = DiskSpool(root)
spool.adopt()
print(json.dumps({"directories": len(os.listdir(root)), "sent": numbers(drained(spool))}))
spool.close()
"""


@pytest.mark.slow
def test_what_hundreds_of_crashes_left_costs_no_file_descriptors(tmp_path: Path) -> None:
    """A process that crashes again and again, without a receiver, leaves no more than the last one can hold open."""
    assert answer(LOOPED, tmp_path) == {"directories": 1, "sent": [*range(200)]}
    assert [*tmp_path.iterdir()] == []


FORKED = """
import json, os, sys
from tests.spooling import drained, ended, forked, numbered, numbers, read_all, tell
from tracemind_otel.otel.export.disk_spool import DiskSpool

root = sys.argv[1]
hold, holding = os.pipe()

def parent(report):
    spool = DiskSpool(root)
    spool.append(numbered(1))
    spool.append_start((2).to_bytes(8, "big"), numbered(2))
    ready, is_ready = os.pipe()
    if os.fork() == 0:
        spool.begin_anew()
        tell(report, "", spool.waiting, len(drained(spool)))
        spool.append(numbered(3))
        for descriptor in (report, is_ready, holding):
            os.close(descriptor)
        os.read(hold, 1)  # lives on after its parent
        os._exit(0)
    os.close(is_ready)
    os.read(ready, 1)

process, report = forked(parent)
ended(process)
in_child = [*map(int, read_all(report).split())]
spool = DiskSpool(root)
spool.adopt()
of_parent = numbers(drained(spool))
spool.close()
os.close(holding)
print(json.dumps({"in_child": in_child, "of_parent": of_parent, "left": os.listdir(root)}))
"""


@pytest.mark.slow
def test_a_forked_child_has_a_directory_of_its_own(tmp_path: Path) -> None:
    """A forked child begins empty, does not hold the parent's lock, and holds its own for as long as it lives."""
    seen = answer(FORKED, tmp_path)
    assert seen["in_child"] == [0, 0]
    assert seen["of_parent"] == [1, 2]
    assert len(seen["left"]) == 1


# --- The starts of spans ---


def left_behind(directory: Path) -> DiskSpool:
    """A spool that takes over what others left in this directory."""
    spool = DiskSpool(str(directory))
    spool.adopt()
    return spool


def test_a_span_that_had_not_ended_is_ended_by_the_next_process(tmp_path: Path) -> None:
    """A span of a killed process has status ERROR, `tracemind.interrupted`, and ends at the last sign of life."""
    first = DiskSpool(str(tmp_path))
    for number in (1, 2, 3):
        first.append_start(number.to_bytes(8, "big"), numbered(number, 100 * number**4))
    first.append(numbered(2, 500))
    first.close()
    second = left_behind(tmp_path)
    by_number = {
        number: span for item in drained(second) for number, span in zip(numbers([item]), spans([item]), strict=True)
    }
    assert sorted(by_number) == [1, 2, 3]
    assert by_number[2].end_time_unix_nano == 0, "the span that ended is as it was appended"
    for number in (1, 3):
        span = by_number[number]
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert [(each.key, each.value.bool_value) for each in span.attributes if each.value.HasField("bool_value")] == [
            ("tracemind.interrupted", True)
        ]
        assert span.end_time_unix_nano == by_number[1].end_time_unix_nano > 0
    second.close()
    assert [*tmp_path.iterdir()] == []


events = st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(40, 70_000)), max_size=40)


@given(events=events)
@settings(deadline=None)
def test_exactly_the_spans_that_are_open_are_ended_by_the_next_process(events: list[tuple[int, bool, int]]) -> None:
    """Whatever starts and ends in whatever order; only a start of more than 64 KiB is not kept."""
    with tempfile.TemporaryDirectory() as directory:
        spool, open_spans, ended = DiskSpool(directory), dict[int, int](), list[int]()
        for number, is_start, size in events:
            if is_start and number not in (*open_spans, *ended):
                spool.append_start(number.to_bytes(8, "big"), numbered(number, size))
                open_spans[number] = size
            elif not is_start and number not in ended:
                spool.append(numbered(number))
                open_spans.pop(number, None)
                ended.append(number)
        assert numbers(drained(spool)) == ended
        spool.close()
        left = left_behind(Path(directory))
        found = numbers(drained(left))
        left.close()
    assert {number for number, size in open_spans.items() if size < 65_000} <= {*found} <= {*open_spans}
    assert len(found) == len({*found})


def test_starts_cost_disk_only_while_their_spans_are_open(tmp_path: Path) -> None:
    """The files do not grow with the number of spans, but with that of open ones."""
    spool = DiskSpool(str(tmp_path))
    for number in range(1000):
        spool.append_start(number.to_bytes(8, "big"), numbered(number, 500))
        spool.append(numbered(number, 500))
    sizes = [path.stat().st_size for path in tmp_path.glob("*/started-*")]
    assert sum(sizes) <= 2048
    spool.close()


def test_starts_without_number_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Spans that are never ended do not fill the disk, which is said once; other spans are kept as ever."""
    spool = DiskSpool(str(tmp_path), 1 << 16)
    for number in range(100):
        spool.append_start(number.to_bytes(8, "big"), numbered(number, 900))
    spool.append(numbered(1000))
    assert sum(path.stat().st_size for path in tmp_path.glob("*/started-*")) <= 1 << 14
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "spans are open at the same time" in caplog.text
    assert numbers(drained(spool)) == [1000]
    spool.close()


# --- Damage ---


def abandoned(directory: Path, count: int) -> list[Path]:
    """The segments of a process that was killed; each span has a kilobyte, and a segment eight of them."""
    program = """
import os, sys
from tests.spooling import numbered
from tracemind_otel.otel.export.disk_spool import DiskSpool
spool = DiskSpool(sys.argv[1], 1 << 16)
for number in range(int(sys.argv[2])):
    spool.append(numbered(number, 1000))
os._exit(0)
"""
    assert run_program(program, directory, count).returncode == 0
    return sorted(directory.glob("*/*.spool"))


@pytest.fixture(scope="module")
def killed_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The segments of a process that was killed with 30 spans in four segments."""
    directory = tmp_path_factory.mktemp("killed")
    segments = abandoned(directory, 30)
    assert len(segments) == 4
    return {str(path.relative_to(directory)): path.read_bytes() for path in segments}


def restored(directory: Path, segments: dict[str, bytes]) -> list[Path]:
    """Write segments into a directory, as a process left them that was killed."""
    for name, data in segments.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return [directory / name for name in segments]


@pytest.mark.slow
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_damaged_byte_costs_one_span(
    killed_process: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """All other spans arrive, unless it is the resource or scope of others of its segment that is damaged."""
    directory = tmp_path_factory.mktemp("damaged")
    path = data.draw(st.sampled_from(restored(directory, killed_process)), "segment")
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1), "place")
    changed = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]), "byte")
    path.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
    expected, read = [*range(30)], numbers(drained(left_behind(directory)))
    lost = {*expected} - {*read}
    assert read == [number for number in expected if number not in lost]
    resources, scopes = {number % 2 for number in lost}, {number // 2 % 2 for number in lost}
    assert len(lost) <= 8, "more than the segment is lost"
    assert len(lost) <= 1 or len(resources) == 1 or len(scopes) == 1, "more is lost than what needs the damaged record"


@pytest.mark.slow
def test_a_torn_segment_loses_what_is_torn_and_says_so(
    killed_process: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a record that was written in part nothing is sent; the message names the file and the bytes."""
    *_, last = restored(tmp_path, killed_process)
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    assert numbers(drained(left_behind(tmp_path))) == [*range(29)]
    [message] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(last) in message
    assert f"{1028 - 100} bytes" in message


@pytest.mark.slow
def test_a_segment_of_garbage_loses_itself_only(
    killed_process: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The segments before and after it arrive, and the file is deleted."""
    first, second, *_ = restored(tmp_path, killed_process)
    first.write_bytes(os.urandom(5000))
    second.write_bytes(b"")
    read = numbers(drained(left_behind(tmp_path)))
    assert read == [*range(30 - len(read), 30)]
    assert len(read) >= 12
    assert str(first) in caplog.text
    assert [*tmp_path.glob("*/*.spool")] == []


def test_damage_during_the_life_of_a_process_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A span that was damaged on disk is lost and logged, and no flush waits for it."""
    spool = DiskSpool(str(tmp_path))
    for number in range(3):
        spool.append(numbered(number, 100))
    [segment] = tmp_path.glob("*/*.spool")
    data = bytearray(segment.read_bytes())
    data[-50] ^= 1
    segment.write_bytes(data)
    assert numbers(drained(spool)) == [0, 1]
    assert (spool.waiting, spool.dropped) == (0, 1)
    assert str(segment) in caplog.text
    spool.close()


def test_a_segment_that_is_deleted_by_others_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A spool whose files somebody deletes loses them, says so and goes on."""
    spool = DiskSpool(str(tmp_path), 1 << 16)
    for number in range(20):
        spool.append(numbered(number, 1000))
    first, *_ = sorted(tmp_path.glob("*/*.spool"))
    first.unlink()
    read = numbers(drained(spool))
    assert read == [*range(20 - len(read), 20)]
    assert spool.waiting == 0
    assert spool.dropped == 20 - len(read)
    assert str(first) in caplog.text
    spool.append(numbered(99))
    assert numbers(drained(spool)) == [99]
    spool.close()


def test_a_spool_whose_directory_is_deleted_makes_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in it is lost, which is counted; what comes later is kept as ever."""
    monkeypatch.setattr(disk_spool, "RETRY_S", 0.0)
    spool = DiskSpool(str(tmp_path / "spool"))
    spool.append(numbered(1))
    shutil.rmtree(tmp_path / "spool")
    assert drained(spool) == []
    assert (spool.waiting, spool.dropped) == (0, 1)
    for number in (2, 3, 4):
        spool.append_start(number.to_bytes(8, "big"), numbered(number))
        spool.append(numbered(number))
    spool.close()
    assert numbers(drained(left_behind(tmp_path / "spool"))) == [2, 3, 4]


# --- The disk ---


def test_only_this_user_reads_a_spool(tmp_path: Path) -> None:
    """Directories have mode 0700 and files 0600, whatever the umask is."""
    before = os.umask(0)
    try:
        spool = DiskSpool(str(tmp_path / "made" / "spool"))
        spool.append_start(bytes(8), numbered(0))
        spool.append(numbered(1))
        paths = [*(tmp_path / "made" / "spool").rglob("*")]
        assert len([path for path in paths if path.is_file()]) == 3, "a lock, a segment, and the starts"
        for path in (tmp_path / "made" / "spool", *paths):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        spool.close()
    finally:
        os.umask(before)


def test_a_spool_that_has_delivered_everything_leaves_nothing(tmp_path: Path) -> None:
    """The directory of a process is deleted at its end if all was delivered; else it stays, and what waits is said."""
    for kept in (0, 1):
        spool = DiskSpool(str(tmp_path))
        for number in range(3):
            spool.append(numbered(number))
        batch = spool.take(1 << 20, 3 - kept)
        assert batch is not None
        spool.settle(batch)
        spool.close()
        spool.close()
        assert spool.waiting == kept
        assert len([*tmp_path.iterdir()]) == kept


def test_files_do_not_pile_up(tmp_path: Path) -> None:
    """A process that sends what it appends keeps one file, however long it lives."""
    spool = DiskSpool(str(tmp_path), 1 << 16)
    for number in range(300):
        spool.append(numbered(number, 1000))
        if number % 4 == 3:
            assert len(drained(spool)) == 4
    assert len([*tmp_path.glob("*/*.spool")]) == 1
    assert (spool.waiting, spool.dropped) == (0, 0)
    spool.close()


def test_nothing_but_our_own_directories_is_touched(tmp_path: Path) -> None:
    """Whatever else lies in the directory of a spool stays as it is."""
    other = tmp_path / "logs" / "today.spool"
    other.parent.mkdir()
    other.write_text("mine")
    spool = left_behind(tmp_path)
    spool.append(numbered(1))
    assert numbers(drained(spool)) == [1]
    spool.close()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["logs", "logs/today.spool"]
    assert other.read_text() == "mine"


def test_only_the_directory_of_the_process_is_deleted(tmp_path: Path) -> None:
    """A link in place of the process's directory does not make its end delete files of others."""
    root, away, precious = tmp_path / "spool", tmp_path / "away", tmp_path / "precious"
    precious.mkdir()
    (precious / "letter").write_text("Dear")
    spool = DiskSpool(str(root))
    spool.append(numbered(1))
    assert numbers(drained(spool)) == [1]
    (own,) = root.iterdir()
    own.rename(away)
    own.symlink_to(precious)
    spool.close()
    assert (precious / "letter").read_text() == "Dear"


def left_by_another(root: Path) -> Path:
    """The directory of a process that has ended, without anything in it."""
    made = root / f"{1:019d}-1"
    made.mkdir(parents=True, mode=0o700)
    (made / "lock").touch()
    return made


@pytest.mark.parametrize("name", ["1-1.spool", "started-1024"])
def test_no_link_leads_out_of_a_spool(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a link points to is not taken over, nor is a pipe read, which would wait for ever."""
    other = DiskSpool(str(tmp_path / "other"))
    other.append(numbered(1))
    other.append_start((2).to_bytes(8), numbered(2))
    (theirs,) = (tmp_path / "other").rglob("*.spool" if name.endswith(".spool") else "started-*")
    (left_by_another(tmp_path / "links") / name).symlink_to(theirs)
    os.mkfifo(left_by_another(tmp_path / "pipes") / name)
    for root in (tmp_path / "links", tmp_path / "pipes"):
        spool = left_behind(root)
        assert drained(spool) == []
        spool.close()
        assert "cannot be read, and waits" in caplog.text
        caplog.clear()
    other.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes directories of others")
def test_what_another_user_left_is_not_taken_over(tmp_path: Path) -> None:
    """A directory of another user is left alone: it may be planted to have this process send what is in it."""
    left = DiskSpool(str(tmp_path))
    left.append(numbered(1))
    left.close()
    (directory,) = tmp_path.iterdir()
    os.chown(directory, 12345, -1)
    assert drained(left_behind(tmp_path)) == []
    os.chown(directory, os.geteuid(), -1)
    assert numbers(drained(left_behind(tmp_path))) == [1]


EARLY_IN_CHILD = """
import os, sys

root = sys.argv[1]
made = []

def make():
    from tests.spooling import numbered
    spool = DiskSpool(root)
    spool.append(numbered(1))
    made.append(spool)

os.register_at_fork(after_in_child=make)  # before those of the package
from tracemind_otel.otel.export.disk_spool import DiskSpool
from tracemind_otel.otel.export.process_directory import ProcessDirectory

waiting, release = os.pipe()
done, is_done = os.pipe()
if os.fork() == 0:
    os.write(is_done, b".")
    os.read(waiting, 1)
    os._exit(0)
os.read(done, 1)
(name,) = os.listdir(root)
print(ProcessDirectory.adopt(os.path.join(root, name)))
os.write(release, b".")
os.wait()
"""


@pytest.mark.slow
def test_what_begins_early_in_a_child_keeps_its_lock(tmp_path: Path) -> None:
    """A spool that a hook opens right after a fork belongs to the child for as long as it lives."""
    done = run_program(EARLY_IN_CHILD, tmp_path)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_without_a_directory_spans_wait_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that cannot be made is said once, with what to do, and no span is lost."""
    (tmp_path / "file").write_text("")
    spool = DiskSpool(str(tmp_path / "file" / "spool"))
    for number in range(3):
        spool.append_start(number.to_bytes(8, "big"), numbered(number))
        spool.append(numbered(number))
    assert spool.waiting == 3
    assert numbers(drained(spool)) == [0, 1, 2]
    [message] = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "file" / "spool") in message
    assert "TRACEMIND_SPOOL_DIR" in message
    spool.close()


def test_a_spool_returns_to_a_disk_that_can_be_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited in memory is sent first, and what is left of it at the end is written to the disk."""
    monkeypatch.setattr(disk_spool, "RETRY_S", 0.0)
    caplog.set_level(logging.INFO)
    blocking = tmp_path / "spool"
    blocking.write_text("")
    spool = DiskSpool(str(blocking))
    spool.append(numbered(1))
    spool.append(numbered(2))
    blocking.unlink()
    spool.append(numbered(3))
    batch = spool.take(1 << 20, 1)
    assert batch is not None
    assert numbers(batch.items) == [1]
    spool.settle(batch)
    spool.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert sorted(numbers(drained(left_behind(blocking)))) == [2, 3]


FULL = """
import json, os, resource, sys
from tests.spooling import drained, numbered, numbers
from tracemind_otel.otel.export.disk_spool import DiskSpool

spool = DiskSpool(sys.argv[1])
sent = []
for number in range(40):  # a span that is sent before the disk is full, and one of which the end is in memory
    spool.append(numbered(number, 1000))
batch = spool.take(1 << 20, 20)
spool.settle(batch)
spool.append_start((100).to_bytes(8, "big"), numbered(100))
resource.setrlimit(resource.RLIMIT_FSIZE, (41_500, 41_500))
for number in range(40, 60):
    spool.append(numbered(number, 1000))
spool.append(numbered(100))
assert spool.waiting == 41, spool.waiting
while batch := spool.take(1 << 20, 7):
    sent += numbers(batch.items)
    spool.settle(batch)
print(json.dumps({"sent": sent}))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_a_full_disk_costs_no_span_and_sends_none_twice(tmp_path: Path) -> None:
    """Spans wait in memory, what is delivered is still noted on the disk, and the message comes once."""
    done = run_program(FULL, tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)["sent"]) == [*range(20, 60), 100]
    assert done.stderr.count("cannot write to its disk") == 1
    assert drained(left_behind(tmp_path)) == []


WITHOUT_DESCRIPTORS = """
import json, os, resource, sys
from tests.spooling import drained, numbered, numbers
from tracemind_otel.otel.export.disk_spool import DiskSpool

spool = DiskSpool(sys.argv[1])
for number in range(3):
    spool.append(numbered(number))
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
assert spool.take(1 << 20, 10) is None
assert (spool.waiting, spool.dropped) == (3, 0)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
print(json.dumps(numbers(drained(spool))))
spool.close()
"""


@pytest.mark.slow
def test_a_process_without_file_descriptors_loses_nothing(tmp_path: Path) -> None:
    """A file that cannot be opened now is read later; that is said."""
    done = run_program(WITHOUT_DESCRIPTORS, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[0, 1, 2]"), done.stderr
    assert "Too many open files" in done.stderr


SMALL_DISK = """
import json, os, subprocess, sys
from tests.spooling import drained, ended, forked, numbered, numbers, read_all, tell
from tracemind_otel.otel.export.disk_spool import DiskSpool

root = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", root], check=True)

def fill(report):
    spool = DiskSpool(root)
    for number in range(800):
        spool.append_start(number.to_bytes(8, "big"), numbered(number))
        spool.append(numbered(number, 1000))
    for _ in range(8):
        batch = spool.take(1 << 20, 50)
        tell(report, "", *numbers(batch.items))
        spool.settle(batch)

process, report = forked(fill)
sent = [*map(int, read_all(report).split())]
ended(process)
spool = DiskSpool(root)
spool.adopt()
left = numbers(drained(spool))
spool.close()
print(json.dumps({"sent": sent, "left": left, "files": os.listdir(root)}))
"""


@pytest.mark.slow
def test_a_disk_that_runs_full_and_a_kill_cost_what_was_in_memory(tmp_path: Path) -> None:
    """What was sent is not sent again, what is on the disk is, and no span is shown as interrupted beside itself."""
    unshare = shutil.which("unshare")
    may_mount = unshare and subprocess.run([unshare, "-m", "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=False)
    if not unshare or not may_mount or may_mount.returncode:
        pytest.skip("this user may not mount a small disk")
    command = [unshare, "-m", sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot write to its disk") == 1
    seen = json.loads(done.stdout)
    assert len(seen["sent"]) > 300
    assert len({*seen["sent"], *seen["left"]}) == len(seen["sent"]) + len(seen["left"])
    assert len(seen["left"]) > 100
    assert seen["files"] == []


@pytest.mark.slow
def test_a_full_disk_hides_nothing_that_was_left(
    killed_process: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has no room for a directory of its own sends what another one left all the same."""
    restored(tmp_path, killed_process)

    def fail(root: str) -> ProcessDirectory:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ProcessDirectory, "create", fail)
    spool = left_behind(tmp_path)
    assert numbers(drained(spool)) == [*range(30)]
    spool.close()
    assert [*tmp_path.iterdir()] == []


def test_an_item_is_on_the_disk_if_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fsync` no append returns before the disk has the item."""
    synced = list[int]()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    spool = DiskSpool(str(tmp_path), fsync=True)
    for number in range(3):
        spool.append(numbered(number))
    assert len(synced) == 4, "each item, and the name of the file"
    assert numbers(drained(spool)) == [0, 1, 2]
    assert len(synced) == 5, "and that they were delivered"
    spool.close()


LEFT = """
import os, sys
from tests.spooling import numbered
from tracemind_otel.otel.export.disk_spool import DiskSpool
spool = DiskSpool(sys.argv[1])
for number in range(30):
    spool.append(numbered(number))
spool.append_start((30).to_bytes(8, "big"), numbered(30))
os._exit(0)
"""


class Receiver:
    """A transport that delivers at once."""

    def __init__(self) -> None:
        self.received = list[int]()

    def send(self, body: bytes, timeout_s: float, on_sending: Callable[[], object] = ignore) -> Delivered:
        groups = ExportTraceServiceRequest.FromString(body).resource_spans
        sent = [span for group in groups for scope in group.scope_spans for span in scope.spans]
        self.received += [int.from_bytes(span.span_id, "big") for span in sent]
        return Delivered()

    def begin_anew(self) -> None:
        """There is no connection."""

    def close(self) -> None:
        """There is no connection."""


@pytest.mark.slow
def test_a_sender_sends_what_a_killed_process_left(tmp_path: Path) -> None:
    """A process without any span of its own sends what a killed one left, and no file stays behind."""
    assert run_program(LEFT, tmp_path).returncode == 0
    spool, receiver = DiskSpool(str(tmp_path)), Receiver()
    sender = Sender(spool, receiver, SpoolStats("here", spool), name="test")
    sender.start()
    assert sender.shutdown(30)
    assert sorted(receiver.received) == [*range(31)]
    assert [*tmp_path.iterdir()] == []
