"""Our training step in two variants: `ce` like transformers' Speech2Text, `ctc` like the other packages."""

from __future__ import annotations

from typing import Any

from common import BINS, BLANK, CTC_SHARE, DROPOUT, SIZE, SMOOTHING, VOCABULARY, LossOf, StepBatch, serve
from torch import Tensor, nn

from asr import losses
from asr.config import DecoderConfig, EncoderConfig, LogMelConfig, ModelConfig, SubsamplingConfig
from asr.features import Features
from asr.machine import keep_memory
from asr.model.attention import products
from asr.model.build import build_model
from asr.model.precision import attend_by


def build(kind: str, *, by_products: bool, size: dict[str, Any] = SIZE) -> tuple[nn.Module, LossOf]:
    """Build the model; by_products: attention is computed by matrix products, as `asr train` does in bf16 on a CPU."""
    by_ctc = kind == "ctc"
    shared = {"heads": size["heads"], "feed_forward": size["feed_forward"], "dropout": DROPOUT}
    subsampling = (
        SubsamplingConfig(kind="conv2d", channels=64) if by_ctc else SubsamplingConfig(kind="glu", channels=512)
    )
    config = ModelConfig(
        encoder=EncoderConfig(subsampling=subsampling, layers=size["encoder_layers"], dim=size["dim"], **shared),
        decoder=DecoderConfig(layers=size["decoder_layers"], **shared),
        ctc=by_ctc,
        activation="relu",
    )
    model = build_model(LogMelConfig(n_mels=BINS), config, VOCABULARY).train()
    if by_products:
        attend_by(products, model)
    smoothing = SMOOTHING if by_ctc else 0.0

    def loss_of(batch: StepBatch) -> Tensor:
        memory = model.encoder(Features(batch.x_BTF, batch.frames_B, batch.frames_B))
        logits_BSV, _ = model.decoder(batch.inputs_BS, memory, None, batch.len_B + 1)
        len_B = batch.len_B + 1
        loss = losses.cross_entropy(logits_BSV, batch.targets_BS(0), len_B, smoothing).sum() / len_B.sum()
        if model.ctc is None:
            return loss
        found_B = losses.ctc(model.ctc(memory), memory.len_B, batch.tokens_BL, batch.len_B, BLANK)
        return CTC_SHARE * found_B.sum() / len_B.sum() + (1 - CTC_SHARE) * loss

    return model, loss_of


if __name__ == "__main__":
    keep_memory()  # as `asr train` does
    serve(lambda kind, precision: build(kind, by_products=precision == "bf16"), "asr")
