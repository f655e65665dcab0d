"""What was compared as tables: a :class:`RunDiff`, :class:`TreeDiff` or :class:`Audit` in, :class:`Table` out.

A table is headers and rows of text, ready for a terminal (:mod:`lola_data.diff.lines`) or a page
(:mod:`lola_data.diff.page`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lola_data.diff.audit import NOT_SAMPLED, STAGES, AuditRow, Removal
from lola_data.diff.trees import Changes
from lola_data.languages import LANGUAGES
from lola_data.layout import TREES
from lola_data.shown_text import plain
from lola_data.text_tables import readable_bytes, readable_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.diff.audit import Audit
    from lola_data.diff.runs import RunDiff
    from lola_data.diff.trees import TreeDiff

By = Literal["language", "source"]
MOST_PAIRS = 12
"""Pairs of languages listed between which documents moved."""
NO_SOURCE = "(no source)"


@dataclass(frozen=True)
class Table:
    """A table of text. The first ``left`` columns, and the last if ``last_left`` is set, are aligned to the left, the
    others to the right; the last row is a total if ``total`` is set. ``note`` stands below it."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    total: bool = False
    note: str = ""
    last_left: bool = False

    def is_left(self, column: int) -> bool:
        """Whether a column is aligned to the left."""
        return column < self.left or (self.last_left and column == len(self.headers) - 1)


def run_tables(diff: RunDiff, by: By | Literal["reason"]) -> list[Table]:
    """All tables of two runs."""
    subject = diff.stages[diff.subject]
    tables = [_settings(diff), _stages(diff)]
    if by != "reason":
        tables.append(_changes(subject, by, f"{TREES[diff.subject]} by {by}", diff.audits))
    tables += [*_moves(subject), _reasons_of_two(*diff.audits)]
    return [table for table in tables if table.rows]


def tree_tables(diff: TreeDiff, by: By) -> list[Table]:
    """All tables of two trees."""
    return [_changes(diff, by, f"by {by}"), *_moves(diff)]


def _settings(diff: RunDiff) -> Table:
    rows = tuple((f"{one.stage}.{one.key}", plain(one.first), plain(one.second)) for one in diff.settings)
    return Table("settings that differ", ("setting", "A", "B"), rows, left=3)


def _stages(diff: RunDiff) -> Table:
    rows: list[tuple[str, ...]] = []
    compared = any(one.with_text and one.match == "id" for one in diff.stages.values())
    for stage, one in diff.stages.items():
        total = one.totals
        changed = [f"{total.changed:,}" if one.with_text else ""] if compared else []
        rows.append(
            (TREES[stage], *_counts(total.first, total.second, total.same), *changed,
             *_counts(total.moved_out, total.went, total.came))
        )  # fmt: skip
    raw = diff.raw
    if raw is None:
        note = "raw shards: not compared, since a run has no manifest of them"
    elif raw.alike:
        note = f"raw shards: the same {raw.first:,} in both, by the digests and sizes in their manifests"
    else:
        note = (
            f"raw shards: {raw.same:,} the same, {len(raw.changed):,} of other content, {len(raw.went):,} only in A, "
            f"{len(raw.came):,} only in B"
        )
    headers = ("stage", "A", "B", "same", *(["changed"] if compared else []), "moved", "only in A", "only in B")
    return Table("documents by stage", headers, tuple(rows), note=note)


def _counts(*values: int) -> tuple[str, ...]:
    return tuple(f"{value:,}" for value in values)


def _changes(diff: TreeDiff, by: By, title: str, audits: tuple[Audit, Audit] | None = None) -> Table:
    headers = ("A", "B", "same", *(["changed"] if diff.with_text and diff.match == "id" else []), "moved out",
               "moved in", "only in A", "only in B")  # fmt: skip
    names = {"language": ("lang", "name"), "source": ("source",)}[by]
    removed = [] if audits is None else [_removed_by(audit, by) for audit in audits]
    heads = (*names, *headers, *(["removed in A", "removed in B"] if removed else []))

    def cells(one: Changes) -> tuple[str, ...]:
        changed = [one.changed] if "changed" in headers else []
        return _counts(one.first, one.second, one.same, *changed, one.moved_out, one.moved_in, one.went, one.came)

    rows: list[tuple[str, ...]] = []
    found = diff.by(by)
    for name in sorted({*found, *(group for one in removed for group in one)}):
        gone = [f"{one.get(name, 0):,}" for one in removed]
        rows.append((*_names(name, by), *cells(found.get(name, Changes())), *gone))
    total = [f"{sum(one.values()):,}" for one in removed]
    rows.append(("total", *[""] * (len(names) - 1), *cells(diff.totals), *total))
    note = "" if diff.with_text else "texts were not compared: both runs were made of the same raw shards"
    return Table(title, heads, tuple(rows), left=len(names), total=True, note=note)


def _names(name: str, by: By) -> tuple[str, ...]:
    if by == "source":
        return (plain(name) or NO_SOURCE,)
    return plain(name), LANGUAGES[name].name if name in LANGUAGES else ""


def _removed_by(audit: Audit, by: By) -> dict[str, int]:
    """Documents that identify and dedup removed, by group."""
    found: dict[str, int] = defaultdict(int)
    for stage in ("identify", "dedup"):
        for row in audit.rows(by, stage):
            found[row.group] += row.documents
    return {name: count for name, count in found.items() if count}


