"""The normaliser `chinese`: one spelling for all that are said the same way."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.text import normalizer
from asr.text.numerals import in_words
from asr.text.scripts import mixed_tokens, one_after_another

chinese = normalizer("chinese")

SIGNS = (
    "0123456789.,:/-~%°¥$ 年月日号点两兩〇○幺零一二十百千万萬億著乾後麼a'’½²٣①ーガ、。「薴㍘ｶ℃Ⅷ\ud800\u200d\u0301\u3099"
)
PARTS = ["2024年", "12:30", "13812345678", "电话", "1,234", "百分之", "乾隆", "瞭望", "iPhone15"]
PIECES = st.sampled_from([*SIGNS, *PARTS])


@settings(max_examples=200)
@given(text=st.lists(st.one_of(PIECES, st.characters()), max_size=12).map("".join))
def test_chinese_is_idempotent_and_leaves_no_digits_or_needless_spaces(text: str) -> None:
    once = chinese(text)
    assert chinese(once) == once
    assert not re.search("[0-9]", once)
    assert not re.search(r"[\u4e00-\u9fff] [\u4e00-\u9fff]|[\u4e00-\u9fff][a-z]|[a-z][\u4e00-\u9fff]|  ", once)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # scripts, widths, case, spaces, punctuation
        ("臺灣的電腦軟體", "台湾的电脑软体"),
        ("他看著著名的書", "他看着着名的书"),
        ("乾隆皇帝吃乾麵", "乾隆皇帝吃干面"),
        ("ＡＢＣ，１２３！", "abc 一百二十三"),
        ("今天 天气 很 好。", "今天天气很好"),
        ("我用app打卡，don’t worry", "我用 app 打卡 don't worry"),
        ("カラオケ へ 行く", "カラオケへ行く"),
        # numbers
        ("2024年3月15日", "二〇二四年三月十五日"),
        ("2024-03-05", "二零二四年三月五日"),
        ("二○○八年", "2008年"),
        ("2019-2020年", "二零一九到二零二零年"),
        ("1990年代和90年代", "一九九零年代和九十年代"),
        ("1000年", "一千年"),
        ("2个", "两个"),
        ("第1次", "第一次"),
        ("200块", "两百块"),
        ("15", "一十五"),
        ("115", "一百十五"),
        ("1,200", "一千两百"),
        ("10010", "一万零十"),
        ("3.14", "三点一四"),
        ("3.5万", "三点五万"),
        ("1,234,567.5", "一百二十三万四千五百六十七点五"),
        ("50%", "百分之五十"),
        ("100%", "百分之百"),
        ("5%-10%", "百分之五到百分之十"),
        ("0.5‰", "千分之零点五"),
        ("1/2", "二分之一"),
        ("½", "二分之一"),
        ("3-5个", "三到五个"),
        ("气温-5℃", "气温负五摄氏度"),
        ("12:30", "十二点三十分"),
        ("8:05", "八点零五分"),
        ("9:00", "九点"),
        ("￥100", "一百元"),
        ("$3.5亿", "三点五亿美元"),
        ("1+1=2", "一加一等于二"),
        ("3:2", "三比二"),
        ("٣ 与 ３", "三与三"),
        # codes
        ("13812345678", "幺三八一二三四五六七八"),
        ("138-1234-5678", "幺三八一二三四五六七八"),
        ("電話：110", "电话幺幺零"),
        ("110", "一百一十"),
        ("G101次", "g 幺零幺次"),
        ("007", "零零七"),
        ("MP3和3D", "mp 三和三 d"),
        ("12345678元", "一千二百三十四万五千六百七十八元"),
    ],
)
def test_variant_spellings_are_normalized_alike(one: str, other: str) -> None:
    assert chinese(one) == chinese(other)


@pytest.mark.parametrize("text", ["一起", "万一 三明治", "老幺", "大陆的队伍", "什么", "王○○", "约翰 and 玛丽", "著"])
def test_words_that_are_not_numbers_are_kept(text: str) -> None:
    assert chinese(text) == {"万一 三明治": "万一三明治", "王○○": "王", "著": "着"}.get(text, text)


@pytest.mark.parametrize("piece", ["○", "幺", "1", "1.", "1,", "1-", "$1 ", "电话", " ", "我 "])
def test_very_long_texts_are_normalized_quickly(piece: str) -> None:
    assert chinese(chinese(piece * 20_000)) == chinese(piece * 20_000)


def value(words: str) -> int:
    """Return the number that the numerals spell, by their units alone."""
    for unit, size in (("亿", 10**8), ("万", 10**4), ("千", 1000), ("百", 100), ("十", 10)):
        if unit in words:
            high, _, low = words.rpartition(unit) if size >= 10**4 else words.partition(unit)
            return (value(high) if high else 1) * size + (value(low) if low else 0)
    return "零一二三四五六七八九".index(words.lstrip("零") or "零")


@settings(max_examples=200)
@given(number=st.integers(0, 10**16 - 1) | st.integers(0, 10**6))
def test_numerals_parse_back_to_their_number(number: int) -> None:
    words = in_words(number)
    assert value(words) == number
    assert not re.search("零零|零$|零[千百]|^一十", words) or number == 0
    assert chinese(f"{number:,}") == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "零"),
        (10, "十"),
        (19, "十九"),
        (20, "二十"),
        (101, "一百零一"),
        (110, "一百一十"),
        (1010, "一千零一十"),
        (10_000, "一万"),
        (100_500, "十万零五百"),
        (105_000, "十万五千"),
        (20_002_000, "二千万二千"),
        (100_010_000, "一亿零一万"),
        (10**12, "一万亿"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("我用 app 打卡", "我 用 app 打 卡"),
        ("okay 那we去 看movie", "okay 那 we 去 看 movie"),
        ("カラオケー々〇", "カ ラ オ ケ ー 々 〇"),
        ("한국어 단어", "한국어 단어"),
        ("ภาษาไทย ok", "ภ า ษ า ไ ท ย ok"),
        ("ที่ กิ", "ที่ กิ"),
        ("葛\U000e0100飾", "葛\U000e0100 飾"),
        ("cafe\u0301 好。", "cafe\u0301 好 。"),
        (" \u3000\x1c", ""),
    ],
)
def test_tokens_of_mixed_script_texts(text: str, tokens: str) -> None:
    assert mixed_tokens(text) == tokens.split()


@given(text=st.text(max_size=30))
def test_tokens_lose_no_characters(text: str) -> None:
    assert "".join(mixed_tokens(text)) == "".join(text.split())


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["你好", "世界"], "你好世界"),
        (["你好。", "世界"], "你好。世界"),
        (["ねえ", "「何？」"], "ねえ「何？」"),
        (["我用 app", "打卡"], "我用 app 打卡"),
        ([" one ", "", "two"], "one two"),
        (["안녕", "세상"], "안녕 세상"),
        (["안녕", "日本"], "안녕 日本"),
        (["他看了", "《红楼梦》"], "他看了《红楼梦》"),
        (["café", "你好"], "café 你好"),
        (["สวัสดี", "ครับ"], "สวัสดี ครับ"),
        ([], ""),
    ],
)
def test_texts_are_joined_with_the_spacing_of_their_script(texts: list[str], whole: str) -> None:
    assert one_after_another(texts) == whole
