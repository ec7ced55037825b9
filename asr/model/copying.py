"""A decoder that copies from phrase lists: its distribution is mixed with that of a pointer into their prefix tree.

A pointer-generator (See et al. 2017), whose pointer is constrained by a tree as in TCPGen (Sun, Zhang & Woodland 2021).

Shapes: B utterances, L tokens, N positions (hypotheses, or tokens of targets), D width, V vocabulary, U tokens of the
lists.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asr.model.attention import Attend
from asr.model.decoder import Decoder, DecoderState
from asr.model.masks import Memory
from asr.model.pointer import Keys, Pointer
from asr.phrases.tree import PhraseTree


class CopyingState(NamedTuple):
    """The decoder's state, the keys of the lists' tokens, and each hypothesis's tree node (None before the first)."""

    decoder: DecoderState
    keys: Keys
    node_N: Tensor | None


class Copying:
    """A decoder with a pointer into phrase lists, which takes the decoder's place in teacher forcing and in search.

    P(w) = P_copy(w) p_gen + P_model(w) (1 - p_gen (1 - P_copy(OOL))), see Pointer.  Tokens that are not valid are never
    copied, so where the text is outside the lists the model's own distribution remains.  prefix: the number of start
    tokens before the texts; no phrase begins in them.
    """

    def __init__(self, decoder: Decoder, pointer: Pointer, tree: PhraseTree, prefix: int = 1) -> None:
        self.decoder, self.pointer, self.tree, self.prefix = decoder, pointer, tree, prefix

    def __call__(
        self, tokens_BL: Tensor, memory: Memory, attend: Attend | None = None, len_B: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Teacher forcing, as Decoder.forward; the logits are log-probabilities."""
        x_BLD, attentions = self.decoder.read(tokens_BL, memory, attend, len_B)
        log_prob_BLV = self.decoder.output(x_BLD).float().log_softmax(-1)
        begin = self.prefix - 1  # the last start token predicts the first token of the text
        node_BL = self.tree.along(tokens_BL[:, self.prefix :])
        mixed_NV = self._mixed(
            log_prob_BLV[:, begin:].flatten(0, 1),
            x_BLD[:, begin:].flatten(0, 1),
            tokens_BL[:, begin:].flatten(),
            node_BL.flatten(),
            self._keys(),
        )
        return torch.cat([log_prob_BLV[:, :begin], mixed_NV.unflatten(0, node_BL.shape)], dim=1), attentions

    def start(self, memory: Memory) -> CopyingState:
        """Return the state before the first token, one hypothesis per utterance."""
        return CopyingState(self.decoder.start(memory), self._keys(), None)

    def step(self, tokens_NL: Tensor, state: CopyingState) -> tuple[Tensor, CopyingState]:
        """Feed tokens, as Decoder.step; those of the first step are start tokens."""
        x_ND, decoder = self.decoder.advance(tokens_NL, state.decoder)
        log_prob_NV = self.decoder.output(x_ND).float().log_softmax(-1)
        if state.node_N is None:
            node_N = self.tree.start_B.expand(len(tokens_NL))
        else:
            node_N = state.node_N
            for tokens_N in tokens_NL.unbind(1):
                node_N = self.tree.paths.follow(tokens_N, node_N)
        mixed_NV = self._mixed(log_prob_NV, x_ND, tokens_NL[:, -1], node_N, state.keys)
        return mixed_NV, CopyingState(decoder, state.keys, node_N)

    def reorder(self, state: CopyingState, index_N: Tensor) -> CopyingState:
        """Keep the hypotheses `index_N`, as Decoder.reorder."""
        node_N = None if state.node_N is None else state.node_N[index_N]
        return CopyingState(self.decoder.reorder(state.decoder, index_N), state.keys, node_N)

    def _keys(self) -> Keys:
        embedding = self.decoder.embedding
        self.tree = self.tree.to(embedding.weight.device)
        return self.pointer.keys(embedding(self.tree.token_U))

    def _mixed(self, log_prob_NV: Tensor, x_ND: Tensor, last_N: Tensor, node_N: Tensor, keys: Keys) -> Tensor:
        last_ND = self.decoder.embedding(last_N)
        copy_NU, kept_N1 = self.pointer(x_ND, last_ND, keys, self.tree.ahead(node_N))
        mixed_NV = log_prob_NV + kept_N1
        mixed_NV[:, self.tree.token_U] = torch.logaddexp(mixed_NV[:, self.tree.token_U], copy_NU)
        return mixed_NV


def copying(decoder: Decoder, tree: PhraseTree | None, prefix: int = 1) -> Decoder | Copying:
    """Return the decoder with copying from the lists; the decoder itself if there are no lists or it has no pointer."""
    if tree is None or decoder.pointer is None:
        return decoder
    return Copying(decoder, decoder.pointer, tree, prefix)
