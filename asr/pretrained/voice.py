"""A synthetic voice, for models that need to hear some speech, no matter which.

Only vowels and glides, by formant synthesis: the harmonics of a falling pitch, weighted by the resonances of the vocal
tract (Klatt 1980, applied to the spectrum instead of by filters).  Whisper tiny.en recognises the first sentence as
"We were away a year ago".  Shapes: N samples, F control frames, S sounds, H harmonics.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Three formants of an adult man in hertz, and the loudness: after Peterson & Barney 1952 and Klatt 1980.
SOUNDS = {
    "a": (720.0, 1150.0, 2500.0, 1.0),
    "e": (450.0, 2000.0, 2600.0, 1.0),
    "E": (550.0, 1800.0, 2500.0, 1.0),
    "i": (290.0, 2250.0, 2950.0, 0.8),
    "I": (380.0, 2000.0, 2600.0, 0.9),
    "o": (500.0, 900.0, 2450.0, 1.0),
    "O": (550.0, 850.0, 2400.0, 1.0),
    "U": (380.0, 950.0, 2300.0, 0.7),
    "A": (700.0, 1650.0, 2450.0, 1.0),
    "@": (550.0, 1250.0, 2500.0, 0.7),
    "3": (470.0, 1350.0, 1700.0, 0.8),
    "w": (300.0, 650.0, 2300.0, 0.5),
    "j": (270.0, 2300.0, 3000.0, 0.5),
    "r": (350.0, 1100.0, 1550.0, 0.5),
    "l": (350.0, 1050.0, 2700.0, 0.5),
    "m": (260.0, 1100.0, 2200.0, 0.25),
    "n": (260.0, 1500.0, 2500.0, 0.25),
    "g": (250.0, 1900.0, 2400.0, 0.05),
}
SENTENCES = (
    "wiiw33@weI@jIr@goU",  # we were away a year ago
    "wIljUmErimi",  # will you marry me
    "wErarjU",  # where are you
    "aIwanajEloUlEm@n",  # I want a yellow lemon
    "aU3lOj3wIlnoU",  # our lawyer will know
    "r@naweInaU",  # run away now
)
HIGHER = (3500.0, 4500.0)  # formants that hardly vary
BANDWIDTHS = (70.0, 100.0, 140.0, 200.0, 260.0)
FRAME_S = 0.005


class Voice(NamedTuple):
    """A voice: its pitch in hertz, and the factor by which its formants are higher than those of SOUNDS."""

    pitch: float
    scale: float


def say(sentence: str, seconds: float, rate: int, voice: Voice) -> Tensor:
    """Say a sentence of SOUNDS in the given time; return samples (N,) at `rate` hertz with an RMS of 0.1."""
    n = round(seconds * rate)
    sound_SX = torch.tensor([SOUNDS[sound] for sound in sentence])
    # Each sound is held for a while and then glides into the next.
    frames = math.ceil(seconds / FRAME_S) + 1
    at_F = (torch.linspace(0, len(sentence), frames) - 0.5).clamp(0, len(sentence) - 1)
    first_F = at_F.long().clamp(max=max(0, len(sentence) - 2))
    glide_F = (1.6 * (at_F - first_F - 0.5) + 0.5).clamp(0, 1)
    glide_F1 = (glide_F.square() * (3 - 2 * glide_F))[:, None]
    next_F = (first_F + 1).clamp(max=len(sentence) - 1)
    sound_FX = torch.lerp(sound_SX[first_F], sound_SX[next_F], glide_F1)
    t_F = torch.linspace(0, 1, frames)
    pitch_F = voice.pitch * (1.15 - 0.35 * t_F + 0.06 * torch.sin(2 * math.pi * 2.3 * seconds * t_F + 1))
    harmonic_H = torch.arange(1, int(0.47 * rate / float(pitch_F.max())) + 1)
    frequency_HF = harmonic_H[:, None] * pitch_F
    loud_HF = sound_FX[:, 3] / harmonic_H[:, None]  # glottal spectrum, with radiation from the lips
    resonances = (*sound_FX[:, :3].unbind(1), *(torch.full((frames,), x) for x in HIGHER))
    for resonance_F, width in zip(resonances, BANDWIDTHS, strict=True):
        squared_F = (resonance_F * voice.scale).square()
        loud_HF = loud_HF * squared_F / torch.hypot(squared_F - frequency_HF.square(), width * frequency_HF)
    phase_N = 2 * math.pi * _samples(pitch_F[None], n)[0].double().cumsum(0) / rate
    wave_N = (_samples(loud_HF, n) * torch.sin(harmonic_H[:, None] * phase_N).float()).sum(0)
    edge_N = torch.minimum(torch.arange(n), torch.arange(n - 1, -1, -1)) / (0.03 * rate)
    wave_N *= edge_N.clamp(max=1)
    return 0.1 * wave_N / wave_N.square().mean().sqrt()


def _samples(x_HF: Tensor, n: int) -> Tensor:
    return F.interpolate(x_HF[None], n, mode="linear", align_corners=True)[0]
