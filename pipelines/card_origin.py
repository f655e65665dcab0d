"""Where the text of a corpus is from, under which terms, and whom to cite: facts in, lines of Markdown out.

What is said of CulturaX, mC4 and OSCAR is said only of text whose manifest names them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from lola_data.layout import TREES
from pipelines.card_text import code, count, public, public_place, table

if TYPE_CHECKING:
    from pipelines.card_facts import Corpus

SHARDS_SHOWN = 50
"""Digests are listed of so many shards; of more, the digest of their list is given."""
CULTURAX_PAGE = "https://huggingface.co/datasets/uonlp/CulturaX"
_KINDS = {
    "sample": "the corpus embedded in lola-data, made to try it",
    "local": "a local folder",
    "hub": "a dataset repository of the Hugging Face hub",
    "url": "shards below a prefix",
}

_LOLA = """\
@inproceedings{srivastava-etal-2025-lola,
  title     = {{LOLA} -- An Open-Source Massively Multilingual Large Language Model},
  author    = {Srivastava, Nikit and Kuchelev, Denis and Moteu Ngoli, Tatiana and Shetty, Kshitij and R{\\"o}der,
               Michael and Zahera, Hamada and Moussallem, Diego and Ngonga Ngomo, Axel-Cyrille},
  booktitle = {Proceedings of the 31st International Conference on Computational Linguistics},
  year      = {2025},
  pages     = {6420--6446},
  note      = {arXiv:2409.11272}
}"""
_CULTURAX = """\
@misc{nguyen2023culturax,
  title  = {{CulturaX}: A Cleaned, Enormous, and Multilingual Dataset for Large Language Models in 167 Languages},
  author = {Nguyen, Thuat and Van Nguyen, Chien and Lai, Viet Dac and Man, Hieu and Ngo, Nghia Trung and Dernoncourt,
            Franck and Rossi, Ryan A. and Nguyen, Thien Huu},
  year   = {2023},
  note   = {arXiv:2309.09400}
}"""


def is_culturax(corpus: Corpus) -> bool:
    """Whether the raw shards are those of CulturaX, by the name of their repository."""
    return corpus.source.get("kind") == "hub" and str(corpus.source.get("repo", "")).lower() == "uonlp/culturax"


def source_names(corpus: Corpus) -> dict[str, int]:
    """Value of the column `source` -> documents that came to dedup with it, most first; empty without that record."""
    totals: dict[str, int] = {}
    for sources in corpus.manifests.get("dedup", {}).get("audit", {}).values():
        for name, counts in sources.items():
            totals[name] = totals.get(name, 0) + int(counts["documents"])
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def origin_lines(corpus: Corpus) -> list[str]:
    """Source, revision, shards and digests; which values `source` has."""
    source = corpus.source
    lines: list[str] = []
    if source:
        kind = str(source.get("kind", ""))
        lines.append(f"- Source: {_KINDS.get(kind, code(kind))}")
        lines += _named(source)
        shards = corpus.files_of("download", ".parquet")
        rows = sum(shard.rows or 0 for shard in shards)
        size = sum(shard.bytes for shard in shards)
        lines.append(f"- Raw shards: {len(shards):,}, of {size:,} bytes and {rows:,} documents")
        known = [shard for shard in shards if shard.sha256]
        if known and len(known) == len(shards):
            listing = "".join(f"{shard.sha256}  {shard.path}\n" for shard in shards)
            digest = hashlib.sha256(listing.encode()).hexdigest()
            lines.append(f"- SHA-256 of what `sha256sum` writes of them, sorted by path: {code(digest)}")
        lines.append("")
        if 0 < len(known) <= SHARDS_SHOWN:
            lines += table(
                ["raw shard", "SHA-256", "documents", "bytes"],
                [
                    [code(shard.path, in_table=True), code(shard.sha256), count(shard.rows), count(shard.bytes)]
                    for shard in known
                ],
                text_columns=2,
            )
    elif "identify" in corpus.manifests:
        lines += [
            f"The raw shards lie outside of the work folder; there is no {code(TREES['download'])} to tell of them.",
            "",
        ]
    names = source_names(corpus)
    if names:
        told = ", ".join(f"{code(name)} {number:,}" for name, number in names.items())
        lines += [f"By the column `source`, of what deduplication read: {told}.", ""]
    return lines


def _named(source: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if source.get("kind") == "hub":
        lines += [f"- Repository: {code(public_repo(str(source['repo'])))}"] if source.get("repo") else []
        lines += [f"- Revision asked for: {code(public(source['revision']))}"] if source.get("revision") else []
        lines += [f"- Commit it stood for: {code(source['commit'])}"] if source.get("commit") else []
    elif source.get("path"):
        name = "Prefix" if source.get("kind") == "url" else "Folder"
        lines.append(f"- {name}: {code(public_place(str(source['path'])))}")
    return lines


def public_repo(repo: str) -> str:
    """The name of a repository, or what may be told of it if it is a URL after all."""
    return public_place(repo) if "://" in repo else repo


def licence_lines(corpus: Corpus, chosen: str | None) -> list[str]:
    """Under which terms the text is, as far as that is known."""
    lines = [f"- The publisher of this dataset names the licence {code(chosen)}."] if chosen else []
    if corpus.source.get("kind") == "sample":
        return [
            *lines,
            "- The embedded corpus: help pages, licences and declarations under free licences of their own. In "
            "lola-data, `NOTICE.md` beside it names them for every origin, `provenance.tsv.gz` for every row. Its "
            "values of `source` are made up.",
        ]
    names = " ".join(source_names(corpus)).lower()
    culturax = is_culturax(corpus)
    mc4, oscar = culturax or "mc4" in names, culturax or "oscar" in names
    if culturax:
        lines.append(
            f"- [CulturaX]({CULTURAX_PAGE}) follows the licences of mC4 and OSCAR. Access to it is gated: its terms "
            "have to be accepted."
        )
    if mc4:
        lines.append("- mC4: Open Data Commons Attribution (ODC-BY).")
    if oscar:
        lines.append("- OSCAR: its packaging is under Creative Commons CC0; that says nothing of the texts inside.")
    if mc4 or oscar:
        lines.append(
            "- Common Crawl, which these were made from: its terms of use hold too. All of them hold for what was "
            "downloaded and for what is made of it: whoever passes this corpus on should read them."
        )
    if not lines:
        lines.append("- The licence of the text is not recorded. Rights in a text stay with whoever holds them.")
    return lines


def papers(corpus: Corpus) -> list[str]:
    """The papers that this corpus stands on."""
    culturax = (
        "The text is from CulturaX:"
        if is_culturax(corpus)
        else "CulturaX, whose layout of shards and languages it follows:"
    )
    return [
        "LOLA, whose recipe lola-data follows:", "", "```bibtex", _LOLA, "```", "",
        culturax, "", "```bibtex", _CULTURAX, "```", "",
    ]  # fmt: skip
