"""Croissant metadata against the specification, the files and the columns; and read by the reference implementation."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.errors import ShardError
from pipelines.card_facts import read_corpus
from pipelines.card_front import Published
from pipelines.croissant import CONFORMS_TO, croissant, lacking, to_text
from tests.console import lola
from tests.pipelines.card_run import LANGUAGES, finished_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAID = Published(
    name="a-corpus", url="https://example.org/c", creator="A group", date="2024-05-06", license="ODC-By-1.0",
    place="sampled", token_place="tokens",
)  # fmt: skip
KINDS = {"string": "sc:Text", "float": "sc:Float", "int32": "sc:Integer"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def document(work: Path) -> dict[str, Any]:
    return json.loads(to_text(croissant(read_corpus(str(work)), SAID)))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document but its context."""
    if isinstance(value, dict):
        yield value
        for key, inner in value.items():
            if key != "@context":
                yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def of_type(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [node for node in nodes(document) if node.get("@type") == kind]


def test_it_has_what_the_specification_demands(document: dict[str, Any]) -> None:
    """Croissant 1.0: "Required" of the dataset, of FileObject, FileSet, RecordSet, Field, and the rule for ids."""
    assert document["@type"] == "sc:Dataset"
    assert document["conformsTo"] == CONFORMS_TO == "http://mlcommons.org/croissant/1.0"
    for name in ("@context", "description", "license", "name", "url", "creator", "datePublished", "distribution"):
        assert document[name], name
    assert document["license"] == "https://spdx.org/licenses/ODC-By-1.0"
    assert document["creator"] == {"@type": "sc:Organization", "name": "A group"}
    assert {node["@type"] for node in document["distribution"]} == {"cr:FileObject", "cr:FileSet"}
    for node in of_type(document, "cr:FileObject"):
        assert {"@id", "name", "contentUrl", "contentSize", "encodingFormat", "sha256"} <= node.keys()
        assert re.fullmatch(r"\d+ B", node["contentSize"])
        assert re.fullmatch(r"[0-9a-f]{64}", node["sha256"])
    for node in of_type(document, "cr:FileSet"):
        assert {"@id", "name", "includes", "encodingFormat"} <= node.keys()
    (records,) = of_type(document, "cr:RecordSet")
    files = {node["@id"] for node in document["distribution"]}
    for node in of_type(document, "cr:Field"):
        assert node["@id"].startswith(f"{records['@id']}/")
        assert node["dataType"] in {"sc:Text", "sc:URL", "sc:Float", "sc:Integer", "sc:Boolean"}
        assert node["source"]["fileSet"]["@id"] in files
        assert len(node["source"]["extract"]) == 1
    assert records["key"]["@id"] in {field["@id"] for field in records["field"]}
    ids = [node["@id"] for node in nodes(document) if "@id" in node and "@type" in node]
    assert len(ids) == len(set(ids))


def test_every_term_is_one_of_croissant_or_of_schema_org(document: dict[str, Any]) -> None:
    context = document["@context"]
    assert (context["@vocab"], context["sc"]) == ("https://schema.org/", "https://schema.org/")
    assert context["cr"] == "http://mlcommons.org/croissant/"
    assert context["conformsTo"] == "dct:conformsTo"
    schema_org = {
        "name", "description", "url", "creator", "datePublished", "license", "inLanguage", "keywords", "distribution",
        "encodingFormat", "contentUrl", "contentSize", "sha256",
    }  # fmt: skip
    terms = {key for node in nodes(document) for key in node if not key.startswith("@")}
    assert terms - schema_org <= context.keys()
    for term in terms & context.keys() - {"conformsTo"}:
        meaning = context[term] if isinstance(context[term], str) else context[term]["@id"]
        assert meaning == f"cr:{term}"


def test_files_are_what_lies_there(work: Path, document: dict[str, Any]) -> None:
    listed = {node["contentUrl"]: node for node in of_type(document, "cr:FileObject")}
    expected = {
        path.relative_to(work).as_posix(): path
        for suffix in ("bin", "idx")
        for path in (work / "tokens").glob(f"*/*.{suffix}")
    }
    assert listed.keys() == expected.keys()
    for name, path in expected.items():
        content = path.read_bytes()
        assert listed[name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert listed[name]["contentSize"] == f"{len(content)} B"
        assert listed[name]["encodingFormat"] == "application/octet-stream"


def test_sets_of_files_hold_the_shards_and_no_others(work: Path, document: dict[str, Any]) -> None:
    everything = [path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()]
    for name, start, suffix in (("text-files", "sampled/", ".parquet"), ("token-ids", "tokens/", ".ids.parquet")):
        (files,) = [node for node in of_type(document, "cr:FileSet") if node["@id"] == name]
        found = {path for path in everything if any(fnmatchcase(path, glob) for glob in files["includes"])}
        assert found == {path for path in everything if path.startswith(start) and path.endswith(suffix)}
        assert files["encodingFormat"] == "application/x-parquet"


def test_fields_are_the_columns_and_the_folder(work: Path, document: dict[str, Any]) -> None:
    fields = of_type(document, "cr:Field")
    schema = pq.read_schema(next((work / "sampled/en").glob("*.parquet")))
    columns = {
        field["source"]["extract"]["column"]: field["dataType"]
        for field in fields
        if "column" in field["source"]["extract"]
    }
    expected = {field.name: KINDS[str(field.type)] for field in schema} | {"url": "sc:URL"}
    assert list(columns.items()) == list(expected.items())
    (folder,) = [field for field in fields if "fileProperty" in field["source"]["extract"]]
    assert folder["source"]["extract"] == {"fileProperty": "fullpath"}
    pattern = re.compile(folder["source"]["transform"]["regex"])
    for path, lang in (
        ("yo/yo_part_00000.parquet", "yo"), ("sampled/pt-BR/a.b.parquet", "pt-BR"), ("/x/sampled/en/1.parquet", "en"),
    ):  # fmt: skip
        match = pattern.match(path)
        assert match is not None
        assert match.groups() == (lang,)


def test_digests_of_the_text_on_demand(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work, tmp_path / "w")
    tree = tmp_path / "w/sampled"
    assert lola("card", tree, "--digests").code == 0
    found = json.loads((tree / "croissant.json").read_text())
    listed = {node["contentUrl"]: node["sha256"] for node in of_type(found, "cr:FileObject")}
    assert listed == {
        path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tree.glob("*/*.parquet")
    }
    gone = next(tree.glob("en/*.parquet"))
    gone.unlink()
    outcome = lola("card", tree, "--digests")
    assert outcome.code == 1
    assert outcome.message.startswith(f"{gone}: is gone")


def test_raw_shards_have_their_digests_and_the_columns_they_share(work: Path, tmp_path: Path) -> None:
    for tree in ("raw", "state"):
        shutil.copytree(work / tree, tmp_path / "w" / tree)
    root = tmp_path / "w" / "raw"
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("*/*.parquet")}
    for number, lang in enumerate(LANGUAGES):
        path = min((root / lang).glob("*.parquet"))
        whole = pq.read_table(path)
        more = {"language": pa.array(["x"] * len(whole)), "good": pa.array([True] * len(whole)),
                "tags": pa.array([["a"]] * len(whole)), f"only_{number}": pa.array([1] * len(whole))}  # fmt: skip
        path.unlink()
        pq.write_table(pa.table({**{name: whole[name] for name in whole.column_names}, **more}), path)
    found = croissant(read_corpus(str(root)), Published())
    names = {field["name"]: field["dataType"] for field in of_type(found, "cr:Field")}
    assert names == {
        "text": "sc:Text", "timestamp": "sc:Text", "url": "sc:URL", "source": "sc:Text", "language": "sc:Text",
        "good": "sc:Boolean", "folder_language": "sc:Text",
    }  # fmt: skip
    listed = {node["contentUrl"]: node["sha256"] for node in of_type(found, "cr:FileObject")}
    assert listed == {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    min((root / "en").glob("*.parquet")).unlink()
    with pytest.raises(ShardError, match="is gone, though the manifest names it"):
        croissant(read_corpus(str(root)), Published())


def test_what_nobody_said_is_not_there(work: Path) -> None:
    found = croissant(read_corpus(str(work)), Published(place="sampled"))
    assert lacking(found) == ["url", "creator", "datePublished", "license"]
    assert not {"url", "creator", "datePublished", "license", "version"} & found.keys()
    assert lacking(croissant(read_corpus(str(work)), SAID)) == []
    # Token shards that do not lie below the folder of the document cannot be pointed to.
    assert of_type(found, "cr:FileObject") == []


def test_the_reference_implementation_reads_the_records(work: Path, tmp_path: Path) -> None:
    """Loads every row. ``pip install mlcroissant==1.1.1`` to run it; it is not among the test dependencies."""
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant, the reference implementation, is not there")
    shutil.copytree(work, tmp_path / "w")
    said = ["--url", SAID.url, "--creator", SAID.creator, "--date-published", SAID.date, "--license", SAID.license]
    assert lola("card", tmp_path / "w", *[word for word in said if word]).code == 0
    dataset = mlcroissant.Dataset(str(tmp_path / "w/croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    records = list(dataset.records("documents"))
    found = {record["documents/id"].decode(): record for record in records}
    rows = [
        {**row, "folder": path.parent.name}
        for path in (work / "sampled").glob("*/*.parquet")
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    assert len(records) == len(rows) == len(found)
    for row in rows:
        record = found[row["id"]]
        assert record["documents/text"].decode() == row["text"]
        assert record["documents/language"].decode() == row["folder"]
        assert record["documents/cluster_size"] == row["cluster_size"]
