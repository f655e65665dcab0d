"""Stage ``download``: bring raw shards into ``raw/<lang>/``, whole and readable or not at all.

Source (embedded sample, local folder, fsspec prefix, Hugging Face hub) -> plan: which shards -> each fetched into a
scratch folder, its digest checked and its rows decoded once -> moved into the raw tree, or made into a raw shard there
where it is of another shape -> manifest with origins and digests.
"""

from __future__ import annotations

import difflib
import errno
import shutil
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import xxhash
from datatrove.utils.logging import logger

from lola_data import storage
from lola_data.errors import ShardError, StageError
from lola_data.manifest import Counts, OutputFile, UnitReport, build_manifest
from lola_data.shards import ShardWriter
from lola_data.temporary_folder import own_temporary_folder
from lola_data.text_tables import readable_bytes
from pipelines.digests import mismatch, sha256_of
from pipelines.progress import say
from pipelines.selection import pick, rows_in
from pipelines.shapes import Shape, check_parquet
from pipelines.shard_pattern import ShardPattern
from pipelines.sources import CHUNK_BYTES, LocalSource, RawShard, Source, origin_path
from pipelines.stage import ShardStep, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from lola_data.sections import DownloadSection

STAGE = "download"
SELECTION = ("languages", "max_shards", "max_documents", "max_bytes", "seed")
"""Settings that say which shards are taken, and nothing of what becomes of one."""
KEPT_ASIDE = ("rejected", "damaged")
"""Folders below the scratch folder: files that came wrong, and those that `verify --repair` replaced."""
_SHAPING = ("files", "names", "columns", "extra_columns", "source_name", "checksums")


def build(recipe: Recipe, layout: Layout) -> Stage:
    """The stage, set up by a recipe."""
    section = recipe.download
    step = FetchStep(layout, section=section, languages=recipe.selected, seed=recipe.seed)
    settings: dict[str, Any] = {"source": section.source, "languages": recipe.selected}
    if section.source == "hub":
        settings |= {"repo": section.repo, "revision": section.revision}
    elif section.path is not None:
        settings["path"] = section.path
    limits = {name: getattr(section, name) for name in ("max_shards", "max_documents", "max_bytes")}
    limits = {name: int(value) for name, value in limits.items() if value is not None}
    if limits:
        settings |= {**limits, "seed": recipe.seed}
    for name in _SHAPING:
        if getattr(section, name) != type(section).model_fields[name].get_default(call_default_factory=True):
            settings[name] = getattr(section, name)
    return DownloadStage(STAGE, layout, [step], settings, inputs=[], languages=recipe.selected)


def open_source(section: DownloadSection, layout: Layout) -> Source:
    """The source that a recipe names."""
    pattern = ShardPattern(section.files, dict(section.names))
    scratch, checksums = scratch_folder(layout), section.checksums
    if section.source == "hub":
        # The hub's client is slow to import.
        from pipelines.hub import HubSource

        return HubSource(section.repo, section.revision, scratch, pattern, checksums=checksums)
    if section.source == "sample":
        from lola_data.sample_corpus import sample_root

        # Small, and part of the installed package: a link would let a slip in the work folder damage it.
        return LocalSource(str(sample_root()), link=False)
    path = section.path or ""
    if not storage.is_remote(path):
        return LocalSource(path, pattern, checksums=checksums)
    from pipelines.url_source import UrlSource

    return UrlSource(path, scratch, pattern, checksums=checksums)


def scratch_folder(layout: Layout) -> Path:
    """A local folder for files that are not complete yet: below the work folder, unless that is remote."""
    if not storage.is_remote(layout.workdir):
        return storage.local_path(layout.scratch(STAGE))
    return own_temporary_folder() / xxhash.xxh64_hexdigest(layout.workdir.encode()) / STAGE


