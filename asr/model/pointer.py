"""A pointer to the tokens of given phrases (tree-constrained pointer generator, Sun, Zhang & Woodland 2021).

Shapes: N positions in texts, D width, A the pointer's width, U tokens of the phrases, W = U + 1 (the last stands for
all other tokens).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Keys = tuple[Tensor, Tensor]


class Pointer(nn.Module):
    """Attention of the decoder's state to the tokens that may come next, and a gate that says how far to trust it.

    With state x, last token y and embeddings e_w of the valid tokens, among them OOL ("out of list"):

        q = W_x x + W_y y,  P_copy(w) = softmax_w(q . W_k e_w / sqrt(A)),  h = sum_w P_copy(w) W_v e_w,
        p_gen = sigmoid(w_g . [x; h] + b).

    W_x and W_k begin as the identity: if the decoder's output is tied to the embedding, the pointer at first shares its
    preferences among the valid tokens.  (From random weights, as in the paper, it learnt nothing in 20 minutes of
    speech.)
    """

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.state = nn.Linear(dim, size, bias=False)
        self.last = nn.Linear(dim, size, bias=False)
        self.key = nn.Linear(dim, size, bias=False)
        self.value = nn.Linear(dim, size, bias=False)
        self.outside_D = nn.Parameter(torch.zeros(dim))
        self.gate = nn.Linear(dim + size, 1)
        for same in (self.state, self.key):
            nn.init.eye_(same.weight)
        with torch.no_grad():
            self.state.weight.mul_(size**0.5)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, _SHUT)

    def keys(self, token_UD: Tensor) -> Keys:
        """Return keys and values (W, A) of embedded tokens and of OOL."""
        token_WD = torch.cat([token_UD, self.outside_D.to(token_UD.dtype)[None]])
        return self.key(token_WD), self.value(token_WD)

    def forward(self, x_ND: Tensor, last_ND: Tensor, keys: Keys, ahead_NW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of copying each token (N, U), and of not copying (N, 1), in float32.

        The probabilities sum to 1: that of not copying is p_gen P_copy(OOL) + 1 - p_gen.  ahead_NW: which columns are
        valid; the last one always is.
        """
        key_WA, value_WA = keys
        score_NW = ((self.state(x_ND) + self.last(last_ND)) @ key_WA.T).float() * key_WA.shape[1] ** -0.5
        point_NW = score_NW.masked_fill(~ahead_NW, -torch.inf).log_softmax(-1)
        pointed_NA = point_NW.exp().to(value_WA.dtype) @ value_WA
        gate_N1 = self.gate(torch.cat([x_ND, pointed_NA.to(x_ND.dtype)], dim=-1)).float()
        copy_NW = point_NW + F.logsigmoid(gate_N1)
        return copy_NW[:, :-1], torch.logaddexp(F.logsigmoid(-gate_N1), copy_NW[:, -1:])


_SHUT = -2.0  # the gate starts at about 1/8
