"""The search for each kind of decoder, and the check that decoding options fit the kind.

Shapes: B windows, P start tokens, T frames, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.checkpoint import ModelFolder
from asr.config import DecodeConfig, ModelConfig, validate
from asr.decode.ctc import best_paths, prefix_search
from asr.decode.fusion import Fusion
from asr.decode.masked import Filler, mask_predict, refine
from asr.decode.search import Hypothesis, SearchOptions, Weighted
from asr.decode.transducer import Limits, transducer_search
from asr.errors import ConfigError
from asr.lengths import pad_tokens
from asr.model.masks import Memory
from asr.tokenizer import Tokenizer

_BEAM = ("attention", "none", "transducer", "mask_predict")
_KINDS: dict[str, tuple[str, ...]] = {
    "beam_size": _BEAM,
    "n_best": _BEAM,
    "length_bonus": ("attention", "none", "transducer"),
    "length_penalty": ("attention", "mask_predict"),
    "ctc_weight": ("attention",),
    "max_symbols": ("transducer",),
    "iterations": ("mask_predict", "mask_ctc"),
    "threshold": ("mask_ctc",),
    "phrases": ("attention", "none", "transducer"),
    "lm": ("attention", "none", "transducer"),
    "temperature": ("attention",),
    "guards": ("attention",),
}
_WEIGHTS = {"lm_weight": "lm", "lm_unit": "lm", "lm_unknown_penalty": "lm", "phrase_bonus": "phrases"}
# Names on the command line that are not the key with hyphens.
_OPTIONS = {"phrases": "--hotwords", "phrase_bonus": "--hotword-bonus"}
_NO_OPTION = ("length_penalty", "max_symbols", "iterations", "threshold", "lm_unknown_penalty")


# A search for texts, given the encoder output, the tokens (B, P) that the decoder is fed before the text, and the
# maximum number of tokens of each text.  It returns hypotheses, best first, without start and end tokens; their `parts`
# name the components of the score.
Searcher = Callable[[Memory, Tensor, Sequence[int]], list[list[Hypothesis]]]


def build_searcher(
    parts: ModelFolder, options: DecodeConfig, weighted: Searcher, fused: Sequence[Weighted]
) -> Searcher:
    """Return the search for a model's decoder.

    weighted: the beam search over weighted scorers, for autoregressive decoders, and for CTC if it is fused with a
    language model or a phrase list.  fused: these.
    """
    searchers: dict[str, Callable[[], Searcher]] = {
        "attention": lambda: weighted,
        "none": lambda: (
            weighted if fused else CTCSearcher(posteriors(parts), parts.tokenizer.blank_id, search_options(options))
        ),
        "transducer": lambda: TransducerSearcher(parts, options, fused),
        "mask_predict": lambda: MaskPredictSearcher(parts, options),
        "mask_ctc": lambda: MaskCTCSearcher(parts, options),
    }
    return searchers[parts.config.model.decoder.kind]()


def options_with(own: DecodeConfig, given: Mapping[str, Any], source: str) -> DecodeConfig:
    """Return a model's own options updated with the given ones; own options that thereby lose their use are reset.

    The model's own n_best is limited to the beam size.  source: named in errors.  Raises ConfigError, one line, if a
    given name is not an option, or a given weight has nothing to weight.
    """
    tree = own.model_dump()
    if isinstance(guards := given.get("guards"), Mapping):
        given = {**given, "guards": {**tree["guards"], **guards}}
    if {**tree, **given}["temperature"] == 0:
        del tree["top_p"]
    options = validate(DecodeConfig, {**tree, **given}, source)
    fields = DecodeConfig.model_fields
    for name, reason in _idle(options):
        if name in _WEIGHTS and given.get(name, fields[name].default) != fields[name].default:
            raise ConfigError(f"{_named(name)} {reason}")
    changes = {name: fields[name].default for name, _ in _idle(options) if name not in given}
    if "n_best" not in given and options.temperature == 0:
        changes["n_best"] = min(options.n_best, options.beam_size)
    return options.model_copy(update=changes)


def _idle(options: DecodeConfig) -> Iterator[tuple[str, str]]:
    """Yield the options that have no effect given the others, and why."""
    for name, weighed in _WEIGHTS.items():
        if getattr(options, weighed) is None:
            yield name, f"needs {_named(weighed)}"
    if options.lm_unit == "token":
        yield "lm_unknown_penalty", f"needs {_named('lm_unit')} word"
    if options.temperature > 0:
        yield "beam_size", f"is for beam search and {_named('temperature')} for sampling: leave out one of them"


def check_options(model: ModelConfig, options: DecodeConfig) -> None:
    """Raise ConfigError, one line, for decoding options that a model cannot use."""
    if options.ctc_weight > 0 and not model.ctc:
        raise ConfigError(f"{_named('ctc_weight')}: this model has no CTC head; leave it out")
    kind = model.decoder.kind
    for name in _KINDS:
        changed = options.guards.enabled if name == "guards" else options.changed(name)
        if changed:
            check_kind(kind, name, f"{_named(name)} is")
    for name, reason in _idle(options):
        if options.changed(name):
            raise ConfigError(f"{_named(name)} {reason}")
    if options.n_best > options.beam_size and options.temperature == 0:
        n = options.n_best
        raise ConfigError(f"decode.n_best: --n-best {n} needs --beam-size {n} or more")


def check_kind(kind: str, name: str, told: str) -> None:
    """Raise ConfigError, which begins with `told`, if decoders of this kind have no use for a key of `decode`."""
    if kind not in _KINDS[name]:
        raise ConfigError(f"{told} for decoders of kind {' or '.join(_KINDS[name])}; this model's is {kind}")


def _named(name: str) -> str:
    """Return a key of `decode` as it is called in YAML and, if it has an option, on the command line."""
    option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
    return f"decode.{name}" if name in _NO_OPTION else f"decode.{name} ({option})"


def search_options(options: DecodeConfig) -> SearchOptions:
    """Return the options that the searches need."""
    return SearchOptions(options.beam_size, options.length_bonus, options.length_penalty, options.n_best)


def no_text_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens, apart from the blank, that a search without an end token must never produce."""
    return sorted({*tokenizer.suppressed_ids, tokenizer.eos_id} - {tokenizer.blank_id})


