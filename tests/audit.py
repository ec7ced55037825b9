"""Audit what a program does when it reads malicious files: `audited`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

NEVER = {
    *("pickle.find_class", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "ctypes.dlopen", "code.__new__"),
}


@dataclass(frozen=True)
class Audited:
    """Result of an audit: a message per file ('' if accepted), tracebacks, forbidden events, and files left behind."""

    messages: list[str]
    tracebacks: list[str]
    forbidden: list[str]
    left: list[str]
    stderr: str


def audited(
    setup: str,
    paths: Sequence[Path],
    *,
    warm_up: Sequence[Path] = (),
    programs: Sequence[str] = (),
    confined: bool = False,
) -> Audited:
    """Run `act(path)`, which the source `setup` defines, on each path in a process of its own.

    After `warm_up` (good files, so that lazy imports are done) a hook records what is forbidden: unpickled names,
    compiled or executed code that is not from an installed file, connections, and programs other than the audio
    decoder and those in `programs`; if `confined`, also files opened outside of the path, except installed files
    and temporary ones. An AsrError becomes a message, any other exception a traceback. The process runs in an empty
    folder; files found there afterwards are reported as `left`.
    """
    plan = {
        "setup": setup,
        "paths": [str(p) for p in paths],
        "warm_up": [str(p) for p in warm_up],
        "programs": list(programs),
        "confined": confined,
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-B", str(Path(__file__).resolve())],
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=300,
            check=False,
        )
        left = sorted(os.listdir(folder))
    assert done.returncode == 0, done.stderr
    return Audited(**json.loads(done.stdout.splitlines()[-1]), left=left, stderr=done.stderr)


def expect_refused(report: Audited, cases: Sequence[tuple[Path, str]]) -> None:
    """Check that nothing was executed, and that each file was refused with one printable line matching its pattern."""
    assert len(cases) >= 10
    assert report.tracebacks == []
    assert report.forbidden == []
    assert report.left == []
    assert report.stderr == ""
    for (path, pattern), message in zip(cases, report.messages, strict=True):
        assert re.search(pattern, message), f"{path.name}: {message or 'was accepted'}"
        assert message.isprintable(), f"{path.name}: {message!r}"


def _is_installed(filename: object) -> bool:
    name = os.fsdecode(filename) if isinstance(filename, (str, bytes)) else ""
    homes = (sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), str(ROOT / "asr"))
    return name.startswith("<frozen ") or any(name.startswith(home + os.sep) for home in homes)


def _is_outside(name: object, flags: int, path: str, made: set[str]) -> bool:
    """Return whether a file is opened that is neither below the path nor installed nor `made` by the process."""
    if not isinstance(name, (str, bytes)):
        return False  # a file that is open already
    if flags & os.O_EXCL:
        made.add(os.path.realpath(os.fsdecode(name)))
    file, folder = os.path.realpath(os.fsdecode(name)), os.path.realpath(path)
    known = file in {folder, os.devnull, *made} or file.startswith(folder + os.sep)
    return not known and not _is_installed(file) and not os.path.isdir(file)


def _offence(event: str, args: tuple[Any, ...], programs: Sequence[str]) -> str | None:
    if event == "subprocess.Popen":
        words = [os.fsdecode(word) for word in args[1]]
        decoder = words[0] == sys.executable and str(ROOT / "asr" / "audio" / "program.py") in words
        return None if decoder or os.path.basename(words[0]) in programs else f"{event} {words}"
    if event == "exec" and not _is_installed(getattr(args[0], "co_filename", None)):
        return f"exec {args[0]!r}"[:200]
    if event == "compile" and not _is_installed(args[1]):
        return f"compile {args[1]!r}"
    return f"{event} {args!r}"[:200] if event in NEVER else None


def _audit() -> None:
    plan = json.load(sys.stdin)
    from asr.errors import AsrError

    scope: dict[str, Any] = {}
    exec(compile(plan["setup"], "<setup>", "exec"), scope)
    act = scope["act"]
    for path in plan["warm_up"]:
        act(Path(path))
    messages, tracebacks, forbidden = [], [], []
    watching, current, made = True, "", set[str]()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if watching and (offence := _offence(event, args, plan["programs"])):
            forbidden.append(offence)
        if watching and plan["confined"] and event == "open" and _is_outside(args[0], args[2], current, made):
            forbidden.append(f"open {args[0]!r} for {current}")

    sys.addaudithook(hook)
    for current in plan["paths"]:
        messages.append("")
        try:
            act(Path(current))
        except AsrError as error:
            messages[-1] = str(error)
        except BaseException:
            tracebacks.append(traceback.format_exc())
    watching = False
    print(json.dumps({"messages": messages, "tracebacks": tracebacks, "forbidden": forbidden}))


if __name__ == "__main__":
    _audit()
