"""Pictures of cues over the spectrogram of their recording, to check the alignment by eye.

Shapes: N samples, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr.audio import open_audio
from asr.errors import printable
from asr.features import LogMel
from asr.pictures import save
from asr.resampling import resample
from asr.subtitling.activity import Activity
from asr.subtitling.cues import Cue

_RATE_HZ, _N_MELS, _WINDOW_MS, _HOP_MS = 16000, 80, 25.0, 10.0
_VIEW_S, _PLACES = 20.0, (0.1, 0.5, 0.9)
_LONGEST_LABEL = 44
_PLAIN = "DejaVu Sans"
_WIDE = ("Noto Sans CJK TC", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei")


def draw_cues(path: Path, audio: Path, activity: Activity, cues: Sequence[Cue], title: str) -> None:
    """Draw 20 s near the start, middle and end of aligned cues: log-mel spectrogram, speech probability and cues."""
    places = [cues[round(place * (len(cues) - 1))] for place in _PLACES] if cues else []
    figure = Figure(figsize=(11, 1.0 + 2.7 * len(places)), layout="constrained")
    figure.suptitle(printable(title).replace("$", r"\$"), fontsize=9)
    log_mel = LogMel(_RATE_HZ, _N_MELS, _WINDOW_MS, _HOP_MS)
    axes = figure.subplots(max(1, len(places)), 1, squeeze=False)[:, 0]
    for axis, cue in zip(axes, places, strict=False):
        start_s = max(0.0, min(cue.start_s, activity.duration_s - 1) - 2)
        _draw_sound(axis, audio, start_s, log_mel)
        _draw_cues(axis, activity, cues, start_s)
    axes[-1].set_xlabel("seconds; white: probability of speech, blue: cues, grey: beyond the recording")
    save(figure, path)


@torch.inference_mode()
def _draw_sound(axis: Axes, audio: Path, start_s: float, log_mel: LogMel) -> None:
    part = open_audio(audio, offset_s=start_s, duration_s=_VIEW_S)
    audio_N = resample(torch.from_numpy(part.samples_N), part.sample_rate_hz, _RATE_HZ)
    x_TF = log_mel(audio_N[None], torch.tensor([len(audio_N)])).x_BTF[0]
    extent = (start_s, start_s + part.duration_s, 0.0, float(_N_MELS))
    axis.imshow(x_TF.T, origin="lower", aspect="auto", extent=extent, cmap="magma")


def _draw_cues(axis: Axes, activity: Activity, cues: Sequence[Cue], start_s: float) -> None:
    first, last = (round(edge_s / activity.frame_s) for edge_s in (start_s, start_s + _VIEW_S))
    prob_T = activity.prob_T[first:last]
    time_T = (first + np.arange(len(prob_T)) + 0.5) * activity.frame_s
    axis.plot(time_T, _N_MELS * prob_T, color="white", linewidth=0.8, alpha=0.8)
    for cue in cues:
        if cue.end_s > start_s and cue.start_s < start_s + _VIEW_S:
            axis.axvspan(cue.start_s, cue.end_s, color="deepskyblue", alpha=0.12, linewidth=0)
            for edge_s in (cue.start_s, cue.end_s):
                axis.axvline(edge_s, color="deepskyblue", linewidth=1)
            label = f"{cue.numbers[0]} {cue.line}"[:_LONGEST_LABEL].replace("$", r"\$")
            height = _N_MELS * (0.92 - 0.08 * (cue.numbers[0] % 2))
            box: dict[str, Any] = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1.5}
            text = axis.text(max(cue.start_s, start_s) + 0.05, height, label, color="white", bbox=box, clip_on=True)
            text.set(fontsize=7, fontfamily=_fonts())
    axis.set_facecolor("lightgrey")
    axis.set(xlim=(start_s, start_s + _VIEW_S), ylim=(0, _N_MELS), ylabel="mel bin")


def _fonts() -> list[str]:
    """Return DejaVu Sans and the installed ones of the usual fonts for Chinese, Japanese and Korean."""
    there = set(font_manager.get_font_names())
    return [_PLAIN, *(name for name in _WIDE if name in there)]
