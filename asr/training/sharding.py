"""Sharding of weights, gradients and optimiser state across processes, for models too large for one device."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from asr.model.speech import SpeechModel
from asr.training.parts import PartRates
from asr.training.processes import whole
from asr.training.task import SpeechTask


class ShardedStrategy(DDPStrategy):
    """Fully sharded data parallelism (Zhao et al. 2023), by torch's fully_shard.

    Every process holds its share of each weight, gradient and moment.  The units are each layer of the encoder, the
    rest of the encoder, the decoder and the CTC head; a unit has its whole weights only while it computes, at the
    start, before they are divided, and in a validation.  Saved states are whole, as in any run, so a run may resume
    with another number of processes or without sharding.
    """

    def configure_ddp(self) -> None:
        task = self.lightning_module
        assert isinstance(task, SpeechTask)
        for x in itertools.chain(task.model.parameters(), task.model.buffers()):
            dist.broadcast(x.detach(), src=0)
        _shard(task.model, self.root_device.type, self.world_size)
        task.rates = PartRates(task.model, task.rates.parts)  # the weights are new objects

    def setup(self, trainer: L.Trainer) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().setup(trainer)
        else:  # the model is sharded already, by the training before
            assert self.accelerator is not None
            self.accelerator.setup(trainer)
            self.model_to_device()  # the end of training moved it off the device
            _optimizers_to_device(self.optimizers, self.root_device)
            self.setup_precision_plugin()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {name: self._saved(x) for name, x in dict(super().lightning_module_state_dict()).items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().optimizer_state(optimizer))
        of_weights = {i: {name: self._saved(x) for name, x in own.items()} for i, own in state["state"].items()}
        return {**state, "state": of_weights}

    def _saved(self, x: Any) -> Any:
        """Return a sharded tensor whole and on the CPU in the first process, which writes it; None in the others."""
        if not isinstance(x, DTensor):
            return x
        tensor = whole(x)
        return tensor.cpu() if self.is_global_zero else None

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            of_weights = {
                i: {name: _share(x, weights[i]) for name, x in own.items()} for i, own in state["state"].items()
            }
            states.append({**state, "state": of_weights})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})


def _shard(model: SpeechModel, device: str, processes: int) -> None:
    mesh = init_device_mesh(device, (processes,))
    for unit in (*model.encoder.layers, model.encoder, model.decoder, model.ctc):
        if unit is not None:
            fully_shard(unit, mesh=mesh)


def _share(x: Any, weight: Tensor) -> Any:
    """Return this process's share of optimiser state that has the shape of its weight; a step count is not shared."""
    if not isinstance(weight, DTensor) or not isinstance(x, Tensor) or x.shape != weight.shape:
        return x
    return distribute_tensor(x, weight.device_mesh, weight.placements, src_data_rank=None)


class WholeInValidation(L.Callback):
    """Give every process whole weights during a validation, in which each one decodes at its own pace."""

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for unit in _units(pl_module):
            unit.set_reshard_after_forward(False)
            with torch.inference_mode(False):  # training goes on with these tensors
                unit.unshard()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for unit in _units(pl_module):
            unit.set_reshard_after_forward(True)
            unit.reshard()


def _units(task: L.LightningModule) -> list[FSDPModule]:
    return [module for module in task.modules() if isinstance(module, FSDPModule)]
