"""An interrupt at every line of a write: a shard is there whole or not at all, and nothing is said of what is left."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lola_data import shards, storage
from lola_data.schemas import RAW
from lola_data.shards import ShardWriter

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FILES = {shards.__file__, storage.__file__}
ROWS = 40


class Interrupt:
    """A tracer that raises KeyboardInterrupt before the ``at``-th line that the modules of a write execute."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        # What is raised in a destructor reaches nobody, in any program.
        if frame.f_code.co_filename not in FILES or frame.f_code.co_name == "__del__":
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def _write(path: str) -> None:
    columns = [pa.array([f"{name} {row}" for row in range(ROWS)]).cast(RAW.field(name).type) for name in RAW.names]
    batch = pa.RecordBatch.from_arrays(columns, schema=RAW)
    with ShardWriter(path, RAW, row_group_bytes=1) as writer:
        writer.write(batch)
        writer._row_group_bytes = 1 << 30  # The last group is written at the end, as most are.
        writer.write(batch)


def test_an_interrupt_at_any_line_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    interrupted = 0
    tracer = sys.gettrace()
    for at in range(1, 1_000):
        folder = tmp_path / str(at)
        folder.mkdir()
        done = False
        sys.settrace(Interrupt(at))
        try:
            _write(f"{folder}/a.parquet")
            done = True
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(tracer)
        gc.collect()
        assert not said, (at, said[0].exc_value)
        names = [path.name for path in folder.iterdir()]
        assert names in ([], ["a.parquet"]), (at, names)
        if names:
            assert pq.read_metadata(folder / "a.parquet").num_rows == 2 * ROWS
        if done:
            assert names
            break
    assert 40 < interrupted < 1_000
