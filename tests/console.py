"""The console command as a stranger calls it, a corpus for it, and what must hold of a work folder afterwards."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lola_data.cli import main
from lola_data.sample_corpus import sample_root
from lola_data.tokens import TokenShard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ROAD = ("download", "identify", "dedup", "sample", "tokenizer", "tokenize")
"""Stages up to token shards."""

RECIPE = """\
workdir: {workdir}
languages: [cy, el, sw, yo]
download: {{source: local, path: {source}}}
tokenizer: {{vocab_size: 500, train_bytes: 40000}}
tokenize: {{valid_share: 0.1}}
executor: {{tasks: 1, workers: 1}}
"""


@dataclass(frozen=True)
class Outcome:
    """What a call left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def message(self) -> str:
        """The error, from its first line on; there must be exactly one."""
        assert self.stderr.count("lola-data: error: ") == 1, self.stderr
        return self.stderr.partition("lola-data: error: ")[2]


def lola(*arguments: str | Path | float) -> Outcome:
    """``lola-data ARGUMENTS`` in this process; what the console would show as a traceback is raised."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
    return Outcome(code, out.getvalue(), err.getvalue())


def lola_process(*arguments: str | Path | float, preexec_fn: Callable[[], None] | None = None) -> Outcome:
    """``lola-data ARGUMENTS`` in a process of its own."""
    command = [sys.executable, "-m", "lola_data.cli", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, preexec_fn=preexec_fn, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def only(stages: Sequence[str]) -> list[str]:
    """``--only`` for each stage."""
    return [part for stage in stages for part in ("--only", stage)]


def upto(stage: str) -> list[str]:
    """``--only`` for the road up to a stage."""
    return only(ROAD[: ROAD.index(stage) + 1])


def write_source(root: Path) -> Path:
    """A small corpus of raw shards: three whole languages of the sample, and 60 Greek documents in two row groups."""
    for lang in ("cy", "sw", "yo"):
        shutil.copytree(sample_root() / lang, root / lang)
    greek = pq.read_table(sample_root() / "el" / "el_part_00000.parquet").slice(0, 60)
    (root / "el").mkdir()
    pq.write_table(greek, root / "el" / "el_part_00000.parquet", row_group_size=30)
    return root


def write_recipe(folder: Path, source: Path, *lines: str) -> Path:
    """A recipe for that corpus, in ``folder``, which is made; the work folder is ``folder/work``."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    text = RECIPE.format(workdir=folder / "work", source=source)
    recipe.write_text(text + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return recipe


def check_whole(workdir: Path) -> None:
    """All that stages wrote below a work folder can be read to its end, and no temporary file is left.

    Raw shards lie there as they came, damaged or not; statistics among the logs are datatrove's.
    """
    for path in sorted(workdir.rglob("*")):
        if path.is_dir():
            continue
        assert not path.name.endswith(".tmp"), path
        if path.relative_to(workdir).parts[0] in ("raw", "logs"):
            continue
        if path.suffix == ".parquet":
            pq.read_table(path).validate(full=True)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".idx":
            shard = TokenShard(path.with_suffix(""))
            shard.document(len(shard) - 1)


def trees(workdir: Path, stages: Sequence[str] = ROAD) -> dict[str, Any]:
    """Every file of the trees of some stages. Of a manifest, all but what the work folder's own history decides."""
    from lola_data.layout import TREES

    found: dict[str, Any] = {}
    roots = [workdir / TREES[stage] for stage in stages] + [workdir / "removed" / stage for stage in stages]
    for root in roots:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(workdir).as_posix()
            if path.name == "manifest.json":
                manifest = json.loads(path.read_text(encoding="utf-8"))
                found[name] = {key: manifest[key] for key in manifest.keys() - {"fingerprint", "source"}}
            elif path.is_file():
                found[name] = path.read_bytes()
    return found


def replace_shard(path: Path, table: pa.Table, **options: Any) -> None:
    """Put another shard in the place of one; a link to the old file keeps the old content."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


def replace_bytes(path: Path, content: bytes) -> None:
    """The same, with any content."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
