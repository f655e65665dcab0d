"""Modules every worker needs, imported once in the fork server so that a worker starts in milliseconds."""

from __future__ import annotations

from importlib import import_module

for _name in ("datatrove.executor.local", "pyarrow.parquet", "pyarrow.compute", "numba", "pipelines.stage"):
    import_module(_name)
