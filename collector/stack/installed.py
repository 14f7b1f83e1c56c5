"""Find programs that are installed, and check that they can run this stack's files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .console import StackError, output_of, say
from .programs import COLLECTOR_DIR, REQUIREMENTS, Requirement, Source

BUILD = "build"
ANSWER_TIMEOUT_S = 10.0


class UnfitError(Exception):
    """An installed program that cannot run this stack; the message is the end of a sentence about it."""


def find_installed(name: str, files: Sequence[Path] = ()) -> Source | None:
    """The program that its variable names, or the first one on the PATH that can run the files."""
    needed = REQUIREMENTS[name]
    chosen = os.environ.get(needed.variable, "")
    if chosen == BUILD:
        return None
    if chosen:
        return chosen_program(needed, Path(chosen).expanduser().absolute(), files)
    for path in on_the_path(needed.commands):
        try:
            return Source(path, checked_version(needed, path, files), "on the PATH")
        except UnfitError as fault:
            say(f"{path} {fault}; it is not used")
    return None


def chosen_program(needed: Requirement, path: Path, files: Sequence[Path]) -> Source:
    try:
        if not path.is_file():
            raise UnfitError("is not a file")
        return Source(path, checked_version(needed, path, files), f"by {needed.variable}")
    except UnfitError as fault:
        raise StackError(
            f"{needed.variable}={path} {fault}; set the path of another program, or {BUILD!r} to build one"
        ) from None


def on_the_path(commands: Sequence[str]) -> Iterator[Path]:
    """Each program of these names, in the order of the PATH."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for command in commands:
            if folder and (found := shutil.which(command, path=folder)):
                yield Path(found).absolute()


def checked_version(needed: Requirement, path: Path, files: Sequence[Path]) -> str:
    """The version of a program that can run the files."""
    if not needed.components:
        return new_enough(needed, version_of(needed.name, path))
    text = answer_of(path, "components")
    version = new_enough(needed, first_group(r"^ +version: \"?v?(\d+\.\d+\.\d+)", text))
    if missing := missing_components(needed.components, text):
        raise UnfitError(f"has version {version or 'unknown'}, which lacks {', '.join(missing)}")
    check_files(path, files)
    return version


def version_of(name: str, path: Path) -> str:
    version = first_group(rf"^{name}, version (\d+\.\d+\.\d+)", answer_of(path, "--version"))
    if not version:
        raise UnfitError(f"answers `--version` with no version of {name}")
    return version


def answer_of(path: Path, question: str) -> str:
    answer = output_of([str(path), question], ANSWER_TIMEOUT_S)
    if not answer:
        raise UnfitError(f"does not answer `{question}`: it is broken, too old, or another program of this name")
    return answer


def first_group(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else ""


def new_enough(needed: Requirement, version: str) -> str:
    if version and numbers(version) < numbers(needed.oldest):
        raise UnfitError(f"has version {version}, but {needed.oldest} or newer is needed")
    return version


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def missing_components(needed: Mapping[str, Sequence[str]], answer: str) -> list[str]:
    """The components that the answer of `components` does not list under their kind."""
    listed: dict[str, set[str]] = {}
    kind = ""
    for line in answer.splitlines():
        if heading := re.match(r"(\w+):", line):
            kind = heading.group(1)
        elif entry := re.match(r" +- (?:name: )?(\w+)", line):
            listed.setdefault(kind, set()).add(entry.group(1))
    return [
        f"the {kind.removesuffix('s')} {name}"
        for kind, names in needed.items()
        for name in names
        if name not in listed.get(kind, set())
    ]


def check_files(path: Path, files: Sequence[Path]) -> None:
    """Have the program check the files: a newer one may have renamed what they use."""
    command = [str(path), "validate", *(f"--config={file}" for file in files)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnfitError(f"cannot check the files: {error}") from error
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or ["no reason given"]
        raise UnfitError(f"rejects {files[-1].relative_to(COLLECTOR_DIR.parent)}: {reason[-1].strip()}")
