"""Training step of ESPnet2's hybrid CTC/attention model, with 2-D convolution."""

from __future__ import annotations

from common import BINS, CTC_SHARE, DROPOUT, SIZE, SMOOTHING, VOCABULARY, LossOf, StepBatch, serve
from torch import Tensor, arange, nn


def build(kind: str, precision: str) -> tuple[nn.Module, LossOf]:
    from espnet2.asr.ctc import CTC
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
    from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
    from espnet2.asr.espnet_model import ESPnetASRModel

    shared = {"linear_units": SIZE["feed_forward"], "attention_heads": SIZE["heads"], "dropout_rate": DROPOUT}
    encoder = TransformerEncoder(BINS, output_size=SIZE["dim"], num_blocks=SIZE["encoder_layers"], **shared)
    decoder = TransformerDecoder(VOCABULARY, SIZE["dim"], num_blocks=SIZE["decoder_layers"], **shared)
    tokens = ["<blank>", *(str(i) for i in range(1, VOCABULARY - 1)), "<sos/eos>"]
    model = ESPnetASRModel(
        vocab_size=VOCABULARY,
        token_list=tokens,
        frontend=None,
        specaug=None,
        normalize=None,
        preencoder=None,
        encoder=encoder,
        postencoder=None,
        decoder=decoder,
        ctc=CTC(VOCABULARY, SIZE["dim"]),
        joint_network=None,
        ctc_weight=CTC_SHARE,
        lsm_weight=SMOOTHING,
        report_cer=False,
        report_wer=False,
    ).train()

    def loss_of(batch: StepBatch) -> Tensor:
        nothing_BL = arange(batch.tokens_BL.shape[1]) >= batch.len_B[:, None]
        text_BL = batch.tokens_BL.masked_fill(nothing_BL, -1)
        loss: Tensor = model(batch.x_BTF, batch.frames_B, text_BL, batch.len_B)[0]
        return loss

    return model, loss_of


serve(build, "espnet")
