"""Stage ``download``: bring raw shards into ``raw/<lang>/``, whole and readable or not at all.

Source (embedded sample, local folder, fsspec prefix, Hugging Face hub) -> plan: which shards -> each fetched into a
scratch folder, its digest checked and its row groups decoded once -> moved into the raw tree -> manifest with origins
and digests.
"""

from __future__ import annotations

import difflib
import errno
import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import xxhash

from lola_data import storage
from lola_data.errors import ShardError, StageError
from lola_data.layout import TREES
from lola_data.manifest import Counts, OutputFile, UnitReport, build_manifest
from lola_data.schemas import RAW
from lola_data.shards import Unit, open_parquet, read_batches
from pipelines.sources import CHUNK_BYTES, LocalSource, RawShard, Source, UrlSource
from pipelines.stage import ShardStep, Stage

if TYPE_CHECKING:
    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from lola_data.sections import DownloadSection

STAGE = "download"


def build(recipe: Recipe, layout: Layout) -> Stage:
    """The stage, set up by a recipe."""
    section = recipe.download
    step = FetchStep(layout, section=section, languages=recipe.selected, seed=recipe.seed)
    settings: dict[str, Any] = {"source": section.source, "languages": recipe.selected}
    if section.source == "hub":
        settings |= {"repo": section.repo, "revision": section.revision}
    elif section.path is not None:
        settings["path"] = section.path
    if section.max_shards is not None:
        settings |= {"max_shards": section.max_shards, "seed": recipe.seed}
    return DownloadStage(STAGE, layout, [step], settings, inputs=[], languages=recipe.selected)


def open_source(section: DownloadSection, layout: Layout) -> Source:
    """The source that a recipe names."""
    if section.source == "hub":
        # The hub's client is slow to import.
        from pipelines.hub import HubSource

        return HubSource(section.repo, section.revision, scratch_folder(layout))
    if section.source == "sample":
        from lola_data.sample_corpus import sample_root

        # Small, and part of the installed package: a link would let a slip in the work folder damage it.
        return LocalSource(str(sample_root()), link=False)
    path = section.path or ""
    return UrlSource(path) if storage.is_remote(path) else LocalSource(path)


def scratch_folder(layout: Layout) -> Path:
    """A local folder for files that are not complete yet: below the work folder, unless that is remote."""
    if not storage.is_remote(layout.workdir):
        return storage.local_path(layout.scratch(STAGE))
    return Path(tempfile.gettempdir()) / f"lola-data-{xxhash.xxh64_hexdigest(layout.workdir.encode())}" / STAGE


def pick(shards: list[RawShard], max_shards: int, seed: int) -> list[RawShard]:
    """At most ``max_shards`` of each language: those whose paths hash lowest with the seed; order is kept.

    A larger ``max_shards`` keeps all that a smaller one picks.
    """
    by_lang: dict[str, list[RawShard]] = defaultdict(list)
    for shard in shards:
        by_lang[shard.lang].append(shard)
    picked: set[str] = set()
    for some in by_lang.values():
        some.sort(key=lambda shard: (xxhash.xxh64_intdigest(f"{seed}/shards/{shard.path}".encode()), shard.path))
        picked.update(shard.path for shard in some[:max_shards])
    return [shard for shard in shards if shard.path in picked]


def check_shard(path: Path, shown: str) -> int:
    """Rows of a Parquet file with a usable ``text`` column, every row group of which can be decoded.

    Args:
        path: the local file.
        shown: where it came from, for messages.

    Raises:
        ShardError: cut off, damaged (the row group and its bytes are named), not Parquet, or of a foreign schema.
    """
    try:
        with open_parquet(str(path)) as file:
            groups, rows = file.metadata.num_row_groups, file.metadata.num_rows
        whole = Unit(path.parent.name, path.name, path.stem, 0, groups, 0, rows, 0)
        for _ in read_batches(str(path.parent), whole, RAW):
            pass
    except ShardError as error:
        raise ShardError(str(error).replace(str(path), shown)) from error
    return rows