class FetchStep(ShardStep):
    """The one phase of the stage: a unit is a shard of the source."""

    phase: ClassVar[str] = "fetch"

    def __init__(self, layout: Layout, *, section: DownloadSection, languages: list[str] | None, seed: int) -> None:
        super().__init__(layout, STAGE)
        self.section = section
        self.languages = languages
        self.seed = seed

    def source(self, commit: str | None = None) -> Source:
        """The source, opened anew: it may hold connections. ``commit``: of the hub, in place of the revision."""
        section = self.section if commit is None else self.section.model_copy(update={"revision": commit})
        return open_source(section, self.layout)

    def plan(self) -> list[RawShard]:
        """The shards to bring in, sorted by path.

        Raises:
            StageError: source missing or out of reach, a selected language is not there, or too little disk.
        """
        recorded = [RawShard(**value) for value in self.state.plan(self.phase) or []]
        if recorded and self.section.source == "hub":
            if not self.state.plan_is_old():
                return recorded
            # More of the same means of the same commit, wherever the branch is now.
            source = self.source(recorded[0].origin.partition("@")[2].partition("/")[0])
        else:
            source = self.source()
        shards = self.choose(source)[0]
        if source.beside:
            said = ", ".join(source.beside[:3]) + (", ..." if len(source.beside) > 3 else "")
            say(
                f"{STAGE}: JSON lines of languages that have Parquet files are left out, {len(source.beside):,} in all "
                f"({said}); to take these instead, name them with `files`, such as files: '{{lang}}/*.jsonl'"
            )
        if recorded and self._only_mended(recorded, shards):
            return recorded
        self._check_kept(shards)
        if source.remote or (isinstance(source, LocalSource) and source.copies_to(scratch_folder(self.layout))):
            self._check_space(shards)
        return shards

    def choose(self, source: Source) -> tuple[list[RawShard], list[RawShard]]:
        """The shards that the limits leave, and all that the source has of the languages.

        Raises:
            StageError: source out of reach, or a selected language is not there.
        """
        shards = source.shards(self.languages)
        _check_languages(source, shards, self.languages)
        _check_names(source, shards)
        section = self.section
        picked = pick(
            shards,
            self.seed,
            max_shards=section.max_shards,
            max_documents=section.max_documents,
            max_bytes=section.max_bytes,
            rows=lambda shard: rows_in(source, shard),
        )
        return picked, shards

    def _check_kept(self, shards: list[RawShard]) -> None:
        """Raise StageError if a shard is in the tree that the choice leaves out: it would pass for chosen."""
        chosen = {shard.key for shard in shards}
        left_out = sorted(self.state.done_keys(self.phase) - chosen)
        if left_out:
            raise StageError(
                f"{STAGE}: {self.layout.tree(STAGE)} has {len(left_out)} shards that are not among those chosen now "
                f"({left_out[0]}, for one). Run with `--redo {STAGE}` to begin afresh, or choose another folder"
            )

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
        done = self.state.done_keys(self.phase)
        needed = sum(shard.bytes for shard in shards if shard.key not in done)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise StageError(
                f"{STAGE}: {len(shards)} shards need {readable_bytes(needed)}, but {folder} has "
                f"{readable_bytes(free)} free. Make room and run the same command again, choose fewer `languages`, "
                f"set `max_bytes` or `max_shards`, or put `workdir` on a bigger disk"
            )

    def work_from_json(self, value: dict[str, Any]) -> RawShard:
        """A shard of the recorded plan."""
        return RawShard(**value)

    def announce(self, left: Sequence[Any], workers: int) -> list[str]:
        """What is to come: size, disk and, at the rate of a small piece of it, time."""
        source = self.source()
        bare = source.bare_folders() if self.languages is None else []
        lines = [f"{STAGE}: folders of languages without a shard, passed over: {', '.join(bare)}"] if bare else []
        if not source.remote:
            return lines
        # Only a run that has something to fetch pays for this.
        from pipelines.forecast import WORTH_PROBING, forecast, forecast_words

        shards = list(left)
        probe = sum(shard.bytes for shard in shards) >= WORTH_PROBING
        return [*lines, forecast_words(forecast(source, shards, scratch_folder(self.layout), workers, probe=probe))]

    def under_way(self) -> int:
        """Bytes of files that are not complete yet."""
        partial = scratch_folder(self.layout) / "partial"
        return sum(size for _, size in storage.list_files(str(partial), ""))

    def process(self, work: RawShard) -> UnitReport:
        """Fetch one shard, check it and put it in its place."""
        source, shape = self.source(), Shape.of(self.section)
        target = storage.join(self.layout.tree(STAGE), work.path)
        name = origin_path(work).rpartition("/")[2]
        staged = scratch_folder(self.layout) / "fetched" / work.path / name
        extra: dict[str, Any] = {"path": work.path, "origin": work.origin}
        try:
            digest = self._already_there(work, target) if shape.as_published(name) else None
            if digest:
                rows, made = check_parquet(storage.local_path(target), source.locate(work)), digest
            else:
                digest, rows, made = self._take_in(source, shape, work, staged, target)
            if not shape.as_published(name):
                extra["origin_sha256"], digest = digest, made
            size = storage.size(target)
        except OSError as error:
            raise ShardError(
                f"{source.locate(work)}: cannot be put into {self.layout.workdir}: {error.strerror or error}. Free "
                f"some space or check the rights of the folder, then run the same command again: what is done is kept"
            ) from error
        finally:
            staged.unlink(missing_ok=True)
            with suppress(OSError):
                staged.parent.rmdir()
        report = UnitReport(work.key, files=[OutputFile(self.layout.file(STAGE, work.path), size, rows)])
        report.take(work.lang, Counts(documents=rows))
        report.give(work.lang, Counts(documents=rows))
        report.extra = {**extra, "sha256": digest}
        return report

    def _take_in(self, source: Source, shape: Shape, work: RawShard, staged: Path, target: str) -> tuple[str, int, str]:
        """Fetch, check and put in place: the SHA-256 of what came, the rows, and the SHA-256 of what lies there now.

        What cannot be read is fetched once more, unless its digest says that the source has it no better.
        """
        asides: list[str] = []
        while True:
            digest = source.fetch(work, staged)
            try:
                if shape.as_published(staged.name):
                    rows = check_parquet(staged, source.locate(work))
                    digest = digest or sha256_of(staged)
                    _move(staged, target)
                    return digest, rows, digest
                digest = digest or sha256_of(staged)
                return digest, *_write_raw(shape, staged, target, source.locate(work))
            except ShardError as error:
                vouched = bool(work.digest or work.listed)
                aside = None if vouched or not source.remote else source.set_aside(staged, work)
                asides += [str(aside)] if aside else []
                if aside is None or len(asides) > 1:
                    kept = f" What came is kept: {', '.join(asides)}" if asides else ""
                    raise ShardError(f"{error}{kept}") from error
                logger.warning(f"{error}: set aside as {aside}, fetched again")

    def _already_there(self, work: RawShard, target: str) -> str | None:
        # A run that was killed after the file was in place, and before that was recorded, need not fetch it again.
        path = storage.local_path(target)
        if storage.is_remote(target) or not (work.digest or "").startswith("sha256:") or not path.exists():
            return None
        return (work.digest or "").partition(":")[2] if mismatch(path, work) is None else None


