"""Checks of which cuts an experiment can use."""

from __future__ import annotations

from collections.abc import Callable

from lhotse.cut import Cut

from asr.config import ExperimentConfig
from asr.data.cuts import overrun, text_of
from asr.data.examples import Examples
from asr.errors import DataError
from asr.losses import ctc_fits


class Usable:
    """Tells why an experiment cannot use a cut.

    window_s: longest dev cut, since dev cuts are decoded whole.  encoder_frames: number of encoder frames for a
    duration in seconds, into which CTC targets must fit; None: no such check.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        examples: Examples,
        max_tokens: int,
        window_s: float,
        encoder_frames: Callable[[float], int] | None,
    ) -> None:
        self.config, self.examples = config, examples
        self.max_tokens, self.window_s, self.encoder_frames = max_tokens, window_s, encoder_frames

    def dev_problem(self, cut: Cut) -> str | None:
        """Return why a dev cut cannot be used, None if it can."""
        if (problem := overrun(cut)) is not None:
            return problem
        if cut.duration > self.window_s:
            return f"dev cut of {cut.duration:.1f} s is longer than a window of {self.window_s:g} s"
        return self._target_problem(cut, None)

    def problem(self, cut: Cut) -> str | None:
        """Return why a cut cannot be trained on at every speed of augmentation, None if it can."""
        data = self.config.data
        if (problem := overrun(cut)) is not None:
            return problem
        fastest_s = cut.duration / max(self.config.augment.speeds)
        if not data.min_duration_s <= cut.duration or max(cut.duration, fastest_s) > data.max_duration_s:
            return f"duration {cut.duration:.2f} s is outside {data.min_duration_s:g} to {data.max_duration_s:g} s"
        if not text_of(cut).strip():
            return "no text"
        return self._target_problem(cut, fastest_s)

    def fits(self, joined: Cut) -> bool:
        """Return whether a cut that is joined from others can be trained on."""
        return self._target_problem(joined, joined.duration) is None

    def _target_problem(self, cut: Cut, duration_s: float | None) -> str | None:
        """Return why the target cannot be trained on or, without a duration, why its loss cannot be computed at all."""
        try:
            target = self.examples.target(cut)
        except DataError as e:
            return str(e)
        if duration_s is not None and not target.text.strip():
            return "no text is left after normalisation"
        if len(target.tokens) > self.max_tokens:
            return f"target of {len(target.tokens)} tokens is longer than the decoder's max_length={self.max_tokens}"
        if self.encoder_frames is not None and duration_s is not None:
            if not target.spoken:
                return "nothing tells what is said, which CTC needs: train without it (loss.ctc_weight=0)"
            frames = self.encoder_frames(duration_s)
            if not ctc_fits(frames, target.spoken):
                return f"target of {len(target.spoken)} tokens does not fit {frames} encoder frames"
        return None
