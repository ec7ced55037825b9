"""Making training cuts from a folder of recordings and subtitle files: `make_cuts`.

asr.subtitles does the reverse: it makes subtitles from transcripts.
"""

from asr.subtitling.cutting import Rules
from asr.subtitling.making import Choices, make_cuts
from asr.subtitling.report import FileReport, Report, TitleReport

__all__ = ["Choices", "FileReport", "Report", "Rules", "TitleReport", "make_cuts"]
