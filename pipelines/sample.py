"""The stage sample: deduped/<lang>/ -> sampled/<lang>/ with sampled/plan.json, in three phases.

1. ``sizes``, a unit at a time: hash and size of each document, as columns.
2. ``choice``, a language at a time: the budget of the language, from the sizes of all, and what that means for its
   documents: the hash below which they are taken, or how many of the first of each unit.
3. ``filter``, a unit at a time: writes the rows that are taken. The others are counted, not written.

A shard of which all is taken, and which the stage dedup of the same work folder has written, is not read: its counts
are in dedup's record, and the file is copied as it is.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.layout import TREES
from lola_data.manifest import Counts, OutputFile, UnitReport
from lola_data.sampling.methods import EVERYTHING, SamplingPlan, chosen, first_of_each, hash_bound, plan
from lola_data.schemas import DEDUPED
from lola_data.shards import ShardWriter, further_columns, open_parquet, read_batches
from lola_data.unit_hash import unit_hash
from pipelines.progress import say
from pipelines.stage import LanguageWork, ShardStep, Stage, TreeStep
from pipelines.state import StageState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from lola_data.sampling.methods import Sizes
    from lola_data.sections import SampleSection
    from lola_data.shards import Unit
    from tokenizer.encode import Encoder

STAGE = "sample"
NOT_SAMPLED = "not_sampled"
SHOWN = 12
"""Languages shown on the terminal; plan.txt has all."""

DOCUMENT_BYTES = 16
"""Of a document in a file of sizes, uncompressed."""

DEDUP, DEDUP_PHASE = "dedup", "filter"
"""The stage that writes the input tree, and its phase that does."""

SIZES = pa.schema([pa.field("hash", pa.uint64()), pa.field("size", pa.int64())])


class SizesStep(TreeStep):
    """Phase 1: hash and size of each document."""

    phase = "sizes"

    def __init__(self, *args: Any, section: SampleSection, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.seed = seed

    def process(self, work: Unit) -> UnitReport:
        """Write the hashes and sizes of one unit."""
        report = UnitReport(work.key)
        known = known_counts(self.layout, work) if self.section.method == "all" else None
        if known is not None and self.section.unit != "tokens":
            self._note(report, work, known.documents, known.bytes if self.section.unit == "bytes" else known.documents)
            return report
        relative = storage.join("scratch", STAGE, "sizes", work.lang, f"{work.name}.parquet")
        columns = ["id"] if self.section.unit == "documents" else ["id", "text"]
        documents, units = 0, 0
        with ShardWriter(storage.join(self.layout.workdir, relative), SIZES) as writer:
            for batch in read_batches(self.input_tree, work, DEDUPED, columns=columns):
                sizes = sizes_of(batch, self.section)
                hashes = document_hashes(batch["id"], self.seed, storage.join(self.input_tree, work.path))
                writer.write(pa.RecordBatch.from_arrays([pa.array(hashes), pa.array(sizes)], schema=SIZES))
                documents += batch.num_rows
                units += int(sizes.sum())
        self._note(report, work, documents, units)
        report.files.append(OutputFile(relative, storage.size(writer.path), writer.rows))
        return report

    @staticmethod
    def _note(report: UnitReport, work: Unit, documents: int, units: int) -> None:
        counts = Counts(documents=documents)
        report.take(work.lang, counts)
        report.give(work.lang, counts)
        report.extra["units"] = units


def known_counts(layout: Layout, work: Unit) -> Counts | None:
    """Sizes of a unit that is a whole file written by the stage dedup of this work folder; None if it is not that."""
    if DEDUP in layout.trees:
        return None
    report = StageState(layout, DEDUP).report(DEDUP_PHASE, f"{work.lang}/{work.shard}")
    if report is None:
        return None
    counts = report.given.get(work.lang, Counts())
    written = OutputFile(
        storage.join(TREES[DEDUP], work.path),
        storage.size(storage.join(layout.tree(DEDUP), work.path)),
        counts.documents,
    )
    return counts if written in report.files and work.rows == counts.documents else None


def sizes_of(batch: pa.RecordBatch, section: SampleSection) -> npt.NDArray[np.int64]:
    """Size of each document in the section's unit; tokens include the end-of-document token of the token shards."""
    if section.unit == "documents":
        return np.ones(batch.num_rows, dtype=np.int64)
    if section.unit == "bytes":
        return pc.binary_length(batch["text"]).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    assert section.tokenizer is not None
    _, lengths = _encoder(section.tokenizer).encode(batch["text"])
    return lengths + 1


@lru_cache(maxsize=1)
def _encoder(path: str) -> Encoder:
    from tokenizer.encode import Encoder

    return Encoder(path)


