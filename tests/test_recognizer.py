"""Transcription with small random models: a recording's text does not depend on what is decoded with it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from models import RATE, noises, of_files, small_model, sources, texts

from asr.data.batch import pad_audio
from asr.decode.search import Hypothesis
from asr.errors import AsrError, AudioError, ConfigError, DataError
from asr.recognizer import Opened, Recognizer, Source, parallel, pool
from asr.recognizer.batch import BatchDecoder
from asr.transcript import Failure, Transcript

LENGTHS_S = (1.0, 0.5, 1.5, 0.1, 0.75, 0.04, 1.3, 0.001, 0.9)


pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it


@pytest.fixture(scope="module")
def greedy() -> Recognizer:
    return Recognizer(small_model())


def tokens(found: list[list[Hypothesis]]) -> list[tuple[int, ...]]:
    """Return the best tokens of each waveform."""
    return [hypotheses[0].tokens for hypotheses in found]


# --- decode -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_n_best_are_sorted_by_the_scores_of_the_model() -> None:
    recognizer = Recognizer(small_model(beam_size=4, n_best=3))
    audio_BN, len_B = pad_audio(noises(1.0, 0.5, 0.3))
    for b, hypotheses in enumerate(recognizer.decode(audio_BN, len_B)):
        assert 2 <= len(hypotheses) <= 3
        assert len({h.tokens for h in hypotheses}) == len(hypotheses)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        memory = recognizer.model.encode(audio_BN[b : b + 1], len_B[b : b + 1])
        for h in hypotheses:
            said = [*recognizer.tokenizer.prefix(), *h.tokens, *([] if h.truncated else [recognizer.tokenizer.eos_id])]
            logits_1LV, _ = recognizer.model.decoder(torch.tensor([said[:-1]]), memory)
            log_prob_LV = logits_1LV[0].log_softmax(-1)
            total = sum(float(log_prob_LV[i, token]) for i, token in enumerate(said[1:]))
            assert h.score == pytest.approx(total / (len(said) - 1), abs=1e-4)


def test_language_is_detected_unless_given() -> None:
    recognizer = Recognizer(small_model(["en", "es"]))
    audio_BN, len_B = pad_audio(noises(1.0, 0.5, 1.5, 0.1, 0.75, seed=3))
    memory = recognizer.model.encode(audio_BN, len_B)
    start, ids = recognizer.tokenizer.prefix("en")[0], [recognizer.tokenizer.prefix(x)[1] for x in ("en", "es")]
    logits_B1V, _ = recognizer.model.decoder(torch.full((len(len_B), 1), start), memory)
    expected = [("en", "es")[i] for i in logits_B1V[:, 0, ids].argmax(1).tolist()]
    assert set(expected) == {"en", "es"}
    assert tokens(recognizer.decode(audio_BN, len_B)) == tokens(recognizer.decode(audio_BN, len_B, expected))
    found = list(recognizer.transcribe_sources(sources(noises(1.0, 0.5, 1.5, 0.1, 0.75, seed=3))))
    assert [r.language for r in found if isinstance(r, Transcript)] == expected


def test_given_language_overrides_detection() -> None:
    recognizer = Recognizer(small_model(["en", "es"]))
    audio = noises(1.0, 0.5, 1.5, 0.1)
    results = {code: list(recognizer.transcribe_sources(sources(audio), language=code)) for code in ("en", "es")}
    assert {r.language for r in results["es"] if isinstance(r, Transcript)} == {"es"}
    assert texts(results["en"]) != texts(results["es"])
    detected = list(recognizer.transcribe_sources(sources(audio)))
    other = {"en": "es", "es": "en"}[detected[2].language]
    own = [source._replace(language=other if source.id == "2" else None) for source in sources(audio)]
    mixed = list(recognizer.transcribe_sources(own))
    expected = [*detected[:2], results[other][2], detected[3]]
    assert texts(mixed) == texts(expected)
    assert [r.language for r in mixed] == [r.language for r in expected]
    assert texts(list(recognizer.transcribe_sources(own, language="es"))) == texts(results["es"])


def test_language_may_be_given_by_its_english_name() -> None:
    recognizer = Recognizer(small_model(["de", "nl"]))
    for name, code in (("German", "de"), ("flemish", "nl"), ("nl", "nl")):
        (found,) = recognizer.transcribe_sources(sources(noises(0.5)), language=name)
        assert isinstance(found, Transcript)
        assert found.language == code


def test_source_in_an_unsupported_language_fails_alone() -> None:
    first, second = sources(noises(1.0, 0.5))
    recognizer = Recognizer(small_model(["en", "es"]))
    failed, done = recognizer.transcribe_sources([first._replace(language="xx"), second])
    assert failed == Failure("0", "0: its language 'xx' is not one of this model's: en, es")
    assert [done] == list(recognizer.transcribe_sources([second]))
    (unknowing,) = Recognizer(small_model()).transcribe_sources([first._replace(language="xx")])
    assert isinstance(unknowing, Transcript)


def test_sources_name_their_language_in_english_or_with_a_region() -> None:
    recognizer = Recognizer(small_model(["en", "pt", "pt-BR"]))
    codes = {"English": "en", "en-US": "en", "EN_gb": "en", "Portuguese": "pt", "pt-BR": "pt-BR"}
    named = [source._replace(language=name) for source, name in zip(sources(noises(*5 * [0.1])), codes, strict=True)]
    found = list(recognizer.transcribe_sources(named))
    assert [result.language for result in found if isinstance(result, Transcript)] == [*codes.values()]


def test_unsupported_language_is_an_error_before_any_work() -> None:
    def load() -> Opened:
        raise AssertionError("nothing should be loaded")

    recognizer = Recognizer(small_model(["en", "es"]))
    with pytest.raises(AsrError, match="unknown language 'xx': this model knows en, es"):
        list(recognizer.transcribe_sources([Source("a", load)], language="xx"))


def test_ctc_weight_needs_a_ctc_head() -> None:
    with pytest.raises(ConfigError, match=r"ctc_weight .*: this model has no CTC head; leave it out") as caught:
        Recognizer(small_model(ctc=False, ctc_weight=0.3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("weight", "parts"), [(0.0, {"attention"}), (0.3, {"attention", "ctc"}), (1.0, {"ctc"})])
def test_ctc_weight_interpolates_attention_and_ctc_scores(weight: float, parts: set[str]) -> None:
    recognizer = Recognizer(small_model(ctc_weight=weight, beam_size=3))
    ((best, *_),) = recognizer.decode(*pad_audio(noises(1.0)))
    assert set(best.parts) == {*parts, "allowed"}
    share = {"attention": 1 - weight, "ctc": weight}
    total = sum(share[name] * best.parts[name] for name in parts)
    assert best.score == pytest.approx(total / (len(best.tokens) + (not best.truncated)), abs=1e-4)


def test_text_without_an_end_is_truncated_with_a_warning() -> None:
    parts = small_model(max_tokens_per_s=4)
    parts.tokenizer.suppressed_ids += (parts.tokenizer.eos_id,)  # type: ignore[misc, attr-defined]
    recognizer = Recognizer(parts)
    audio = noises(1.0, 2.0)
    frames = recognizer.model.encode(*pad_audio(audio)).len_B * 0.04
    for (best,), seconds in zip(recognizer.decode(*pad_audio(audio)), frames.tolist(), strict=True):
        assert best.truncated
        assert len(best.tokens) == 8 + math.ceil(seconds * 4)
    with pytest.warns(UserWarning, match=r"^0: the text reached the length cap before it ended$"):
        (result,) = recognizer.transcribe_sources(sources(audio[:1]))
    assert isinstance(result, Transcript)
    assert result.truncated


# --- the same text, alone and in any batch ------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"beam_size": 3, "ctc_weight": 0.3}])
@pytest.mark.parametrize("languages", [(), ("en", "es")])
def test_padding_and_batching_do_not_change_the_text(options: dict[str, float], languages: tuple[str, ...]) -> None:
    recognizer = Recognizer(small_model(languages, **options))
    audio = noises(*LENGTHS_S)
    alone = [tokens(recognizer.decode(*pad_audio([a])))[0] for a in audio]
    assert len(set(alone)) >= 5, "texts that do not depend on the audio prove nothing"
    shuffled = random.Random(3).sample(range(len(audio)), len(audio))
    for size in (2, 4, len(audio)):
        for extra_s in (0.0, 0.1, 1.0, 30.0):
            for at in range(0, len(shuffled), size):
                batch = shuffled[at : at + size]
                audio_BN, len_B = pad_audio([audio[i] for i in batch])
                audio_BN = torch.nn.functional.pad(audio_BN, (0, round(extra_s * RATE)))
                assert tokens(recognizer.decode(audio_BN, len_B)) == [alone[i] for i in batch]


@pytest.mark.parametrize("batch_s", [0.01, 2.0, 1000.0])
def test_batch_size_does_not_change_the_text(greedy: Recognizer, batch_s: float) -> None:
    audio = noises(*LENGTHS_S)
    expected = [text for a in audio for text in texts(list(greedy.transcribe_sources(sources([a]))))]
    assert texts(list(greedy.transcribe_sources(sources(audio), batch_s=batch_s))) == expected


# --- files --------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Recordings of several lengths, not in order of length."""
    paths = [tmp_path / f"{name}.wav" for name in "dabc"]
    for path, audio in zip(paths, noises(0.5, 1.2, 0.2, 0.8), strict=True):
        sf.write(path, audio.numpy() * 0.2, RATE, subtype="FLOAT")
    return paths


