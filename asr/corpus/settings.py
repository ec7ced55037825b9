"""Transcription settings shared by all recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from asr import loading
from asr.checkpoint import digest_of, load_tokenizer_of
from asr.corpus.manifest import Manifest
from asr.corpus.parts import Job
from asr.model.precision import Precision
from asr.pretrained import find_model
from asr.progress import OnDone
from asr.recognizer import Recognizer, Source
from asr.transcript import Failure, Transcript


@dataclass(frozen=True)
class Settings:
    """How to transcribe; `search` holds options of asr.load_model, for the rest see Recognizer.transcribe_sources."""

    model: str | Path
    device: str = "auto"
    dtype: Precision | Literal["auto"] = "auto"
    search: Mapping[str, Any] = field(default_factory=dict)
    language: str | None = None
    task: str | None = None
    words: bool = False
    prompt: str | None = None
    batch_s: float | None = None

    def job(self, manifest: Manifest) -> Job:
        """Return everything that the texts depend on, which must not differ between workers or when work is resumed."""
        model = find_model(self.model)
        own = load_tokenizer_of(model)[0].decode
        files = {name: self.search.get(name, getattr(own, name)) for name in ("phrases", "lm")}
        of_files = {name: _digest(Path(path)) for name, path in files.items() if path is not None}
        given = {name: getattr(self, name) for name in ("dtype", "language", "task", "words", "prompt")}
        digests = {"manifest": manifest.digest, "model": digest_of(model)}
        return {**digests, **given, **self.search, **of_files}

    def recognizer(self, number: int = 0) -> Recognizer:
        """Load the recogniser of worker `number`; workers take turns over several GPUs."""
        gpus = torch.cuda.device_count() if self.device in ("auto", "cuda") else 0
        device = f"cuda:{number % gpus}" if gpus > 1 else self.device
        return loading.load_model(self.model, device=device, dtype=self.dtype, **self.search)

    def transcribe(
        self, recognizer: Recognizer, sources: Iterable[Source], on_done: OnDone
    ) -> Iterator[Transcript | Failure]:
        """Transcribe sources with these settings."""
        return recognizer.transcribe_sources(
            sources,
            language=self.language,
            task=self.task,
            words=self.words,
            prompt=self.prompt,
            batch_s=self.batch_s,
            on_done=on_done,
        )


def _digest(path: Path) -> str:
    if path.is_dir():
        return digest_of(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
