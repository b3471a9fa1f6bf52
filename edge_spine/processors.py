"""Count the processors that this process may use: by its affinity and by the CPU quota of its container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of processors that this process may use, at least 1.

    A quota of 1.5 processors counts as 2, since one could not use it up.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *map(math.ceil, _quotas())]))


def limited_cores() -> int | None:
    """Return `usable_cores` where they are fewer than the machine has, else None."""
    cores = usable_cores()
    return cores if cores < (os.cpu_count() or 1) else None


def _quotas() -> Iterator[float]:
    """Yield the CPU quotas of this process's Linux control groups, in processors."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        # version 2 has one tree; a container may see the path of its host, and its own group at the root
        root = _CGROUPS / "cpu" if controllers else _CGROUPS
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder == root.parent:
                break
            yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        # no limit is "max" in version 2 and -1 in version 1
        if float(quota) > 0:
            yield float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return
