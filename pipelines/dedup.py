"""The stage dedup: identified/<lang>/ -> deduped/<lang>/ and removed/dedup/<lang>/, in these phases.

1. ``signatures``, a unit at a time: digests, URL hashes and LSH band keys of each document, as columns.
2. For languages too large for one task, four phases that part them (:mod:`pipelines.partition`).
3. ``match``, a language or a part at a time (:mod:`pipelines.match`): which documents go, and for which.
4. ``filter``, a unit at a time: joins the decisions by id and writes what is kept and what is removed.

Between the last two a language that would lose more than its stated share stops the stage.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.errors import RemovalAlarm, StageError
from lola_data.hashes import hash128
from lola_data.layout import TREES
from lola_data.manifest import Counts, OutputFile, UnitReport
from lola_data.minhash import MinHash, s_curve
from lola_data.planted import MAX_WORDS, Recall, planted_recall
from lola_data.schemas import DEDUPED, IDENTIFIED, REMOVED
from lola_data.shards import ShardWriter, further_columns, read_batches
from lola_data.shingles import shingle
from lola_data.urls import normalise_urls
from lola_data.words import scan_words
from pipelines.match import SAMPLES, SEARCH, MatchStep, decision_places, read_decisions
from pipelines.partition import GatherStep, GroupStep, SpreadStep, TieStep
from pipelines.progress import say
from pipelines.signatures import signature_schema, signature_writer, signatures_path
from pipelines.stage import Stage, TreeStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from lola_data.sections import DedupSection
    from lola_data.shards import Unit
    from lola_data.words import WordScan

STAGE = "dedup"
PLANTED = 32
"""Documents of each unit that the recall of the bands is measured on, by edited copies."""


def sign_batch(batch: pa.RecordBatch, *, minhash: MinHash, ngram: int, bands: int) -> tuple[pa.RecordBatch, WordScan]:
    """The signatures of a batch of the identified tree, and the words of its first :data:`PLANTED` documents that
    are not very long; ``bands`` is 0 where near-duplicates are not looked for, and a batch without ``url`` is one of
    which URLs do not count."""
    scan = scan_words(batch["text"])
    columns: list[Any] = [
        batch["id"],
        *(pa.array(scan.digests[:, half]) for half in (0, 1)),
        *(_url_hashes(batch["url"]) if "url" in batch.schema.names else [pa.nulls(batch.num_rows, pa.uint64())] * 2),
        pc.binary_length(batch["text"]).fill_null(0).cast(pa.int64()),
        batch["lang_score"],
    ]
    head = scan.head(PLANTED, MAX_WORDS)
    # Overwrites the words.
    values, offsets = shingle(scan.words, scan.offsets, ngram)
    columns.append(pa.array(np.diff(offsets)))
    if bands:
        keys, _ = minhash.band_keys(values, offsets)
        columns += [pa.array(np.ascontiguousarray(keys[:, band])) for band in range(bands)]
    return pa.RecordBatch.from_arrays(columns, schema=signature_schema(bands)), head


def _url_hashes(urls: pa.Array) -> list[pa.Array]:
    normal = normalise_urls(urls)
    missing = normal.is_null().to_numpy(zero_copy_only=False)
    hashes = hash128(normal)
    return [pa.array(hashes[:, half], mask=missing) for half in (0, 1)]


class SignatureStep(TreeStep):
    """Phase 1: the signatures of each unit."""

    phase = "signatures"

    def __init__(self, *args: Any, section: DedupSection, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.seed = seed
        self.minhash = MinHash(section.bands, section.rows, seed)

    def process(self, work: Unit) -> UnitReport:
        """Write the signatures of one unit."""
        section = self.section
        bands = section.bands if section.minhash else 0
        recall, seen = Recall(), 0
        report = UnitReport(work.key)
        path = signatures_path(self.layout, work.lang, work.name)
        columns = ["id", "text", *(["url"] if section.url else []), "lang_score"]
        with signature_writer(path, bands) as writer:
            for batch in read_batches(self.input_tree, work, IDENTIFIED, columns=columns):
                counts = Counts.of(batch["text"])
                report.take(work.lang, counts)
                report.give(work.lang, counts)
                signed, head = sign_batch(batch, minhash=self.minhash, ngram=section.ngram, bands=bands)
                writer.write(signed)
                if bands and seen < PLANTED:
                    recall += self._recall(signed, head, min(PLANTED - seen, batch.num_rows), seen)
                seen += batch.num_rows
        report.extra["recall"] = asdict(recall)
        relative = path.removeprefix(f"{self.layout.workdir.rstrip('/')}/")
        report.files.append(OutputFile(relative, storage.size(path), seen))
        return report

    def _recall(self, signed: pa.RecordBatch, head: WordScan, count: int, seen: int) -> Recall:
        """Of the first ``count`` documents of a batch, ``seen`` others having come before."""
        section = self.section
        offsets = head.offsets[: count + 1]
        keys = [signed[f"band_{band}"].to_numpy()[:count] for band in range(section.bands)]
        return planted_recall(
            head.words[: offsets[-1]],
            offsets,
            np.stack(keys, axis=1),
            minhash=self.minhash,
            ngram=section.ngram,
            threshold=section.threshold,
            seed=self.seed + seen,
        )


class FilterStep(TreeStep):
    """Phase 3: the kept and the removed rows of each unit."""

    phase = "filter"

    def __init__(self, *args: Any, section: DedupSection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self._places: dict[str, tuple[int, list[str]]] | None = None

    def plan(self) -> list[Unit]:
        """The units of the input tree.

        Raises:
            RemovalAlarm: a language would lose too much; shown by examples.
        """
        raise_alarms(self.state.reports(SignatureStep.phase), self.state.reports(MatchStep.phase), self.section)
        self._places = None
        return super().plan()

    def process(self, work: Unit) -> UnitReport:
        """Write one unit's rows to the tree of the kept or to that of the removed."""
        if self._places is None:
            self._places = decision_places(self.layout)
        decisions = read_decisions(*self._places[work.key])
        kept_path = storage.join(self.layout.tree(self.stage), work.lang, f"{work.name}.parquet")
        removed_path = storage.join(self.layout.removed(self.stage), work.lang, f"{work.name}.parquet")
        report = UnitReport(work.key)
        audit: dict[str, Counter[str]] = {}
        matched = 0
        with ExitStack() as stack:
            writers: dict[str, ShardWriter] = {}
            further = further_columns(self.input_tree, work)
            deduped = pa.schema([*DEDUPED, *further])
            for batch in read_batches(self.input_tree, work, pa.schema([*IDENTIFIED, *further])):
                kept, removed, found = split_batch(batch, decisions)
                matched += found
                # The kept text is what is left of all that came: to count it would be one more pass over most bytes.
                given = Counts.of(batch["text"])
                report.take(work.lang, given)
                _audit(audit, batch["source"], removed)
                for reason in pc.unique(removed["reason"]).to_pylist():
                    chosen = pc.equal(removed["reason"], reason)
                    gone = Counts.of(removed["text"].filter(chosen))
                    report.remove(work.lang, reason, gone)
                    given -= gone
                given.documents = kept.num_rows
                report.give(work.lang, given)
                for path, schema, rows in ((kept_path, deduped, kept), (removed_path, REMOVED, removed)):
                    if rows.num_rows:
                        if path not in writers:
                            writers[path] = stack.enter_context(ShardWriter(path, schema))
                        writers[path].write(rows.select(schema.names))
        if matched != decisions.num_rows:
            raise StageError(
                f"{work.path}: {decisions.num_rows - matched} decisions name ids that are no longer in the shard: it "
                f"has changed since the stage was begun. Run with `--redo {self.stage}`"
            )
        for path, root in ((kept_path, TREES[STAGE]), (removed_path, f"removed/{STAGE}")):
            if path in writers:
                relative = storage.join(root, work.lang, f"{work.name}.parquet")
                report.files.append(OutputFile(relative, storage.size(path), writers[path].rows))
        report.extra["audit"] = {source: dict(sorted(counts.items())) for source, counts in sorted(audit.items())}
        return report