def _moves(diff: TreeDiff) -> list[Table]:
    pairs = sorted(diff.moves.items(), key=lambda item: (-item[1], item[0]))
    if not pairs:
        return []
    rows = tuple((plain(a), plain(b), f"{count:,}") for (a, b), count in pairs[:MOST_PAIRS])
    more = len(pairs) - MOST_PAIRS
    note = f"{more:,} more pairs: --json has them" if more > 0 else ""
    return [Table("moved between languages", ("from", "to", "documents"), rows, left=2, note=note)]


def _reasons_of_two(first: Audit, second: Audit) -> Table:
    rows: list[tuple[str, ...]] = []
    for stage in STAGES:
        if stage not in first.stages or stage not in second.stages:
            continue
        a, b = first.totals(stage), second.totals(stage)
        for reason in sorted({*a.removed, *b.removed}):
            ours, theirs = a.removed.get(reason, Removal()), b.removed.get(reason, Removal())
            rows.append(
                (stage, plain(reason), f"{ours.documents:,}", f"{theirs.documents:,}",
                 _difference(theirs.documents - ours.documents), _share(ours, a), _share(theirs, b), _bytes(ours.bytes),
                 _bytes(theirs.bytes))
            )  # fmt: skip
    headers = ("stage", "reason", "A", "B", "difference", "share A", "share B", "bytes A", "bytes B")
    return Table("removed", headers, tuple(rows), left=2, note=_GIVEN)


def _difference(count: int) -> str:
    return f"{count:+,}" if count else "0"


def _share(removal: Removal, row: AuditRow) -> str:
    return readable_share(removal.documents / row.given if row.given else 0.0)


def _bytes(size: int | None) -> str:
    return "" if size is None else readable_bytes(size)


def audit_table(audit: Audit, by: By | Literal["reason"]) -> Table:
    """What one run removed."""
    return _by_reason(audit) if by == "reason" else _by_group(audit, by)


def _by_reason(audit: Audit) -> Table:
    rows: list[tuple[str, ...]] = []
    for stage in audit.stages:
        total = audit.totals(stage)
        languages = audit.rows("language", stage)
        for reason, removal in sorted(total.removed.items(), key=lambda item: (-item[1].documents, item[0])):
            own = [row for row in languages if reason in row.removed]
            own.sort(key=lambda row: (-row.removed[reason].documents / max(1, row.given), row.group))
            most = ", ".join(f"{plain(row.group)} {_share(row.removed[reason], row)}" for row in own[:3])
            rows.append(
                (stage, plain(reason), f"{removal.documents:,}", _share(removal, total), _bytes(removal.bytes),
                 f"{len(own):,}", most)
            )  # fmt: skip
    headers = ("stage", "reason", "documents", "share", "bytes", "languages", "largest shares")
    return Table("removed by reason", headers, tuple(rows), left=2, note=_GIVEN, last_left=True)


_GIVEN = "share: of the documents that the stage was given"


@dataclass
class _Group:
    """A language or a source in the audit."""

    given: int = 0
    entered: int = 0
    moved: int = 0
    removed: dict[str, Removal] | None = None


def _by_group(audit: Audit, by: By) -> Table:
    groups: dict[str, _Group] = defaultdict(_Group)
    reasons: list[str] = []
    for stage in audit.stages:
        for row in audit.rows(by, stage):
            group = groups[row.group]
            group.removed = group.removed or {}
            if stage == audit.stages[0]:
                group.given = row.given
            for reason, removal in row.removed.items():
                group.removed.setdefault(reason, Removal()).__iadd__(removal)
                reasons += [reason] if reason not in reasons else []
    moving = by == "language" and bool(audit.relabelled)
    for (claimed, lang), documents in audit.relabelled.items() if moving else ():
        groups[claimed].moved += documents
        groups[lang].entered += documents
    reasons.sort(key=lambda reason: reason == NOT_SAMPLED)
    names = {"language": ("lang", "name"), "source": ("source",)}[by]
    shown = [reason.replace("_", " ") for reason in map(plain, reasons)]
    headers = (*names, "given", *(["moved in", "moved out"] if moving else []), *shown, "left", "removed", "bytes")
    rows = [(*_names(name, by), *_group_cells(groups[name], reasons, moving=moving)) for name in sorted(groups)]
    total = _Group(removed={})
    for group in groups.values():
        total.given += group.given
        total.entered += group.entered
        total.moved += group.moved
        for reason, removal in (group.removed or {}).items():
            assert total.removed is not None
            total.removed.setdefault(reason, Removal()).__iadd__(removal)
    rows.append(("total", *[""] * (len(names) - 1), *_group_cells(total, reasons, moving=moving)))
    return Table(
        f"removed by {by}", headers, tuple(rows), left=len(names), total=True,
        note="removed: by identify and dedup, of all documents that ever lay there; bytes: of what they removed",
    )  # fmt: skip


def _group_cells(group: _Group, reasons: Sequence[str], *, moving: bool) -> tuple[str, ...]:
    removed = group.removed or {}
    gone = [removed.get(reason, Removal()).documents for reason in reasons]
    own = {reason: removal for reason, removal in removed.items() if reason != NOT_SAMPLED}
    share = sum(removal.documents for removal in own.values()) / max(1, group.given + group.entered)
    left = group.given + group.entered - group.moved - sum(gone)
    size = sum(removal.bytes or 0 for removal in own.values())
    moved = (group.entered, group.moved) if moving else ()
    return (*_counts(group.given, *moved, *gone, left), readable_share(share), readable_bytes(size))
