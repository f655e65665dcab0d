"""One document's way through the stages of a run: a work folder and an id in, a :class:`Journey` out.

Nothing is scanned: the raw row is where the id says, later rows are found by the names of files and the statistics of
row groups, and the token shard by the plan of the stage. The one exception are the documents removed in favour of a
survivor, for which the column ``kept_id`` of its language is read until all are found.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.balance.trees import IDS_SUFFIX
from lola_data.errors import RecipeError, ShardError
from lola_data.inspect.places import removed_of, shown_path, tree_of
from lola_data.inspect.rows import find_ids, find_rows, parse_id, raw_rows, read_group, row_counts
from lola_data.inspect.texts import texts_of
from lola_data.inspect.tokens import TokenisedDocument, tokenised, vocabulary
from lola_data.schemas import REMOVED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lola_data.inspect.places import Place
    from lola_data.inspect.rows import DocumentId, Row
    from lola_data.layout import Layout

KEPT, REMOVED_HERE, ABSENT, NOT_RUN = "kept", "removed", "absent", "not run"
"""What a stage did with a document: passed it on, took it out, has nothing of it, or has not been run to its end."""


@dataclass(frozen=True)
class Step:
    """What one stage did with the document.

    Attributes:
        stage: its name.
        verdict: one of :data:`KEPT`, :data:`REMOVED_HERE`, :data:`ABSENT`, :data:`NOT_RUN`.
        file: where the row lies, relative to the work folder (``removed/...`` for a removed one); None if nowhere.
        row: number of the row in that file.
        group: its row group.
        facts: what the stage found out, by name, in the order of reading; plain JSON values.
    """

    stage: str
    verdict: str
    file: str | None = None
    row: int | None = None
    group: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Journey:
    """One document's way.

    Attributes:
        id: of the document.
        lang: folder it was last seen in.
        steps: one for each stage, up to the one that has nothing of it to pass on.
        text: its text, or None where no tree at hand has it.
        row: the row that the text is of.
        survivor: the document it was removed for, with its text; None if there is none, or no text of it.
        similarity: of the two, if it was measured.
        favoured: those removed in its favour: id, reason, similarity.
        tokens: its place in the token shards.
        pieces: vocabulary pieces of its tokens, if the tokenizer is at hand.
    """

    id: str
    lang: str
    steps: tuple[Step, ...]
    text: bytes | None = None
    row: Row | None = None
    survivor: Row | None = None
    survivor_id: str | None = None
    similarity: float | None = None
    favoured: tuple[tuple[str, str, float | None], ...] = ()
    tokens: TokenisedDocument | None = None
    pieces: tuple[str, ...] | None = None


def trace(layout: Layout, document: str) -> Journey:
    """Follow a document.

    Args:
        layout: of the run; ``trees["download"]`` where its raw shards lie elsewhere.
        document: id ``<lang>/<shard>/<row>`` of the raw shard.

    Raises:
        RecipeError: an id of another form.
        ShardError: no such document in the run, or a shard that cannot be read.
    """
    wanted = parse_id(document)
    if wanted is None:
        raise RecipeError(
            f"{document!r}: not an id; ids are <lang>/<shard>/<row> of the raw shard, such as yo/yo_part_00000/12"
        )
    steps: list[Step] = []
    rows: dict[str, Row] = {}
    raw, step = _raw_step(layout, wanted)
    steps.append(step)
    if raw is not None:
        rows["download"] = raw
    for stage in ("identify", "dedup", "sample"):
        row, step = _tree_step(layout, stage, document)
        if row is not None and step.verdict == KEPT:
            rows[stage] = row
        steps.append(step)
        if step.verdict in (REMOVED_HERE, ABSENT):
            break
    if not rows and steps[-1].verdict != REMOVED_HERE:
        raise ShardError(f"{document}: no document of that id in {layout.workdir}; {_nearest(layout, wanted)}")
    removal = steps[-1] if steps[-1].verdict == REMOVED_HERE else None
    text = next((row for row in rows.values() if row.text is not None), None)
    if text is None and removal is not None:
        text = texts_of(layout, {document: removal.facts.get("bytes")}).get(document)
    last = [*rows.values()][-1] if rows else None
    found = Journey(document, last.lang if last else wanted.lang, tuple(steps), text.text if text else None, text)
    if removal is not None:
        return _with_survivor(found, layout, removal)
    found = _with_favoured(found, layout, rows.get("dedup"))
    return _with_tokens(found, layout, rows["sample"]) if "sample" in rows else found


def _raw_step(layout: Layout, wanted: DocumentId) -> tuple[Row | None, Step]:
    place = tree_of(layout, "download")
    if place is None:
        facts = {"note": f"no raw shards at {layout.tree('download')}; name them with --raw if they lie elsewhere"}
        return None, Step("download", ABSENT, facts=facts)
    row = raw_rows(place.root, [str(wanted)]).get(str(wanted))
    if row is None:
        return None, Step("download", ABSENT, facts={"note": _nearest(layout, wanted)})
    facts = {**_origin(layout, f"{wanted.lang}/{wanted.shard}.parquet"), **_facts(row, "source", "url", "timestamp")}
    facts["bytes"] = len(row.text or b"")
    return row, Step("download", KEPT, shown_path(place, row.path), row.number, row.group, facts)


def _origin(layout: Layout, path: str) -> dict[str, Any]:
    """Where a raw shard came from, by the manifest of the raw tree."""
    manifest = layout.manifest("download")
    if not storage.exists(manifest):
        return {}
    source: dict[str, Any] = storage.read_json(manifest).get("source", {})
    shard = next((one for one in source.get("shards", []) if one["path"] == path), {})
    kept = {key: source.get(key) for key in ("kind", "repo", "revision", "commit", "path")}
    return {
        name: value
        for name, value in {**kept, "origin": shard.get("origin"), "sha256": shard.get("sha256")}.items()
        if value is not None
    }


def _facts(row: Row, *names: str) -> dict[str, Any]:
    return {name: row.values[name] for name in names if row.values.get(name) is not None}


_TOLD = {
    "identify": ("lang", "lang_score", "script", "claimed_lang"),
    "dedup": ("cluster_size",),
    "sample": (),
}
_REMOVAL_TOLD = ("reason", "kept_id", "similarity", "lang", "lang_score", "bytes")


def _tree_step(layout: Layout, stage: str, document: str) -> tuple[Row | None, Step]:
    complete = storage.exists(layout.state(stage, "complete.json"))
    for place, verdict in ((tree_of(layout, stage), KEPT), (removed_of(layout, stage), REMOVED_HERE)):
        if place is None:
            continue
        row = find_rows(place.shards, [document], of_a_run=True).get(document)
        if row is not None:
            facts = _facts(row, *(_TOLD[stage] if verdict == KEPT else _REMOVAL_TOLD))
            if stage == "sample":
                facts |= _budget(layout, row.lang)
            return row, Step(stage, verdict, shown_path(place, row.path), row.number, row.group, facts)
    if not complete:
        return None, Step(stage, NOT_RUN)
    if stage == "sample":
        return None, Step(stage, ABSENT, facts={"note": "not sampled", **_budget(layout, document.split("/")[0])})
    return None, Step(stage, ABSENT, facts={"note": "neither kept nor removed: not among what the stage was given"})


def _budget(layout: Layout, lang: str) -> dict[str, Any]:
    """What the sampling plan has for a language."""
    path = storage.join(layout.tree("sample"), "plan.json")
    languages = storage.read_json(path).get("languages", {}) if storage.exists(path) else {}
    own = languages.get(lang, {}) if isinstance(languages, dict) else {}
    return {name: own[name] for name in ("epochs", "share") if name in own}


def _nearest(layout: Layout, wanted: DocumentId) -> str:
    """Why a raw row is not there."""
    place = tree_of(layout, "download")
    if place is None:
        return f"its raw shards are not at {layout.tree('download')} (--raw names another place)"
    own = [shard for shard in place.shards if shard.lang == wanted.lang]
    names = [shard.path.rpartition("/")[2].removesuffix(".parquet") for shard in own]
    if wanted.shard in names:
        rows = sum(row_counts(own[names.index(wanted.shard)].path))
        return f"{place.name}/{wanted.lang}/{wanted.shard}.parquet has {rows:,} rows, numbered from 0"
    if names:
        near = difflib.get_close_matches(wanted.shard, names, n=1, cutoff=0.0)[0]
        return f"{place.name}/{wanted.lang} has no shard `{wanted.shard}`; the nearest of its {len(names)} is `{near}`"
    near = difflib.get_close_matches(wanted.lang, place.languages, n=1, cutoff=0.0)[0]
    return f"{place.name}/ has no language `{wanted.lang}`; the nearest is `{near}`"


def _with_survivor(journey: Journey, layout: Layout, removal: Step) -> Journey:
    kept = removal.facts.get("kept_id")
    if kept is None:
        return journey
    survivor = texts_of(layout, {kept: None}).get(kept)
    return replace(journey, survivor_id=kept, survivor=survivor, similarity=removal.facts.get("similarity"))


def _with_favoured(journey: Journey, layout: Layout, row: Row | None) -> Journey:
    """The journey with those removed in favour of ``row``, a row of the deduplicated tree."""
    size = None if row is None else row.values.get("cluster_size")
    if row is None or not size or size < 2:
        return journey
    place = removed_of(layout, "dedup")
    if place is None:
        return journey
    found: list[tuple[str, str, float | None]] = []
    for one in _removed_for(place, row.lang, journey.id):
        found.append(one)
        if len(found) == size - 1:
            break
    return replace(journey, favoured=tuple(found))


def _removed_for(place: Place, lang: str, kept: str) -> Iterator[tuple[str, str, float | None]]:
    schema = pa.schema([REMOVED.field(name) for name in ("kept_id", "id", "reason", "similarity")])
    for shard in place.of([lang]).shards:
        for group in range(len(row_counts(shard.path))):
            for batch in read_group(shard.path, shard.lang, group, schema):
                here = batch.filter(pc.equal(batch["kept_id"], kept))
                for one in here.to_pylist():
                    yield one["id"], one["reason"], one["similarity"]


def _with_tokens(journey: Journey, layout: Layout, row: Row) -> Journey:
    place = tree_of(layout, "tokenize")
    if place is not None and place.kind == "tokens":
        for prefix, split, number in _token_places(layout, place, row, journey.id):
            return _tokenised(journey, layout, place, prefix, split, number)
    complete = storage.exists(layout.state("tokenize", "complete.json"))
    return replace(journey, steps=(*journey.steps, Step("tokenize", ABSENT if complete else NOT_RUN)))


def _tokenised(journey: Journey, layout: Layout, place: Place, prefix: str, split: str, number: int) -> Journey:
    file = shown_path(place, f"{prefix}.bin")
    document = tokenised(prefix, split, number)
    model = vocabulary(storage.join(layout.tree("tokenizer"), "tokenizer.model"))
    facts = {
        "split": split,
        "tokens": len(document.ids),
        "first_token": document.first,
        "shard_documents": document.documents,
        "shard_tokens": document.shard_tokens,
    }
    return replace(
        journey,
        steps=(*journey.steps, Step("tokenize", KEPT, file, number, None, facts)),
        tokens=document,
        pieces=None if model is None else tuple(model.pieces(document.ids)),
    )


def _token_places(layout: Layout, place: Place, row: Row, document: str) -> Iterator[tuple[str, str, int]]:
    """Token shards that have the document: path without suffix, split, number of the document."""
    key = _token_key(layout, row)
    for shard in place.shards:
        prefix = shard.path.removesuffix(".idx")
        named = prefix.rpartition("/")[2]
        if (named != key) if key is not None else (shard.lang != row.lang):
            continue
        ids = f"{prefix}{IDS_SUFFIX}"
        if storage.exists(ids):
            number = find_ids(ids, shard.lang, [document]).get(document)
            if number is not None:
                yield prefix, shard.split, number


def _token_key(layout: Layout, row: Row) -> str | None:
    """Name of the token shards made of a sampled row, by the plan of the stage; None without a plan."""
    path = layout.state("tokenize", "main", "plan.json")
    if not storage.exists(path):
        return None
    file = storage.join(row.lang, row.path.rpartition("/")[2])
    for work in storage.read_json(path):
        unit = work["unit"]
        if unit["path"] == file and unit["first_row"] <= row.number < unit["first_row"] + unit["rows"]:
            return f"{unit['lang']}_{work['number']:05d}"
    return None
