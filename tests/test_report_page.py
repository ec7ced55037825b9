"""The page of `asr report` as people use it: in a browser, opened from disk."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import Browser, browser, needs_browser
from hostile import noise
from PIL import Image
from selenium.webdriver.common.keys import Keys

from asr.report import write_report
from asr.scoring import ScoreOptions

pytestmark = needs_browser

REFS = {
    "utt-2": "the cat sat on the mat",
    "utt-10": "good night moon and good night stars",
    "utt-1": "yes",
    "he": "שלום עולם זה מבחן",
}
FIRST = REFS | {
    "utt-2": "the hat sat on mat",
    "utt-10": "good night moon and then good night cars",
    "he": "שלום עולם זו מבחן",
}
SECOND = REFS | {"utt-2": "the cat sat on the mat oh oh oh"}
SPEAKERS = {"utt-2": "anna", "utt-10": "ben", "utt-1": "anna", "he": "ben"}
LONG = 20_000


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


def written(folder: Path, texts: list[dict[str, str]], options: ScoreOptions | None = None, **more: Any) -> Path:
    """Write the page for references and system outputs, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, of_system in enumerate(texts):
        paths.append(folder / f"{'ref' if number == 0 else f'system-{number}'}.jsonl")
        rows = ({"id": id, "text": text, "speaker": SPEAKERS.get(id, "x")} for id, text in of_system.items())
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return write_report(paths[0], paths[1:], options or ScoreOptions(), folder / "report", **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    audio = folder / "audio"
    audio.mkdir()
    for id in REFS:
        soundfile.write(audio / f"{id}.flac", 0.1 * noise(1.5), 16000)
    return written(folder / "usual", [REFS, FIRST, SECOND], ScoreOptions(breakdown=["speaker"]), audio=audio)


@pytest.fixture(scope="module")
def long_page(folder: Path) -> Path:
    refs = {
        f"u{number:05d}": f"this is sentence {number} of many" + " and more" * (number % 9) for number in range(LONG)
    }
    hyps = {id: text.replace("is", "was") if number % 2 else text for number, (id, text) in enumerate(refs.items())}
    return written(folder / "long", [refs, hyps], ScoreOptions(metrics=["wer"]))


def ids(window: Browser) -> list[str]:
    return window.texts("#rows .id")


def sorted_by(window: Browser, key: str) -> list[str]:
    window.one(f"[data-sort={key}]").click()
    return ids(window)


def test_rows_are_sorted_by_clicking_column_heads(window: Browser, page: Path) -> None:
    window.open(page)
    assert ids(window) == ["utt-2", "utt-10", "he", "utt-1"]
    assert window.one("[data-sort=errors]").find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    assert sorted_by(window, "errors") == ["utt-1", "he", "utt-10", "utt-2"]
    assert sorted_by(window, "id") == ["he", "utt-1", "utt-2", "utt-10"]
    assert sorted_by(window, "length") == ["utt-10", "utt-2", "he", "utt-1"]
    assert sorted_by(window, "apart") == ["utt-10", "utt-2", "he", "utt-1"]
    states = [head.get_attribute("aria-sort") for head in window.all("[role=columnheader][aria-sort]")]
    assert states == ["none", "none", "none", "none", "descending"]
    assert window.complaints() == []


def test_search_and_filters_select_rows(window: Browser, page: Path) -> None:
    window.open(page)
    found = window.one("#found")
    assert found.text == "4 of 4 utterances"
    window.one("#errors").click()
    window.until(lambda: found.text == "3 of 4 utterances")
    window.one("#search").send_keys("CARS")  # occurs only in a system's text
    window.until(lambda: ids(window) == ["utt-10"])
    window.one("#search").send_keys(Keys.CONTROL, "a", Keys.DELETE)
    window.one("#system").send_keys("B")
    window.until(lambda: ids(window) == ["utt-2"])
    assert window.texts("#rows .gutter div:first-child span") == ["REF", "B"]
    window.one("#errors").click()
    length, speaker = window.all("#fields select")
    length.send_keys("1-5")
    window.until(lambda: sorted(ids(window)) == ["he", "utt-1"])
    length.send_keys(Keys.HOME)
    speaker.send_keys("ben")
    window.until(lambda: sorted(ids(window)) == ["he", "utt-10"])
    assert window.one("#grid").get_attribute("aria-rowcount") == "3"


def test_each_system_is_aligned_under_the_same_reference(window: Browser, page: Path) -> None:
    window.open(page)
    columns = window.run("""
        return [...document.querySelector("#rows .columns").children].map((column) =>
            [...column.children].map((cell) => cell.firstChild.data + (cell.querySelector("sub")?.textContent ?? "")));
    """)
    assert columns == [
        ["the", "the", "the"],
        ["cat", "hatS", "cat"],
        ["sat", "sat", "sat"],
        ["on", "on", "on"],
        ["the", "D", "the"],
        ["mat", "mat", "mat"],
        *[["", "", "ohI"]] * 3,
    ]
    spoken = window.run('return document.querySelector("#rows .texts .hidden").textContent')
    assert spoken == (
        "Reference: the cat sat on the mat. A: cat became hat, the deleted. B: oh inserted, oh inserted, oh inserted."
    )


def test_hebrew_runs_right_to_left(window: Browser, page: Path) -> None:
    window.open(page)
    boxes = window.run(
        """
        const row = document.querySelectorAll("#rows .row")[arguments[0]];
        return [...row.querySelectorAll(".gutter, .column")].map((column) => column.getBoundingClientRect().left);
    """,
        ids(window).index("he"),
    )
    assert boxes == sorted(boxes, reverse=True)
    assert len(boxes) == 5


def test_audio_is_played_and_pictures_are_shown(window: Browser, page: Path) -> None:
    window.open(page)
    window.one('[aria-label="Play utt-10"]').click()
    window.until(
        lambda: window.run('const a = document.getElementById("audio"); return !a.paused && a.currentTime > 0')
    )
    assert window.run('return document.getElementById("audio").duration') == pytest.approx(1.5, abs=0.01)
    assert window.one("#playing").text == "utt-10"
    window.one("#close").click()
    assert window.run('return document.getElementById("audio").paused')
    window.one('[aria-label="Pictures of utt-2"]').click()
    assert window.one("#gallery-head").text == "utt-2"
    window.until(lambda: window.run('return document.querySelector("#pictures img").naturalWidth') > 500)
    window.one("#done").click()
    assert not window.one("#gallery").is_displayed()
    assert window.complaints() == []


def test_only_the_page_itself_is_requested(window: Browser, page: Path) -> None:
    window.open(page)
    window.one('[aria-label="Play utt-10"]').click()
    window.until(lambda: window.run('return document.getElementById("audio").currentTime') > 0)
    asked = window.requests()
    assert asked[0] == page.as_uri()
    assert all(url.startswith("data:") for url in asked[1:]), asked  # the browser's own buttons are data URLs, too
    # The policy blocks what injected elements could load or run.
    window.run('document.body.append(Object.assign(new Image(), {src: "file:///x.png"}))')
    window.run('document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = 1"}))')
    assert window.run("return window.ran") is None
    assert sum("Content Security Policy" in line for line in window.complaints()) == 2


HOSTILE = {
    "<script>window.ran=1</script>": "<script>window.ran=1</script> <b>bold</b>",
    "en/</script><img src=x onerror=window.ran=1>": "</script><img src=x onerror=window.ran=1> <!-- <!--",
    "bidi": "left \u202eturned\u202c right \u2066isolated",
    "control": "bell\u0007 line\u2028separator null\u0000 and\u200b zero",
    "mark": "\u0301 alone",
    "letter": "x" * 1_000_000,
    "words": " ".join(["word"] * 20_000),
    "surrogate": "lone \ud800 half",
}
# Changed, so that the texts appear as errors, too.
TURNED = {id: f"{{{{7*7}}}} {text} ]]> \\u003c" for id, text in HOSTILE.items()}


def test_hostile_texts_are_shown_as_plain_text(window: Browser, folder: Path) -> None:
    options = ScoreOptions(metrics=["wer"], breakdown=["speaker"], confusions=20)
    window.open(written(folder / "<img src=x onerror=window.ran=1>", [HOSTILE, TURNED], options))
    shown = window.run('return document.querySelector("main").textContent')
    assert window.run("return window.ran") is None
    assert window.run('return document.querySelectorAll("#rows img, #rows script, #rows b, main img").length') == 0
    assert window.one("#found").text == "8 of 8 utterances"
    for text in (
        "</script><img",
        "\\u{202e}turned\\u{202c}",
        "bell\\u{7}",
        "null\\u{0}",
        "\\u{200b}",
        "\\u{d800}",
        "{{7*7}}",
    ):
        assert text in shown, text
    assert not set("\u202e\u2066\u2028\u0007\u0000") & set(shown)
    assert len(window.requests()) == 1
    assert window.complaints() == []


def test_long_texts_are_shortened_and_can_be_expanded(window: Browser, folder: Path) -> None:
    pair = {id: HOSTILE[id] for id in ("words", "letter")}
    window.open(written(folder / "longest", [pair, {id: f"{text} oh" for id, text in pair.items()}]))
    columns = 'return document.querySelectorAll("#rows .column").length'
    before = window.run(columns)
    assert before < 400
    more = window.one("#rows .texts > button")
    assert more.text == "1,000 more of 19,701"
    more.click()
    window.until(lambda: window.run(columns) == before + 1000)
    window.one('[aria-label="Plain texts of words"]').click()
    assert window.run('return document.querySelector(".plain bdi").textContent') == pair["words"]
    assert window.run("return document.activeElement.ariaExpanded") == "true"


def test_only_visible_rows_of_twenty_thousand_are_rendered(window: Browser, long_page: Path) -> None:
    window.open(long_page, height=900)
    assert window.one("#grid").get_attribute("aria-rowcount") == str(LONG + 1)
    window.one("[data-sort=id]").click()
    rows = 'return [...document.querySelectorAll("#rows > *")].map((row) => Number(row.ariaRowIndex))'
    assert ids(window)[0] == "u00000"
    for share in (0.1, 0.77, 0.5):
        window.run("scrollTo(0, arguments[0] * document.documentElement.scrollHeight)", share)
        window.until(lambda share=share: abs(np.mean(window.run(rows)) / LONG - share) < 0.03)
        here = window.run(rows)
        assert here == list(range(here[0], here[0] + len(here)))
        assert len(here) < 60
        box = window.run("return document.querySelector('#rows').children[0].getBoundingClientRect().top")
        assert box < 0, "the viewport begins with rows, not with a gap"
    window.run("scrollTo(0, document.documentElement.scrollHeight)")
    window.until(lambda: ids(window)[-1] == f"u{LONG - 1:05d}")
    assert window.run("return document.querySelector('#rows').lastChild.getBoundingClientRect().bottom <= innerHeight")
    window.one("#search").send_keys("sentence 17777 of")
    window.until(lambda: ids(window) == ["u17777"])


def test_rows_are_reached_by_keyboard(window: Browser, long_page: Path) -> None:
    window.open(long_page, height=900)
    focus = 'return document.activeElement.querySelector(".id")?.textContent ?? document.activeElement.dataset.sort'
    window.run('document.querySelector("[data-sort=id]").focus()')
    keys = window.driver.switch_to.active_element
    keys.send_keys(Keys.ENTER)
    seen = []
    for _ in range(5):
        seen.append(window.run(focus))
        window.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert seen == ["id", "length", "errors", "rate", "u00000"]
    window.run('document.querySelector("#rows .row").focus()')
    for key, id in (
        (Keys.DOWN, "u00001"),
        (Keys.DOWN, "u00002"),
        (Keys.UP, "u00001"),
        (Keys.END, "u19999"),
        (Keys.HOME, "u00000"),
    ):
        window.driver.switch_to.active_element.send_keys(key)
        window.until(lambda id=id: window.run(focus) == id)
    window.run("scrollTo(0, document.documentElement.scrollHeight / 2)")
    window.until(lambda: window.run("return document.activeElement.id") == "grid")
    window.driver.switch_to.active_element.send_keys(Keys.DOWN)
    window.until(lambda: window.run(focus)[:2] in ("u0", "u1"))
    assert abs(int(window.run(focus)[1:]) / LONG - 0.5) < 0.03
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert window.run(outline) == "solid"


def test_elements_are_named_for_screen_readers(window: Browser, page: Path) -> None:
    window.open(page)
    nodes = window.tree()
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes}
    for node in (
        ("main", ""),
        ("heading", "WER"),
        ("heading", "Utterances"),
        ("search", "Utterances"),
        ("searchbox", "Search in ids and texts"),
        ("grid", "Utterances"),
        ("button", "Play utt-2"),
        ("columnheader", "Errors"),
    ):
        assert node in named, node
    nameless = {
        role for role, name in named if not name and role in ("button", "combobox", "checkbox", "grid", "region")
    }
    assert nameless == set()
    assert window.one("#found").get_attribute("aria-live") == "polite"


