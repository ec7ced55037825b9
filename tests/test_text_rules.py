"""Files of normalisation rules: their effect, their errors, and the limits on time and length."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from command import asr

from asr.errors import ConfigError, DataError
from asr.scoring import score
from asr.text import open_normalizer, replacing

RULES = r"""# what our transcribers write
- '(\d+) ?%': '\1 percent'
- basic
- gonna: going to
- '\b(uh|um)\b':
- no: nope
- (?<number>\d+) °: '\g<number> degrees'
- '"': ''
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "ours.yaml"
    path.write_text(RULES)
    return path


def test_rules_apply_from_top_to_bottom(rules: Path) -> None:
    ours = open_normalizer(str(rules))
    assert ours.name == f"ours.yaml (sha256 {hashlib.sha256(RULES.encode()).hexdigest()[:12]})"
    chain = ours.of_language(None)
    assert chain("Um, NO: we’re GONNA eat 5%!") == "nope we re going to eat 5 percent"
    assert [name for name, _ in chain.trace("Um 5%")] == [
        r"ours.yaml:2 (\d+) ?%",
        "ours.yaml:3 basic",
        r"ours.yaml:5 \b(uh|um)\b",
        "white space",
    ]


def test_normalizers_in_rules_use_the_language_of_the_utterance(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_text("- spoken\n")
    refs, hyps = tmp_path / "ref.jsonl", tmp_path / "hyp.jsonl"
    spoken = {"de": "drei", "it": "tre"}
    refs.write_text("".join(json.dumps({"id": code, "text": "3", "language": code}) + "\n" for code in spoken))
    hyps.write_text("".join(json.dumps({"id": code, "text": text}) + "\n" for code, text in spoken.items()))
    report = score(refs, hyps, normalizer=str(path))
    assert report.rates["wer"].errors == 0


def test_result_names_the_rules_file_and_its_digest(rules: Path, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("gonna\n")
    done = asr("score", text, text, "--normalizer", rules)
    assert (done.status, done.err) == (0, [])
    name = open_normalizer(str(rules)).name
    assert done.out.splitlines()[0] == f"1 utterances, a text a line, normalizer {name}"
    assert json.loads(asr("score", text, text, "--normalizer", rules, "--json").out)["normalizer"] == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a: b\n- '(': b", ":2: '(' -> 'b': missing )"),
        (r"- (a): '\2'", r":1: '(a)' -> '\\2': invalid group reference"),
        (r"- a: '\g<x>'", "unknown group"),
        (r"- a: '\q'", "bad escape"),
        ("- a: b\n- basik", ":2: unknown normalizer 'basik'; did you mean 'basic'?"),
        ("- gonna => going to", "a rule is one `pattern: replacement`"),
        ("- other.yaml", ":1: 'other.yaml': a file of rules cannot be used here"),
        ("a: b", ":1: no list of rules"),
        ("", ":1: no list of rules"),
        ("- a: b\n  c: d", ":1: a rule is one"),
        ("- [a, b]", ":1: a rule is one"),
        ("- a: {b: c}", ":1: a rule is one"),
        ("[" * 100_000, ":1: a rule is one"),
        (r'- "\bno": b', "write patterns with \\ in single quotes"),
        (r'- "\d": b', "write patterns with \\ in single quotes"),
        ("- a: b\n---\n- c: d", ":2: not valid YAML"),
        ('- "\\U00110000": x', ":1: not valid YAML"),
        ("- '': b", ":1: the pattern is empty"),
        ("- '((a{1000}){1000}){1000}': b", ":1: the pattern is too large"),
        ("- '" + "(" * 400 + ")" * 400 + "': b", ":1: the pattern is too large"),
        ("- ? " + "a" * 6000 + "\n  : b", ":1: the pattern is too large"),
        ("- a: " + "b" * 6000, ":1: the replacement is too large"),
        ("#" * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
def test_mistakes_in_rules_are_reported_with_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        open_normalizer(str(path))
    assert str(caught.value).startswith(f"{path}:")
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_unreadable_rules_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        open_normalizer(str(tmp_path / "none.yaml"))
    (tmp_path / "l.yml").write_bytes("- ä: b".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"l\.yml: not UTF-8"):
        open_normalizer(str(tmp_path / "l.yml"))


def test_pattern_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "SECONDS", 0.05)
    path = tmp_path / "r.yaml"
    path.write_text("- x: y\n- '(a|aa)+$': b\n")
    says = r"^utterance 'u': r\.yaml:2: the pattern '\(a\|aa\)\+\$' takes more than 0\.05 s on 'aaa"
    with pytest.raises(DataError, match=says) as caught:
        score({"u": "a" * 80 + "b"}, {"u": ""}, normalizer=str(path))
    assert len(str(caught.value)) < 200


def test_text_that_grows_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"- '(.)': '{chr(92)}1{'x' * 20}'\n" * 30)
    with pytest.raises(DataError, match=r"r\.yaml:4: the pattern '\(\.\)' makes [\d,]+ characters of 'axxx"):
        open_normalizer(str(path)).of_language(None)("a")


def test_rules_that_are_not_idempotent_give_one_warning(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("- aa: a\n")
    said = {"u": "b", "v": "b aaaa c", "w": "aaaaa"}
    with pytest.warns(UserWarning, match=r"r\.yaml \(sha256 .*'aa' of utterance 'v' into 'a'$") as told:
        score(said, said, normalizer=str(path))
    assert len(told) == 1


def test_normalize_command(rules: Path, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("Gonna eat 5%\nfine\n")
    assert asr("normalize", rules, text).out == "going to eat 5 percent\nfine\n"
    assert asr("normalize", rules, text, "--trace").out.splitlines() == [
        "Gonna eat 5%",
        r"  ours.yaml:2 (\d+) ?%  Gonna eat 5 percent",
        "  ours.yaml:3 basic     gonna eat 5 percent",
        "  ours.yaml:4 gonna     going to eat 5 percent",
        "fine",
        "  unchanged",
    ]
    done = asr("normalize", "spoken", text)
    assert (done.status, done.out, len(done.err)) == (2, "", 1)
    assert done.err[0].startswith(f"asr: {text}:1: digits cannot be spelled out")
