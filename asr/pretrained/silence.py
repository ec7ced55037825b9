"""Fill a model's memory of the silence behind speech, from its own states for a synthetic voice.

Shapes: T frames of a window, C cells of silence, X stages, D width.
"""

from __future__ import annotations

import functools

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from asr.checkpoint import ModelFolder
from asr.config import ModelFolderConfig, Padding
from asr.model.build import build_model
from asr.model.encoder import EncoderLayer
from asr.model.padding import LENGTHS_S, LEVELS, KeepSilence, RecallSilence
from asr.model.rows import Rows
from asr.model.speech import SpeechModel
from asr.pretrained.voice import SENTENCES, Voice, say

MEMORY = "encoder.padding.silence_MXCD"
POINTER = "decoder.pointer."
VOICES = (Voice(110.0, 1.0), Voice(200.0, 1.17))
SENTENCE_S = 1.4
EDGE_S = 0.1  # noise alone, before and after the speech
PAUSE_S = 0.2
SHORTEST_S = 0.3
NOISE = 0.001


def resettled(parts: ModelFolder, config: ModelFolderConfig) -> ModelFolder:
    """Return the same weights under other settings, with the memory of silence dropped or filled as they require.

    A newly added pointer keeps its initial weights.
    """
    model = build_model(config.features, config.model, parts.tokenizer.vocab_size)
    made = model.state_dict()
    weights = {name: weight for name, weight in made.items() if name.startswith(POINTER)} | parts.model.state_dict()
    memory = made.get(MEMORY)
    known = weights.pop(MEMORY, None)
    if config.model.encoder.keep_s < parts.config.model.encoder.keep_s:
        known = None  # it lacks the frames that were computed before and must now be recalled
    if memory is not None:
        weights[MEMORY] = memory if known is None else known
    model.load_state_dict(weights)
    if memory is not None and known is None:
        remember_silence(model.eval())
        model.train()
    return ModelFolder(config, model, parts.tokenizer)


def with_padding(parts: ModelFolder, padding: Padding) -> ModelFolder:
    """Return the same model with another treatment of padding, in evaluation mode."""
    model = parts.config.model
    padded = model.model_copy(update={"encoder": model.encoder.padded(padding)})
    changed = resettled(parts, parts.config.model_copy(update={"model": padded}))
    return changed._replace(model=changed.model.eval())


@torch.no_grad()
def remember_silence(model: SpeechModel) -> None:
    """Fill the memory of an encoder with `padding: recall` with its layers' mean states over computed silence.

    The model must be in evaluation mode.
    """
    padding, rate = model.encoder.padding, model.front_end.sample_rate_hz
    assert isinstance(padding, RecallSilence)
    memory_GNXCD = padding.silence_MXCD.data.unflatten(0, (len(LEVELS), len(LENGTHS_S)))
    todo = [(g, n) for n in range(len(LENGTHS_S)) for g in range(len(LEVELS))]
    half_s = (int(padding.end_C[-1]) - padding.keep) * padding.frame_s / 2  # leaves silence in small windows
    bar = Console(stderr=True)
    for g, n in track(todo, "remembering silence", console=bar, transient=True, disable=not bar.is_terminal):
        sums, counts_C = torch.zeros_like(memory_GNXCD[g, n]), torch.zeros(len(padding.end_C))
        for recording_N in _recordings(max(SHORTEST_S, min(LENGTHS_S[n], half_s)), rate):
            states, speech = _heard(model, _at_level(model, recording_N, LEVELS[g]))
            T = states[0].shape[0]
            inside_TC = (torch.arange(T)[:, None] >= padding.start_C) & (torch.arange(T)[:, None] < padding.end_C)
            inside_TC[: speech + padding.keep] = False
            counts_C += inside_TC.sum(0)
            sums += torch.stack([inside_TC.float().T @ state_TD for state_TD in states])
        memory_GNXCD[g, n] = sums / counts_C[:, None].clamp(min=1)
        # Cells that held speech throughout: as after shorter speech, or else like the first silent cell.
        heard = int((counts_C == 0).sum())
        earlier_XCD = memory_GNXCD[g, n - 1] if n else memory_GNXCD[g, n, :, min(heard, len(counts_C) - 1), None]
        memory_GNXCD[g, n, :, :heard] = earlier_XCD[:, :heard]


def _heard(model: SpeechModel, recording_N: Tensor) -> tuple[list[Tensor], int]:
    """Return each stage's states (T, D) for a recording followed by silence, and the recording's number of frames."""
    encoder = model.encoder
    features = model.front_end(recording_N[None], torch.tensor([len(recording_N)]))
    x_1TD, computed_1, weight_1T, len_1, _ = KeepSilence()(encoder.subsampling, features)
    rows = Rows(computed_1, x_1TD.shape[1])
    x_TD = rows.pack(encoder.position(x_1TD))
    states = []
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        states.append(layer.attention_residual.enter(x_TD))
        x_TD = layer(x_TD, rows, weight_1T[:, None, None])
    return [*states, encoder.norm(x_TD)], int(len_1)


def _at_level(model: SpeechModel, recording_N: Tensor, level: float) -> Tensor:
    """Scale a recording so that the silence after it has the feature value `level`; 1 is four decades of power."""
    features = model.front_end(recording_N[None], torch.tensor([len(recording_N)]))
    return recording_N * 10.0 ** (2 * (level - float(features.x_BTF[0, -1, 0])))


@functools.cache
def _recordings(seconds: float, rate: int) -> list[Tensor]:
    """Return a recording for each voice: one or more sentences in barely audible noise."""
    speech_s = seconds - 2 * EDGE_S
    count = max(1, round((speech_s + PAUSE_S) / (SENTENCE_S + PAUSE_S)))
    each_s = (speech_s + PAUSE_S) / count - PAUSE_S
    recordings = []
    generator = torch.Generator().manual_seed(0)
    for v, voice in enumerate(VOICES):
        recording_N = NOISE * torch.randn(round(seconds * rate), generator=generator)
        for i in range(count):
            said_N = say(SENTENCES[(v + i) % len(SENTENCES)], each_s, rate, voice)
            start = round((EDGE_S + i * (each_s + PAUSE_S)) * rate)
            recording_N[start : start + len(said_N)] += said_N
        recordings.append(recording_N)
    return recordings
