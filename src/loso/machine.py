"""What this process may use of the machine: cores and memory, with the limits of its containers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Cores", "Memory", "cores", "memory"]

_ROOT: Final = Path("/")


@dataclass(frozen=True)
class Cores:
    """Cores that may be used, those of the machine, and the control group's limit if there is one.

    A limit of 1.5 counts as two cores: a thread fewer would leave time unused.
    """

    usable: int
    present: int
    limit: float | None


@dataclass(frozen=True)
class Memory:
    """Bytes of the machine, those free for this process, and the control group's limit.

    None where the system does not say, and where there is no limit.
    """

    total_bytes: int | None
    available_bytes: int | None
    limit_bytes: int | None


def cores(root: Path = _ROOT) -> Cores:
    """Return the cores of this process: its affinity, and the quotas of the groups it is in."""
    present = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    limit = min(_quotas(root), default=None)
    usable = allowed if limit is None else min(allowed, math.ceil(limit))
    return Cores(usable=max(usable, 1), present=present, limit=limit)


def memory(root: Path = _ROOT) -> Memory:
    """Return the memory of this process: the machine's, and the limits of the groups it is in.

    What a group holds as cache of files that nobody uses counts as available, as the kernel would
    give it up first.
    """
    total, available = _meminfo(root)
    # A group without a limit has one beyond any machine in version 1.
    groups = [(most, room) for most, room in _shares(root) if total is None or most < total]
    rooms = [room for _, room in groups] + ([] if available is None else [available])
    return Memory(
        total_bytes=total,
        available_bytes=min(rooms, default=None),
        limit_bytes=min((most for most, _ in groups), default=None),
    )


def _meminfo(root: Path) -> tuple[int | None, int | None]:
    text = _read(root / "proc/meminfo")
    found = dict(re.findall(r"^(MemTotal|MemAvailable): +(\d+) kB", text, re.MULTILINE))
    total, available = (
        int(found[key]) * 1024 if key in found else None for key in ("MemTotal", "MemAvailable")
    )
    if total is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total, available


def _quotas(root: Path) -> Iterator[float]:
    """Yield the cores that each group over this process may keep busy, where it is limited."""
    for folder in _groups(root, "cpu"):
        if words := _read(folder / "cpu.max").split():
            quota, period = words[0], words[-1]
        else:
            quota = _read(folder / "cpu.cfs_quota_us").strip()
            period = _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _shares(root: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit in bytes of each group over this process, and what is left under it."""
    for folder in _groups(root, "memory"):
        for most_name, used_name, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, used = (_read(folder / name).strip() for name in (most_name, used_name))
            if most.isdigit() and used.isdigit():
                idle = re.search(rf"^{cache} (\d+)", _read(folder / "memory.stat"), re.MULTILINE)
                left = int(most) - int(used) + (int(idle[1]) if idle else 0)
                yield int(most), max(left, 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups over this process, its own first.

    Inside of a container the names may be those of the host, of which only the root is there.
    """
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            base = mount
        elif controller in controllers.split(","):
            bases = (mount / controllers, mount / controller)
            base = next((folder for folder in bases if folder.is_dir()), mount)
        else:
            continue
        own = base / ("" if ".." in path else path.strip("/"))
        yield own
        if own != base:
            yield from (folder for folder in own.parents if folder.is_relative_to(base))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
