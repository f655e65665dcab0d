"""What ``lola-data diff`` was asked for, compared and ready to be shown: paths and options in, a :class:`View` out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lola_data.balance.trees import find_trees
from lola_data.diff.audit import audit
from lola_data.diff.records import has_ids
from lola_data.diff.runs import compare_runs
from lola_data.diff.tables import audit_table, run_tables, tree_tables
from lola_data.diff.to_json import audit_json, run_json, tree_json
from lola_data.diff.trees import compare_trees
from lola_data.errors import RecipeError
from lola_data.inspect.places import check_language_names, find_places, work_folder
from lola_data.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lola_data.diff.records import Match
    from lola_data.diff.tables import Table
    from lola_data.diff.trees import Sample
    from lola_data.inspect.documents import Seen
    from lola_data.inspect.places import Place

By = Literal["language", "source", "reason"]


@dataclass(frozen=True)
class Options:
    """What is compared, and how.

    Attributes:
        by: what a row of the table is.
        languages: only these folders (none: all).
        match_by: what documents are known by (None: ids where both sides have them).
        samples: documents shown of each kind.
        seed: decides which.
        raw: the raw shards of the one work folder, where they lie elsewhere.
    """

    by: By = "language"
    languages: Sequence[str] = ()
    match_by: Match | None = None
    samples: int = 0
    seed: int = 0
    raw: str | None = None


@dataclass(frozen=True)
class View:
    """A comparison to be shown.

    Attributes:
        title: of the page.
        lead: what was compared.
        tables: in order.
        value: the JSON document.
        samples: documents that differ.
        removed: removed documents.
        hint: where to read on.
    """

    title: str
    lead: str
    tables: list[Table]
    value: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    removed: list[Seen] = field(default_factory=list)
    hint: str = ""


def compared(first: str, second: str | None, options: Options, progress: Callable[[int, int], None] | None) -> View:
    """Compare two trees or two work folders, or audit one work folder.

    Raises:
        RecipeError: a path or an option that does not go with the others.
        ShardError: a shard that cannot be read.
    """
    workdir = work_folder(first)
    if second is None:
        if workdir is None:
            raise RecipeError(
                f"{first}: not a work folder; one alone is audited, of trees name two: lola-data diff A B"
            )
        return _audit(workdir, options, progress)
    if options.raw is not None:
        raise RecipeError("--raw: it goes with the audit of one work folder; leave it out")
    other = work_folder(second)
    _check_languages([first, second], options.languages)
    if workdir is not None and other is not None:
        return _runs(workdir, other, options, progress)
    return _trees(first, second, options, progress)


def _audit(workdir: str, options: Options, progress: Callable[[int, int], None] | None) -> View:
    if options.match_by is not None:
        raise RecipeError("--match: there is nothing to match in the audit of one run; leave it out, or name B")
    _check_languages([workdir], options.languages)
    layout = Layout(workdir, {"download": options.raw} if options.raw else {})
    found = audit(layout, languages=options.languages, samples=options.samples, seed=options.seed, progress=progress)
    if not found.stages:
        raise RecipeError(f"{workdir}: no stage that removes has been run yet; run `identify` first")
    return View(
        "What was removed",
        workdir,
        [audit_table(found, options.by)],
        audit_json(found, workdir),
        removed=found.samples,
        hint=f"lola-data inspect {workdir} --removed",
    )


def _runs(workdir: str, other: str, options: Options, progress: Callable[[int, int], None] | None) -> View:
    found = compare_runs(
        Layout(workdir),
        Layout(other),
        languages=options.languages,
        match_by=options.match_by,
        samples=options.samples,
        seed=options.seed,
        progress=progress,
    )
    return View(
        "What differs",
        f"A: {workdir}, B: {other}",
        run_tables(found, options.by),
        run_json(found, workdir, other),
        samples=found.stages[found.subject].samples,
    )


def _trees(first: str, second: str, options: Options, progress: Callable[[int, int], None] | None) -> View:
    if options.by == "reason":
        raise RecipeError("--by reason: reasons are those of work folders; of two trees, use language or source")
    a, b = _text_place(first), _text_place(second)
    found = compare_trees(
        a.of(options.languages),
        b.of(options.languages),
        match_by=_match_of(a, b, options.match_by),
        samples=options.samples,
        seed=options.seed,
        progress=progress,
    )
    return View(
        "What differs",
        f"A: {first}, B: {second}",
        tree_tables(found, options.by),
        tree_json(found, first, second),
        samples=found.samples,
    )


def _text_place(path: str) -> Place:
    place = find_places(path)[0]
    if place.kind != "text":
        what = "token shards" if place.kind == "tokens" else "removed rows"
        raise RecipeError(f"{path}: {what}; compare trees of text, such as sampled/, or two work folders")
    return place


def _match_of(first: Place, second: Place, given: Match | None) -> Match:
    without = [place.root for place in (first, second) if not has_ids(place)]
    if given == "id" and without:
        raise RecipeError(f"--match id: {without[0]} has no column `id`; compare by text")
    return given or ("text" if without else "id")


def _check_languages(paths: Sequence[str], languages: Sequence[str]) -> None:
    """Refuse a language that none of the paths has."""
    if languages:
        there = {lang for path in paths for tree in find_trees([path]).trees for lang in tree.languages}
        check_language_names(sorted(there), languages, " and ".join(paths))
