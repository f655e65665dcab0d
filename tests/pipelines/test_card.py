"""The data card: its numbers against a count of the shards, its front matter, and words from outside in it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml
from markdown_it import MarkdownIt

from lola_data.layout import TREES, Layout
from pipelines.card import data_card
from pipelines.card_body import language_losses
from pipelines.card_facts import Corpus, read_corpus
from pipelines.card_front import Published, hub_code, size_category
from pipelines.card_text import code, public, public_place, public_url
from tests.pipelines.card_run import LANGUAGES, finished_run

if TYPE_CHECKING:
    from pathlib import Path

IN_WORK_FOLDER = Published(place="sampled", token_place="tokens")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def page(work: Path) -> str:
    return data_card(read_corpus(str(work)), IN_WORK_FOLDER)


def front(page: str) -> dict[str, Any]:
    return yaml.safe_load(page.split("\n---\n")[0].removeprefix("---\n"))


def body(page: str) -> str:
    return page.partition("\n---\n")[2]


def section(page: str, title: str) -> str:
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def tables(text: str) -> list[list[list[str]]]:
    """Rows of every table, cells as text, the head first; by a parser of Markdown."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level >= 4 and token.children is not None:
            found[-1][-1].append("".join(child.content for child in token.children))
    return found


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def rows_of(tree: Path) -> list[dict[str, Any]]:
    """All rows below a tree, each with its folder."""
    return [
        {**row, "folder": path.parent.name}
        for path in sorted(tree.glob("*/*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def without(work: Path, target: Path, *trees: str) -> Path:
    """A copy of a work folder that has not come so far."""
    shutil.copytree(work, target, ignore=lambda folder, names: set(trees) if folder == str(work) else set())
    return target


# Numbers


def test_composition_is_what_the_shards_hold(work: Path, page: str) -> None:
    rows = rows_of(work / "sampled")
    documents = Counter(row["folder"] for row in rows)
    size = Counter[str]()
    for row in rows:
        size[row["folder"]] += len(row["text"].encode())
    tokens = Counter[str]()
    for path in (work / "tokens").glob("*/*.ids.parquet"):
        tokens[path.name.partition("_")[0]] += sum(pq.read_table(path)["tokens"].to_pylist())
    (table,) = tables(section(page, "What it is made of"))
    assert [row[0] for row in table[1:]] == [lang for lang, _ in tokens.most_common()]
    assert table[0][4:8] == ["documents", "bytes", "tokens", "share of tokens"]
    for folder, _, _, _, *counts in table[1:]:
        assert [number(cell) for cell in counts[:3]] == [documents[folder], size[folder], tokens[folder]]
        assert counts[3] == f"{tokens[folder] / tokens.total():.2%}"
    plan = json.loads((work / "sampled/plan.json").read_text())["languages"]
    assert {row[0]: row[8] for row in table[1:]} == {lang: f"{plan[lang]['share']:.2%}" for lang in LANGUAGES}
    assert {row[0]: row[1:4] for row in table[1:]} == {
        "en": ["English", "Latn", "Indo-European"],
        "yo": ["Yoruba", "Latn", "Atlantic-Congo"],
    }
    assert f"{len(rows):,} documents in 2 languages, {size.total():,} bytes" in page
    assert f"{tokens.total():,} tokens" in page


def test_removals_are_the_removed_rows(work: Path, page: str) -> None:
    first, losses = tables(section(page, "What was removed, and why"))
    expected: dict[tuple[str, str], tuple[int, int]] = {}
    lost = Counter[str]()
    for stage in ("identify", "dedup"):
        rows = rows_of(work / "removed" / stage)
        for reason, documents in Counter(row["reason"] for row in rows).items():
            expected[stage, reason] = (documents, sum(row["bytes"] for row in rows if row["reason"] == reason))
        lost.update(row["folder"] for row in rows)
    before, after = rows_of(work / "deduped"), rows_of(work / "sampled")
    gone = {row["id"]: row for row in before}.keys() - {row["id"] for row in after}
    bytes_gone = sum(len(row["text"].encode()) for row in before if row["id"] in gone)
    expected["sample", "not_sampled"] = (len(gone), bytes_gone)
    assert {(row[0], row[1]): (number(row[2]), number(row[3])) for row in first[1:]} == expected
    assert {("dedup", "exact"), ("dedup", "near"), ("identify", "wrong_language")} <= expected.keys()
    given = Counter(row["folder"] for row in rows_of(work / "raw"))
    by_share = sorted(lost, key=lambda lang: -lost[lang] / given[lang])
    assert [[row[0], number(row[2]), number(row[3])] for row in losses[1:]] == [
        [lang, lost[lang], given[lang]] for lang in by_share
    ]


def test_stages_pass_on_what_the_next_one_reads(work: Path, page: str) -> None:
    stages = {row[0]: row[2:] for row in tables(section(page, "How it was made"))[0][1:]}
    counts = [f"{len(rows_of(work / tree)):,}" for tree in ("raw", "identified", "deduped", "sampled")]
    assert stages["identify"] == [counts[0], counts[1]]
    assert stages["dedup"] == [counts[1], counts[2]]
    assert stages["sample"] == [counts[2], counts[3]]
    assert stages["tokenizer"] == ["", ""]
    threshold = json.loads((work / "deduped/manifest.json").read_text())["fingerprint"]["settings"]["threshold"]
    assert f"  - `threshold`: `{threshold}`\n" in page


def test_digests_are_those_of_the_raw_files(work: Path, page: str) -> None:
    text = section(page, "Where it is from")
    files = sorted((work / "raw").glob("*/*.parquet"), key=lambda path: path.relative_to(work / "raw").as_posix())
    listing = ""
    for path in files:
        digest, name = hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(work / "raw").as_posix()
        assert [name, digest] in [row[:2] for row in tables(text)[0]]
        listing += f"{digest}  {name}\n"
    assert hashlib.sha256(listing.encode()).hexdigest() in text
    sources = Counter(row["source"] for row in rows_of(work / "identified"))
    for name, documents in sources.items():
        assert f"`{name}` {documents:,}" in text


def test_the_five_languages_that_lost_most_come_first() -> None:
    def counts(given: int, **removed: int) -> dict[str, Any]:
        return {"in": {"documents": given}, "removed": {name: {"documents": n} for name, n in removed.items()}}

    identify = {"a": counts(100, low_score=10), "b": counts(10, low_score=5), "c": counts(1000, low_score=10)}
    identify["c"]["relabelled_in"] = {"documents": 1000}
    dedup = {"a": counts(90, near=20, exact=15), "b": counts(5), "c": counts(1990), "d": counts(4, near=1)}
    corpus = Corpus(
        Layout("w"), "dedup", {"identify": {"languages": identify}, "dedup": {"languages": dedup | {"d": counts(4)}}}
    )
    assert language_losses(corpus) == [
        ("b", 5, 10, [("low_score", 5)]),
        ("a", 45, 100, [("near", 20), ("exact", 15), ("low_score", 10)]),
        ("c", 10, 2000, [("low_score", 10)]),
    ]


# Front matter


def test_every_configuration_finds_its_shards_and_no_others(work: Path, page: str) -> None:
    found: dict[str, set[str]] = {}
    for config in front(page)["configs"]:
        (files,) = config["data_files"]
        assert files["split"] == "train"
        globs = [files["path"]] if isinstance(files["path"], str) else files["path"]
        found[config["config_name"]] = {path.relative_to(work).as_posix() for glob in globs for path in work.glob(glob)}
    expected = {
        lang: {path.relative_to(work).as_posix() for path in (work / "sampled" / lang).iterdir()} for lang in LANGUAGES
    }
    assert found == {"default": expected["en"] | expected["yo"], **expected}


def test_front_matter_is_the_hub_s(page: str) -> None:
    values = front(page)
    assert values["language"] == ["en", "yo"]
    assert (values["license"], values["multilinguality"]) == ("unknown", ["multilingual"])
    assert values["task_categories"] == ["text-generation"]
    assert values["size_categories"] == ["n<1K"]
    assert page.startswith("---\npretty_name:")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("de", "de"), ("no", "no"), ("als", "gsw"), ("sh", "hbs"), ("bh", "bih"), ("nah", "nah"), ("ceb", "ceb"),
        ("pt-BR", "pt"), ("eng_Latn", "eng"), ("und", None), ("Deutsch", None), ("x", None),
    ],
)  # fmt: skip
def test_codes_are_those_of_iso_639(folder: str, expected: str | None) -> None:
    assert hub_code(folder) == expected


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (10_000, "10K<n<100K"),
        (10**9, "1B<n<10B"), (10**12 - 1, "100B<n<1T"), (10**12, "n>1T"), (10**15, "n>1T"),
    ],
)  # fmt: skip
def test_sizes_have_the_hub_s_names(documents: int, expected: str) -> None:
    assert size_category(documents) == expected