# Contrast as defined by WCAG 2, of every element with its own text against the background behind it.
CONTRAST = """
    const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = rgb(color).map((v) => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if ((rgb(color)[3] ?? 1) === 1) return color;
        }
        return "rgb(0, 0, 0)";
    };
    const low = new Set();
    for (const element of document.body.querySelectorAll("*")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility() || element.closest("svg, script, .hidden")) continue;
        const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) low.add(element.tagName + "." + element.className);
    }
    return [...low];
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_dark_and_light_schemes_are_readable(window: Browser, page: Path, width: int) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        window.color_scheme(scheme)
        window.open(page, width)
        assert window.run(CONTRAST) == []
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        picture = Image.open(io.BytesIO(window.driver.get_screenshot_as_png())).convert("L")
        grounds.append(float(np.median(np.asarray(picture))))
    assert grounds[0] > 230
    assert grounds[1] < 50


@pytest.mark.parametrize("width", [1200, 900])
def test_nothing_is_cut_off_and_axis_labels_do_not_overlap(window: Browser, folder: Path, width: int) -> None:
    """With rates above 100 %, whose labels are long."""
    worse = {id: f"{text} and{' on' * 40}" for id, text in REFS.items()}
    window.open(written(folder / f"wide-{width}", [REFS, worse, FIRST]), width)
    cut_off = "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
    assert window.run(cut_off) == 0
    gaps = """
        return [...document.querySelectorAll("svg.axis")].flatMap((axis) => {
            const boxes = [...axis.querySelectorAll("text")].map((text) => text.getBoundingClientRect());
            const marks = boxes.filter((box) => box.width);
            return marks.slice(1).map((mark, i) => mark.left - marks[i].right);
        });
    """
    assert min(window.run(gaps)) > 3
