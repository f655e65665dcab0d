"""What the numbers were measured on: machine, load, versions."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

BASE = ("lola-data", "numpy", "numba", "pyarrow")
"""Distributions that every stage of ours rests on."""
IDLE = 0.3
"""A load beyond it is other work that shares the cores."""


@dataclass(frozen=True)
class Machine:
    """A machine at the start of a run."""

    cpu: str
    cores: int
    memory_gb: float
    load: float
    """Average number of processes wanting to run over the last minute."""
    kernel: str
    python: str
    date: str

    @property
    def idle(self) -> bool:
        """Whether nothing else was running."""
        return self.load <= IDLE

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def this_machine() -> Machine:
    """The machine as it is now."""
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        load=round(os.getloadavg()[0], 2),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions of these names that are installed."""
    found: dict[str, str] = {}
    for name in dict.fromkeys([*BASE, *names]):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
