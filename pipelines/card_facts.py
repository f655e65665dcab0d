"""What manifests know of a corpus: a work folder or a tree in, the facts for its data card and metadata out.

Nothing is counted here and nothing guessed: sizes, settings, origins and digests are those that stages recorded. Stages
belong together as long as each says, by digest, that its input is the manifest that lies there now; what was made again
since, or lies elsewhere, is left out and told.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.languages import LANGUAGES
from lola_data.layout import TREES, Layout
from pipelines.state import manifest_digest

if TYPE_CHECKING:
    from lola_data.languages import Language

TEXT_STAGES = ("download", "identify", "dedup", "sample")
"""Stages that write a tree of text, in order."""
_KEYS = {"fingerprint", "files", "languages", "totals"}
"""What every manifest of a stage with documents has."""
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file: ``path`` below its tree (``<lang>/<shard>.parquet``), ``bytes`` on disk, and what else is known of it."""

    path: str
    bytes: int
    rows: int | None = None
    sha256: str | None = None

    @property
    def folder(self) -> str:
        """The first part of the path: the language of a shard of text."""
        return self.path.partition("/")[0]


@dataclass(frozen=True, slots=True)
class LanguageSize:
    """One language of the tree: documents, and UTF-8 bytes and tokens where a stage counted them."""

    code: str
    documents: int
    bytes: int | None
    tokens: int | None
    file_bytes: int

    @property
    def known(self) -> Language | None:
        """The language of the folder, if that has the code of one."""
        return LANGUAGES.get(self.code)


@dataclass(frozen=True)
class Corpus:
    """A tree of text and all that led to it.

    Attributes:
        layout: of the work folder, or of the tree by itself.
        stage: that wrote the tree described.
        manifests: stage -> manifest, in order; those that belong to the tree.
        report: ``balance.json``, if it was made of this very tree.
        tokenizer: ``card.json`` of the tokenizer that made the tokens.
        left_out: what is there and is left out, and why, in words.
    """

    layout: Layout
    stage: str
    manifests: dict[str, Manifest]
    report: dict[str, Any] | None = None
    tokenizer: dict[str, Any] | None = None
    left_out: list[str] = field(default_factory=list)

    @property
    def tree(self) -> str:
        """Folder or URL of the tree described."""
        return self.layout.tree(self.stage)

    @property
    def name(self) -> str:
        """Last part of the path of the work folder, or of the tree that stands alone."""
        return self.layout.workdir.rstrip("/").rpartition("/")[2] or "corpus"

    @property
    def source(self) -> dict[str, Any]:
        """Where the raw shards came from; empty where that is not known."""
        return self.manifests.get("download", {}).get("source", {})

    def settings(self, stage: str) -> dict[str, Any]:
        """The values of the recipe that decided a stage's output."""
        return self.manifests[stage]["fingerprint"].get("settings", {})

    @cached_property
    def shards(self) -> list[DataFile]:
        """The shards of the tree, by path."""
        return self.files_of(self.stage, ".parquet")

    def files_of(self, stage: str, *suffixes: str) -> list[DataFile]:
        """Files in the tree of a stage whose names end in one of ``suffixes``, by path."""
        manifest = self.manifests[stage]
        start = self.layout.file(stage, "")
        digests = {shard["path"]: shard.get("sha256") for shard in manifest.get("source", {}).get("shards", [])}
        for shard in manifest.get("shards", []):
            digests |= {f"{shard['path']}.{suffix}": value for suffix, value in shard["sha256"].items()}
        found: list[DataFile] = []
        for file in manifest["files"]:
            path = file["path"].removeprefix(start)
            if file["path"].startswith(start) and path.endswith(suffixes):
                found.append(DataFile(path, file["bytes"], file.get("rows"), digests.get(path)))
        return sorted(found, key=lambda one: one.path)

    @cached_property
    def sizes(self) -> list[LanguageSize]:
        """The languages of the tree that have documents, the largest first."""
        on_disk: dict[str, int] = {}
        for shard in self.shards:
            on_disk[shard.folder] = on_disk.get(shard.folder, 0) + shard.bytes
        tokens = self.manifests.get("tokenize", {}).get("languages")
        sizes: list[LanguageSize] = []
        for code, counts in self.manifests[self.stage]["languages"].items():
            out = counts["out"]
            if out["documents"]:
                # Download moves files and looks at no text: its zeros stand for "not counted".
                size = None if self.stage == "download" else out["bytes"]
                counted = None if tokens is None else tokens.get(code, {}).get("out", {}).get("tokens", 0)
                sizes.append(LanguageSize(code, out["documents"], size, counted, on_disk.get(code, 0)))
        return sorted(sizes, key=lambda one: (-(one.tokens or one.bytes or one.documents), one.code))

    @property
    def documents(self) -> int:
        """Documents of the tree."""
        return sum(one.documents for one in self.sizes)

    @property
    def bytes(self) -> int | None:
        """UTF-8 bytes of the texts, where they were counted."""
        return _sum([one.bytes for one in self.sizes])

    @property
    def tokens(self) -> int | None:
        """Tokens, where there are any."""
        return _sum([one.tokens for one in self.sizes])


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) and known else None