def split_batch(batch: pa.RecordBatch, decisions: pa.Table) -> tuple[pa.RecordBatch, pa.RecordBatch, int]:
    """Rows to keep, with ``cluster_size``; rows to remove, with the columns of REMOVED and ``text``; decisions used.

    ``decisions`` has the columns of :data:`pipelines.match.DECISIONS`; rows without one are kept as clusters of one.
    """
    compute = cast("Any", pc)
    place = compute.index_in(batch["id"], value_set=decisions["id"].combine_chunks())
    reason, kept_id, similarity, cluster_size = (
        decisions[name].combine_chunks().take(place) for name in ("reason", "kept_id", "similarity", "cluster_size")
    )
    stays = compute.is_null(reason)
    kept = batch.append_column(DEDUPED.field("cluster_size"), compute.fill_null(cluster_size, 1))
    # A further column of the document may have the name of one of these.
    removed = batch.select(IDENTIFIED.names).append_column(
        "bytes", compute.binary_length(batch["text"]).fill_null(0).cast(pa.int64())
    )
    for name, values in (("reason", reason), ("kept_id", kept_id), ("similarity", similarity)):
        removed = removed.append_column(REMOVED.field(name), values)
    found = len(place) - place.null_count
    return kept.filter(stays) if reason.null_count < len(reason) else kept, removed.filter(compute.invert(stays)), found


