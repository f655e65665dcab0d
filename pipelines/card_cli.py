"""Command ``card``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.card_facts import Corpus
    from pipelines.card_front import Published

CARD, METADATA = "README.md", "croissant.json"
_CITATIONS = ("CITATION.cff", "CITATION.bib", "CITATION.md", "CITATION")


@click.command()
@click.argument("path", metavar="WORKDIR_OR_TREE")
@click.option("--out", metavar="DIR", help="Folder to write to  [default: WORKDIR_OR_TREE].")
@click.option("--name", help="Name of the dataset  [default: that of the folder].")
@click.option("--url", help="Address of its page.")
@click.option("--creator", metavar="NAME", help="The organisation that publishes it.")
@click.option("--date-published", "date", metavar="YYYY-MM-DD", type=click.DateTime(["%Y-%m-%d"]),
              help="Day it was, or will be, published.")  # fmt: skip
@click.option("--license", "licence", metavar="SPDX", help="Identifier of the licence you give it, such as ODC-By-1.0.")
@click.option("--digests", is_flag=True, help="Read all shards, to name each with its SHA-256 in croissant.json.")
@click.option("--json", "as_json", is_flag=True, help="Say what was written as JSON on stdout.")
def card(
    path: str,
    out: str | None,
    name: str | None,
    url: str | None,
    creator: str | None,
    date: object,
    licence: str | None,
    digests: bool,
    as_json: bool,
) -> None:
    """Write a data card (README.md) and Croissant metadata (croissant.json) from the manifests.

    Described is the last tree of text of a work folder, or the tree that is named. Give as --out the folder that you
    are going to publish, the work folder or the tree itself: paths in both files are relative to it. What no manifest
    knows is left out; who publishes, where, when and under which licence, you may say.

    \b
    Examples:
      lola-data card work/demo
      lola-data card work/mine/sampled --name my-corpus --license ODC-By-1.0 --digests
      lola-data card shards --out published --json
    """
    from lola_data import storage
    from pipelines.card import MARK, data_card
    from pipelines.card_facts import read_corpus
    from pipelines.croissant import MARK as METADATA_MARK
    from pipelines.croissant import croissant, lacking, to_text

    _check_words(name=name, url=url, creator=creator, license=licence)
    corpus = read_corpus(path)
    folder = out or path
    published = _published(corpus, folder, name, url, creator, str(date)[:10] if date else None, licence)
    card_path, metadata_path = storage.join(folder, CARD), storage.join(folder, METADATA)
    _check_ours(card_path, MARK)
    _check_ours(metadata_path, METADATA_MARK)
    page = data_card(corpus, published)
    document = croissant(corpus, published, _digests(corpus) if digests else None)
    for target, text in ((card_path, page), (metadata_path, to_text(document))):
        with storage.atomic_output(target) as handle:
            handle.write(text.encode())
    lacks = lacking(document)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "card": card_path,
                    "croissant": metadata_path,
                    "stage": corpus.stage,
                    "languages": len(corpus.sizes),
                    "documents": corpus.documents,
                    "bytes": corpus.bytes,
                    "tokens": corpus.tokens,
                    "lacking": lacks,
                    "left_out": corpus.left_out,
                },
                indent=1,
            )
        )
    for told in corpus.left_out:
        click.echo(f"left out: {told}", err=True)
    if not as_json:
        click.echo(f"written: {card_path}, {metadata_path}", err=True)
        if lacks:
            flags = {"datePublished": "--date-published"}
            options = ", ".join(flags.get(one, f"--{one}") for one in lacks)
            click.echo(f"Croissant asks for more than manifests know; you may add: {options}", err=True)


def _check_words(**options: str | None) -> None:
    from lola_data.errors import RecipeError
    from lola_data.report.text import visible

    for option, value in options.items():
        if value is not None and (not value.strip() or visible(value) != value):
            raise RecipeError(f"card: --{option} {visible(value)!r}: empty, or with characters that cannot be seen")
    url, licence = options["url"], options["license"]
    if url is not None and not url.startswith(("https://", "http://")):
        raise RecipeError(f"card: --url {url}: not a web address; write https://...")
    if licence is not None and not all(character.isalnum() or character in ".+-" for character in licence):
        raise RecipeError(f"card: --license {licence}: not an SPDX identifier; https://spdx.org/licenses lists them")


def _published(
    corpus: Corpus,
    folder: str,
    name: str | None,
    url: str | None,
    creator: str | None,
    date: str | None,
    licence: str | None,
) -> Published:
    from lola_data import storage
    from pipelines.card_front import Published

    tokens = corpus.layout.tree("tokenize") if "tokenize" in corpus.manifests else None
    citations = [one for one in _CITATIONS if storage.exists(storage.join(folder, one))]
    token_place = None if tokens is None else _below(folder, tokens)
    return Published(name, url, creator, date, licence, _below(folder, corpus.tree) or "", token_place, citations)


def _below(folder: str, tree: str) -> str | None:
    """Path of a tree below a folder, empty if they are the same; None: it does not lie below."""
    from pipelines.card_facts import absolute

    above, whole = absolute(folder).rstrip("/"), absolute(tree).rstrip("/")
    if whole == above:
        return ""
    return whole.removeprefix(f"{above}/") if whole.startswith(f"{above}/") else None


def _check_ours(path: str, mark: str) -> None:
    """Raise ShardError where a file has the name that this command did not write."""
    from lola_data import storage
    from lola_data.errors import ShardError

    if storage.exists(path):
        with storage.open_input(path) as handle:
            if mark.encode() not in handle.read():
                raise ShardError(
                    f"{path}: is there already and was not written by `lola-data card`; move it away, or name another "
                    f"folder with --out"
                )


def _digests(corpus: Corpus) -> dict[str, str]:
    """SHA-256 of every shard that has none in a manifest."""
    import hashlib

    from lola_data import storage
    from lola_data.errors import ShardError

    found: dict[str, str] = {}
    for shard in corpus.shards:
        if shard.sha256 is None:
            path = storage.join(corpus.tree, shard.path)
            try:
                with storage.open_input(path) as handle:
                    found[shard.path] = hashlib.file_digest(handle, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
            except FileNotFoundError as error:
                raise ShardError(f"{path}: is gone, though the manifest names it; run its stage again") from error
    return found
