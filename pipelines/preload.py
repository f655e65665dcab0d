"""What every worker needs, done once in the fork server so that a worker starts in milliseconds.

Modules are imported, and numba is told of all that it can compile: that takes it a second of each process that calls a
compiled kernel. Modules that start threads (polars) are left to the workers: a fork would not take the threads along.
"""

from __future__ import annotations

from importlib import import_module

for _name in ("datatrove.executor.local", "pyarrow.parquet", "pyarrow.compute", "numba", "pipelines.stage"):
    import_module(_name)


def _make_numba_ready() -> None:
    """What numba would do before the first kernel; private to it, so that it may be gone one day."""
    from contextlib import suppress

    with suppress(ImportError, AttributeError):
        from numba.core.registry import cpu_target

        cpu_target.typing_context.refresh()  # pyright: ignore[reportAttributeAccessIssue]
        cpu_target.target_context.refresh()  # pyright: ignore[reportAttributeAccessIssue]


_make_numba_ready()
