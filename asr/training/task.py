"""The LightningModule: one training step, validation by decoding, the optimiser."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from asr.checkpoint import ModelFolder
from asr.config import ExperimentConfig
from asr.data.augment import derived_random
from asr.data.batch import Batch
from asr.errors import AsrError
from asr.features import Features, SpecAugment
from asr.model.decoder import Decoder
from asr.recognizer import Recognizer
from asr.scoring import RATES
from asr.scoring.recognised import Recognised
from asr.scoring.rows import Row
from asr.training.criteria import Pass, build_criteria
from asr.training.dev import badness, measured, scores_by_task
from asr.training.logs import forget_step
from asr.training.optimizers import build_optimizer
from asr.training.parts import PartRates
from asr.training.processes import gathered, whole
from asr.training.schedule import Schedule, build_schedule

_MOST_SKIPPED = 10


class DevResult(NamedTuple):
    """A decoded dev utterance; losses: each criterion, summed over its tokens; language: that of the text."""

    reference: str
    hypothesis: str
    task: str
    language: str | None
    losses: dict[str, float]
    tokens: int


class SpeechTask(L.LightningModule):
    """Training of the model in a model folder.

    Every random draw of a step (dropout, masks) comes from a seed derived from the run's seed and the step, so a
    resumed run needs no saved random state, and validation cannot disturb training.
    """

    def __init__(self, parts: ModelFolder, config: ExperimentConfig) -> None:
        super().__init__()
        self.model = parts.model
        unused = {"ctc": 0.0} if parts.model.ctc is not None and config.loss.ctc_weight == 0 else {}
        if getattr(parts.model.decoder, "pointer", None) is not None and config.data.phrases is None:
            unused["decoder.pointer"] = 0.0
        self.rates = PartRates(parts.model, {**config.optimizer.parts, **unused})
        self.config = config
        self.tokenizer = parts.tokenizer
        self.recognizer = Recognizer(parts)
        self.criteria = build_criteria(config, parts)
        self.spec_augment = SpecAugment(config.augment) if config.augment.spec_augment else None
        self.batches_seen = 0
        self.skipped_in_a_row = 0
        self.ids_of_step: list[str] = []
        self.of_step: dict[str, Tensor] = {}  # losses of the current step's batches so far
        self.began, self.wall_s_before = time.monotonic(), 0.0
        self.applied: Counter[str] = Counter()  # counts of this process since it started
        self.applied_before: Counter[str] = Counter()
        self.dev_results: dict[str, DevResult] = {}
        self.recognised: list[Recognised] = []  # at the last validation
        self.last_loss: float | None = None
        self.on_skip: Callable[[str], None] = print
        self.train()  # a model read from a folder is in evaluation mode

    def train(self, mode: bool = True) -> SpeechTask:
        """Switch the mode of all parts except the frozen ones, which stay in evaluation mode."""
        super().train(mode)
        self.rates.quiet()
        return self

    # ---- training ---------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.batches_seen += 1  # here, so that states saved after the batch count it
        if batch_idx % self.config.trainer.accumulate == 0:
            self.of_step.clear()
            forget_step(self.trainer)
        torch.manual_seed(self._step_seed("step"))

    def _step_seed(self, purpose: str) -> int:
        return derived_random(self.config.seed, purpose, self.batches_seen, self.global_rank).getrandbits(63)

    @property
    def wall_s(self) -> float:
        """Seconds of the run over all starts, each since its task was made; work lost in a crash does not count."""
        return self.wall_s_before + time.monotonic() - self.began

    def losses(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        """Return the values (B,) in training of each criterion that counts at `step` (None: all), by name."""
        criteria = self.criteria
        features = self.model.front_end(batch.audio_BN, batch.audio_len_B)
        first, *second = (self._augmented(features, batch.ids, masks) for masks in criteria.views)
        attention = criteria.attention(step)
        run = Pass(self.model, batch, first, attention=attention, feed=criteria.feed, draws=self._draws, step=step)
        for view in second:
            run.view(view)
        return criteria(run)

    def dev_pass(self, batch: Batch) -> Pass:
        """Return a validation pass of a batch."""
        features = self.model.front_end(batch.audio_BN, batch.audio_len_B)
        return Pass(self.model, batch, features, attention=self.criteria.attention(None), training=False)

    def _augmented(self, features: Features, ids: list[str], masks: str) -> Features:
        """Augment the features; each utterance's draws are independent of the rest of the batch."""
        if self.config.augment.unpadded > 0:
            drawn = [self._draws("unpadded", id).random() < self.config.augment.unpadded for id in ids]
            drawn_B = torch.tensor(drawn, device=features.len_B.device)
            features = features._replace(len_B=torch.where(drawn_B, features.speech_len_B, features.len_B))
        if self.spec_augment is None:
            return features
        return self.spec_augment(features, [self._draws(masks, id) for id in ids])

    def _draws(self, purpose: str, id: str) -> random.Random:
        return derived_random(self.config.seed, purpose, self.batches_seen, id)

    def combine(self, found: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of a batch: the weighted criteria per token or utterance of its whole step.

        The mean over the batches and processes of a step equals the loss of all its utterances in one batch.
        """
        sums = {name: value_B.sum() for name, value_B in found.items()}
        return batch.weight * self.criteria.weighed(sums, batch.step_targets, batch.step_utterances, self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self.ids_of_step += batch.ids
        found = self.losses(batch, self.global_step)
        loss = self.combine(found, batch)
        self.last_loss = loss.item()
        self._count(batch)
        # When training is shared, all processes find that the gradient is not finite.
        if not math.isfinite(self.last_loss) and not self.shared:
            self._tell(f"loss is {self.last_loss}", batch.ids)
            return None
        self._log(found, loss.detach(), batch)
        return loss

    def _log(self, found: dict[str, Tensor], loss: Tensor, batch: Batch) -> None:
        """Log the losses of the step's batches so far; Lightning writes what is logged with its last batch."""
        count = {"token": batch.step_targets, "utterance": batch.step_utterances}
        values = {"loss": loss}
        for name, value_B in found.items():
            values[f"loss_{name}"] = batch.weight * value_B.detach().sum() / count[self.criteria.per(name)]
        for name, value in values.items():
            self.of_step[name] = self.of_step.get(name, 0.0) + value / self.config.trainer.accumulate
            self.log(name, self.of_step[name], batch_size=len(batch.ids), sync_dist=self.shared)

    @property
    def attends(self) -> bool:
        """Whether the model has an attention decoder, whose cross-attention can be drawn."""
        return isinstance(self.model.decoder, Decoder)

    @property
    def shared(self) -> bool:
        """Whether other processes train the same model."""
        return self._trainer is not None and self.trainer.world_size > 1

    def _count(self, batch: Batch) -> None:
        if batch.weight == 0:
            return
        self.applied.update(batch.applied)
        self.applied["utterances"] += len(batch.ids)
        self.applied["audio_samples"] += int(batch.audio_len_B.sum())
        self.applied["padded_samples"] += batch.audio_BN.numel()
        self.applied["batches"] += 1
        self.applied["spec_augment_batches"] += self.spec_augment is not None

    def applied_in_all(self) -> Counter[str]:
        """Return the counts of all processes over all starts; all processes must call this."""
        of_each = gathered({str(self.global_rank): dict(self.applied)}).values()
        return sum(map(Counter, of_each), self.applied_before.copy())

    def _tell(self, why: str, ids: list[str]) -> None:
        self.on_skip(f"step {self.global_step}: {why}; skipped, utterances {', '.join(ids)}")

    def _skip(self) -> None:
        """Count a skipped step.  Raises AsrError after too many in a row."""
        self.skipped_in_a_row += 1
        self.applied["skipped_steps"] += self.global_rank == 0  # all processes skip it
        if self.skipped_in_a_row >= _MOST_SKIPPED:
            raise AsrError(
                f"stopped: {_MOST_SKIPPED} steps in a row had no finite loss or gradient; the last checkpoint is "
                "intact. Lower optimizer.lr, lengthen optimizer.warmup_steps or look at the utterances named above"
            )

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        ids, self.ids_of_step = self.ids_of_step, []
        parameters = [p for p in self.parameters() if p.grad is not None]
        if not parameters:  # every batch of the step was skipped
            self._skip()
            return
        norm = whole(torch.nn.utils.clip_grad_norm_(parameters, self.config.optimizer.clip_norm))
        if torch.isfinite(norm):
            self.skipped_in_a_row = 0
            self.log("grad_norm", norm)
            return
        for p in parameters:
            p.grad = None
        everyones = gathered({str(self.global_rank): ids})
        self._tell("the gradient is not finite", [id for rank in sorted(everyones) for id in everyones[rank]])
        self._skip()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    # ---- validation -------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        run = self.dev_pass(batch)
        found, memory = self.criteria(run), run.memory
        best = self.recognizer.decode(batch.audio_BN, batch.audio_len_B, batch.languages, batch.tasks, memory)
        for b, (id, hypotheses) in enumerate(zip(batch.ids, best, strict=True)):
            text = self.tokenizer.decode(list(hypotheses[0].tokens))
            sums = {name: float(value_B[b]) for name, value_B in found.items()}
            told = batch.tasks[b], batch.text_languages[b]
            self.dev_results[id] = DevResult(batch.texts[b], text, *told, sums, int(batch.target_len_B[b]))

    def on_validation_epoch_end(self) -> None:
        results, self.dev_results = dict(sorted(gathered(self.dev_results).items())), {}
        sums = {
            name: torch.tensor(sum(r.losses[name] for r in results.values()), dtype=torch.double)
            for name in next(iter(results.values())).losses
        }
        tokens = sum(r.tokens for r in results.values())
        # With the criterion weights of the first step: weights that decay would make any later state look better.
        dev_loss = self.criteria.weighed(sums, tokens, len(results), 0).float()
        self.log("dev_loss", dev_loss)
        self.recognised = [
            Recognised(Row(id, r.reference, r.language), r.hypothesis, task=r.task) for id, r in results.items()
        ]
        config = self.config
        found = measured(scores_by_task(self.recognised, config.scored_with))
        for name, value in found.items():
            self.log(f"dev_{name}", value, prog_bar=name in RATES)
        if self.trainer.state.fn == "fit":  # not the validation after the run's end, which a longer run would not have
            chosen = config.chosen_by
            of_dev = found | {"loss": float(dev_loss)}
            self.schedule.validated(float(dev_loss), badness(chosen, of_dev[chosen]))

    # ---- optimiser and state ----------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        config = self.config.optimizer
        optimizer = build_optimizer(config, self.rates.groups(config.lr, config.weight_decay))
        self.schedule = build_schedule(config, self.total_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    total_steps: int | None = None
    schedule: Schedule

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["task"] = {
            "batches_seen": self.batches_seen,
            "skipped_in_a_row": self.skipped_in_a_row,
            "applied": dict(self.applied_in_all()),
            "wall_s": self.wall_s,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["task"]
        self.batches_seen = saved["batches_seen"]
        self.skipped_in_a_row = saved["skipped_in_a_row"]
        self.applied_before, self.applied = Counter(saved["applied"]), Counter()
        self.wall_s_before = saved.get("wall_s", 0.0)
