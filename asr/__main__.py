"""Run the command line with `python -m asr`."""

from asr.cli import main

main()
