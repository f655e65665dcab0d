"""A run made by hand, of which every document's fate is known, for the tests of ``inspect`` and ``diff``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece

from lola_data.schemas import DEDUPED, IDENTIFIED, RAW, REMOVED
from lola_data.tokens import TokenShardWriter

if TYPE_CHECKING:
    from pathlib import Path

GROUP = 3
"""Rows of a row group."""
IDS = pa.schema([pa.field("id", pa.string()), pa.field("tokens", pa.int32())])
WORDS = {
    "de": "der schnelle braune Fuchs springt über einen faulen Hund und schläft",
    "yo": "ẹ káàárọ̀ ọjọ́ ilé ìwé ọmọ bàbá ìyá omi oúnjẹ",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق وقد وهبوا عقلا",
    "cy": "mae pob person yn cael ei eni yn rhydd ac yn gydradd",
}


@dataclass
class Truth:
    """A document and what became of it. ``end``: the reason it was removed for, ``not_sampled``, or empty."""

    id: str
    claimed: str
    lang: str
    text: str
    source: str
    end: str = ""
    kept_id: str | None = None
    similarity: float | None = None
    cluster_size: int = 1
    split: str = ""
    place: tuple[str, int] = ("", -1)

    @property
    def removed_at(self) -> str:
        """Stage that removed it, or empty."""
        return {"wrong_language": "identify", "low_score": "identify", "near": "dedup", "exact": "dedup",
                "url": "dedup"}.get(self.end, "")  # fmt: skip


def _write(path: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=GROUP)


def documents() -> list[Truth]:
    """42 documents of four languages; Welsh is found to be Breton and moves."""
    found: list[Truth] = []
    for lang, shards in {"de": (13, 8), "yo": (9,), "ar": (7,), "cy": (5,)}.items():
        words = WORDS[lang].split()
        for shard, rows in enumerate(shards):
            for row in range(rows):
                text = " ".join(words[(row * 3 + at * (shard + 2)) % len(words)] for at in range(6 + row % 4))
                one = Truth(
                    f"{lang}/{lang}_part_{shard:05d}/{row}", lang, "br" if lang == "cy" and row else lang,
                    f"{text} {row}\n{words[shard]}", ("mC4", "OSCAR-2301")[row % 2],
                )  # fmt: skip
                if row % 6 == 5:
                    one.end = "wrong_language" if row % 4 == 1 else "low_score"
                found.append(one)
    by_id = {one.id: one for one in found}
    pairs = [
        ("de/de_part_00000/7", "de/de_part_00000/1", "near", 0.875),
        ("de/de_part_00001/2", "de/de_part_00000/1", "near", 0.8125),
        ("de/de_part_00001/6", "de/de_part_00000/3", "exact", 1.0),
        ("yo/yo_part_00000/8", "yo/yo_part_00000/0", "url", None),
        ("cy/cy_part_00000/4", "cy/cy_part_00000/1", "near", 0.9375),
    ]
    for name, kept, reason, similarity in pairs:
        one = by_id[name]
        one.end, one.kept_id, one.similarity = reason, kept, similarity
        by_id[kept].cluster_size += 1
        if reason == "near":
            one.text = by_id[kept].text.replace(" ", "  ", 1) + " anders"
        if reason == "exact":
            one.text = by_id[kept].text
    for one in found:
        if not one.end and one.lang == "de" and int(one.id.rsplit("/", 1)[1]) % 4 == 0:
            one.end = "not_sampled"
    return found


def write_small_run(root: Path, *, model: bool = True) -> list[Truth]:
    """The work folder of a run over :func:`documents`, up to the token shards, as the stages would leave it."""
    found = documents()
    raw: dict[str, list[Truth]] = {}
    for one in found:
        raw.setdefault(one.id.rsplit("/", 1)[0], []).append(one)
    _write_trees(root, found, raw)
    _write_tokens(root, found, raw, model=model)
    for stage in ("download", "identify", "dedup", "sample", "tokenizer", "tokenize"):
        state = root / "state" / stage
        state.mkdir(parents=True, exist_ok=True)
        (state / "complete.json").write_text("{}")
        settings = {"threshold": 0.8, "url": True} if stage == "dedup" else {"seed": 1}
        (state / "fingerprint.json").write_text(json.dumps({"settings": settings, "stage": stage}))
    _write_manifests(root, found, raw)
    return found


def _row(one: Truth) -> dict[str, Any]:
    return {"text": one.text, "source": one.source, "url": f"https://{one.claimed}.example/{one.id.rsplit('/', 1)[1]}",
            "timestamp": "2020-01-01T00:00:00Z"}  # fmt: skip


def _seen(one: Truth) -> dict[str, Any]:
    return {**_row(one), "id": one.id, "claimed_lang": one.claimed, "lang": one.lang, "lang_score": 0.75,
            "script": "Arab" if one.lang == "ar" else "Latn"}  # fmt: skip


def _gone(one: Truth) -> dict[str, Any]:
    seen = {name: value for name, value in _seen(one).items() if name in REMOVED.names}
    return {**seen, "bytes": len(one.text.encode()), "reason": one.end, "kept_id": one.kept_id,
            "similarity": one.similarity}  # fmt: skip


def _write_trees(root: Path, found: list[Truth], raw: dict[str, list[Truth]]) -> None:
    for name, rows in raw.items():
        _write(root / f"raw/{name}.parquet", RAW, [_row(one) for one in rows])
        claimed, shard = name.split("/")
        left = [one for one in rows if one.removed_at != "identify"]
        _write(root / f"removed/identify/{name}.parquet", REMOVED,
               [_gone(one) for one in rows if one.removed_at == "identify"])  # fmt: skip
        for lang in sorted({one.lang for one in left}):
            own = [one for one in left if one.lang == lang]
            file = f"{lang}/{shard}.parquet" if lang == claimed else f"{lang}/{shard}.from-{claimed}.parquet"
            kept = [one for one in own if not one.removed_at]
            _write(root / "identified" / file, IDENTIFIED, [_seen(one) for one in own])
            _write(root / "removed/dedup" / file, REMOVED, [_gone(one) for one in own if one.removed_at])
            with_size = [{**_seen(one), "cluster_size": one.cluster_size} for one in kept]
            _write(root / "deduped" / file, DEDUPED, with_size)
            sampled = [row for row, one in zip(with_size, kept, strict=True) if one.end != "not_sampled"]
            _write(root / "sampled" / file, DEDUPED, sampled)
    plan = {"languages": {lang: {"epochs": 1.5, "share": 0.25} for lang in ("de", "yo", "ar", "br")}}
    (root / "sampled/plan.json").write_text(json.dumps(plan))


def _write_tokens(root: Path, found: list[Truth], raw: dict[str, list[Truth]], *, model: bool) -> None:
    trained: Any = None
    if model:
        (root / "tokenizer").mkdir(parents=True)
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(one.text for one in found), model_prefix=str(root / "tokenizer/tokenizer"),
            vocab_size=400, byte_fallback=True, hard_vocab_limit=False, normalization_rule_name="identity",
            add_dummy_prefix=False, remove_extra_whitespaces=False, minloglevel=2,
        )  # fmt: skip
        trained = sentencepiece.SentencePieceProcessor(model_file=str(root / "tokenizer/tokenizer.model"))
    plan: list[dict[str, Any]] = []
    for path in sorted((root / "sampled").rglob("*.parquet")):
        lang = path.parent.name
        number = sum(work["unit"]["lang"] == lang for work in plan)
        ids = pq.read_table(path)["id"].to_pylist()
        unit = {"lang": lang, "path": f"{lang}/{path.name}", "name": path.stem, "first_group": 0, "last_group": 9,
                "first_row": 0, "rows": len(ids), "bytes": 1}  # fmt: skip
        plan.append({"unit": unit, "number": number, "bound": 0})
        by_id = {one.id: one for one in found}
        for split in ("train", "valid"):
            own = [by_id[name] for at, name in enumerate(ids) if (at % 3 == 2) == (split == "valid")]
            if not own:
                continue
            prefix = root / f"tokens/{split}/{lang}_{number:05d}"
            tokens = [[*(trained.encode(one.text) if model else range(3, 8)), 2] for one in own]
            with TokenShardWriter(prefix, np.uint16) as writer:
                flat = np.array([token for one in tokens for token in one], np.uint16)
                writer.add_documents(flat, np.array([len(one) for one in tokens], np.int32))
            rows = [{"id": one.id, "tokens": len(ids)} for one, ids in zip(own, tokens, strict=True)]
            _write(prefix.with_name(f"{prefix.name}.ids.parquet"), IDS, rows)
            for at, one in enumerate(own):
                one.split, one.place = split, (f"tokens/{split}/{prefix.name}", at)
    folder = root / "state/tokenize/main"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))


def _write_manifests(root: Path, found: list[Truth], raw: dict[str, list[Truth]]) -> None:
    def sizes(some: list[Truth]) -> dict[str, int]:
        return {"documents": len(some), "bytes": sum(len(one.text.encode()) for one in some)}

    shards = [
        {"path": f"{name}.parquet", "origin": f"hub/{name}.parquet", "sha256": f"{at:064x}"}
        for at, name in enumerate(raw)
    ]
    files = [
        {"path": f"raw/{name}.parquet", "bytes": (root / f"raw/{name}.parquet").stat().st_size, "rows": len(rows)}
        for name, rows in raw.items()
    ]
    source = {"kind": "hub", "repo": "made/up", "commit": "abc", "shards": shards}
    (root / "raw/manifest.json").write_text(json.dumps({"source": source, "files": files, "languages": {}}))
    given = [one for one in found if not one.removed_at]
    sample = {
        lang: {
            "in": sizes([one for one in given if one.lang == lang]),
            "removed": {"not_sampled": sizes([one for one in given if one.lang == lang and one.end])},
        }
        for lang in {one.lang for one in given}
    }
    (root / "sampled/manifest.json").write_text(json.dumps({"languages": sample, "files": []}))