def _lang(report: UnitReport) -> str:
    return report.key.split("/")[0]


def _audit(audit: dict[str, Counter[str]], source: pa.Array, removed: pa.RecordBatch) -> None:
    for one in pc.value_counts(source).to_pylist():
        audit.setdefault(one["values"] or "", Counter())["documents"] += one["counts"]
    pairs = zip(removed["source"].to_pylist(), removed["reason"].to_pylist(), strict=True)
    for (value, reason), count in Counter(pairs).items():
        audit.setdefault(value or "", Counter())[reason] += count


def raise_alarms(signed: Sequence[UnitReport], matched: Sequence[UnitReport], section: DedupSection) -> None:
    """Raise RemovalAlarm where match would remove more of a language than allowed, unless that is waived."""
    documents_of: Counter[str] = Counter()
    for report in signed:
        documents_of[_lang(report)] += sum(counts.documents for counts in report.taken.values())
    removed_of: Counter[str] = Counter()
    samples: dict[str, list[dict[str, Any]]] = {}
    for report in matched:
        removed_of[_lang(report)] += report.extra["removed"]
        samples.setdefault(_lang(report), []).extend(report.extra["samples"])
    lines: list[str] = []
    for lang, removed in sorted(removed_of.items()):
        documents = documents_of[lang]
        if documents < section.alarm_min_documents or removed <= section.max_removed_share * documents:
            continue
        if lang in section.waive:
            continue
        lines.append(f"{lang}: {removed:,} of {documents:,} documents ({removed / documents:.1%}) would go")
        for sample in samples[lang][:SAMPLES]:
            similarity = "" if sample["similarity"] is None else f", similarity {sample['similarity']:.3f}"
            lines.append(f"  {sample['id']} for {sample['kept_id']} ({sample['reason']}{similarity})")
            lines += [f"    removed: {sample['text']}", f"    kept:    {sample['kept_text']}"]
    if lines:
        raise RemovalAlarm(
            f"dedup: more than dedup.max_removed_share = {section.max_removed_share:.0%} of a language would be "
            f"removed; nothing has been. Look at the examples, then name the language in dedup.waive or change the "
            f"settings, and run the same command again\n" + "\n".join(lines)
        )


@dataclass
class DedupStage(Stage):
    """The stage, with the removal audit in its manifest."""

    section: DedupSection | None = None

    def finish(self, reports: list[UnitReport], fingerprint: dict[str, Any]) -> dict[str, Any]:
        """The manifest, with the keys ``audit`` (language -> source -> documents and removals by reason), ``search``
        (what finding the near-duplicates cost), ``s_curve`` and ``recall`` (language -> copies planted, those found,
        those expected to be); they are also printed."""
        audit: dict[str, dict[str, Counter[str]]] = {}
        for report in reports:
            for source, counts in report.extra["audit"].items():
                lang = _lang(report)
                audit.setdefault(lang, {}).setdefault(source, Counter()).update(counts)
        signed, matched = (self.phases[0].state.reports(phase.phase) for phase in (SignatureStep, MatchStep))
        # A language that was parted and in which nothing is tied has no part to decide on.
        search = {_lang(report): Counter(dict.fromkeys(SEARCH, 0)) for report in signed}
        for report in matched:
            search[_lang(report)].update(report.extra["search"])
        recall: dict[str, Recall] = {}
        for report in signed:
            lang = _lang(report)
            recall[lang] = recall.get(lang, Recall()) + Recall(**report.extra["recall"])
        section = self.section
        assert section is not None
        self.extra = {
            "audit": {
                lang: {source: dict(sorted(counts.items())) for source, counts in sorted(sources.items())}
                for lang, sources in sorted(audit.items())
            },
            "search": {lang: dict(counts) for lang, counts in sorted(search.items())},
            "s_curve": [list(row) for row in s_curve(bands=section.bands, rows=section.rows)]
            if section.minhash
            else [],
            "recall": {lang: asdict(one) for lang, one in sorted(recall.items()) if one.planted},
        }
        manifest = super().finish(reports, fingerprint)
        for line in audit_lines(manifest):
            say(line)
        return manifest


