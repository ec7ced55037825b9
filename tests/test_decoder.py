"""The audio decoder process: one for each of ours, replaced when it fails, ended with its parent."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hostile import noise

from asr.audio import child, open_audio, program
from asr.errors import AudioError


def write(path: Path, samples: np.ndarray, **options: str) -> Path:
    soundfile.write(path, samples, 16000, **options)
    return path


def decoder_pid() -> int:
    assert child._shared is not None
    return child._shared.process.pid


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip.wav", noise(1))


def test_one_process_serves_many_files(clip: Path) -> None:
    open_audio(clip)
    pid = decoder_pid()
    for _ in range(20):
        open_audio(clip)
    assert decoder_pid() == pid


def test_decoder_has_resource_limits_and_its_own_session(clip: Path) -> None:
    open_audio(clip)
    assert resource.prlimit(decoder_pid(), resource.RLIMIT_AS)[0] <= program.MEMORY_LIMIT_BYTES
    assert resource.prlimit(decoder_pid(), resource.RLIMIT_FSIZE)[0] == 0
    assert os.getsid(decoder_pid()) == decoder_pid(), "Ctrl-C in the terminal would reach it"


def test_hanging_decoder_is_killed_and_replaced(clip: Path) -> None:
    open_audio(clip)
    pid = decoder_pid()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(AudioError, match=r"clip\.wav: took longer than 0\.2 s"):
        open_audio(clip, timeout_s=0.2)
    assert not Path(f"/proc/{pid}").exists(), "not killed and waited for"
    assert open_audio(clip).duration_s == 1


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL])
def test_decoder_crash_names_the_file_and_a_new_decoder_starts(clip: Path, how: signal.Signals) -> None:
    open_audio(clip)
    pid = decoder_pid()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(open_audio, clip)
        assert eventually(child._lock.locked)
        time.sleep(0.05)
        os.kill(pid, how)
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(AudioError, match=rf"clip\.wav: the decoder crashed on it \({how.name}\)"):
            answer.result(20)
    assert open_audio(clip).duration_s == 1


def test_decoder_killed_between_files_is_replaced_silently(clip: Path) -> None:
    open_audio(clip)
    os.kill(decoder_pid(), signal.SIGKILL)
    assert eventually(lambda: not is_alive(decoder_pid()))
    assert open_audio(clip).duration_s == 1


def test_interrupted_answer_does_not_corrupt_the_next(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_audio(clip)

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(child.Decoder, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_audio(clip)
    np.testing.assert_allclose(open_audio(clip).samples_N, noise(1), atol=1e-4)


def test_hanging_ffmpeg_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(AudioError, match="ffmpeg took longer"):
        open_audio(tmp_path / "x.m4a", timeout_s=0.3)
    children = Path(f"/proc/{decoder_pid()}/task/{decoder_pid()}/children").read_text().split()
    assert children == [], "ffmpeg was not killed and waited for"


def test_concurrent_threads_get_their_own_audio(tmp_path: Path) -> None:
    samples = [noise(0.2 + 0.01 * i) * (i + 1) / 20 for i in range(16)]
    paths = [write(tmp_path / f"{i}.wav", x, subtype="FLOAT") for i, x in enumerate(samples)]
    with ThreadPoolExecutor(8) as pool:
        for x, audio in zip(samples * 4, pool.map(open_audio, paths * 4), strict=True):
            np.testing.assert_array_equal(audio.samples_N, x)


class Clips(torch.utils.data.Dataset[tuple[int, int, float]]):
    """Items that read the file; each gives the ids of its worker and decoder processes and the duration."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[int, int, float]:
        return os.getpid(), (open_audio(self.path), decoder_pid())[1], open_audio(self.path).duration_s


def test_forked_data_loader_workers_have_their_own_decoders(clip: Path) -> None:
    open_audio(clip)
    mine = decoder_pid()
    loader = torch.utils.data.DataLoader(
        Clips(clip), num_workers=2, multiprocessing_context="fork", collate_fn=lambda items: items[0]
    )
    seen = list(loader)
    assert [duration for _, _, duration in seen] == [1.0] * 12
    assert len({worker for worker, _, _ in seen}) == 2
    decoders = {decoder for _, decoder, _ in seen}
    assert len(decoders) == 2
    assert mine not in decoders
    assert decoder_pid() == mine
    assert open_audio(clip).duration_s == 1
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in decoders)), "decoders are left behind"


def test_fork_while_another_thread_decodes_does_not_deadlock(clip: Path) -> None:
    """The forked process finds the lock free, though a thread of its parent holds it."""
    open_audio(clip)
    os.kill(decoder_pid(), signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(open_audio, clip)
        assert eventually(child._lock.locked)
        process = multiprocessing.get_context("fork").Process(target=open_audio, args=(clip,))
        process.start()
        process.join(30)
        os.kill(decoder_pid(), signal.SIGCONT)
        assert process.exitcode == 0
        assert answer.result(20).duration_s == 1


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_decoder_ends_with_its_parent(clip: Path, end: str) -> None:
    code = (
        "import os, sys; from asr.audio import child, open_audio; open_audio(sys.argv[1]);"
        f"print(child._shared.process.pid, flush=True); {end}"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(clip)], capture_output=True, text=True, cwd=root, timeout=60, check=False
    )
    assert done.stderr == ""
    assert eventually(lambda: not is_alive(int(done.stdout)))
