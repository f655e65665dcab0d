"""The stage identify: raw/<lang>/ -> identified/<lang>/ and removed/identify/<lang>/, a unit at a time.

Each row gets its id; unclean and blank texts go; language, score and script are found; the policy says where the row
goes. A row that moves to the folder of another language is written to ``<lang>/<shard>.from-<claimed>.parquet`` there,
so that two folders with shards of one name cannot meet; a tree in which they would all the same is refused.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.checks import first_row, has_nul, invalid_utf8, is_blank, oversized
from lola_data.errors import ShardError, StageError
from lola_data.languages import LANGUAGES
from lola_data.layout import TREES
from lola_data.lid.agreement import Agreement, agreement_of, agreement_report, by_group
from lola_data.lid.identifier import Identifier
from lola_data.lid.models import REGISTRY, model_path
from lola_data.lid.policy import LOW_SCORE, judge
from lola_data.lid.weak import weak_codes, weak_line
from lola_data.manifest import Counts, OutputFile, UnitReport
from lola_data.schemas import IDENTIFIED, RAW, REMOVED
from lola_data.scripts import dominant_script
from lola_data.shards import ShardWriter, further_columns, read_batches
from pipelines.identify_scores import ScoreStep, thresholds
from pipelines.progress import say
from pipelines.stage import Stage, TreeStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.checks import Mask
    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from lola_data.sections import ChecksSection, IdentifySection
    from lola_data.shards import Unit
    from pipelines.stage import ShardStep

STAGE = "identify"
EMPTY = "empty"


UNKNOWN = "unknown"
"""Folder, below the work folder, of documents that are in no language for certain."""


class IdentifyStep(TreeStep):
    """The phase that writes the tree; the only one, unless thresholds go by a rule."""

    def __init__(self, *args: Any, section: IdentifySection, checks: ChecksSection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.checks = checks
        self.identifier = Identifier(section.model, max_chars=section.max_chars)
        self.second = Identifier(section.second_model, max_chars=section.max_chars) if section.second_model else None
        self._minima: dict[str, float] | None = None

    def minima(self) -> dict[str, float]:
        """Language -> minimum score, where a rule gives one."""
        if self._minima is None:
            self._minima = thresholds(self.state) if self.section.min_score_rule != "none" else {}
        return self._minima

    def plan(self) -> list[Unit]:
        """The pieces of the input tree.

        Raises:
            StageError: `relabel` would write what it moves over what is made of another shard.
        """
        units = super().plan()
        if self.section.policy == "relabel":
            self._check_names(units)
        return units

    def announce(self, left: Sequence[Any], workers: int) -> list[str]:
        """The languages that the model is known to miss, before their folders lose their text."""
        del workers
        section = self.section
        if section.policy == "keep":
            return []
        weak = weak_codes(section.model, {work.lang for work in left}, accept_confusable=section.accept_confusable)
        line = weak_line(section.model, weak)
        return [f"{STAGE}: {line}"] if line else []

    def _check_names(self, units: list[Unit]) -> None:
        homes = self._homes()
        moved: dict[str, Unit] = {}
        for unit in units:
            other = moved.setdefault(moved_name(unit), unit)
            if other != unit:
                self._refuse(unit, other, "rows that move out of both would be written under one name")
        for unit in units:
            other = moved.get(unit.name)
            if other is not None and other.lang != unit.lang and unit.lang in homes:
                self._refuse(
                    unit, other, f"rows of the second that move to {unit.lang}/ would have the name of the first"
                )

    def _refuse(self, unit: Unit, other: Unit, why: str) -> NoReturn:
        place, second = (storage.join(self.input_tree, one.path) for one in (unit, other))
        raise StageError(
            f"{STAGE}: {place} and {second}: {why} (`identify.policy: relabel` adds `.from-<lang>` to a name). Rename "
            f"the first file"
        )

    def _homes(self) -> frozenset[str]:
        """Folders that a document may move to."""
        return frozenset(LANGUAGES if self.languages is None else self.languages)

    def process(self, work: Unit) -> UnitReport:
        """Identify one unit."""
        report = UnitReport(work.key)
        with ExitStack() as stack:
            further = further_columns(self.input_tree, work)
            outputs = _Outputs(self.layout, work, stack, report, pa.schema([*IDENTIFIED, *further]))
            row = work.first_row
            for batch in read_batches(self.input_tree, work, pa.schema([*RAW, *further])):
                report.take(work.lang, Counts.of(batch["text"]))
                rows = add_ids(batch, work, first_row=row)
                row += batch.num_rows
                clean, reasons = self._clean(rows, work)
                outputs.remove(rows, reasons)
                self._identify(clean, work, outputs)
        outputs.note_files()
        report.extra["agreement"] = {work.lang: outputs.agreement.to_json()}
        return report

    def _clean(self, rows: pa.RecordBatch, work: Unit) -> tuple[pa.RecordBatch, pa.Array]:
        """Rows with text to identify, and per row of the batch the reason it goes for, or null."""
        path = storage.join(self.input_tree, work.path)
        reasons = np.full(rows.num_rows, None, dtype=object)
        for reason, action, mask, fault in faults(rows, self.checks):
            place = first_row(mask)
            if place is not None and action == "error":
                row = rows["id"][place].as_py().rsplit("/", 1)[1]
                raise ShardError(
                    f"{path}: row {row}: {fault}. Set `checks.{reason}: drop` to leave such rows out, or mend the file"
                )
            if action == "drop":
                reasons[mask & (reasons == None)] = reason  # noqa: E711 (element by element)
        passed = reasons == None  # noqa: E711 (element by element)
        blank = is_blank(_chosen(rows, passed)["text"])
        reasons[np.flatnonzero(passed)[blank]] = EMPTY
        column = pa.array(reasons, pa.string())
        return _chosen(rows, reasons == None), column  # noqa: E711

    def _identify(self, rows: pa.RecordBatch, work: Unit, outputs: _Outputs) -> None:
        lang, score = self.identifier.identify(rows["text"])
        found = {
            "claimed_lang": pa.array([work.lang] * rows.num_rows, pa.string()),
            "lang": lang,
            "lang_score": score,
            "script": dominant_script(rows["text"]),
        }
        arrays = [found[name] if name in found else rows[name] for name in outputs.schema.names]
        identified = pa.RecordBatch.from_arrays(arrays, schema=outputs.schema)
        verdict = judge(
            work.lang,
            lang,
            score,
            self.section,
            languages=self._homes(),
            script=identified["script"],
            second=self.second.identify(rows["text"]) if self.second else None,
            minima=self.minima(),
        )
        outputs.agreement += agreement_of(work.lang, lang, identified["script"])
        outputs.give(identified, verdict.folder)
        outputs.remove(identified, verdict.reason)
        if self.section.keep_unknown:
            outputs.keep_unknown(identified, verdict.reason)


_TAKEN_OVER = frozenset(REMOVED.names) & frozenset(IDENTIFIED.names)
"""Columns of a removed row that are those of the document."""


def moved_name(work: Unit) -> str:
    """File name, without suffix, of the rows of a unit in the folder of another language."""
    return f"{work.name}.from-{work.lang}"


def _chosen(rows: pa.RecordBatch, mask: Mask) -> pa.RecordBatch:
    """The rows where ``mask`` is set; a batch of which all are wanted is not copied."""
    return rows if mask.all() else rows.filter(pa.array(mask))


def add_ids(batch: pa.RecordBatch, work: Unit, *, first_row: int) -> pa.RecordBatch:
    """The batch with ``id`` in front: ``<lang>/<shard>/<row>``, rows counted from ``first_row``."""
    numbers = pa.array(np.arange(first_row, first_row + batch.num_rows)).cast(pa.string())
    ids = cast("Any", pc).binary_join_element_wise(f"{work.lang}/{work.shard}", numbers, "/")
    return pa.RecordBatch.from_arrays([ids, *batch.columns], names=["id", *batch.schema.names])


Action = Literal["error", "drop", "keep"]


def faults(rows: pa.RecordBatch, checks: ChecksSection) -> list[tuple[str, Action, Mask, str]]:
    """Checks in the order in which they are made: recipe key, action, (n,) bool of the rows at fault, what is wrong.

    UTF-8 is checked in every column of strings; a URL that is not text would trip whoever reads the tree.
    """
    found: list[tuple[str, Action, Mask, str]] = [
        (
            "oversized",
            checks.oversized,
            oversized(rows["text"], checks.max_document_bytes),
            f"a text of more than checks.max_document_bytes = {checks.max_document_bytes:,} bytes",
        )
    ]
    for name in rows.schema.names:
        if name == "id" or not pa.types.is_string(rows.schema.field(name).type):
            continue
        found.append(("invalid_utf8", checks.invalid_utf8, invalid_utf8(rows[name]), f"`{name}` is not valid UTF-8"))
    found.append(("nul", checks.nul, has_nul(rows["text"]), "a NUL character (U+0000) in `text`"))
    return found


class _Outputs:
    """The files of one unit: one shard per folder that got rows, one of removed rows. Opened when a row comes."""

    def __init__(self, layout: Layout, work: Unit, stack: ExitStack, report: UnitReport, schema: pa.Schema) -> None:
        self.layout = layout
        self.work = work
        self.stack = stack
        self.report = report
        self.schema = schema
        self.writers: dict[str, ShardWriter] = {}
        self.agreement = Agreement()

    def give(self, rows: pa.RecordBatch, folder: pa.Array) -> None:
        """Write rows to their folders; null: to none."""
        for lang in pc.unique(folder).drop_null().to_pylist():
            here = pc.fill_null(pc.equal(folder, lang), False)
            chosen = _chosen(rows, here.to_numpy(zero_copy_only=False))
            name = self.work.name if lang == self.work.lang else moved_name(self.work)
            self._writer(storage.join(TREES[STAGE], lang, f"{name}.parquet"), self.schema).write(chosen)
            self.report.give(lang, Counts.of(chosen["text"]))

    def remove(self, rows: pa.RecordBatch, reason: pa.Array) -> None:
        """Count and write the rows that have a reason. Columns of REMOVED that are not there read as null."""
        if reason.null_count == len(reason):
            return
        chosen = rows.filter(pc.is_valid(reason))
        reason = reason.drop_null()
        for value in pc.unique(reason).to_pylist():
            self.report.remove(self.work.lang, value, Counts.of(chosen["text"].filter(pc.equal(reason, value))))
        columns = {
            "claimed_lang": pa.array([self.work.lang] * chosen.num_rows, pa.string()),
            **{name: _readable(chosen[name]) for name in set(chosen.schema.names) & _TAKEN_OVER},
            "bytes": pc.binary_length(chosen["text"]).fill_null(0).cast(pa.int64()),
            "reason": reason,
        }
        arrays = [columns.get(field.name, pa.nulls(chosen.num_rows, field.type)) for field in REMOVED]
        path = storage.join("removed", STAGE, self.work.lang, f"{self.work.name}.parquet")
        self._writer(path, REMOVED).write(pa.RecordBatch.from_arrays(arrays, schema=REMOVED))

    def keep_unknown(self, rows: pa.RecordBatch, reason: pa.Array) -> None:
        """Write the rows whose language is not certain, whole, beside the tree."""
        chosen = rows.filter(pc.fill_null(pc.equal(reason, LOW_SCORE), False))
        if chosen.num_rows:
            path = storage.join(UNKNOWN, self.work.lang, f"{self.work.name}.parquet")
            self._writer(path, self.schema).write(chosen)

    def note_files(self) -> None:
        """Tell the report what was written; to be called once the files are closed."""
        for path, writer in sorted(self.writers.items()):
            self.report.files.append(OutputFile(path, storage.size(writer.path), writer.rows))

    def _writer(self, path: str, schema: pa.Schema) -> ShardWriter:
        if path not in self.writers:
            writer = ShardWriter(storage.join(self.layout.workdir, path), schema)
            self.writers[path] = self.stack.enter_context(writer)
        return self.writers[path]


def _readable(column: pa.Array) -> pa.Array:
    """The column with null for values that are not valid UTF-8."""
    if not pa.types.is_string(column.type):
        return column
    bad = invalid_utf8(column)
    return pc.if_else(pa.array(~bad), column, pa.scalar(None, pa.string())) if bad.any() else column


class IdentifyStage(Stage):
    """The stage, which goes on after a check that failed a shard has been loosened."""

    def finish(self, reports: list[UnitReport], fingerprint: dict[str, Any]) -> dict[str, Any]:
        """The manifest, with ``agreement`` (:func:`lola_data.lid.agreement.agreement_report`) and ``thresholds``."""
        languages: dict[str, Agreement] = {}
        for report in reports:
            for lang, counts in report.extra.get("agreement", {}).items():
                languages.setdefault(lang, Agreement()).__iadd__(Agreement(**counts))
        self.extra = {"agreement": agreement_report(languages)}
        step = self.phases[-1]
        if isinstance(step, IdentifyStep) and step.minima():
            self.extra["thresholds"] = step.minima()
        for line in agreement_lines(languages):
            say(line)
        return super().finish(reports, fingerprint)

    def output_roots(self) -> list[str]:
        """The tree, and the documents of no certain language."""
        return [*super().output_roots(), storage.join(self.layout.workdir, UNKNOWN)]

    def same_units(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """A shard that passed checks which fail it passes looser ones with the same rows."""
        checks = old["settings"]["checks"], new["settings"]["checks"]
        settings = {**new["settings"], "checks": checks[0]}
        return only_loosened(*checks) and super().same_units(old, {**new, "settings": settings})


def only_loosened(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a shard that went through with the ``checks`` ``old`` comes out the same with ``new``."""
    limits = old["max_document_bytes"], new["max_document_bytes"]
    if old["oversized"] == "error":
        sizes = limits[1] >= limits[0]
    else:
        sizes = limits[1] == limits[0] and old["oversized"] == new["oversized"]
    return sizes and all(old[name] in ("error", new[name]) for name in ("invalid_utf8", "nul"))