def posteriors(parts: ModelFolder) -> Callable[[Memory], tuple[Tensor, Tensor]]:
    """Return a function that gives the CTC log-probabilities (B, T, V) of blank and text tokens, and lengths (B,)."""
    head, never = parts.model.ctc, no_text_ids(parts.tokenizer)
    assert head is not None

    def of(memory: Memory) -> tuple[Tensor, Tensor]:
        longest = int(memory.len_B.max())
        log_prob_BTV = head(memory._replace(states_BTD=memory.states_BTD[:, :longest]))
        log_prob_BTV[..., never] = -torch.inf
        return log_prob_BTV, memory.len_B

    return of


class CTCSearcher:
    """Search for CTC models: the best path with a beam of 1, else prefix beam search.  It ignores the prefix."""

    def __init__(
        self, posteriors: Callable[[Memory], tuple[Tensor, Tensor]], blank_id: int, options: SearchOptions
    ) -> None:
        self.posteriors, self.blank_id, self.options = posteriors, blank_id, options
        self.find = prefix_search if options.beam_size > 1 else _best_path

    def __call__(self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int]) -> list[list[Hypothesis]]:
        return self.find(*self.posteriors(memory), self.blank_id, self.options)


def _best_path(log_prob_BTV: Tensor, len_B: Tensor, blank_id: int, options: SearchOptions) -> list[list[Hypothesis]]:
    """Return the text of the best path of each utterance."""
    bonus, found = options.length_bonus, best_paths(log_prob_BTV, len_B, blank_id)
    return [[Hypothesis(p.tokens, p.log_prob + bonus * len(p.tokens), {"ctc": p.log_prob})] for p in found]


class TransducerSearcher:
    """Search for transducers; the prediction network reads the prefix before the text."""

    def __init__(self, parts: ModelFolder, options: DecodeConfig, fused: Sequence[Weighted]) -> None:
        self.transducer, self.blank_id = parts.model.decoder, parts.tokenizer.blank_id
        self.never, self.max_symbols = no_text_ids(parts.tokenizer), options.max_symbols
        self.fusion = Fusion([scorer for scorer in fused if scorer.weight > 0], parts.tokenizer.eos_id)
        self.options = search_options(options)

    def __call__(self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int]) -> list[list[Hypothesis]]:
        frames_BTJ = self.transducer.frames(memory.states_BTD[:, : int(memory.len_B.max())])
        limits = Limits(self.never, self.max_symbols, caps)
        return transducer_search(
            self.transducer, frames_BTJ, memory.len_B, prefix_BP, self.blank_id, limits, self.options, self.fusion
        )


