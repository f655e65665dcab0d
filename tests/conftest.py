"""For all tests: Hypothesis draws the same examples each time, and a busy machine is no failure. Triton, which reads
this when it is imported, runs its kernels on the CPU."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("lola", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lola")