def test_licences_of_culturax_are_named_for_culturax_alone() -> None:
    culturax = _corpus({"kind": "hub", "repo": "uonlp/CulturaX", "revision": "main", "commit": "6a8734b"})
    page = data_card(culturax, Published())
    assert front(page)["license"] == "other"
    assert front(page)["source_datasets"] == ["uonlp/CulturaX"]
    for word in ("ODC-BY", "CC0", "Common Crawl", "`6a8734b`", "The text is from CulturaX"):
        assert word in page
    page = data_card(_corpus({"kind": "hub", "repo": "me/mine"}), Published())
    assert front(page)["license"] == "unknown"
    assert not {"ODC-BY", "CC0", "gated"} & set(re.split(r"[\s`().,:]+", body(page)))
    assert front(data_card(culturax, Published(license="ODC-By-1.0")))["license"] == "odc-by-1.0"


# Loading


def test_the_code_on_the_page_reads_the_rows(work: Path, page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", section(page, "How to load it"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        names: dict[str, Any] = {}
        lang = re.findall(r'"([a-z]+)"|/([a-z]+)/\*|"([a-z]+)/\*', block)[0]
        expected = len(rows_of(work / "sampled"))
        if "import datasets" in block:
            continue  # Needs a package that lola-data does not; the globs it follows are tested above.
        exec(block.replace("DIR", str(work)), names)
        if "polars" in block:
            found = names["rows"].collect().height
        else:
            found = sum(1 for _ in names["documents"].run())
        assert 0 < found < expected
        folder = next(filter(None, lang))
        assert found == sum(row["folder"] == folder for row in rows_of(work / "sampled"))


# What is there, and what is not


def test_a_run_that_has_not_come_so_far(work: Path, tmp_path: Path) -> None:
    partial = without(work, tmp_path / "a", "sampled", "tokenizer", "tokens", "report")
    corpus = read_corpus(str(partial))
    assert (corpus.stage, list(corpus.manifests), corpus.left_out) == ("dedup", ["download", "identify", "dedup"], [])
    page = data_card(corpus, Published(place="deduped"))
    (table,) = tables(section(page, "What it is made of"))
    assert table[0][4:] == ["documents", "bytes", "share of bytes"]
    assert sum(number(row[4]) for row in table[1:]) == len(rows_of(partial / "deduped"))
    only_raw = without(work, tmp_path / "b", *[tree for tree in TREES.values() if tree != "raw"], "removed")
    page = data_card(read_corpus(str(only_raw)), Published(place="raw"))
    (table,) = tables(section(page, "What it is made of"))
    assert table[0][4:] == ["documents", "bytes on disk", "share of documents"]
    assert {row[0]: number(row[5]) for row in table[1:]} == {
        lang: sum(path.stat().st_size for path in (only_raw / "raw" / lang).iterdir()) for lang in LANGUAGES
    }
    assert "## What was removed" not in page
    assert "no record says that they were checked" in page


def test_one_tree_of_a_run_comes_with_the_stages_before_it(work: Path) -> None:
    corpus = read_corpus(str(work / "identified"))
    assert list(corpus.manifests) == ["download", "identify"]
    assert corpus.documents == len(rows_of(work / "identified"))
    assert corpus.tokens is None
    whole, tree = read_corpus(str(work)), read_corpus(str(work / "sampled"))
    assert whole == tree


def test_what_was_made_again_since_is_left_out_and_told(work: Path, tmp_path: Path) -> None:
    copy = without(work, tmp_path / "copy")
    path = copy / "deduped/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["fingerprint"]["settings"]["threshold"] = 0.123
    path.write_text(json.dumps(manifest))
    corpus = read_corpus(str(copy))
    assert corpus.stage == "sample"
    assert not {"dedup", "identify", "download"} & corpus.manifests.keys()
    assert any(told.startswith("deduped/: sampled/ was made of another tree") for told in corpus.left_out)
    assert "0.123" not in data_card(corpus, Published())


def test_the_same_manifests_give_the_same_bytes_wherever_they_lie(work: Path, tmp_path: Path, page: str) -> None:
    other = without(work, tmp_path / "work")
    assert data_card(read_corpus(str(other)), IN_WORK_FOLDER) == page


# Words from outside


def _corpus(
    source: dict[str, Any], lang: str = "yo", settings: dict[str, Any] | None = None, name: str = "w"
) -> Corpus:
    counts = {"documents": 3, "bytes": 0, "characters": 0, "tokens": 0}
    totals = {"in": counts, "out": counts, "removed": {}}
    manifest = {
        "stage": "download",
        "fingerprint": {"settings": settings or {}, "format": 3, "inputs": {}},
        "source": {**source, "shards": [{"path": f"{lang}/a.parquet", "sha256": "0" * 64}]},
        "languages": {lang: totals},
        "totals": totals,
        "files": [{"path": f"raw/{lang}/a.parquet", "bytes": 5, "rows": 3}],
    }
    return Corpus(Layout(name), "download", {"download": manifest})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:hunter2@host/data", "https://host/data"),
        ("https://token@host:8080/data/", "https://host:8080/data/"),
        ("https://host/data?X-Amz-Signature=hunter2&X=1", "https://host/data"),
        ("https://host/data#hunter2", "https://host/data"),
        ("https://me:hun/ter2@host/data", "https://host/data"),
        ("https://me:hunter2?x@host/data", "https://(hidden)"),
        ("s3://key:hunter2@bucket/prefix", "s3://bucket/prefix"),
        ("simplecache::https://me:hunter2@host/x?sig=hunter2", "simplecache::https://host/x"),
        ("zip://a/b.zip?hunter2::s3://k:hunter2@bucket/c", "zip://a/b.zip::s3://bucket/c"),
        ("hf://datasets/me/mine@6a8734b/de/a.parquet", "hf://datasets/me/mine@6a8734b/de/a.parquet"),
        ("https://host/@me/data", "https://host/@me/data"),
        ("https://[::1]:80/data", "https://[::1]:80/data"),
    ],
)
def test_urls_lose_what_lets_their_reader_in(url: str, shown: str) -> None:
    assert public_url(url) == shown
    assert "hunter2" not in public_url(url)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("/home/someone/corpora/mine/", "mine"), ("../other/mine", "mine"), ("file:///home/someone/mine", "mine"),
        (r"C:\Users\someone\mine", "mine"), ("/", "(root)"), ("s3://bucket/mine", "s3://bucket/mine"),
    ],
)  # fmt: skip
def test_of_a_local_path_the_last_part_is_told(place: str, shown: str) -> None:
    assert public_place(place) == shown
    assert public({"path": place}) == {"path": shown}