def document_hashes(ids: pa.Array, seed: int, path: str) -> npt.NDArray[np.uint64]:
    """The hash that decides whether a document is sampled, (n,) uint64.

    Raises:
        ShardError: a document has no id.
    """
    if ids.null_count:
        raise ShardError(
            f"{path}: documents without `id`, by which the sample is chosen; run the stage `identify` on the raw shards"
        )
    return unit_hash(seed, ids, STAGE)


class ChoiceStep(ShardStep):
    """Phase 2: which documents of each language are taken."""

    phase = "choice"

    def __init__(self, layout: Layout, stage: str, *, section: SampleSection) -> None:
        super().__init__(layout, stage)
        self.section = section
        self._found: list[tuple[str, str, int, int]] | None = None
        self._made: SamplingPlan | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What was read is read again in a worker, once: it may be large and travels badly.
        return {**self.__dict__, "_found": None, "_made": None}

    def plan(self) -> list[LanguageWork]:
        """One unit of work a language.

        Raises:
            RecipeError: the recipe asks for languages that are not there.
        """
        documents: dict[str, int] = {}
        for lang, _, count, _ in self._units():
            documents[lang] = documents.get(lang, 0) + count
        # Made here so that a budget for a language that is not there stops the run.
        self.sampling_plan()
        return [LanguageWork(lang, count * DOCUMENT_BYTES) for lang, count in documents.items()]

    def work_from_json(self, value: dict[str, Any]) -> LanguageWork:
        """The inverse of the unit's ``to_json``."""
        return LanguageWork(**value)

    def sampling_plan(self) -> SamplingPlan:
        """Budgets of all languages, from the sizes that phase 1 found."""
        if self._made is None:
            self._made = self._plan_sizes()
        return self._made

    def _plan_sizes(self) -> SamplingPlan:
        sizes: dict[str, int] = {}
        for lang, _, _, units in self._units():
            sizes[lang] = sizes.get(lang, 0) + units
        section = self.section
        return plan(
            section.method,
            sizes,
            unit=section.unit,
            total=section.total,
            alpha=section.alpha,
            max_epochs=section.max_epochs,
            budgets=section.budgets,
        )

    def process(self, work: LanguageWork) -> UnitReport:
        """Write the choice of one language."""
        names = [(name, count) for lang, name, count, _ in self._units() if lang == work.lang]
        budget = self.sampling_plan().languages[work.lang].budget
        if self.section.method == "lola-v1":
            first = first_of_each([count for _, count in names], budget)
            choice: dict[str, Any] = {"first": {name: count for (name, _), count in zip(names, first, strict=True)}}
        elif self.section.method == "all":
            choice = {"below": str(EVERYTHING)}
        else:
            # As text: JSON readers may take a number for a float, and 64 bits do not fit one.
            choice = {"below": str(hash_bound(lambda: self._read_sizes(work.lang, names), budget))}
        relative = _choice_path(work.lang)
        path = storage.join(self.layout.workdir, relative)
        storage.write_record(path, choice)
        return UnitReport(work.key, files=[OutputFile(relative, storage.size(path), 0)])

    def _units(self) -> list[tuple[str, str, int, int]]:
        """Language, name, documents and size of the units of phase 1, by language, shard and row."""
        if self._found is None:
            self._found = self._read_units()
        return self._found

    def _read_units(self) -> list[tuple[str, str, int, int]]:
        reports = {report.key: report for report in self.state.reports(SizesStep.phase)}
        found: list[tuple[str, str, int, int]] = []
        for unit in self.state.plan(SizesStep.phase) or []:
            report = reports[f"{unit['lang']}/{unit['name']}"]
            documents = sum(counts.documents for counts in report.taken.values())
            found.append((unit["lang"], unit["name"], documents, report.extra["units"]))
        return found

    def _read_sizes(self, lang: str, names: list[tuple[str, int]]) -> Iterator[Sizes]:
        for name, _ in names:
            with open_parquet(self.layout.scratch(STAGE, "sizes", lang, f"{name}.parquet")) as file:
                for batch in file.iter_batches(batch_size=1 << 20):
                    yield batch["hash"].to_numpy(), batch["size"].to_numpy()


def _choice_path(lang: str) -> str:
    """The choice of a language, relative to the work folder."""
    return storage.join("scratch", STAGE, "choice", f"{lang}.json")


