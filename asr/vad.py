"""Voice activity detection: the published network of silero-vad, as a torch module over frames of 32 ms.

The network (Silero Team, https://github.com/snakers4/silero-vad, MIT) and its weights come from the package silero-vad.
Only a safetensors file of that package is read and none of its code runs: importing it would set the number of threads
of the whole process, and its other weight files are programs.  A frame's spectrum and convolutions depend on no other
frame, so many frames are computed at once; then the LSTM runs over them in one call.  This gives the same probabilities
as going frame by frame in a fifteenth of the time, 3 s for an hour of audio.

Shapes: T frames, N samples, D width, X frequency bins, S steps of the spectrum in a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.checkpoint import load_tensors
from asr.errors import CheckpointError
from asr.resampling import regroup, resample_blocks

RATE_HZ, FRAME_N, CONTEXT_N = 16000, 512, 64
CHUNK_T = 512  # frames at a time, whose spectra fit into a CPU's cache

State = tuple[Tensor, Tensor]


class SileroVAD(nn.Module):
    """Spectrum, four convolutions within the frame, an LSTM over frames, and a logistic output."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)  # real parts, then imaginary ones
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, frames_TN: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the probability of speech (T,) and the LSTM's state.

        frames_TN: frames, each preceded by the last CONTEXT_N samples of the frame before.
        """
        frames_T1N = F.pad(frames_TN, (0, CONTEXT_N), mode="reflect")[:, None]
        real_TXS, imaginary_TXS = self.stft_conv(frames_T1N).chunk(2, dim=1)
        x_TDS = (real_TXS.square() + imaginary_TXS.square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x_TDS = convolution(x_TDS).relu()
        x_TD, state = self.lstm(x_TDS.squeeze(2), state)
        return self.final_conv(x_TD.relu().T).squeeze(0).sigmoid(), state


class SpeechDetector:
    """Gives the probability of speech, 0 to 1, for every 32 ms of a recording that comes in blocks."""

    frame_s = FRAME_N / RATE_HZ

    def __init__(self, network: SileroVAD, rate: int) -> None:
        self.network, self.rate = network, rate

    @torch.inference_mode()
    def _probabilities(self, samples_N: Tensor, state: State | None) -> tuple[Tensor, State]:
        frames_TN = samples_N.unfold(0, CONTEXT_N + FRAME_N, FRAME_N)
        prob_T, state = self.network(frames_TN, state)
        return prob_T, state

    def __call__(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Map blocks (N,) at `rate` to probabilities (T,), some 16 s at a time; the last frame is padded with zeros."""
        state, context_N = None, torch.zeros(CONTEXT_N)
        for samples_N in regroup(resample_blocks(blocks, self.rate, RATE_HZ), CHUNK_T * FRAME_N):
            samples_N = torch.cat([context_N, F.pad(samples_N, (0, -len(samples_N) % FRAME_N))])
            prob_T, state = self._probabilities(samples_N, state)
            context_N = samples_N[-CONTEXT_N:]
            yield prob_T


def load_detector(rate: int) -> SpeechDetector:
    """Return a detector for recordings at `rate` hertz, with the weights of the installed package silero-vad.

    Raises CheckpointError if the package is missing or holds other weights.
    """
    package = find_spec("silero_vad")
    if package is None or package.origin is None:
        raise CheckpointError("finding speech needs the package silero-vad; pip install 'silero-vad>=6.2,<7'")
    path = Path(package.origin).parent / "data" / "silero_vad_16k.safetensors"
    weights = load_tensors(path)
    lstm = {
        f"lstm.{name}_l0": weights.pop(f"lstm_cell.{name}", torch.empty(0))
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    network = SileroVAD()
    try:
        network.load_state_dict(weights | lstm)
    except RuntimeError:
        raise CheckpointError(f"{path}: not the weights of silero-vad 6") from None
    return SpeechDetector(network.eval(), rate)
