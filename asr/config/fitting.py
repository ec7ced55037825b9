"""Checks that a training fits its model, whether a YAML file describes the model or `init` brings it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .decoder import NEED_CTC
from .features import FeaturesConfig
from .model import ModelConfig

if TYPE_CHECKING:
    from .training import ExperimentConfig


def check_fits(config: ExperimentConfig, features: FeaturesConfig, model: ModelConfig) -> None:
    """Raise ValueError if the training needs a part that the model lacks, or its processes cannot share the model, or
    its frequency masks could cover the whole spectrum.
    """
    _check_processes(config, model)
    _check_losses(config, model)
    if config.augment.freq_masks and config.augment.freq_mask_bins >= features.n_mels:
        raise ValueError(
            f"augment.freq_mask_bins={config.augment.freq_mask_bins} could mask all {features.n_mels} mel bins of the "
            "features: take fewer"
        )
    if config.data.translates and model.decoder.kind in NEED_CTC:
        raise ValueError(
            "data.tasks: a translation does not follow the order of the speech, on which "
            f"model.decoder.kind={model.decoder.kind} relies: take attention, transducer or mask_predict"
        )
    if config.data.phrases is not None and getattr(model.decoder, "pointer", None) is None:
        raise ValueError(
            "data.phrases is for a decoder with a pointer: set model.decoder.pointer or adapt.pointer to {}"
        )


def _check_processes(config: ExperimentConfig, model: ModelConfig) -> None:
    """Reject what several processes cannot train.

    Batch norms would see only a process's share of the batch; fsdp gathers weights only in `forward`, while some
    decoders use them elsewhere.
    """
    trainer = config.trainer
    for part in ("encoder", "decoder"):
        norm = getattr(getattr(model, part), "normalization", "layer")
        if norm in ("batch", "power") and trainer.devices * trainer.nodes > 1:
            raise ValueError(
                f"model.{part}.normalization={norm} is for training in one process, which sees whole batches: "
                "set trainer.devices=1 and nodes=1, or normalization=layer"
            )
    if trainer.strategy != "fsdp":
        return
    kind = model.decoder.kind
    if kind in ("mask_predict", "mask_ctc"):
        raise ValueError(f"trainer.strategy=fsdp is not for model.decoder.kind={kind}: take ddp")
    if config.data.phrases is not None:
        raise ValueError("trainer.strategy=fsdp is not for a decoder with a pointer: take ddp")


def _check_losses(config: ExperimentConfig, model: ModelConfig) -> None:
    loss, kind = config.loss, model.decoder.kind
    of_attention = {
        "loss.guided_attention": loss.guided_attention.weight,
        "loss.scheduled_sampling": loss.scheduled_sampling.share,
        "loss.minimum_error": loss.minimum_error.weight,
        "loss.r_drop": loss.r_drop,
        "augment.token_noise": config.augment.token_noise,
    }
    for name, value in of_attention.items():
        if value > 0 and kind != "attention":
            raise ValueError(f"{name} is for model.decoder.kind=attention: {kind} has no such decoder")
    if loss.minimum_error.weight and loss.minimum_error.ctc_weight and not model.ctc:
        raise ValueError("loss.minimum_error.ctc_weight needs a model with a CTC head; this one has none")
    if loss.ctc_weight == 1 and kind not in NEED_CTC:
        raise ValueError("loss.ctc_weight=1 would not train the decoder: take less, or model.decoder.kind=none")
    if loss.changed("length_weight") and kind != "mask_predict":
        raise ValueError(f"loss.length_weight is for model.decoder.kind=mask_predict: {kind} predicts no length")
    brings_ctc = config.init is not None and "ctc" in (config.init.parts or ("ctc",))
    if loss.ctc_weight == 0 and kind in NEED_CTC:
        raise ValueError(f"loss.ctc_weight=0 would not train the CTC head that model.decoder.kind={kind} needs")
    if loss.ctc_weight == 0 and model.ctc and not brings_ctc:
        raise ValueError("loss.ctc_weight=0 would leave a CTC head that knows nothing: set model.ctc=false, too")
