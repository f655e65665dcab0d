"""The front matter of a data card: facts in, the YAML that the Hugging Face hub and `datasets` read out.

Language codes are the hub's (ISO 639-1, else 639-3), and there is a configuration for each language, so that
``load_dataset(<card's folder>, <language>)`` finds its shards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from glob import escape
from typing import TYPE_CHECKING, Any

import yaml

from lola_data.languages import LANGUAGES
from lola_data.report.text import visible
from pipelines.card_origin import CULTURAX_PAGE, is_culturax, public_repo

if TYPE_CHECKING:
    from pipelines.card_facts import Corpus

_SIZE_STEPS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_FOLDER_CODE = re.compile(r"([a-z]{2,3})(?:[-_].*)?")
_WITHDRAWN = {"sh": "hbs", "bh": "bih"}
"""Two-letter codes of CulturaX that ISO 639-1 has withdrawn, and what ISO 639-3 or 639-2 has in their place."""


class _Plain(yaml.SafeDumper):
    """Of a string with a line break or the like in it, no line of its own: it could look like the end."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Plain.add_representer(str, _represent)


@dataclass(frozen=True)
class Published:
    """What no manifest knows, and whoever publishes a corpus may say; None: not said.

    Attributes:
        name: of the dataset.
        url: of its page.
        creator: the organisation that publishes it.
        date: of publication, YYYY-MM-DD.
        license: SPDX identifier.
        place: path of the tree below the folder of the card; empty: that is the tree.
        token_place: the same for the token shards; None: they are not below it.
        citations: names of CITATION files that lie beside the card.
    """

    name: str | None = None
    url: str | None = None
    creator: str | None = None
    date: str | None = None
    license: str | None = None
    place: str = ""
    token_place: str | None = None
    citations: list[str] = field(default_factory=list)


def front_matter(corpus: Corpus, published: Published, name: str) -> list[str]:
    globs = shard_globs(corpus, published.place)
    values: dict[str, Any] = {"pretty_name": visible(name)}
    codes = sorted({found for folder in globs if (found := hub_code(folder))})
    if codes:
        values["language"] = codes
    values |= _front_licence(corpus, published)
    values["multilinguality"] = ["multilingual" if len(globs) > 1 else "monolingual"]
    values["size_categories"] = [size_category(corpus.documents)]
    values["task_categories"] = ["text-generation"]
    repo = corpus.source.get("repo") if corpus.source.get("kind") == "hub" else None
    if repo:
        values["source_datasets"] = [public_repo(str(repo))]
    if globs:
        everything = {"config_name": "default", "default": True, "data_files": _files([*globs.values()])}
        values["configs"] = [
            everything,
            *({"config_name": lang, "data_files": _files([glob])} for lang, glob in globs.items()),
        ]
    text = yaml.dump(values, Dumper=_Plain, sort_keys=False, allow_unicode=False, width=1000)
    return ["---", *text.splitlines(), "---", ""]


def hub_code(folder: str) -> str | None:
    """The ISO 639-1 or 639-3 code that the hub expects for the folder of a language; None: it has none.

    >>> hub_code("als"), hub_code("no"), hub_code("sh"), hub_code("pt-BR")
    ('gsw', 'no', 'hbs', 'pt')
    """
    known = LANGUAGES.get(folder)
    if known is None:
        match = _FOLDER_CODE.fullmatch(folder)
        return match[1] if match and match[1] != "und" else None
    if len(folder) == 2:
        return _WITHDRAWN.get(folder, folder)
    return known.iso639_3 or folder


def size_category(documents: int) -> str:
    """The hub's name for a number of documents.

    >>> size_category(999), size_category(1000), size_category(2_000_000)
    ('n<1K', '1K<n<10K', '1M<n<10M')
    """
    if documents < 1000:
        return "n<1K"
    step = len(str(documents)) - 4
    return f"{_SIZE_STEPS[step]}<n<{_SIZE_STEPS[step + 1]}" if step < len(_SIZE_STEPS) - 1 else "n>1T"


def shard_globs(corpus: Corpus, place: str) -> dict[str, str]:
    """Language -> glob of its shards, seen from the folder of the card; sorted."""
    start = escape(f"{place}/") if place else ""
    return {one.code: f"{start}{escape(one.code)}/*.parquet" for one in sorted(corpus.sizes, key=lambda one: one.code)}


def _files(globs: list[str]) -> list[dict[str, Any]]:
    return [{"split": "train", "path": globs[0] if len(globs) == 1 else globs}]


def _front_licence(corpus: Corpus, published: Published) -> dict[str, Any]:
    if published.license:
        return {"license": published.license.lower()}
    if is_culturax(corpus):
        return {
            "license": "other",
            "license_name": "mc4-oscar-common-crawl",
            "license_link": CULTURAX_PAGE,
        }
    return {"license": "unknown"}
