"""The machine that this process runs on: devices by name, processor, cores."""

from __future__ import annotations

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
