"""The machine that this process runs on: devices by name, processor, cores."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
from pathlib import Path

import torch

from asr.errors import ConfigError

_CPUINFO = Path("/proc/cpuinfo")


def find_device(name: str) -> torch.device:
    """Return the device for a name: auto (a GPU if torch finds one, else the CPU), cpu, cuda, or one GPU, as cuda:1.

    Raises ConfigError for any other name, or for a GPU that does not exist.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d?))?", name):
        raise ConfigError(f"device {name}: it is auto, cpu, cuda or, for one GPU of several, cuda:1")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        found = f"{gpus} GPUs here, counted from 0" if gpus else "no GPU here; leave it out, or say cpu"
        raise ConfigError(f"device {name}: torch finds {found}")
    return device


def processor(device: torch.device) -> str:
    """Return the name of a device's processor, such as AMD EPYC or NVIDIA H200."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_memory() -> None:
    """Make this process keep the memory that it frees, in huge pages, rather than return it and fault it in again.

    A training step on a CPU allocates and frees some gigabytes; the kernel would clear each page anew, and addresses in
    small pages take long to translate.  Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_TRIM_THRESHOLD, -1)  # never return what lies at the heap's end
    libc.mallopt(_MMAP_MAX, 0)  # a mapping of its own would go back to the kernel when it is freed
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    page, size = mmap.PAGESIZE, os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2
    if start := libc.malloc(size):  # the heap grows by addresses only: no page is there before it is used
        first = -(-start // page) * page
        libc.madvise(first, (start + size - first) // page * page, mmap.MADV_HUGEPAGE)
        libc.free(start)


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
