"""From a folder of recordings and subtitle files to training cuts: `make_cuts`.

asr.subtitles writes subtitles; this is the way back.
"""

from asr.subtitling.cutting import Rules
from asr.subtitling.making import Choices, make_cuts
from asr.subtitling.report import FileReport, Report, TitleReport

__all__ = ["Choices", "FileReport", "Report", "Rules", "TitleReport", "make_cuts"]
