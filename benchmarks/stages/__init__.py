"""The stages of the benchmark: a module each, with its contenders and what must agree, as ``STAGE``.

A new stage is a module here and a line in :data:`MODULES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.harness import Stage

MODULES = {
    "io": "benchmarks.stages.shards",
    "identify": "benchmarks.stages.identify",
    "identify-shards": "benchmarks.stages.identify_shards",
    "signatures": "benchmarks.stages.signatures",
    "match": "benchmarks.stages.match",
    "match-unverified": "benchmarks.stages.components",
    "dedup": "benchmarks.stages.dedup",
    "exact": "benchmarks.stages.exact",
    "tokenise": "benchmarks.stages.tokenise",
    "road": "benchmarks.stages.road",
}
"""Name on the command line -> module, in the order of the road."""


def load_stage(name: str) -> Stage:
    """The stage of this name."""
    return import_module(MODULES[name]).STAGE
