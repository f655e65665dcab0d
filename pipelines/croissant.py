"""Croissant metadata of a corpus: facts in, a JSON-LD document out, as MLCommons' Croissant 1.0 has it.

The tree of text is a FileSet, whose rows are a RecordSet with a Field for every column and one for the folder, which
is the language. Files whose SHA-256 is known are FileObjects besides: raw shards and token shards have theirs in
manifests, of other shards they are computed on demand. Paths are relative to the document.

The specification also demands an address, a creator, a date and a licence, which no manifest knows; they are there if
the publisher says them, and :func:`lacking` names those that are not.

Source: Croissant Format Specification 1.0 (2024-03-01), https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from __future__ import annotations

import json
from glob import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa

from lola_data.errors import ShardError
from lola_data.layout import TREES
from lola_data.report.text import visible
from lola_data.schemas import DEDUPED, IDENTIFIED, RAW
from lola_data.shards import open_parquet
from lola_data.storage import exists, join
from pipelines.card_front import hub_code, shard_globs
from pipelines.card_origin import CULTURAX_PAGE, is_culturax

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.card_facts import Corpus, DataFile
    from pipelines.card_front import Published

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of Croissant 1.0, as the reference implementation writes it."""
REQUIRED = ("name", "description", "url", "creator", "datePublished", "license")
"""Properties of the dataset that the specification demands, beside what is always here."""
PARQUET = "application/x-parquet"
BINARY = "application/octet-stream"
MARK = "`lola-data card`"
"""In the description; told by this, the document may be written over."""
FOLDER_PATTERN = r"^(?:.*/)?([^/]+)/[^/]+\.parquet$"
"""Takes the folder of a shard, which is its language, out of its path."""
_FILES, _RECORDS = "text-files", "documents"
_MEANING = {
    "id": "<language>/<shard>/<row> of the raw shard",
    "text": "the text, as published",
    "timestamp": "as published",
    "url": "address of the page, as published",
    "source": "the collection it came with, as published",
    "claimed_lang": "folder that the document lay in before identification",
    "lang": "code that the identification model gave; und: no text to judge",
    "lang_score": "probability of that code, in [0, 1]",
    "script": "ISO 15924 code of the script of most letters; Zyyy: no letters",
    "cluster_size": "the document itself and all that were removed in its favour",
}


