"""Chinese numbers as they are read: 2024年3月15日 is 二零二四年三月十五日, 3.5% 百分之三点五, 1,200 一千二百.

The canonical form is Chinese numerals, not digits, as 一 and 万 also occur in words that are not numbers (一起, 万一).
No library is used: num2words has no Chinese, and cn2an reads dates, codes and long numbers differently from speakers.

- Years of four digits before 年 are read digit by digit, and dates such as 2024-03-15 as year, month and day.
- Digits are read one by one after a leading zero, after a letter (g101: g一零一), after words such as 电话 or 密码, in
  telephone numbers of three groups, and from seven digits on, unless commas mark a number.
- Everything else is a number: 12:30 十二点三十分, 1/2 二分之一, 3-5 三到五, -5 负五, $5 五美元, 25℃ 二十五摄氏度.
- 两 becomes 二, and 〇 零, everywhere; 幺 becomes 一 beside another numeral. 一十五 is 十五, and 一百十五 一百一十五.

Formal numerals (壹, 贰) stay, as they also occur in names and words (大陆, 队伍).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import regex

_DIGITS = "零一二三四五六七八九"
_UNITS = ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十"))
_MOST_DIGITS = 16
_CODE_DIGITS = 7  # a number with this many digits and without commas is a code

Match = Any  # regex exposes its types as variables only
Rule = tuple[regex.Pattern, str | Callable[[Match], str]]


def in_words(number: int) -> str:
    """Return how a whole number below 10^16 is read: 10 is 十, 110 一百一十, 10,005 一万零五."""
    words = _counted(number)
    return words[1:] if words.startswith("一十") else words


def _counted(number: int) -> str:
    for size, unit in _UNITS:
        if number >= size:
            high, low = divmod(number, size)
            gap = "零" if 0 < low < size // 10 else ""
            return f"{_counted(high)}{unit}{gap}{_counted(low) if low else ''}"
    return _DIGITS[number]


def one_by_one(text: str) -> str:
    """Read each ASCII digit of a text by itself; all other characters are dropped."""
    return "".join(_DIGITS[int(c)] for c in text if c.isdigit())


def _whole(digits: str) -> str:
    if len(digits) > _MOST_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return one_by_one(digits)
    return in_words(int(digits))


def _number(match: Match) -> str:
    whole, *rest = match[0].split(".")
    if len(rest) == 1:
        return f"{_whole(whole)}点{one_by_one(rest[0])}"
    return "点".join(map(_whole, (whole, *rest)))  # a version number


def _code(match: Match) -> str:
    return one_by_one(match[0])


def _date(match: Match) -> str:
    return f"{one_by_one(match[1])}年{in_words(int(match[3]))}月{in_words(int(match[4]))}日"


def _time(match: Match) -> str:
    minutes = "" if match[2] == "00" and not match[3] else f"{_whole(match[2])}分"
    return f"{in_words(int(match[1]))}点{minutes}{_whole(match[3]) + '秒' if match[3] else ''}"


def _range(match: Match) -> str:
    rises = float(match["low"]) < float(match["high"])
    return f"{match['low']}{match['sign'] or ''}到" if rises else match[0]


_CURRENCIES = {"$": "美元", "€": "欧元", "£": "英镑", "¥": "元"}
_OPERATORS = {"+": "加", "=": "等于", "×": "乘", "÷": "除以", ":": "比"}
_N = r"\d+(?:\.\d+)?"
_SHORT = r"(?!0\d)\d{1,4}(?:\.\d+)?"
_RISING = rf"(?<![\d.,-])(?P<low>{_SHORT})(?P<sign>%|°c?)?\s*[-~–—〜]\s*(?=(?P<high>{_SHORT})(?![\d.,-]))"


def _rules(*rules: tuple[str, str | Callable[[Match], str]]) -> tuple[Rule, ...]:
    # ASCII: regex's \d includes digits of newer Unicode versions that Python cannot convert.
    return tuple((regex.compile(pattern, regex.ASCII), how) for pattern, how in rules)


# Digits, in simplified text that still has its punctuation.
_DIGIT_RULES = _rules(
    (rf"(?<![\d.,$€£¥])\d{{{_CODE_DIGITS},}}(?!\d|[.,]\d|\s*[万亿元块])", _code),
    (r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)", lambda m: m[0].replace(",", "")),
    (r"(?<!\d)(\d{4})([-/.])(0?[1-9]|1[0-2])\2(0?[1-9]|[12]\d|3[01])日?(?!\d)", _date),
    (r"(?<![\d:])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])", _time),
    (r"(?<!\d)(?:\d{3}([- ])\d{4}\1\d{4}|\d{3}-\d{3}-\d{4})(?!\d)", _code),
    (_RISING, _range),
    (r"(?<!\d)(?:1[1-9]|20)\d\d(?=\s*(?:年|[到至]\s*\d{4}\s*年))", _code),
    (r"(?<!\d)0(?=\d\s*[月日号点时])", ""),
    (r"(?:电话|号码|密码|验证码|分机|热线|拨打|拨|致电)[是为:\s]*\K\d{3,}(?!\d)", _code),
    (r"(?<=[a-z][-.]?)\d{3,}(?![\d.])", _code),
    (r"(?<=^|[\s(])[-−](?=\d)|(?<![a-z\d)])[-−](?=[\d.]+\s*(?:[%°度]|摄氏度))", "负"),
    (rf"({_N})\s*%", r"百分之\1"),
    (rf"({_N})\s*‰", r"千分之\1"),
    (rf"([$€£¥])\s*({_N}[百千万亿]*)元?", lambda m: m[2] + _CURRENCIES[m[1]]),
    (r"(?<![\d/⁄])(\d+)\s*[/⁄]\s*(\d+)(?![\d/⁄])", r"\2分之\1"),
    (r"(?<=\d)\s*([+=×÷:])\s*(?=\d)", lambda m: _OPERATORS[m[1]]),
    (r"(?<=\d)\s*°c", "摄氏度"),
    (r"(?<=\d)\s*°", "度"),
    (r"\d+(?:\.\d+)*", _number),
)
# Numerals that can be written in several ways.
_NUMERAL_RULES = _rules(
    ("[两兩]", "二"),
    (f"(?<=[{_DIGITS}〇])[○◯]+|(?<![○◯])[○◯]++(?=[{_DIGITS}〇])", lambda m: "零" * len(m[0])),
    ("〇", "零"),
    (f"(?<=[{_DIGITS}])幺+|(?<!幺)幺++(?=[{_DIGITS}])", lambda m: "一" * len(m[0])),
    ("(?<=[一二三四五六七八九][百千万亿]|零)十", "一十"),
    (f"(?<![{_DIGITS}十百千万亿])一十", "十"),
    ("百分之一百(?![零一二三四五六七八九])", "百分之百"),
)


def read_numbers(text: str) -> str:
    """Convert the ASCII digits and the numerals of a folded, simplified text to their canonical form."""
    for pattern, how in (*(_DIGIT_RULES if any(map(str.isdigit, text)) else ()), *_NUMERAL_RULES):
        text = pattern.sub(how, text)
    return text
