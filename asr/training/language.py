"""Training of language models on text; the random draws of a step depend only on the run's seed and the step.

It does not use Lightning: with one device, one loss and no audio, a loop of a few lines is enough.

Shapes: B texts, L tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr import losses
from asr.checkpoint import LanguageFolder, begin_of, load_state, load_tokenizer_of, save_model_folder, save_state
from asr.config import LanguageDataConfig, LanguageExperimentConfig, LanguageFolderConfig
from asr.data.augment import derived_random
from asr.errors import AsrError, CheckpointError, DataError, printable
from asr.lengths import pad_tokens
from asr.lm.train import texts_in
from asr.machine import find_device, keep_memory
from asr.model.build import build_language_model
from asr.model.language import LanguageModel
from asr.pretrained import find_model
from asr.progress import OnDone, unseen
from asr.training.folder import claim_folder
from asr.training.optimizers import build_optimizer
from asr.training.parts import PartRates
from asr.training.plots import draw_perplexity
from asr.training.schedule import build_schedule
from asr.training.states import newest_sound_state, state_path, states_in

Say = Callable[[str], None]
Text = list[int]  # begin, tokens, end
_PLAIN = ("step", "epoch", "place", "best", "curve")


def train_language_model(config: LanguageExperimentConfig, say: Say, on_done: OnDone = unseen) -> Path:
    """Train a language model, or resume its training; return the folder of the model with the best dev perplexity.

    say: gets a line for each validation.  on_done: gets the number of steps done and the total.
    Raises AsrError if the training diverges.
    """
    claim_folder(config)
    if find_device(config.trainer.device).type == "cpu":
        keep_memory()
    torch.manual_seed(derived_random(config.seed, "weights").getrandbits(63))
    parts = _begun(config)
    train, dev = (_read(files, config.data, parts) for files in (config.data.train, config.data.dev))
    run = _Run(config, parts, train)
    if newest := newest_sound_state(config.out / "states", say, _load):
        run.restore(_load(newest))
    say(f"training: {sum(p.numel() for p in parts.model.parameters()):,} parameters, {len(train):,} texts")
    while run.step < config.trainer.max_steps:
        run.advance()
        on_done(run.step, config.trainer.max_steps)
        if run.step % config.trainer.validate_every_steps == 0 or run.step == config.trainer.max_steps:
            say(run.validate(dev))
    if not math.isfinite(run.best):
        raise AsrError("no validation had a finite perplexity: lower optimizer.lr, and give another out=FOLDER")
    return config.out / "model"


def _load(path: Path) -> dict[str, Any]:
    state = load_state(path)
    if not isinstance(state, dict) or not {"model", "optimizer", *_PLAIN} <= state.keys():
        raise CheckpointError(f"{path}: not a training state of a language model")
    return state


def _begun(config: LanguageExperimentConfig) -> LanguageFolder:
    try:
        speech, tokenizer = load_tokenizer_of(find_model(config.speech_model))
    except CheckpointError as e:
        raise CheckpointError(f"speech_model, whose tokens are taken: {e}") from None
    settings = LanguageFolderConfig(
        kind="language_model", model=config.model, tokenizer=speech.tokenizer, normalizer=speech.normalizer
    )
    return LanguageFolder(
        settings, build_language_model(config.model, tokenizer.vocab_size, begin_of(tokenizer)), tokenizer
    )


def _read(files: Sequence[Path], config: LanguageDataConfig, parts: LanguageFolder) -> list[Text]:
    begin, end, most = parts.model.begin_id, parts.tokenizer.eos_id, config.max_tokens - 1
    texts = []
    for text in texts_in(files, parts.config.normalizer):
        tokens = [*parts.tokenizer.encode(text), end]
        texts += [[begin, *tokens[at : at + most]] for at in range(0, len(tokens), most)]
    if not texts:
        raise DataError(f"{', '.join(printable(file) for file in files)}: there is no text")
    return texts


def batches(texts: Sequence[Text], order: Sequence[int], most: int) -> Iterator[list[Text]]:
    """Yield batches of the texts in this order, each of at most `most` tokens with padding, or of a single text."""
    batch: list[Text] = []
    for text in (texts[i] for i in order):
        if batch and (len(batch) + 1) * max(len(text), *map(len, batch)) > most:
            yield batch
            batch = []
        batch.append(text)
    yield batch


def summed_loss(model: LanguageModel, batch: Sequence[Text]) -> tuple[Tensor, int]:
    """Return the summed negative log-likelihood of a batch in nats, and its number of predicted tokens."""
    device = model.embedding.weight.device
    tokens_BL, len_B = (x.to(device) for x in pad_tokens(batch))
    len_B -= 1  # the last token is only predicted
    logits_BLV = model(tokens_BL[:, :-1], len_B)
    return losses.cross_entropy(logits_BLV, tokens_BL[:, 1:], len_B).sum(), int(len_B.sum())


def _perplexity(loss: float, tokens: int) -> float:
    """Return the perplexity of a summed loss in nats; it is infinite beyond the largest float."""
    try:
        return math.exp(loss / max(1, tokens))
    except OverflowError:
        return math.inf


class _Run:
    """The state of a training; `place` counts the batches of the epoch that are done."""

    def __init__(self, config: LanguageExperimentConfig, parts: LanguageFolder, train: Sequence[Text]) -> None:
        self.config, self.parts = config, parts
        o = config.optimizer
        self.model = parts.model.to(find_device(config.trainer.device))
        self.optimizer = build_optimizer(o, PartRates(self.model, {}).groups(o.lr, o.weight_decay))
        self.multiplier = build_schedule(o, config.trainer.max_steps)
        self.step, self.epoch, self.place, self.best = 0, 0, 0, math.inf
        self.train_loss, self.train_tokens = 0.0, 0  # since the last validation
        self.curve: list[list[float]] = []  # per validation: step, perplexity of train since the last one, of dev
        self._coming = self._batches(train)

    def _batches(self, train: Sequence[Text]) -> Iterator[list[Text]]:
        """Yield the batches of one epoch after the other, without end, from `place` in `epoch` on."""
        while True:
            order = list(range(len(train)))
            derived_random(self.config.seed, "texts", self.epoch).shuffle(order)
            for batch in islice(batches(train, order, self.config.data.batch_tokens), self.place, None):
                self.place += 1
                yield batch
            self.epoch, self.place = self.epoch + 1, 0

    def advance(self) -> None:
        """Take one optimiser step."""
        torch.manual_seed(derived_random(self.config.seed, "step", self.step).getrandbits(63))
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * self.multiplier(self.step)
        loss, tokens = summed_loss(self.model, next(self._coming))
        self.optimizer.zero_grad()
        (loss / tokens).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        if not torch.isfinite(norm):
            raise AsrError(f"step {self.step}: the gradient is not finite; lower optimizer.lr")
        self.optimizer.step()
        self.train_loss, self.train_tokens = self.train_loss + loss.item(), self.train_tokens + tokens
        self.step += 1

    @torch.no_grad()
    def validate(self, dev: Sequence[Text]) -> str:
        """Measure the dev perplexity, save the state, and the model if it is the best so far; return a line to show."""
        self.model.eval()
        found = [summed_loss(self.model, b) for b in batches(dev, range(len(dev)), self.config.data.batch_tokens)]
        perplexity = _perplexity(sum(float(loss) for loss, _ in found), sum(tokens for _, tokens in found))
        self.curve.append([self.step, _perplexity(self.train_loss, self.train_tokens), perplexity])
        self.train_loss, self.train_tokens = 0.0, 0
        draw_perplexity(self.curve, self.config.out / "learning_curve.png")
        if perplexity < self.best:
            self.best = perplexity
            save_model_folder(self.config.out / "model", self.parts)
        folder = self.config.out / "states"
        save_state(state_path(folder, self.step), self._state())
        for _, path in states_in(folder)[:-2]:
            path.unlink()
        return f"step {self.step}: dev perplexity {perplexity:.3f} a token, best {self.best:.3f}"

    def _state(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {**plain, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a training state."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
