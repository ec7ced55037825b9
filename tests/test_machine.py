"""What a process asks of the machine it runs on."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
import torch
from asr.machine import keep_memory

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages would have few faults of their own
if sys.argv[1] == "keep":
    keep_memory()
faults(10_000_000)
print(faults(9_000_000))  # smaller, as glibc looks for room to align it
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_kept_memory_is_used_again_without_page_faults() -> None:
    def second_tensor(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert second_tensor("as it is") > 1000  # 36 MB are 8,789 pages
    assert second_tensor("keep") < 100
