"""How torch's threads wait for each other; imports no torch, since it must come first."""

from __future__ import annotations

import os


def let_threads_sleep() -> None:
    """Have OpenMP threads sleep while they wait, instead of spinning.

    Spinning threads take the cores from whatever else runs on the machine, and wait for each other there. It has an
    effect only before torch is loaded; OMP_WAIT_POLICY, if set, stands.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
