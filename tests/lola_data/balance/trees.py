"""Small trees of shards, written by hand, for the tests of the balance, its page and its command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lola_data.schemas import DEDUPED, IDENTIFIED, RAW, REMOVED
from lola_data.tokens import TokenShardWriter

if TYPE_CHECKING:
    from pathlib import Path


def write_rows(path: Path, schema: pa.Schema, rows: list[dict[str, Any]], *, group: int = 2) -> None:
    """A shard of ``schema`` with row groups of ``group`` rows; columns that a row lacks are null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=group)


def write_tokens(prefix: Path, lengths: list[int]) -> None:
    """A token shard of documents of these lengths."""
    with TokenShardWriter(prefix, np.uint16) as writer:
        writer.add_documents(np.zeros(sum(lengths), np.uint16), np.array(lengths, np.int32))


def write_run(root: Path) -> None:
    """A work folder whose every figure can be counted on fingers.

    German (de): 6 raw documents; identify finds one French, one empty; dedup one near-duplicate; sample leaves one.
    Yoruba (yo): 2 raw documents that go all the way. Welsh (cy): 1 raw document, which identify moves to Breton (br).
    """

    def raw(text: str, source: str, url: str | None = None) -> dict[str, Any]:
        return {"text": text, "source": source, "url": url}

    german = [
        raw("Guten Tag", "mC4", "https://www.a.de/1"),
        raw("Straße", "mC4", "https://A.de/2"),
        raw("Grüße aus Köln", "OSCAR-2109", "http://user@a.de:80/3"),
        raw("bonjour", "mC4", "https://b.fr/"),
        raw("", "mC4"),
        raw("Guten  Tag", "OSCAR-2109"),
    ]
    yoruba = [raw("Ẹ káàárọ̀", "mC4", "https://y.ng"), raw("ọjọ́", "mC4", "https://y.ng/2")]
    welsh = [raw("demat", "mC4")]
    write_rows(root / "raw/de/de_part_00000.parquet", RAW, german[:4])
    write_rows(root / "raw/de/de_part_00001.parquet", RAW, german[4:])
    write_rows(root / "raw/yo/yo_part_00000.parquet", RAW, yoruba)
    write_rows(root / "raw/cy/cy_part_00000.parquet", RAW, welsh)

    def seen(row: dict[str, Any], name: str, claimed: str, lang: str) -> dict[str, Any]:
        return {**row, "id": name, "claimed_lang": claimed, "lang": lang, "lang_score": 0.9, "script": "Latn"}

    kept = [seen(german[i], f"de/de_part_00000/{i}", "de", "de") for i in (0, 1, 2)]
    near = seen(german[5], "de/de_part_00001/1", "de", "nl")
    good = [seen(row, f"yo/yo_part_00000/{i}", "yo", "yo") for i, row in enumerate(yoruba)]
    moved = [seen(welsh[0], "cy/cy_part_00000/0", "cy", "br")]
    write_rows(root / "identified/de/a.parquet", IDENTIFIED, [*kept, near])
    write_rows(root / "identified/yo/a.parquet", IDENTIFIED, good)
    write_rows(root / "identified/br/a.parquet", IDENTIFIED, moved)
    gone = [
        {"id": "de/de_part_00000/3", "claimed_lang": "de", "lang": "fr", "source": "mC4", "bytes": 7,
         "reason": "wrong_language"},
        {"id": "de/de_part_00001/0", "claimed_lang": "de", "lang": "und", "source": "mC4", "bytes": 0,
         "reason": "empty"},
    ]  # fmt: skip
    write_rows(root / "removed/identify/de/a.parquet", REMOVED, gone)

    for lang, rows in (("de", kept), ("yo", good), ("br", moved)):
        write_rows(root / f"deduped/{lang}/a.parquet", DEDUPED, [{**row, "cluster_size": 1} for row in rows])
    duplicate = {key: near[key] for key in ("id", "claimed_lang", "lang", "source")}
    duplicate |= {"bytes": 10, "reason": "near", "kept_id": "de/de_part_00000/0", "similarity": 0.9}
    write_rows(root / "removed/dedup/de/a.parquet", REMOVED, [duplicate])

    for lang, rows in (("de", kept[:2]), ("yo", good), ("br", moved)):
        write_rows(root / f"sampled/{lang}/a.parquet", DEDUPED, [{**row, "cluster_size": 1} for row in rows])
    shares = {"de": (0.5, 0.75), "yo": (0.25, 1.0), "br": (0.25, 2.0)}
    plan = {"languages": {lang: {"share": share, "epochs": epochs} for lang, (share, epochs) in shares.items()}}
    (root / "sampled/plan.json").write_text(json.dumps(plan))
    write_tokens(root / "tokens/train/de_00000", [3, 4])
    write_tokens(root / "tokens/train/yo_00000", [5])
    write_tokens(root / "tokens/valid/yo_00000", [6])
    write_tokens(root / "tokens/train/br_00000", [2])


def write_tokenizer(path: Path, *, ends: bool = True) -> Path:
    """A SentencePiece model of 400 pieces, with or without an end-of-document token."""
    import io

    import sentencepiece

    words = ["Guten Tag", "Straße", "ọjọ́ ẹ káàárọ̀", "the quick brown fox", "jumps over the lazy dog"]
    lines = [f"{one} {other} {number}" for number in range(40) for one in words for other in words]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=400, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        eos_id=2 if ends else -1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return path


def write_pages(root: Path, lang: str, texts: list[str], **options: Any) -> None:
    """A shard of many small pages: a raw tree large enough to be sampled, in a few hundred kilobytes."""
    sources = [("mC4", "OSCAR-2019", None)[number % 3] for number in range(len(texts))]
    urls = [f"https://www.site{number % 7}.org/{number}" for number in range(len(texts))]
    times = [f"20{13 + number % 5}-05-06T07:08:09Z" for number in range(len(texts))]
    table = pa.table({"text": texts, "timestamp": times, "url": urls, "source": sources}, schema=RAW)
    (root / lang).mkdir(parents=True, exist_ok=True)
    layout = {"row_group_size": 400, "data_page_size": 1, "write_batch_size": 20, "use_dictionary": ["source"]}
    pq.write_table(table, root / lang / f"{lang}_part_00000.parquet", **{**layout, **options})