def build(recipe: Recipe, layout: Layout) -> Stage:
    """The stage as the recipe sets it up."""
    place: dict[str, Any] = {
        "input_stage": "download",
        "languages": recipe.selected,
        "unit_bytes": recipe.unit_bytes,
        "section": recipe.identify,
    }
    phases: list[ShardStep] = [IdentifyStep(layout, STAGE, **place, checks=recipe.checks)]
    if recipe.identify.min_score_rule != "none":
        phases.insert(0, ScoreStep(layout, STAGE, **place))
    settings = {
        **recipe.identify.model_dump(),
        "model_sha256": _model_digest(recipe.identify.model),
        **({"second_sha256": _model_digest(second)} if (second := recipe.identify.second_model) else {}),
        "checks": recipe.checks.model_dump(),
        "languages": recipe.languages,
        "unit_mb": recipe.unit_mb,
    }
    return IdentifyStage(STAGE, layout, phases, settings, ["download"])


def agreement_lines(languages: dict[str, Agreement]) -> list[str]:
    """What to say of agreement: the whole, each group of kin, and the languages that agree least."""
    total = Agreement()
    for one in languages.values():
        total += one
    if not total.documents:
        return []
    share = (total.own + total.kin) / total.documents
    lines = [f"{STAGE}: {share:.1%} of documents are named as their folder's language or near kin of it"]
    for name, one in by_group(languages).items():
        own = sum(languages[code].own for code in name.split("/"))
        lines.append(
            f"{STAGE}: {name}: {own / one.documents:.1%} by their own code, {one.own / one.documents:.1%} as a group"
        )
    worst = sorted(
        languages.items(), key=lambda item: ((item[1].own + item[1].kin) / max(1, item[1].documents), item[0])
    )
    weak = [(code, one) for code, one in worst if one.documents and one.own + one.kin < one.documents / 2]
    if weak:
        named = ", ".join(f"{code} {(one.own + one.kin) / one.documents:.0%}" for code, one in weak[:8])
        lines.append(f"{STAGE}: fewer than half agree in {named}{' and more' if len(weak) > 8 else ''}")
    return lines


def _model_digest(model: str) -> str:
    if model in REGISTRY:
        return REGISTRY[model].sha256
    with model_path(model).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
