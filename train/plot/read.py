"""Run directories in; their records, settings and summary out, ready to be drawn.

A run may be still going on, and it may have been killed at any byte. A line that is no record is passed over and told;
of a step that stands twice (a run that was resumed by a copy of its folder) the later line counts, and what the earlier
attempt wrote after it does not. Keys that are not known here are left alone, and a number that is not finite is None.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lola_data.errors import RecipeError, TrainingError
from lola_data.report.text import visible
from lola_data.storage import is_remote
from train.stored_run import run_here

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FILE = "metrics.jsonl"
MOST_RUNS = 8
"""Runs in one figure: as many as there are colours that can be told apart."""
_KINDS = ("train", "valid")
_LONGEST_NAME = 48


@dataclass(frozen=True)
class RunRecords:
    """One run.

    Attributes:
        path: its directory, or its URL.
        name: what it is called in figures; no other run in the same figure has the name.
        train: records of kind ``train`` by growing step.
        valid: records of kind ``valid`` by growing step.
        settings: ``config`` of ``config.json``; empty if there is none.
        tokenizer: ``tokenizer`` of ``config.json``; empty if there is none.
        summary: ``summary.json`` of a complete run; None while it is going on.
        notes: what was passed over, one line each.
    """

    path: Path | str
    name: str
    train: tuple[dict[str, Any], ...]
    valid: tuple[dict[str, Any], ...]
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """The last step there is a record of."""
        return max(record["step"] for record in (*self.train[-1:], *self.valid[-1:]))

    @property
    def tokens(self) -> int | None:
        """Tokens trained on up to the last record."""
        return max((tokens for r in (*self.train[-1:], *self.valid[-1:]) if (tokens := number(r, "tokens"))), default=0)

    @property
    def steps(self) -> int | None:
        """Steps of the whole run by its settings, or None where they do not tell."""
        tokens, rows, length = (
            number(self.settings, *keys) for keys in (("tokens",), ("batch_size",), ("model", "seq_len"))
        )
        if not tokens or not rows or not length:
            return None
        return -(-tokens // (rows * length))


def read_runs(paths: Sequence[Path | str]) -> list[RunRecords]:
    """Read several runs, by path or URL; one that is named twice is read once.

    Raises:
        RecipeError: more than :data:`MOST_RUNS`.
        TrainingError: as :func:`read_run` and :func:`train.stored_run.run_here`.
    """
    folders = list(dict.fromkeys(_folder(path) for path in paths))
    if len(folders) > MOST_RUNS:
        raise RecipeError(f"{len(folders)} runs: a figure takes {MOST_RUNS} at most; name fewer")
    found: list[RunRecords] = []
    for folder, name in zip(folders, _names(folders), strict=True):
        with run_here(folder) as here:
            run = read_run(here, name)
        notes = tuple(note.replace(str(here), str(folder)) for note in run.notes)
        found.append(replace(run, path=folder, notes=notes))
    return found


def read_run(path: Path, name: str | None = None) -> RunRecords:
    """Read the run in the directory ``path``.

    Raises:
        TrainingError: there is no ``metrics.jsonl``, it cannot be read, or it has no record.
    """
    file = path / FILE
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TrainingError(f"{path}: not the folder of a run: it has no {FILE}; {_instead(path)}") from error
    except OSError as error:
        raise TrainingError(f"{file}: cannot be read: {error.strerror or error}") from error
    records: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _KINDS}
    broken: list[int] = []
    for place, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        record = _record(line)
        if record is None:
            broken.append(place)
        elif record["kind"] in records:
            own = records[record["kind"]]
            while own and own[-1]["step"] >= record["step"]:
                own.pop()
            own.append(record)
    if not any(records.values()):
        why = "holds no whole record" if broken else "has no records yet"
        raise TrainingError(f"{file}: {why}; the first one comes with the first evaluation, try again after it")
    told = _json_object(path / "config.json")
    settings, tokenizer = (told.get(key) for key in ("config", "tokenizer"))
    return RunRecords(
        path,
        name or _names([path])[0],
        tuple(records["train"]),
        tuple(records["valid"]),
        settings if isinstance(settings, dict) else {},
        tokenizer if isinstance(tokenizer, dict) else {},
        _json_object(path / "summary.json") or None,
        tuple(_broken_notes(file, broken, whole=data.endswith(b"\n"))),
    )


def number(record: dict[str, Any] | None, *keys: str) -> Any:
    """The finite number under a path of keys, or None."""
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    step = record.get("step")
    return record if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def _broken_notes(file: Path, broken: list[int], *, whole: bool) -> Iterable[str]:
    if len(broken) == 1:
        cut = "" if whole else ": cut off, or still being written"
        yield f"{file}: line {broken[0]} is no record; passed over{cut}"
    elif broken:
        yield f"{file}: {len(broken):,} lines are no records, the first is line {broken[0]}; passed over"


def _json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none, or only half of one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _folder(given: Path | str) -> Path | str:
    """A run may be named by its file of metrics too."""
    if is_remote(str(given)):
        return str(given).rstrip("/").removesuffix(f"/{FILE}")
    path = Path(given)
    return path.parent if path.name == FILE else path


def _instead(path: Path) -> str:
    """What else to name: a run that lies below, if there is one."""
    below = sorted(file.parent for pattern in (f"*/{FILE}", f"runs/*/{FILE}") for file in path.glob(pattern))
    return f"did you mean {below[0]}?" if below else "name the RUN that lola-data train was given"


def _names(folders: Sequence[Path | str]) -> list[str]:
    """The last part of each path, or as many of the last parts as it takes to tell them apart."""
    parts = [
        folder.absolute().parts if isinstance(folder, Path) else tuple(folder.replace("://", "/").split("/"))
        for folder in folders
    ]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return [_short(visible(name)) for name in names]
    return [f"{_short(visible(str(folder)))} ({place})" for place, folder in enumerate(folders, start=1)]


def _short(name: str) -> str:
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}"
