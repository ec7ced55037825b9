"""Processes that train together: which one is the first, and what the others wait for.

Each step's utterances are divided among the processes, so that their number changes only rounding and the draws of
dropout.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch.distributed.tensor import DTensor

from asr.config import ExperimentConfig, to_yaml
from asr.errors import AsrError
from asr.files import write_whole

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # torchrun's, Lightning's, SLURM's
_STARTER = "ASR_STARTER"
_SIGNAL = "prepared"
_PATIENCE_S = 24 * 3600.0  # the first one may train a vocabulary; if it fails, its launcher ends the others
# What gloo, NCCL and the store say of a lost process; their classes do not tell it from a wrong set-up.
_LOST = re.compile(
    "closed by (remote )?peer|reset by peer|likely closed|broken pipe|remote process exited|communicator was aborted|"
    "timed out|(wait|socket|operation|application) timeout",
    re.IGNORECASE,
)


def is_first() -> bool:
    """Return whether this process is the one that writes; known before the processes are connected."""
    if dist.is_torchelastic_launched():  # its rank alone counts: its first machine need not be the first of SLURM's job
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


@contextmanager
def end_with_starter() -> Iterator[None]:
    """End a process that another one of the training started when that one ends, even before they are connected."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        if _STARTER in os.environ:  # else a launcher started it, which ends its processes itself
            threading.Thread(target=_follow, args=[int(os.environ[_STARTER])], daemon=True).start()
        yield
        return
    os.environ[_STARTER] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_STARTER]  # a launcher that this process starts later does not belong to this training


def _follow(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(0.5)
    os._exit(1)  # not sys.exit: other threads may be waiting for the starter


def tell_prepared(config: ExperimentConfig) -> None:
    """Signal from the first process that the run's folder holds everything that the others need."""
    write_whole(config.out / _SIGNAL, _digest(config))


def withdraw_prepared(config: ExperimentConfig) -> None:
    """Remove the signal when all processes are connected: those of a later start must not take it for theirs."""
    if is_first():
        (config.out / _SIGNAL).unlink(missing_ok=True)


def wait_until_prepared(config: ExperimentConfig) -> None:
    """Wait in any other process for the first one's signal.  Raises AsrError if it does not come in time."""
    path, until = config.out / _SIGNAL, time.monotonic() + _PATIENCE_S
    while not path.exists() or path.read_text(encoding="utf-8") != _digest(config):
        if time.monotonic() > until:
            raise AsrError(f"{path}: the first process of the training has not written it; did it start?")
        time.sleep(0.2)


def _digest(config: ExperimentConfig) -> str:
    return hashlib.sha256(to_yaml(config).encode()).hexdigest()


@contextmanager
def company() -> Iterator[None]:
    """Turn what the libraries raise when another process is gone into one line that says so."""
    try:
        yield
    except RuntimeError as e:
        if not dist.is_initialized() or not _LOST.search(str(e)):
            raise
        why = str(e).strip().splitlines()[0]
        raise AsrError(
            f"another process of the training is gone ({why}); the same command goes on from the last state"
        ) from None


def gathered(own: dict[str, Any]) -> dict[str, Any]:
    """Merge the entries of all processes, all of which must call this."""
    if not dist.is_initialized():
        return own
    everyone: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, own)
    return {key: value for entries in everyone for key, value in entries.items()}


def whole(x: Any) -> Any:
    """Assemble a sharded tensor from all processes, all of which must call this; return anything else unchanged."""
    return x.full_tensor() if isinstance(x, DTensor) else x