def _write_raw(shape: Shape, arrived: Path, target: str, shown: str) -> tuple[int, str]:
    """Make a raw shard of a file of another shape; its rows and its SHA-256."""
    # A digest is taken of a file here, so one that goes to a store is made beside what arrived.
    made = str(arrived.with_name(f"{arrived.name}.made")) if storage.is_remote(target) else target
    try:
        with ShardWriter(made, shape.schema(arrived, shown)) as writer:
            for batch in shape.batches(arrived, shown):
                writer.write(batch)
        digest = sha256_of(storage.local_path(made))
        if made != target:
            _move(storage.local_path(made), target)
    finally:
        if made != target:
            storage.remove(made)
    return writer.rows, digest


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
            f"{', '.join(source.folders()[:10]) or 'none'}), or say in `files` how they are named"
        )


def _check_names(source: Source, shards: list[RawShard]) -> None:
    seen: dict[str, RawShard] = {}
    for shard in shards:
        other = seen.setdefault(shard.path, shard)
        if other is not shard:
            raise StageError(
                f"{STAGE}: {source.locate(other)} and {source.locate(shard)} would both be written as {shard.path}. "
                f"Rename one of them at the source, or let `files` name only those of one kind or folder"
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
    grows: ClassVar[bool] = True

    def finish(self, reports: list[UnitReport], fingerprint: dict[str, Any]) -> dict[str, Any]:
        """The manifest.

        Raises:
            StageError: a selected language has shards, but no document in them.
        """
        rejected = scratch_folder(self.layout) / "rejected"
        wrong = [path for path, _ in storage.list_files(str(rejected), "")]
        if wrong:
            said = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
            say(f"{STAGE}: what came wrong at first is kept in {rejected} (delete it when you have seen it): {said}")
        documents: dict[str, int] = defaultdict(int)
        for report in reports:
            for lang, counts in report.given.items():
                documents[lang] += counts.documents
        empty = [lang for lang in self.languages or sorted(documents) if not documents[lang]]
        names = ", ".join(f"`{lang}`" for lang in empty)
        if empty and self.languages is None:
            say(f"{STAGE}: the shards of {names} hold no documents at all")
        elif empty:
            raise StageError(
                f"{STAGE}: the shards of {names} in {self.layout.tree(STAGE)} hold no documents at all. Take "
                f"{'it' if len(empty) == 1 else 'them'} out of `languages` and run with `--redo {STAGE}`"
            )
        return build_manifest(self.name, reports, fingerprint=fingerprint, extra={"source": self._origins(reports)})

    def delete_scratch(self) -> None:
        """Delete what is not complete; files that came or became wrong stay, to be looked at."""
        folder = scratch_folder(self.layout)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in KEPT_ASIDE:
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()

    def same_units(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether two fingerprints differ in nothing but which shards are taken."""

        def rest(fingerprint: dict[str, Any]) -> dict[str, Any]:
            settings = {name: value for name, value in fingerprint["settings"].items() if name not in SELECTION}
            return {**fingerprint, "settings": settings}

        return rest(old) == rest(new)

    def _origins(self, reports: list[UnitReport]) -> dict[str, Any]:
        shards = [report.extra for report in sorted(reports, key=lambda report: report.key)]
        source = {key: self.settings[key] for key in ("path", "repo", "revision") if key in self.settings}
        if self.settings["source"] == "hub":
            source["commit"] = shards[0]["origin"].partition("@")[2].partition("/")[0]
        return {"kind": self.settings["source"], **source, "shards": shards}
