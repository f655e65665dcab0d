"""The data card of a corpus: facts in, a page of Markdown out, with the front matter that the Hugging Face hub reads.

Sections: what it is, where it is from, how it was made, what it is made of, what was removed, known limits, licences,
how to load it, how to cite it. A section without facts is left out. The same manifests give the same bytes.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING

from lola_data.layout import TREES
from pipelines.card_body import composition_lines, how_lines, limit_lines, removed_lines
from pipelines.card_front import Published, front_matter
from pipelines.card_origin import licence_lines, origin_lines, papers
from pipelines.card_text import code

if TYPE_CHECKING:
    from pipelines.card_facts import Corpus

MARK = "<!-- written by `lola-data card` -->"
"""Told by this, a card may be written over; what anybody else has written may not."""


def data_card(corpus: Corpus, published: Published) -> str:
    """The page.

    Raises:
        ShardError: a table of F1 beside the language identification model that cannot be read.
    """
    name = published.name or corpus.name
    lines = [*front_matter(corpus, published, name), MARK, "", f"# {code(name)}", ""]
    sections = [
        ("What it is", _what(corpus, published)),
        ("Where it is from", origin_lines(corpus)),
        ("How it was made", list(how_lines(corpus))),
        ("What it is made of", composition_lines(corpus)),
        ("What was removed, and why", removed_lines(corpus)),
        ("Known limits", list(limit_lines(corpus))),
        ("Licences", licence_lines(corpus, published.license)),
        ("How to load it", _loading(corpus, published)),
        ("How to cite it", _citing(corpus, published)),
    ]
    for title, body in sections:
        if body:
            lines += [f"## {title}", "", *body]
            if lines[-1]:
                lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _what(corpus: Corpus, published: Published) -> list[str]:
    sizes = corpus.sizes
    many = f"{len(sizes)} languages" if len(sizes) != 1 else "1 language"
    parts = [f"{corpus.documents:,} documents in {many}"]
    parts += [f"{corpus.bytes:,} bytes of text (UTF-8)"] if corpus.bytes is not None else []
    parts += [f"{corpus.tokens:,} tokens"] if corpus.tokens is not None else []
    on_disk = sum(shard.bytes for shard in corpus.shards)
    done = " -> ".join(code(TREES[stage]) for stage in corpus.manifests if stage in TREES)
    said = [
        f"{word} {code(value)}"
        for word, value in (("by", published.creator), ("on", published.date), ("at", published.url))
        if value
    ]
    return [
        f"Text for training language models: {', '.join(parts)}. It lies in {len(corpus.shards):,} Parquet files of "
        f"{on_disk:,} bytes, in one folder a language.",
        "",
        f"- Described is the tree {code(TREES[corpus.stage])}, as the manifests record it. Stages: {done}.",
        f"- This card was written by lola-data {version('lola-data')} from the manifests of the run. Name, publisher, "
        "address, date and licence are the publisher's word, where they are given.",
        *([f"- Published {', '.join(said)}."] if said else []),
    ]


def _loading(corpus: Corpus, published: Published) -> list[str]:
    lang = next((one.code for one in corpus.sizes if re.fullmatch(r"[A-Za-z0-9_-]+", one.code)), None)
    if lang is None:
        return []
    plain = re.fullmatch(r"[\w./-]*", published.place, re.ASCII)
    tree = json.dumps(f"DIR/{published.place}".rstrip("/") if plain else "DIR")
    shards = json.dumps(f"{json.loads(tree)}/{lang}/*.parquet")
    lines = [
        "`DIR` is the folder of this card, or for `datasets` also its name on the hub.",
        "",
        "```python",
        "import datasets",
        "",
        f'rows = datasets.load_dataset("DIR", {json.dumps(lang)}, split="train")',
        "```",
        "",
        "```python",
        "import polars",
        "",
        f"rows = polars.scan_parquet({shards})",
        "```",
        "",
        "```python",
        "from datatrove.pipeline.readers import ParquetReader",
        "",
        f'documents = ParquetReader({tree}, glob_pattern="{lang}/*.parquet")',
        "```",
        "",
        "With lola-data, to read a few documents and to go on from here:",
        "",
        "```bash",
        f"lola-data inspect {json.loads(tree)} --lang {lang}",
        f"lola-data {'identify' if corpus.stage == 'download' else 'balance'} {json.loads(tree)}"
        + (" --workdir work" if corpus.stage == "download" else ""),
        "```",
        "",
    ]
    if published.token_place is not None:
        lines += [
            "Token shards are in the indexed-dataset format of Megatron-Core: a `.bin` of ids and a `.idx` each.",
            "",
        ]
    return lines


def _citing(corpus: Corpus, published: Published) -> list[str]:
    beside = ", ".join(f"[{name}]({name})" for name in published.citations)
    return [*([f"Cite this dataset as {beside} says.", ""] if beside else []), *papers(corpus)]
