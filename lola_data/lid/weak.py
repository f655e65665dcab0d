"""Languages that an identification model is known to miss, to be told before their folders lose their text.

In: a model and languages. Out: those whose F1 is low. The figures are a table beside the model, ``<model>.f1.tsv``, as
``lola-data lid evaluate MODEL --data ... --csv <model>.f1.tsv`` writes it; the one of lid.176.ftz comes with the
package, and docs/lid.md says how it was made. A model without a table has no known weaknesses.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from lola_data.errors import ShardError
from lola_data.lid.labels import confusable_with
from lola_data.lid.models import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TABLE_SUFFIX = ".f1.tsv"
WEAK_BELOW = 0.5
_NAMED = 8
"""Languages that a line names before it says how many more there are."""


@dataclass(frozen=True, slots=True)
class WeakCode:
    """A language that a model misses: ``f1`` and ``recall`` on so many ``texts`` of ``data``, and how many of them were
    ``taken_for`` which other languages, most frequent first."""

    code: str
    f1: float
    recall: float
    texts: int
    taken_for: tuple[tuple[str, int], ...]
    data: str

    @property
    def recall_in_group(self) -> float:
        """Share of the texts answered with the code or one confusable with it."""
        near = confusable_with(self.code)
        return self.recall + sum(count for answer, count in self.taken_for if answer in near) / self.texts


def weak_codes(
    model: str, languages: Iterable[str], *, below: float = WEAK_BELOW, accept_confusable: bool = False
) -> list[WeakCode]:
    """The ``languages`` whose F1 under ``model`` is less than ``below``, lowest first. Nothing is downloaded.

    Args:
        model: a registered name or a path, as ``identify.model``.
        languages: CulturaX codes; one that the table has not is not weak.
        below: F1 in [0, 1].
        accept_confusable: pass over those whose own text is mostly answered with them or their near kin: where that is
            accepted, their folders lose little, and a low F1 is a matter of other folders' text.

    Raises:
        ShardError: the table beside the model is not one that ``lola-data lid evaluate`` wrote.
    """
    wanted = set(languages)
    found = [
        weak
        for weak in _table(model)
        if weak.code in wanted and weak.f1 < below and not (accept_confusable and weak.recall_in_group >= below)
    ]
    return sorted(found, key=lambda weak: (weak.f1, weak.code))


def weak_line(model: str, weak: list[WeakCode]) -> str:
    """One line that tells of them, and what to do; empty for none."""
    if not weak:
        return ""
    named = [
        f"{found.code} {found.f1:.2f}" + (f" (as {found.taken_for[0][0]})" if found.taken_for else "")
        for found in weak[:_NAMED]
    ]
    more = f" and {len(weak) - _NAMED} more" if len(weak) > _NAMED else ""
    return (
        f"{model} misses {len(weak)} of these languages, F1 below {WEAK_BELOW:g} on labelled text: {', '.join(named)}"
        f"{more}. Their folders may lose what they have: set identify.policy to keep, or name another identify.model "
        "(docs/lid.md)"
    )


def _table(model: str) -> list[WeakCode]:
    registered = REGISTRY.get(model)
    if registered is None:
        path = Path(model).expanduser()
    elif registered.resource is not None:
        path = Path(str(files("lola_data") / "resources" / registered.resource))
    else:
        return []
    path = path.with_name(path.name + TABLE_SUFFIX)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path}: cannot be read ({error}); write it again with `lola-data lid evaluate`") from error
    try:
        return [
            WeakCode(
                row["code"],
                float(row["f1"]),
                float(row["recall"]),
                int(row["texts"]),
                tuple(_taken_for(row["taken_for"])),
                row["data"],
            )
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(
            f"{path}: not a table of `lola-data lid evaluate --csv` ({error}); write it again, or remove it"
        ) from error


def _taken_for(cell: str) -> Iterator[tuple[str, int]]:
    for answer in filter(None, cell.split(", ")):
        code, count = answer.split()
        yield code, int(count)