def croissant(corpus: Corpus, published: Published, digests: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The document.

    Args:
        corpus: its facts.
        published: what the publisher says.
        digests: path below the tree -> SHA-256, for shards whose digest no manifest has.

    Raises:
        ShardError: a raw shard whose columns cannot be read.
    """
    name = published.name or corpus.name
    licence = _licence(corpus, published)
    languages = sorted({code for one in corpus.sizes if (code := hub_code(one.code))})
    value: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": visible(name),
        "description": _description(corpus),
        "conformsTo": CONFORMS_TO,
        **({"url": published.url} if published.url else {}),
        **({"creator": {"@type": "sc:Organization", "name": published.creator}} if published.creator else {}),
        **({"datePublished": published.date} if published.date else {}),
        **({"license": licence} if licence else {}),
        **({"inLanguage": languages} if languages else {}),
        "keywords": ["text generation", "language modelling", "multilingual corpus"],
        "distribution": [_file_set(corpus, published), *_shard_objects(corpus, published, digests or {})],
        "recordSet": [_record_set(corpus)],
    }
    if published.token_place is not None:
        value["distribution"] += _token_objects(corpus, published.token_place)
    return value


def to_text(document: dict[str, Any]) -> str:
    """The document as text: the same for the same facts, in ASCII."""
    return json.dumps(document, indent=1) + "\n"


def lacking(document: dict[str, Any]) -> list[str]:
    """Properties the specification demands that the document does not have."""
    return [name for name in REQUIRED if not document.get(name)]


def _description(corpus: Corpus) -> str:
    sizes = [f"{corpus.documents:,} documents", f"{len(corpus.sizes)} languages"]
    sizes += [f"{corpus.bytes:,} bytes of text"] if corpus.bytes is not None else []
    sizes += [f"{corpus.tokens:,} tokens"] if corpus.tokens is not None else []
    stages = ", ".join(stage for stage in corpus.manifests if stage in TREES)
    return f"Text for training language models: {', '.join(sizes)}. Stages: {stages}. Written by {MARK}."


def _licence(corpus: Corpus, published: Published) -> str | dict[str, str] | None:
    if published.license:
        return f"https://spdx.org/licenses/{quote(published.license)}"
    if is_culturax(corpus):
        return {
            "@type": "sc:CreativeWork",
            "name": "Licences of mC4 (ODC-BY) and OSCAR (CC0, its packaging alone), terms of use of Common Crawl",
            "url": CULTURAX_PAGE,
        }
    return None


def _file_set(corpus: Corpus, published: Published) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": _FILES,
        "name": _FILES,
        "description": f"{len(corpus.shards):,} shards of text, in one folder a language.",
        "encodingFormat": PARQUET,
        "includes": list(shard_globs(corpus, published.place).values()),
    }


def _file_object(place: str, file: DataFile, sha256: str, encoding: str) -> dict[str, Any]:
    path = f"{place}/{file.path}" if place else file.path
    return {
        "@type": "cr:FileObject",
        "@id": quote(path),
        "name": visible(path),
        "contentUrl": path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _shard_objects(corpus: Corpus, published: Published, digests: Mapping[str, str]) -> list[dict[str, Any]]:
    known = [(shard, shard.sha256 or digests.get(shard.path)) for shard in corpus.shards]
    return [_file_object(published.place, shard, sha256, PARQUET) for shard, sha256 in known if sha256]


def _token_objects(corpus: Corpus, place: str) -> list[dict[str, Any]]:
    """Token shards, and the files that name their documents."""
    found = [
        _file_object(place, file, file.sha256, BINARY)
        for file in corpus.files_of("tokenize", ".bin", ".idx")
        if file.sha256
    ]
    if ids := corpus.files_of("tokenize", ".ids.parquet"):
        folders = sorted({file.folder for file in ids})
        start = escape(f"{place}/") if place else ""
        found.append(
            {
                "@type": "cr:FileSet",
                "@id": "token-ids",
                "name": "token-ids",
                "description": "Of each token shard, the ids of its documents and their lengths in tokens, in order.",
                "encodingFormat": PARQUET,
                "includes": [f"{start}{escape(folder)}/*.ids.parquet" for folder in folders],
            }
        )
    return found


def _record_set(corpus: Corpus) -> dict[str, Any]:
    columns = columns_of_tree(corpus)
    fields = [_field(name, kind) for name, kind in columns.items()]
    folder = "language" if "language" not in columns else "folder_language"
    fields.append(
        {
            "@type": "cr:Field",
            "@id": f"{_RECORDS}/{folder}",
            "name": folder,
            "description": "language of the folder that the shard lies in, as CulturaX has it",
            "dataType": "sc:Text",
            "source": {
                "fileSet": {"@id": _FILES},
                "extract": {"fileProperty": "fullpath"},
                "transform": {"regex": FOLDER_PATTERN},
            },
        }
    )
    key = {"key": {"@id": f"{_RECORDS}/id"}} if "id" in columns else {}
    return {
        "@type": "cr:RecordSet",
        "@id": _RECORDS,
        "name": _RECORDS,
        "description": f"{corpus.documents:,} documents, one a row.",
        **key,
        "field": fields,
    }


def _field(name: str, kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{_RECORDS}/{quote(name, safe='')}",
        "name": visible(name),
        **({"description": _MEANING[name]} if name in _MEANING else {}),
        "dataType": kind,
        "source": {"fileSet": {"@id": _FILES}, "extract": {"column": name}},
    }


def columns_of_tree(corpus: Corpus) -> dict[str, str]:
    """Column -> data type of Croissant. Raw shards have the columns they came with: those that the first shard of every
    language has; of a column that is no plain value nothing is said.

    Raises:
        ShardError: a shard that cannot be read.
    """
    written = {"identify": IDENTIFIED, "dedup": DEDUPED, "sample": DEDUPED}.get(corpus.stage)
    if written is not None:
        return _types(written)
    firsts: dict[str, str] = {}
    for shard in corpus.shards:
        firsts.setdefault(shard.folder, join(corpus.tree, shard.path))
    common: dict[str, str] | None = None
    for path in firsts.values():
        if not exists(path):
            raise ShardError(f"{path}: is gone, though the manifest names it; `lola-data verify` tells what else is")
        with open_parquet(path) as file:
            found = _types(file.schema_arrow)
        common = found if common is None else {name: kind for name, kind in common.items() if found.get(name) == kind}
    return _types(RAW) if common is None else common


def _types(schema: pa.Schema) -> dict[str, str]:
    found = {field.name: _type_of(field.name, field.type) for field in schema}
    return {name: kind for name, kind in found.items() if kind is not None}


def _type_of(name: str, kind: pa.DataType) -> str | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "sc:URL" if name == "url" else "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return None
