"""Transducer (Graves 2012): a prediction network over the tokens so far, joined with each frame of the encoder.

Shapes: B utterances, N hypotheses, T frames, P start tokens, L tokens, U = L + 1 positions between them, D width of the
encoder, E that of the prediction network, J that of the joiner, V vocabulary, C tokens of context.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.layers import Dropout

State = tuple[Tensor, ...]


class LstmPredictor(nn.Module):
    """Embedding and LSTM: depends on all tokens so far."""

    def __init__(self, vocab_size: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = Dropout(dropout)
        self.lstm = nn.LSTM(dim, dim, layers, batch_first=True)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Return the output after each of the tokens: (B, L, E)."""
        y_BLE, _ = self.lstm(self.dropout(self.embedding(tokens_BL)))
        return self.dropout(y_BLE)

    def start(self, tokens_NP: Tensor) -> tuple[Tensor, State]:
        """Return the output after the start tokens, (N, E), and the state, tensors whose first dimension is N."""
        y_NPE, (hidden, cell) = self.lstm(self.embedding(tokens_NP))
        return y_NPE[:, -1], (hidden.transpose(0, 1), cell.transpose(0, 1))

    def step(self, tokens_N: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the output and the state after one more token each."""
        before = tuple(x.transpose(0, 1).contiguous() for x in state)
        y_N1E, (hidden, cell) = self.lstm(self.embedding(tokens_N[:, None]), before)
        return y_N1E[:, 0], (hidden.transpose(0, 1), cell.transpose(0, 1))


class ConvPredictor(nn.Module):
    """Embedding and a convolution over the last C tokens, which are its only state (Ghodsi et al. 2020)."""

    def __init__(self, vocab_size: int, dim: int, context: int, dropout: float) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = Dropout(dropout)
        self.mix = nn.Conv1d(dim, dim, context, groups=dim)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Return the output after each of the tokens: (B, L, E)."""
        x_BEL = F.pad(self.dropout(self.embedding(tokens_BL)).transpose(1, 2), (self.context - 1, 0))
        return self.mix(x_BEL).transpose(1, 2).relu()

    def start(self, tokens_NP: Tensor) -> tuple[Tensor, State]:
        """Return the output after the start tokens, (N, E), and as state the last C - 1 embeddings, (N, C - 1, E)."""
        x_NPE = F.pad(self.embedding(tokens_NP), (0, 0, self.context - 1, 0))
        return self._mixed(x_NPE[:, -self.context :])

    def step(self, tokens_N: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the output and the state after one more token each."""
        return self._mixed(torch.cat([state[0], self.embedding(tokens_N)[:, None]], dim=1))

    def _mixed(self, x_NCE: Tensor) -> tuple[Tensor, State]:
        return self.mix(x_NCE.transpose(1, 2))[..., 0].relu(), (x_NCE[:, 1:],)


class Joiner(nn.Module):
    """Projects a frame and the tokens so far, and maps the tanh of their sum to the logits of what comes next."""

    def __init__(self, frame_dim: int, token_dim: int, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.frame = nn.Linear(frame_dim, dim)
        self.token = nn.Linear(token_dim, dim, bias=False)
        self.output = nn.Linear(dim, vocab_size)

    def forward(self, frame_J: Tensor, token_J: Tensor) -> Tensor:
        """Return logits (..., V) from projections (..., J), which are broadcast against each other."""
        return self.output((frame_J + token_J).tanh())


class Transducer(nn.Module):
    """Prediction network and joiner.

    start, step and look serve the search (see asr.decode.transducer).  The prediction network reads the start tokens
    before the text, and so knows the language.  Its weights stay in float32.
    """

    def __init__(self, predictor: LstmPredictor | ConvPredictor, joiner: Joiner) -> None:
        super().__init__()
        self.predictor = predictor
        self.joiner = joiner

    @property
    def vocab_size(self) -> int:
        """The number of tokens, blank included."""
        return self.joiner.output.out_features

    def forward(self, tokens_BL: Tensor, prefix_length: int, states_BTD: Tensor) -> Tensor:
        """Return logits (B, T, U, V) of blank or a token at every frame and position; start tokens precede the text."""
        token_BUJ = self.joiner.token(self.predictor(tokens_BL)[:, prefix_length - 1 :])
        return self.joiner(self.frames(states_BTD)[:, :, None], token_BUJ[:, None])

    def frames(self, states_BTD: Tensor) -> Tensor:
        """Project encoder states for the joiner: (B, T, J)."""
        return self.joiner.frame(states_BTD.to(self.joiner.frame.weight.dtype))

    def start(self, prefix_NP: Tensor) -> tuple[Tensor, State]:
        """Return the projected tokens so far, (N, J), and the state, after the start tokens."""
        y_NE, state = self.predictor.start(prefix_NP)
        return self.joiner.token(y_NE), state

    def step(self, tokens_N: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the projected tokens so far and the state after one more token each."""
        y_NE, state = self.predictor.step(tokens_N, state)
        return self.joiner.token(y_NE), state

    def look(self, frame_NJ: Tensor, token_NJ: Tensor) -> Tensor:
        """Return log-probabilities (N, V) of blank and tokens, in float32."""
        return self.joiner(frame_NJ, token_NJ).float().log_softmax(-1)