AUDIT_LINES = 12
"""Lines of the audit that are printed; the manifest has them all."""


def audit_lines(manifest: dict[str, Any], *, most: int = AUDIT_LINES) -> list[str]:
    """The S-curve of the bands and the removal audit, for people: the languages and sources with most removals."""
    lines: list[str] = []
    if manifest["s_curve"]:
        curve = ", ".join(f"{similarity:g}: {chance:.3f}" for similarity, chance in manifest["s_curve"])
        lines.append(f"dedup: chance that a pair is compared, by Jaccard similarity: {curve}")
    lines += _recall_lines(manifest["recall"])
    search = manifest["search"].values()
    verified, rejected = (sum(one[name] for one in search) for name in ("verified_pairs", "rejected_pairs"))
    lines.append(f"dedup: {verified:,} candidate pairs compared, {rejected:,} of them below the threshold")
    found: list[tuple[int, str]] = []
    for lang, sources in manifest["audit"].items():
        for source, counts in sources.items():
            reasons = {reason: count for reason, count in counts.items() if reason != "documents"}
            if reasons:
                gone = sum(reasons.values())
                named = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
                text = f"dedup: {lang} {source or '(no source)'}: {gone:,} of {counts['documents']:,} removed"
                found.append((gone, f"{text} ({gone / counts['documents']:.1%}): {named}"))
    found.sort(key=lambda one: (-one[0], one[1]))
    lines += [line for _, line in found[:most]]
    if len(found) > most:
        lines.append(f"dedup: ... {len(found) - most} more pairs of language and source: `audit` in the manifest")
    return lines


def _recall_lines(recall: dict[str, dict[str, Any]]) -> list[str]:
    if not recall:
        return []
    planted, found, expected = (sum(one[name] for one in recall.values()) for name in ("planted", "found", "expected"))
    worst = min(recall, key=lambda lang: (recall[lang]["found"] / recall[lang]["planted"], lang))
    return [
        f"dedup: of {planted:,} edited copies of your documents at or above the threshold, {found / planted:.1%} would "
        f"be compared ({expected / planted:.1%} expected); least in {worst}: {recall[worst]['found']:,} of "
        f"{recall[worst]['planted']:,}"
    ]


def build(recipe: Recipe, layout: Layout) -> Stage:
    """The stage as the recipe sets it up."""
    section = recipe.dedup
    tree = {"input_stage": "identify", "languages": recipe.selected, "unit_bytes": recipe.unit_bytes}
    # What raises an alarm decides whether there is output, not what it is: a waiver must not ask for a new start. Nor
    # does it matter to the output how the matching is parted.
    neutral = {"max_removed_share", "alarm_min_documents", "waive", "partitions"}
    memory = recipe.executor.memory_mb * 10**6
    steps = (SpreadStep, TieStep, GroupStep, GatherStep, MatchStep)
    return DedupStage(
        STAGE,
        layout,
        [
            SignatureStep(layout, STAGE, section=section, seed=recipe.seed, **tree),
            *(step(layout, STAGE, section=section, memory_bytes=memory) for step in steps),
            FilterStep(layout, STAGE, section=section, **tree),
        ],
        {
            **section.model_dump(exclude=neutral),
            "seed": recipe.seed,
            "languages": recipe.languages,
            "unit_mb": recipe.unit_mb,
        },
        ["identify"],
        section=section,
    )
