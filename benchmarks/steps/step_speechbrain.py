"""Training step of SpeechBrain's TransformerASR, built as in its LibriSpeech recipe: CTC, 2-D convolution."""

from __future__ import annotations

from common import BINS, BLANK, CTC_SHARE, DROPOUT, SIZE, SMOOTHING, VOCABULARY, LossOf, StepBatch, serve
from torch import Tensor, nn


def build(kind: str, precision: str) -> tuple[nn.Module, LossOf]:
    from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
    from speechbrain.nnet.losses import ctc_loss, nll_loss

    front = ConvolutionFrontEnd(
        input_shape=(8, 10, BINS),
        num_blocks=2,
        num_layers_per_block=1,
        out_channels=(64, 32),
        kernel_sizes=(3, 3),
        strides=(2, 2),
        residuals=(False, False),
    )
    transformer = TransformerASR(
        tgt_vocab=VOCABULARY,
        input_size=BINS // 4 * 32,
        d_model=SIZE["dim"],
        nhead=SIZE["heads"],
        num_encoder_layers=SIZE["encoder_layers"],
        num_decoder_layers=SIZE["decoder_layers"],
        d_ffn=SIZE["feed_forward"],
        dropout=DROPOUT,
        activation=nn.GELU,
        normalize_before=True,
        causal=False,
    )
    ctc, output = nn.Linear(SIZE["dim"], VOCABULARY), nn.Linear(SIZE["dim"], VOCABULARY)
    model = nn.ModuleList([front, transformer, ctc, output]).train()

    def loss_of(batch: StepBatch) -> Tensor:
        share_B = batch.frames_B / batch.x_BTF.shape[1]
        states, predicted = transformer(front(batch.x_BTF), batch.inputs_BS, share_B, pad_idx=0)
        targets_BS = batch.targets_BS(0)
        by_ctc = ctc_loss(
            ctc(states).log_softmax(-1),
            batch.tokens_BL,
            share_B,
            batch.len_B / batch.tokens_BL.shape[1],
            BLANK,
            reduction="batchmean",
        )
        by_decoder = nll_loss(
            output(predicted).log_softmax(-1),
            targets_BS,
            length=(batch.len_B + 1) / targets_BS.shape[1],
            label_smoothing=SMOOTHING,
            reduction="batchmean",
        )
        return CTC_SHARE * by_ctc + (1 - CTC_SHARE) * by_decoder

    return model, loss_of


serve(build, "speechbrain")