def test_results_are_in_the_order_of_the_paths(greedy: Recognizer, files: list[Path]) -> None:
    results = of_files(greedy, files, batch_s=1.5)
    assert [r.id for r in results] == [str(path) for path in files]
    assert texts(results) == [text for path in files for text in texts([greedy.transcribe(path)])]
    assert len(set(texts(results))) > 1
    assert [r.duration_s for r in results if isinstance(r, Transcript)] == [0.5, 1.2, 0.2, 0.8]
    assert all(r.text == r.alternatives[0][0] for r in results if isinstance(r, Transcript))


def test_bad_file_is_a_failure_and_does_not_affect_the_others(
    greedy: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    good = of_files(greedy, files)
    (tmp_path / "bad.wav").write_text("no audio")
    mixed = [files[0], tmp_path / "bad.wav", *files[1:3], tmp_path / "missing.wav", files[3]]
    results = of_files(greedy, mixed)
    assert [r for r in results if isinstance(r, Transcript)] == good
    failed = [results[1], results[4]]
    assert [(type(r), r.id) for r in failed] == [(Failure, str(mixed[1])), (Failure, str(mixed[4]))]
    assert [r.reason.startswith(f"{r.id}: ") for r in failed if isinstance(r, Failure)] == [True, True]


def test_sample_rate_and_channels_do_not_change_the_text(greedy: Recognizer, tmp_path: Path) -> None:
    time_N = np.arange(2 * 16000) / 16000
    wave_N = 0.3 * np.sin(2 * np.pi * 440 * time_N) * np.sin(2 * np.pi * 3 * time_N)
    sf.write(tmp_path / "a.wav", wave_N[::2], RATE, subtype="FLOAT")
    sf.write(tmp_path / "b.flac", np.stack([wave_N, wave_N], axis=1), 16000, subtype="PCM_24")
    first, second = of_files(greedy, sorted(tmp_path.iterdir()))
    assert isinstance(first, Transcript)
    assert isinstance(second, Transcript)
    assert first.text == second.text
    assert first.duration_s == second.duration_s == 2.0


# --- pools --------------------------------------------------------------------------------------------


def test_only_one_pool_of_audio_is_loaded_ahead(greedy: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = noises(*LENGTHS_S)
    expected = texts(list(greedy.transcribe_sources(sources(audio))))
    loaded: list[int] = []

    def load(i: int) -> Opened:
        loaded.append(i)
        return Opened([audio[i]], None)

    monkeypatch.setattr(pool, "POOL_S", 1.4)
    monkeypatch.setattr(parallel, "WORKERS", 1)
    results = greedy.transcribe_sources([Source(str(i), partial(load, i)) for i in range(len(audio))])
    found = [next(results)]
    assert loaded in ([0, 1], [0, 1, 2])  # 1.5 s each: the first pool, and the one that waits
    found += results
    assert loaded == list(range(len(audio)))
    assert [r.id for r in found] == [str(i) for i in range(len(audio))]
    assert texts(found) == expected


def test_lazy_sources_are_not_all_created_at_once(greedy: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(list[Source]):
        made = 0

        def __iter__(self) -> Iterator[Source]:
            for source in super().__iter__():
                self.made += 1
                yield source

    monkeypatch.setattr(pool, "POOL_S", 1.4)
    monkeypatch.setattr(parallel, "WORKERS", 1)
    todo, told = Made(sources(noises(*[1.0] * 9))), []
    results = greedy.transcribe_sources(todo, on_done=lambda *seconds: told.append(seconds))
    first = next(results)
    assert todo.made < 9
    assert told[0][1] == pytest.approx(9.0), "the number of sources is known from the start"
    assert [r.id for r in [first, *results]] == [str(i) for i in range(9)]


def test_first_result_is_yielded_before_ctrl_c(greedy: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, calls = BatchDecoder.__call__, iter(range(100))

    def interrupted(self: BatchDecoder, *args: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return decode(self, *args, **options)

    monkeypatch.setattr(parallel, "WORKERS", 1)
    monkeypatch.setattr(BatchDecoder, "__call__", interrupted)
    results = greedy.transcribe_sources(sources(noises(0.3, 1.0, 0.9)), batch_s=1.0)
    first = next(results)
    assert isinstance(first, Transcript)
    assert (first.id, first.complete) == ("0", True)
    with pytest.raises(KeyboardInterrupt):
        list(results)  # the third may or may not be finished by then


def test_unreadable_source_is_reported_before_all_are_opened(greedy: Recognizer) -> None:
    opened = []

    def missing(number: int) -> Opened:
        opened.append(number)
        raise AudioError(f"{number}: gone")

    failed = greedy.transcribe_sources([Source(str(i), partial(missing, i)) for i in range(100)])
    assert isinstance(next(failed), Failure)
    assert len(opened) < 10
    assert [f.id for f in failed] == [str(i) for i in range(1, 100)]


def test_window_does_not_wait_for_hundreds_of_unreadable_sources() -> None:
    opened = []

    def missing(number: int) -> Opened:
        opened.append(number)
        raise AudioError(f"{number}: gone")

    unreadable = (Source(str(i), partial(missing, i)) for i in range(300))
    pools = pool.Reader(RATE, 30.0, lambda blocks: iter(())).pools([*sources(noises(0.5)), *unreadable])
    assert len(next(filter(None, pools))) == 1
    assert len(opened) < 100


def test_silent_recording_gives_a_transcript(greedy: Recognizer) -> None:
    silence = Source("quiet", lambda: Opened([torch.zeros(8000)], 1.0))
    (found,) = greedy.transcribe_sources([silence])
    assert isinstance(found, Transcript)


def test_progress_ends_at_the_total_duration(greedy: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad() -> Opened:
        raise DataError("unreadable")

    told: list[tuple[float, float]] = []
    monkeypatch.setattr(parallel, "WORKERS", 1)
    monkeypatch.setattr(pool, "POOL_S", 1.4)
    list(
        greedy.transcribe_sources(
            [*sources(noises(*LENGTHS_S)), Source("bad", bad)],
            batch_s=0.5,
            on_done=lambda *seconds: told.append(seconds),
        )
    )
    done = [seconds for seconds, _ in told]
    assert len(told) > 5
    assert done == sorted(done)
    assert told[-1] == (pytest.approx(sum(LENGTHS_S)), pytest.approx(sum(LENGTHS_S)))
    assert all(total >= seconds - 1e-6 for seconds, total in told)
    assert told[0][1] == pytest.approx(1.5 / 2 * (len(LENGTHS_S) + 1))  # estimated from the two loaded so far


def test_recording_without_samples_has_no_text(greedy: Recognizer) -> None:
    (audio,) = noises(1.0, seed=2)
    expected = texts(list(greedy.transcribe_sources(sources([audio]))))
    assert expected != [""]
    for around in ([], [audio]):
        found = greedy.transcribe_sources(sources([*around, torch.zeros(0)]))
        assert texts(list(found)) == [*(expected if around else []), ""]


def test_no_files_give_no_results(greedy: Recognizer) -> None:
    assert of_files(greedy, []) == []


def test_transcribe_returns_a_transcript_or_raises(greedy: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sf.write(path, noises(0.5)[0].numpy(), RATE, subtype="FLOAT")
    assert greedy.transcribe(path).duration_s == pytest.approx(0.5)
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        greedy.transcribe(tmp_path / "gone.wav")
