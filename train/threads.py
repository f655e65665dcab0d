"""How torch's threads wait for each other; imports no torch, since it must come first."""

from __future__ import annotations

import os


def let_threads_sleep() -> None:
    """Have OpenMP threads sleep while they wait, instead of spinning.

    With spinning threads a step takes several times as long as soon as anything else runs on the machine; on an idle
    one sleeping costs a few percent. It has an effect only before torch is loaded; OMP_WAIT_POLICY, if set, stands.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