class MaskPredictSearcher:
    """Search for mask-predict decoders: fills texts of the most probable lengths, one per beam, and ranks them.

    The score is the sum of the tokens' log-probabilities, divided by length ** length_penalty.
    """

    def __init__(self, parts: ModelFolder, options: DecodeConfig) -> None:
        self.decoder, self.mask_id, self.never = (
            parts.model.decoder,
            parts.tokenizer.blank_id,
            no_text_ids(parts.tokenizer),
        )
        self.options, self.iterations = search_options(options), options.iterations

    def __call__(self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int]) -> list[list[Hypothesis]]:
        length_BK, log_prob_BK = self._lengths(memory, caps)
        K = length_BK.shape[1]
        projected = self.decoder.project_memory(memory).repeated(K)
        fill = partial(self.decoder.fill, projected=projected)
        filler = Filler(fill, prefix_BP.repeat_interleave(K, 0), self.mask_id, self.never)
        filled = mask_predict(filler, length_BK.flatten(), self.iterations)
        texts, sums = filled.tokens_NL.tolist(), filled.log_prob_NL.sum(1).tolist()
        found: list[list[Hypothesis]] = []
        for at, (lengths, log_probs) in enumerate(zip(length_BK.tolist(), log_prob_BK.tolist(), strict=True)):
            each = zip(lengths, log_probs, texts[at * K :], sums[at * K :], strict=False)
            best = [self._hypothesis(t[:n], total, p) for n, p, t, total in each if math.isfinite(p)]
            found.append(sorted(best, key=lambda h: -h.score)[: self.options.n_best])
        return found

    def _lengths(self, memory: Memory, caps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the K most probable lengths and their log-probabilities, each (B, K).

        Length 0 is the only candidate if it is the most probable one, and is excluded otherwise: an empty text has no
        uncertain token and would beat all others.
        """
        log_prob_BX = self.decoder.length(memory)
        most_B1 = torch.tensor(caps, device=log_prob_BX.device).clamp(min=0)[:, None]
        over_BX = torch.arange(log_prob_BX.shape[1], device=log_prob_BX.device) > most_B1
        log_prob_BX = log_prob_BX.masked_fill(over_BX, -math.inf)
        empty_B1 = (log_prob_BX.argmax(1) == 0)[:, None]
        other_BX = torch.arange(log_prob_BX.shape[1], device=log_prob_BX.device) > 0
        log_prob_BX = log_prob_BX.masked_fill(empty_B1 == other_BX, -math.inf)
        value_BK, length_BK = log_prob_BX.topk(min(self.options.beam_size, log_prob_BX.shape[1]))
        return length_BK * value_BK.isfinite(), value_BK

    def _hypothesis(self, tokens: list[int], total: float, length: float) -> Hypothesis:
        score = total / max(1, len(tokens)) ** self.options.length_penalty
        return Hypothesis(tuple(tokens), score, {"mask_predict": total, "length": length})


class MaskCTCSearcher:
    """Search for Mask-CTC: takes CTC's best path and lets the decoder predict its tokens below the threshold again.

    The score is the sum of the tokens' log-probabilities: CTC's for those that are kept, the decoder's for the others.
    """

    def __init__(self, parts: ModelFolder, options: DecodeConfig) -> None:
        self.decoder, self.posteriors = parts.model.decoder, posteriors(parts)
        self.blank_id, self.never = parts.tokenizer.blank_id, no_text_ids(parts.tokenizer)
        self.threshold, self.iterations = options.threshold, options.iterations

    def __call__(self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int]) -> list[list[Hypothesis]]:
        paths = best_paths(*self.posteriors(memory), self.blank_id)
        tokens_BL, len_B = pad_tokens([path.tokens[:cap] for path, cap in zip(paths, caps, strict=True)])
        log_prob_BL = pad_sequence(
            [torch.tensor(path.log_probs[:cap], dtype=torch.double) for path, cap in zip(paths, caps, strict=True)],
            batch_first=True,
        )
        unsure_BL, device = log_prob_BL.exp() < self.threshold, prefix_BP.device
        fill = partial(self.decoder.fill, projected=self.decoder.project_memory(memory))
        filler = Filler(fill, prefix_BP, self.blank_id, self.never)
        given = tokens_BL.to(device), len_B.to(device), unsure_BL.to(device)
        filled = refine(filler, *given, self.iterations)
        sums = log_prob_BL.masked_fill(unsure_BL, 0.0).sum(1).tolist(), filled.log_prob_NL.sum(1).tolist()
        rows = zip(filled.tokens_NL.tolist(), len_B.tolist(), paths, *sums, strict=True)
        return [[_refined(tokens[:n], n < len(path.tokens), *parts)] for tokens, n, path, *parts in rows]


def _refined(tokens: list[int], truncated: bool, kept: float, refined: float) -> Hypothesis:
    parts = {"mask_ctc": kept + refined, "kept": kept, "refined": refined}
    return Hypothesis(tuple(tokens), kept + refined, parts, truncated)