def read_corpus(path: str) -> Corpus:
    """The corpus at ``path``: a work folder (its last tree of text), one tree in it, or a downloaded tree.

    Raises:
        ShardError: nothing there, nothing that a stage of lola-data wrote, or a manifest that is damaged.
    """
    path = absolute(path)
    if not storage.exists(path):
        raise ShardError(f"{path}: no such folder; name a work folder, or a tree that lola-data wrote")
    layout, stage = _place(path)
    manifests = {name: manifest for name in TREES if (manifest := _manifest(layout, name)) is not None}
    if stage is None:
        there = [name for name in TEXT_STAGES if name in manifests]
        if not there:
            trees = ", ".join(TREES[name] for name in TEXT_STAGES)
            raise ShardError(
                f"{path}: no manifest.json of a tree of text, here or in {trees}; name the work folder of a run, one "
                f"of these trees, or what `lola-data download --dest` wrote"
            )
        stage = there[-1]
    left_out: list[str] = []
    chain = _chain(manifests, stage, left_out)
    after = [name for name in ("tokenizer", "tokenize") if _follows(manifests, name, {**chain}, stage, left_out)]
    if "tokenize" in after and "tokenizer" in manifests and "tokenizer" not in after:
        after.remove("tokenize")
    chain |= {name: manifests[name] for name in after}
    ordered = {name: chain[name] for name in TREES if name in chain}
    report = _report(layout, manifests, ordered, stage, left_out)
    card = _read_if_there(storage.join(layout.tree("tokenizer"), "card.json")) if "tokenizer" in ordered else None
    return Corpus(layout, stage, ordered, report, card, left_out)


def absolute(path: str) -> str:
    """A local path from the root on; a URL as it is. No slash at the end."""
    if storage.is_remote(path):
        return path.rstrip("/")
    return os.path.abspath(storage.local_path(path))  # noqa: PTH100 - links are left alone


def _place(path: str) -> tuple[Layout, str | None]:
    """The layout of ``path``, and the stage of the one tree that is meant; None: the last there is."""
    own = _read_if_there(storage.join(path, "manifest.json"))
    if own is None:
        return Layout(path), None
    stage = own.get("stage") if isinstance(own, dict) else None
    if stage not in TEXT_STAGES:
        raise ShardError(f"{path}: not a tree of text ({stage or 'a foreign manifest.json'}); name its work folder")
    parent, _, name = path.rpartition("/")
    if name == TREES[stage] and all(
        str(file.get("path", "")).startswith((f"{name}/", "removed/")) for file in own.get("files", [])
    ):
        return Layout(parent or "/"), stage
    return Layout.of_raw_tree(path), "download"


def _read_if_there(path: str) -> Any:
    return storage.read_json(path) if storage.exists(path) else None


def _manifest(layout: Layout, stage: str) -> Manifest | None:
    path = layout.manifest(stage)
    found = _read_if_there(path)
    if found is None:
        return None
    wanted = _KEYS if stage in (*TEXT_STAGES, "tokenize") else {"fingerprint"}
    if not isinstance(found, dict) or found.get("stage") != stage or not wanted <= found.keys():
        raise ShardError(f"{path}: not the manifest of the stage `{stage}`; run that stage again")
    return found


def _chain(manifests: dict[str, Manifest], stage: str, left_out: list[str]) -> dict[str, Manifest]:
    """The stage and those before it, as far as each is what the next one read."""
    chain = {stage: manifests[stage]}
    for name, known in manifests[stage]["fingerprint"].get("inputs", {}).items():
        before = manifests.get(name)
        if before is None:
            continue
        if manifest_digest(before) == known:
            chain |= _chain(manifests, name, left_out)
        else:
            left_out.append(f"{TREES[name]}/: {TREES[stage]}/ was made of another tree than is there now")
    return chain


def _follows(
    manifests: dict[str, Manifest], name: str, chain: dict[str, Manifest], stage: str, left_out: list[str]
) -> bool:
    """Whether a later stage was made of the tree described, and of what else it says it read."""
    if name not in manifests:
        return False
    inputs = manifests[name]["fingerprint"].get("inputs", {})
    if stage not in inputs:
        return False
    stale = [one for one, known in inputs.items() if one in manifests and manifest_digest(manifests[one]) != known]
    for one in stale:
        left_out.append(f"{TREES[name]}/: was made of another {TREES[one]}/ than is there now")
    return not stale and chain.get(stage) is not None


def _report(
    layout: Layout, manifests: dict[str, Manifest], chain: dict[str, Manifest], stage: str, left_out: list[str]
) -> dict[str, Any] | None:
    if "balance" not in manifests:
        return None
    inputs = manifests["balance"]["fingerprint"].get("inputs", {})
    if stage not in inputs:
        return None
    if any(inputs.get(name) != manifest_digest(manifest) for name, manifest in chain.items() if name in inputs):
        left_out.append(f"{TREES['balance']}/: was made of other trees than are there now")
        return None
    report = _read_if_there(storage.join(layout.tree("balance"), "balance.json"))
    return report if isinstance(report, dict) and report.get("subject") == TREES[stage] else None
