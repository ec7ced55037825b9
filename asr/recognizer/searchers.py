"""Which search the texts of a model come from: the one place that asks what kind its decoder is.

Shapes: B windows, P start tokens, T frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from asr.checkpoint import ModelFolder
from asr.config import DecodeConfig, ModelConfig
from asr.decode.ctc import best_paths, prefix_search
from asr.decode.search import Hypothesis, SearchOptions
from asr.decode.transducer import Limits, transducer_search
from asr.errors import ConfigError
from asr.model.masks import Memory
from asr.tokenizer import Tokenizer

_BEAM = ("attention", "none", "transducer")
_KINDS: dict[str, tuple[str, ...]] = {
    "beam_size": _BEAM,
    "n_best": _BEAM,
    "length_bonus": _BEAM,
    "length_penalty": ("attention",),
    "ctc_weight": ("attention",),
    "max_symbols": ("transducer",),
    "phrases": ("attention",),
    "guards": ("attention",),
}


class Searcher(Protocol):
    """Finds texts in what the encoder heard.

    prefix_BP: what a decoder is fed before the text.  caps: the most tokens of each text.  Hypotheses come best first,
    their tokens without start and end; `parts` names what their scores are made of.
    """

    def __call__(self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int]) -> list[list[Hypothesis]]: ...


def build_searcher(parts: ModelFolder, options: DecodeConfig, attention: Searcher) -> Searcher:
    """The search for a model's decoder; `attention` is that of an autoregressive one."""
    searchers: dict[str, Callable[[], Searcher]] = {
        "attention": lambda: attention,
        "none": lambda: CTCSearcher(posteriors(parts), parts.tokenizer.blank_id, search_options(options)),
        "transducer": lambda: TransducerSearcher(parts, options),
    }
    return searchers[parts.config.model.decoder.kind]()


def check_options(model: ModelConfig, options: DecodeConfig) -> None:
    """ConfigError, one line, for options of decoding that such a model has no use for."""
    if options.ctc_weight > 0 and not model.ctc:
        raise ConfigError("decode.ctc_weight > 0 needs a model with a CTC head; this one has none")
    kind = model.decoder.kind
    for name, kinds in _KINDS.items():
        changed = options.guards.enabled if name == "guards" else _differs(options, name)
        if changed and kind not in kinds:
            raise ConfigError(f"decode.{name} is for decoders of kind {' or '.join(kinds)}; this model's is {kind}")


def _differs(options: DecodeConfig, name: str) -> bool:
    return bool(getattr(options, name) != type(options).model_fields[name].default)


def search_options(options: DecodeConfig) -> SearchOptions:
    """What the searches need of the options."""
    return SearchOptions(options.beam_size, options.length_bonus, options.length_penalty, options.n_best)


def no_text_ids(tokenizer: Tokenizer) -> list[int]:
    """Tokens that a search without an end token must never produce, blanks apart."""
    return sorted({*tokenizer.suppressed_ids, tokenizer.eos_id} - {tokenizer.blank_id})


def posteriors(parts: ModelFolder) -> Callable[[Memory], tuple[Tensor, Tensor]]:
    """What gives the CTC head's log-probabilities (B, T, V) of blank and text tokens, and lengths (B,)."""
    head, never = parts.model.ctc, no_text_ids(parts.tokenizer)
    assert head is not None

    def of(memory: Memory) -> tuple[Tensor, Tensor]:
        longest = int(memory.len_B.max())
        log_prob_BTV = head(memory._replace(states_BTD=memory.states_BTD[:, :longest]))
        log_prob_BTV[..., never] = -torch.inf
        return log_prob_BTV, memory.len_B

    return of


class CTCSearcher:
    """CTC alone: the best path with a beam of 1, else prefix beam search.  The prefix plays no part."""

    def __init__(
        self, posteriors: Callable[[Memory], tuple[Tensor, Tensor]], blank_id: int, options: SearchOptions
    ) -> None:
        self.posteriors, self.blank_id, self.options = posteriors, blank_id, options

    def __call__(self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int]) -> list[list[Hypothesis]]:
        log_prob_BTV, len_B = self.posteriors(memory)
        if self.options.beam_size > 1:
            return prefix_search(log_prob_BTV, len_B, self.blank_id, self.options)
        bonus, found = self.options.length_bonus, best_paths(log_prob_BTV, len_B, self.blank_id)
        return [[Hypothesis(p.tokens, p.log_prob + bonus * len(p.tokens), {"ctc": p.log_prob})] for p in found]


class TransducerSearcher:
    """A transducer: the prediction network reads the prefix before the text."""

    def __init__(self, parts: ModelFolder, options: DecodeConfig) -> None:
        self.transducer, self.blank_id = parts.model.decoder, parts.tokenizer.blank_id
        self.never, self.max_symbols = no_text_ids(parts.tokenizer), options.max_symbols
        self.options = search_options(options)

    def __call__(self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int]) -> list[list[Hypothesis]]:
        frames_BTJ = self.transducer.frames(memory.states_BTD[:, : int(memory.len_B.max())])
        limits = Limits(self.never, self.max_symbols, caps)
        return transducer_search(
            self.transducer, frames_BTJ, memory.len_B, prefix_BP, self.blank_id, limits, self.options
        )
