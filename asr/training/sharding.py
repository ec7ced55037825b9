"""Weights, gradients and the optimiser's state cut up among processes, for models that outgrow a device."""

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

    Every process holds its share of each weight, gradient and moment.  A unit has its whole weights only while it
    computes: each layer of the encoder, what is left of the encoder, the decoder, the CTC head.  States are whole, the
    same as any run's, so a run may go on with other processes, or without sharding.
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
        else:  # the processes are at one, from the training before
            assert self.accelerator is not None
            self.accelerator.setup(trainer)
            self.model_to_device()  # which the end of the training has taken off it
            _optimizers_to_device(self.optimizers, self.root_device)
            self.setup_precision_plugin()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {name: self._saved(x) for name, x in dict(super().lightning_module_state_dict()).items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().optimizer_state(optimizer))
        of_weights = {i: {name: self._saved(x) for name, x in own.items()} for i, own in state["state"].items()}
        return {**state, "state": of_weights}

    def _saved(self, x: Any) -> Any:
        """A tensor whole and off the device in the first process, which writes it; nothing in the others."""
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
    """This process's share of a tensor that belongs to a weight; a step's count belongs to all of it."""
    if not isinstance(weight, DTensor) or not isinstance(x, Tensor) or x.shape != weight.shape:
        return x
    return distribute_tensor(x, weight.device_mesh, weight.placements, src_data_rank=None)


class WholeInValidation(L.Callback):
    """Has every process hold whole weights during a validation, where each decodes at its own pace."""

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
