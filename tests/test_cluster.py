"""What a process of a training knows of the others: its rank under SLURM and torchrun, and that one is lost."""

from __future__ import annotations

import re

import lightning as L
import pytest
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from asr.errors import AsrError
from asr.training.processes import company, is_first
from asr.training.run import _cluster


def test_slurm_jobs_are_not_requeued_by_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cluster() == []
    monkeypatch.setattr(SLURMEnvironment, "detect", lambda: True)
    (environment,) = _cluster()
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue


@pytest.mark.parametrize(("rank", "machine"), [("0", "1"), ("2", "0")])
def test_ranks_inside_slurm_are_torchruns_if_it_started_the_processes(
    monkeypatch: pytest.MonkeyPatch, rank: str, machine: str
) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": "0", "GROUP_RANK": str(int(rank) // 2), "WORLD_SIZE": "4"}
    slurm = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": machine, "SLURM_JOB_NAME": "train"}
    for name, value in (ranks | slurm | {"TORCHELASTIC_RUN_ID": "run"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", rank_zero_only.rank)  # which a Trainer sets for the whole process
    assert SLURMEnvironment.detect()
    assert is_first() == (rank == "0")
    trainer = L.Trainer(
        accelerator="cpu", devices=2, num_nodes=2, plugins=_cluster(), logger=False, enable_checkpointing=False
    )
    assert trainer.global_rank == int(rank)


NCCL = "NCCL error in: ProcessGroupNCCL.cpp:94, "
LOST = [
    "[pair.cc:538] Read error [127.0.0.1]:39058: Connection reset by peer",
    "[pair.cc:553] Connection closed by peer [127.0.0.1]:39058",
    "[unbound_buffer.cc:78] Timed out waiting 8000ms for recv operation to complete",
    "failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?",
    "wait timeout after 600000ms, keys: /default_pg/0/0",
    f"{NCCL}remote process exited or there was a network error, NCCL version 2.28.9\nncclRemoteError: ...",
    f"{NCCL}unhandled system error\nLast error:\nsocketProgress: Connection closed by remote peer node2<50000>",
    "NCCL communicator was aborted on rank 1.",
    "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(...) ran for 600000 ms before timing out.",
]
WRONG = [
    f"{NCCL}invalid usage, NCCL version 2.28.9\nLast error:\nDuplicate GPU detected : rank 0 and rank 1 both on CUDA",
    f"{NCCL}unhandled system error\nncclSystemError: System call (e.g. socket, malloc) or external library call failed "
    "or device error. It can be also caused by unexpected exit of a remote peer, you can check NCCL WARN logs for "
    "failure reason and see if there is connection closure by a peer.\nLast error:\nBootstrap : no interface found",
    "[enforce fail at gloo/transport/tcp/device.cc:83] ifa != nullptr. Unable to find address for: eth7",
    "The size of tensor a (3) must match the size of tensor b (4)",
]


@pytest.mark.parametrize("kind", [RuntimeError, dist.DistBackendError])
def test_only_a_lost_process_is_reported_as_one(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    for text in LOST:
        with pytest.raises(AsrError, match="another process of the training is gone"), company():
            raise kind(text)
    for text in WRONG:
        with pytest.raises(kind, match=re.escape(text)), company():
            raise kind(text)