def test_no_secret_and_no_path_of_the_machine_comes_through() -> None:
    settings = {
        "path": "https://me:hunter2@host/data?X-Amz-Signature=hunter2",
        "model": "private/hunter2/lid.bin",
        "tokenizer": "/home/hunter2/tok.model",
        "files": "{lang}/**",
        "names": {"de": "/home/hunter2/deu"},
        "list": ["/home/hunter2/x"],
    }
    for kind, path in (("url", settings["path"]), ("local", "/home/hunter2/data")):
        page = data_card(_corpus({"kind": kind, "path": path}, settings=settings, name="/home/hunter2/w"), Published())
        assert "hunter2" not in page
        assert "Signature" not in page
        for kept in ("{lang}/**", "lid.bin", "tok.model"):
            assert kept in page
    hub = _corpus({"kind": "hub", "repo": "https://me:hunter2@host/me/mine", "revision": "main"})
    assert "hunter2" not in data_card(hub, Published())
    assert "`https://host/data`" in data_card(_corpus({"kind": "url", "path": settings["path"]}), Published())


NASTY = [
    "a|b", "`", "``x`", "[x](http://evil.example)", "<script>alert(1)</script>", "x\n# heading\n", "\u202egnp", " ",
    "---\nlicense: mit", "*/[!a]", "'\"", "{{x}}", "|", "\\|", "![i](http://evil.example/i.png)", "http://evil.example",
]  # fmt: skip


