"""What experts need in memory, and what a device has left."""

from pathlib import Path
from typing import Literal

import psutil
import torch

Residence = Literal["auto", "all", "one"]
_WORKING = 1.2  # activations, a chunk of logits, and what the allocator keeps
_GIB = 2**30


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a device; on a CPU what this process's control group may still take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
        return min(free, int(limit) - int(used)) if limit.isdecimal() else free
    except OSError:  # no control groups, or of another version
        return free


def choose_residence(sizes: dict[str, int], free: int, asked: Residence) -> tuple[Literal["all", "one"], str]:
    """Decide whether all experts stay in memory, and say why.

    Args:
        sizes: Bytes of each expert's weights in the precision in which it is loaded.
        free: Bytes that the device has.
        asked: ``auto`` keeps all where they fit.

    Raises:
        ValueError: if not even the largest fits, or all were asked for and do not.
    """
    total, (largest, most) = sum(sizes.values()), max(sizes.items(), key=lambda item: item[1])
    if most * _WORKING > free:
        raise ValueError(
            f"Expert `{largest}` needs about {most * _WORKING / _GIB:.1f} GiB, but {free / _GIB:.1f} GiB are free."
            " Set `experts.losses.dtype` to bfloat16, or use a machine with more memory."
        )
    fits = total * _WORKING <= free
    if asked == "all" and not fits:
        raise ValueError(
            f"All {len(sizes)} experts together need about {total * _WORKING / _GIB:.1f} GiB, but {free / _GIB:.1f} GiB"
            " are free. Set `experts.losses.residence` to one (or auto)."
        )
    residence: Literal["all", "one"] = "all" if asked == "all" or (asked == "auto" and fits) else "one"
    how = "all stay in memory" if residence == "all" else "one at a time is in memory"
    return residence, (
        f"The experts take {total / _GIB:.2f} GiB together, the largest {most / _GIB:.2f} GiB, and"
        f" {free / _GIB:.1f} GiB are free: {how}."
    )
