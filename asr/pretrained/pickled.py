"""Read weights in torch's own format, whose index is a pickle; no other module reads such files.

A pickle is a program.  Before torch's restricted unpickler runs it, every name in it is checked against the few that
a dictionary of tensors needs, and every size against that of the file.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch

from asr.errors import CheckpointError, printable

MOST_INDEX_BYTES = 16 << 20
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_NAMES = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in _STORAGES),
}


def load_pickled(path: Path) -> Any:
    """Load plain values and tensors that torch.save wrote; the tensors stay on disk until they are used.

    Raises CheckpointError, one line, if the file is damaged, holds anything else, or names any other function.
    """
    try:
        _check_names(path)
        # First without allocating any tensor, to see the sizes that the file declares.
        _check_sizes(path, torch.load(path, map_location="meta", weights_only=True))
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except CheckpointError:
        raise
    except (Exception, RecursionError) as e:  # a malformed index can make torch raise almost anything
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise CheckpointError(printable(f"{path}: torn, or no weights of torch: {reason}")) from None


def _check_names(path: Path) -> None:
    """Check the names in the index, parsed as data without running it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            indexes = [member for member in members if member.filename.endswith("/data.pkl")]
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if len(indexes) != 1 or not stored or indexes[0].file_size > MOST_INDEX_BYTES:
                raise CheckpointError(f"{path}: not in the format of torch.save")
            content = archive.read(indexes[0])
    except (zipfile.BadZipFile, OSError) as e:
        raise CheckpointError(f"{path}: cut off, or not in the format of torch.save ({e})") from None
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and argument in _NAMES:
            continue
        if operation.name in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            what = str(argument or operation.name).replace(" ", ".")
            raise CheckpointError(printable(f"{path}: wants to use {what}, which no weights need; it is not opened"))


def _check_sizes(path: Path, content: Any) -> None:
    """Reject tensors that together exceed twice the file's size, which leaves room for tensors that share storage."""
    room = 2 * path.stat().st_size
    todo, seen = [content], set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, (list, tuple)):
            todo += value
        elif isinstance(value, torch.Tensor):
            room -= value.numel() * value.element_size()
            if room < 0:
                raise CheckpointError(f"{path}: holds a tensor of shape {list(value.shape)}, larger than the file")