@pytest.mark.parametrize("word", NASTY)
def test_words_from_outside_are_only_words(word: str) -> None:
    source = {"kind": "hub", "repo": word, "revision": word, "commit": word}
    page = data_card(_corpus(source, lang=word.replace("/", "_"), settings={word: word}, name=word), Published())
    plain = data_card(
        _corpus(dict.fromkeys(source, "word") | {"kind": "hub"}, "word", {"word": "word"}, "word"), Published()
    )
    parser = MarkdownIt("commonmark").enable("table")

    def shape(text: str) -> list[str]:
        """Everything but the words: blocks, and what is inline in them."""
        kinds: list[str] = []
        for token in parser.parse(body(text).partition("\n## How to ")[0]):
            kinds += [token.type, *(child.type for child in token.children or ())]
        return kinds

    assert shape(page) == shape(plain)
    values = front(page)
    assert values["configs"][1]["config_name"] == word.replace("/", "_")
    assert values["license"] == "unknown"
    assert "\u202e" not in page


@pytest.mark.parametrize("word", [*NASTY, "plain", "`a", "a`"])
def test_code_shows_the_word_itself(word: str) -> None:
    html = MarkdownIt("commonmark").enable("table").render(f"| a |\n| --- |\n| {code(word, in_table=True)} |\n")
    shown = re.search(r"<td><code>(.*)</code></td>", html)
    assert shown is not None
    if word.isprintable() and word.strip() and not re.search(r"[<>&\"']", word):
        assert shown[1].strip() == word.strip()
