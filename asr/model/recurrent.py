"""Bidirectional recurrent layers (Graves et al. 2013), as in Listen, Attend and Spell's encoder (Chan et al. 2016).

Shapes: B batch, T frames, D width, N rows (see asr.model.rows).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.model.layers import Residual
from asr.model.rows import Rows


class RecurrentLayer(nn.Module):
    """An LSTM (Hochreiter & Schmidhuber 1997) in each direction, each half the width, with one residual around both."""

    def __init__(self, dim: int, residual: Residual, p: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim // 2, bidirectional=True, batch_first=True)
        self.residual = residual(dim, p)

    def forward(self, x_ND: Tensor, rows: Rows, weight_B11T: Tensor, beyond_BCD: None = None) -> Tensor:
        """Run the layer (see asr.model.encoder.Layer); each direction starts at the utterance's own end."""
        x_BTD = rows.spread(self.residual.enter(x_ND))
        len_B = rows.len_B.clamp(min=1).cpu()  # an empty utterance takes one frame of padding, dropped below
        packed = pack_padded_sequence(x_BTD, len_B, batch_first=True, enforce_sorted=False)
        y_BTD, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=rows.shape[1])
        return self.residual.leave(x_ND, rows.pack(y_BTD))
