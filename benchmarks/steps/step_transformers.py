"""Training step of the transformers library's Speech2Text (fairseq's S2T): cross entropy, 1-D convolution."""

from __future__ import annotations

from common import BOUNDARY, DROPOUT, SIZE, VOCABULARY, LossOf, StepBatch, serve
from torch import Tensor, arange, nn


def build(kind: str, precision: str) -> tuple[nn.Module, LossOf]:
    from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration

    config = Speech2TextConfig(
        vocab_size=VOCABULARY,
        d_model=SIZE["dim"],
        encoder_layers=SIZE["encoder_layers"],
        decoder_layers=SIZE["decoder_layers"],
        encoder_attention_heads=SIZE["heads"],
        decoder_attention_heads=SIZE["heads"],
        encoder_ffn_dim=SIZE["feed_forward"],
        decoder_ffn_dim=SIZE["feed_forward"],
        conv_channels=1024,
        dropout=DROPOUT,
        activation_dropout=DROPOUT,  # as in the other packages; its own default is none
        use_cache=False,
        decoder_start_token_id=BOUNDARY,
        bos_token_id=BOUNDARY,
        eos_token_id=BOUNDARY,
        pad_token_id=0,
    )
    model = Speech2TextForConditionalGeneration(config).train()

    def loss_of(batch: StepBatch) -> Tensor:
        mask_BT = (arange(batch.x_BTF.shape[1]) < batch.frames_B[:, None]).long()
        labels_BS = batch.targets_BS(-100)
        return model(
            input_features=batch.x_BTF, attention_mask=mask_BT, decoder_input_ids=batch.inputs_BS, labels=labels_BS
        ).loss

    return model, loss_of


serve(build, "transformers")