class FetchStep(ShardStep):
    """The one phase of the stage: a unit is a shard of the source."""

    phase: ClassVar[str] = "fetch"

    def __init__(self, layout: Layout, *, section: DownloadSection, languages: list[str] | None, seed: int) -> None:
        super().__init__(layout, STAGE)
        self.section = section
        self.languages = languages
        self.seed = seed

    def source(self) -> Source:
        """The source, opened anew: it may hold connections."""
        return open_source(self.section, self.layout)

    def plan(self) -> list[RawShard]:
        """The shards to bring in, sorted by path.

        Raises:
            StageError: source missing or out of reach, a selected language is not there, or too little disk.
        """
        source = self.source()
        recorded = [RawShard(**value) for value in self.state.plan(self.phase) or []]
        if recorded and source.pinned:
            return recorded
        shards = source.shards(self.languages)
        _check_languages(source, shards, self.languages)
        if self.section.max_shards is not None:
            shards = pick(shards, self.section.max_shards, self.seed)
        if recorded and self._only_mended(recorded, shards):
            return recorded
        if not isinstance(source, LocalSource):
            self._check_space(shards)
        return shards

    def _only_mended(self, recorded: list[RawShard], shards: list[RawShard]) -> bool:
        """Whether the same shards are there, and those that are done as they were: one that failed may be mended."""
        if [shard.path for shard in recorded] != [shard.path for shard in shards]:
            return False
        done = self.state.done_keys(self.phase)
        return all(old.key not in done or old == new for old, new in zip(recorded, shards, strict=True))

    def _check_space(self, shards: list[RawShard]) -> None:
        folder = scratch_folder(self.layout)
        while not folder.exists():
            folder = folder.parent
        needed, free = sum(shard.bytes for shard in shards), shutil.disk_usage(folder).free
        if needed > free:
            raise StageError(
                f"{STAGE}: {len(shards)} shards need {needed / 1e9:,.1f} GB, but {folder} has {free / 1e9:,.1f} GB "
                f"free. Choose fewer `languages`, set `download.max_shards`, or put `workdir` on a bigger disk"
            )

    def work_from_json(self, value: dict[str, Any]) -> RawShard:
        """A shard of the recorded plan."""
        return RawShard(**value)

    def process(self, work: RawShard) -> UnitReport:
        """Fetch one shard, check it and put it in its place."""
        source = self.source()
        target = storage.join(self.layout.tree(STAGE), work.path)
        staged = scratch_folder(self.layout) / "fetched" / work.path
        try:
            sha256 = self._already_there(work, target)
            arrived = storage.local_path(target) if sha256 else staged
            if not sha256:
                sha256 = source.fetch(work, staged)
            rows = check_shard(arrived, source.locate(work))
            size = arrived.stat().st_size
            if arrived == staged:
                _move(staged, target)
        except OSError as error:
            raise ShardError(
                f"{source.locate(work)}: cannot be put into {self.layout.workdir}: {error.strerror or error}. Free "
                f"some space or check the rights of the folder, then run the same command again: what is done is kept"
            ) from error
        finally:
            staged.unlink(missing_ok=True)
        report = UnitReport(work.key, files=[OutputFile(f"{TREES[STAGE]}/{work.path}", size, rows)])
        report.take(work.lang, Counts(documents=rows))
        report.give(work.lang, Counts(documents=rows))
        report.extra = {"path": work.path, "origin": work.origin, "sha256": sha256}
        return report

    def _already_there(self, work: RawShard, target: str) -> str | None:
        # A run that was killed after the file was in place, and before that was recorded, need not fetch it again.
        path = storage.local_path(target)
        if storage.is_remote(target) or not (work.digest or "").startswith("sha256:") or not path.exists():
            return None
        from pipelines.hub import mismatch

        return (work.digest or "").partition(":")[2] if mismatch(path, work) is None else None


def _check_languages(source: Source, shards: list[RawShard], languages: list[str] | None) -> None:
    found = {shard.lang for shard in shards}
    missing = [lang for lang in languages or [] if lang not in found]
    if missing:
        folders = source.folders()
        near = difflib.get_close_matches(missing[0], folders, n=1, cutoff=0.0)
        hint = f"the nearest of its {len(folders)} folders is `{near[0]}`" if near else "it has no language folders"
        names = ", ".join(f"`{lang}`" for lang in missing[:10]) + (" ..." if len(missing) > 10 else "")
        raise StageError(
            f"{STAGE}: {source.place} has no shards of {names}; {hint}. Take {'it' if len(missing) == 1 else 'them'} "
            f"out of `languages`, or put *.parquet files into a folder of that name"
        )
    if not shards:
        raise StageError(
            f"{STAGE}: {source.place}: no shards there; it must hold <lang>/*.parquet (folders: "
            f"{', '.join(source.folders()[:10]) or 'none'})"
        )


def _move(staged: Path, target: str) -> None:
    """Rename a checked file to its place, or copy it where that is another file system."""
    if not storage.is_remote(target):
        path = storage.local_path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.replace(path)
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    with staged.open("rb") as source, storage.atomic_output(target) as output:
        shutil.copyfileobj(source, output, CHUNK_BYTES)


@dataclass
class DownloadStage(Stage):
    """The stage, with what its manifest adds: where each shard came from, and its digest."""

    languages: list[str] | None = None

    def finish(self, reports: list[UnitReport], fingerprint: dict[str, Any]) -> dict[str, Any]:
        """The manifest.

        Raises:
            StageError: a selected language has shards, but no document in them.
        """
        documents: dict[str, int] = defaultdict(int)
        for report in reports:
            for lang, counts in report.given.items():
                documents[lang] += counts.documents
        empty = [lang for lang in self.languages or [] if not documents[lang]]
        if empty:
            names = ", ".join(f"`{lang}`" for lang in empty)
            raise StageError(
                f"{STAGE}: the shards of {names} in {self.layout.tree(STAGE)} hold no documents at all. Take "
                f"{'it' if len(empty) == 1 else 'them'} out of `languages` and run with `--redo {STAGE}`"
            )
        return build_manifest(self.name, reports, fingerprint=fingerprint, extra={"source": self._origins(reports)})

    def _origins(self, reports: list[UnitReport]) -> dict[str, Any]:
        shards = [report.extra for report in sorted(reports, key=lambda report: report.key)]
        source = {key: self.settings[key] for key in ("path", "repo", "revision") if key in self.settings}
        if self.settings["source"] == "hub":
            source["commit"] = shards[0]["origin"].partition("@")[2].partition("/")[0]
        return {"kind": self.settings["source"], **source, "shards": shards}