class FilterStep(TreeStep):
    """Phase 3: the rows that are taken."""

    phase = "filter"

    def __init__(self, *args: Any, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed

    def process(self, work: Unit) -> UnitReport:
        """Write what is taken of one unit. Where nothing is, no file is written."""
        choice = storage.read_json(storage.join(self.layout.workdir, _choice_path(work.lang)))
        report = UnitReport(work.key)
        relative = storage.join(TREES[STAGE], work.lang, f"{work.name}.parquet")
        known = known_counts(self.layout, work) if _takes_all(choice, work) else None
        if known is not None:
            path = storage.join(self.layout.workdir, relative)
            storage.copy(storage.join(self.input_tree, work.path), path)
            report.take(work.lang, known)
            report.give(work.lang, known)
            report.files.append(OutputFile(relative, storage.size(path), work.rows))
            return report
        writer: ShardWriter | None = None
        row = 0
        schema = pa.schema([*DEDUPED, *further_columns(self.input_tree, work)])
        with ExitStack() as stack:
            for batch in read_batches(self.input_tree, work, schema):
                taken = batch.filter(pa.array(self._mask(batch, choice, work, row)))
                row += batch.num_rows
                came, went = Counts.of(batch["text"]), Counts.of(taken["text"])
                report.take(work.lang, came)
                report.give(work.lang, went)
                report.remove(work.lang, NOT_SAMPLED, _difference(came, went))
                if taken.num_rows:
                    if writer is None:
                        path = storage.join(self.layout.workdir, relative)
                        writer = stack.enter_context(ShardWriter(path, schema))
                    writer.write(taken)
        if writer is not None:
            report.files.append(OutputFile(relative, storage.size(writer.path), writer.rows))
        return report

    def _mask(self, batch: pa.RecordBatch, choice: dict[str, Any], work: Unit, row: int) -> npt.NDArray[np.bool_]:
        if "first" in choice:
            return np.arange(row, row + batch.num_rows) < choice["first"][work.name]
        hashes = document_hashes(batch["id"], self.seed, storage.join(self.input_tree, work.path))
        return chosen(hashes, int(choice["below"]))


def _takes_all(choice: dict[str, Any], work: Unit) -> bool:
    if "first" in choice:
        return choice["first"][work.name] >= work.rows
    return int(choice["below"]) >= EVERYTHING


def _difference(came: Counts, went: Counts) -> Counts:
    return Counts(
        documents=came.documents - went.documents,
        characters=came.characters - went.characters,
        bytes=came.bytes - went.bytes,
    )


@dataclass
class SampleStage(Stage):
    """The stage, which leaves the plan beside the rows."""

    def finish(self, reports: list[UnitReport], fingerprint: dict[str, Any]) -> dict[str, Any]:
        """The manifest, with the plan under ``plan``; writes plan.json (see :class:`SamplingPlan`) and plan.txt."""
        choice = next(phase for phase in self.phases if isinstance(phase, ChoiceStep))
        made = choice.sampling_plan()
        tree = self.layout.tree(self.name)
        self.extra = {"plan": made.to_json()}
        manifest = super().finish(reports, fingerprint)
        lines = plan_lines(made)
        plan = storage.join(tree, "plan.json")
        storage.write_json(plan, made.to_json())
        manifest["files"].append({"path": f"{TREES[self.name]}/plan.json", "bytes": storage.size(plan), "rows": 0})
        with storage.atomic_output(storage.join(tree, "plan.txt")) as handle:
            handle.write(("\n".join(lines) + "\n").encode())
        for line in lines[: SHOWN + 2]:
            say(line)
        if len(lines) > SHOWN + 2:
            say(f"... {len(lines) - SHOWN - 2} lines more in {storage.join(tree, 'plan.txt')}")
        return manifest


def plan_lines(made: SamplingPlan) -> list[str]:
    """The plan as a table for people: a headline, the columns' names, a language a line, biggest share first."""
    budget = made.total - made.unspent
    headline = f"sample: {made.method}, {budget:,} {made.unit} over {len(made.languages)} languages"
    if made.unspent:
        headline += f"; {made.unspent:,} of {made.total:,} left unspent: no language may take more"
    lines = [headline, f"{'':8} {made.unit + ' at hand':>22} {'budget':>20} {'share':>9} {'epochs':>8}"]
    ranked = sorted(made.languages.items(), key=lambda item: (-item[1].share, item[0]))
    for code, language in ranked:
        lines.append(
            f"{code:8} {language.available:>22,} {language.budget:>20,} {language.share:>9.3%} {language.epochs:>8.3f}"
        )
    return lines


def build(recipe: Recipe, layout: Layout) -> Stage:
    """The stage as the recipe sets it up."""
    section = recipe.sample
    tree = {"input_stage": "dedup", "languages": recipe.selected, "unit_bytes": recipe.unit_bytes}
    settings = {
        **section.model_dump(),
        "tokenizer_sha256": _tokenizer_digest(section),
        "seed": recipe.seed,
        "languages": recipe.languages,
        "unit_mb": recipe.unit_mb,
    }
    phases: list[ShardStep] = [
        SizesStep(layout, STAGE, section=section, seed=recipe.seed, **tree),
        ChoiceStep(layout, STAGE, section=section),
        FilterStep(layout, STAGE, seed=recipe.seed, **tree),
    ]
    return SampleStage(STAGE, layout, phases, settings, ["dedup"])


def _tokenizer_digest(section: SampleSection) -> str | None:
    if section.unit != "tokens" or section.tokenizer is None:
        return None
    from tokenizer.formats import read_model

    return read_model(section.tokenizer).sha256
