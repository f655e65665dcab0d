"""Where everything lies below a work folder."""

from __future__ import annotations

from dataclasses import dataclass, field

from lola_data import storage

TREES = {
    "download": "raw",
    "identify": "identified",
    "dedup": "deduped",
    "sample": "sampled",
    "tokenizer": "tokenizer",
    "tokenize": "tokens",
    "train": "runs",
    "balance": "report",
}
"""Stage -> the folder it writes, in the order of the corpus graph."""
HIDDEN = ".lola-data"
"""Folder of records in a tree that is not a work folder."""
RUN = "moe"
"""Name of the training run below ``runs/``."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one corpus.

    Args:
        workdir: root folder (or fsspec URL).
        trees: stage -> path, for trees that lie elsewhere (a folder of raw shards that another tool keeps).
        hidden: whether records, scratch files and logs lie in one hidden folder, because the work folder is itself a
            tree of shards.
    """

    workdir: str
    trees: dict[str, str] = field(default_factory=dict)
    hidden: bool = False

    @classmethod
    def of_raw_tree(cls, root: str) -> Layout:
        """A tree of raw shards by itself, with nothing else that is to be seen."""
        return cls(root, {"download": root}, hidden=True)

    @classmethod
    def found_at(cls, root: str) -> Layout | None:
        """The layout of what lies at ``root``: a work folder, a tree of raw shards that was downloaded, or None."""
        for layout in (cls(root), cls.of_raw_tree(root)):
            if storage.exists(storage.join(layout.kept, "state")):
                return layout
        return None

    @property
    def kept(self) -> str:
        """Where records, scratch files and logs lie."""
        return storage.join(self.workdir, HIDDEN) if self.hidden else self.workdir

    def tree(self, stage: str) -> str:
        """The folder a stage writes."""
        return self.trees.get(stage) or storage.join(self.workdir, TREES[stage])

    def file(self, stage: str, path: str) -> str:
        """Path, relative to the work folder, of a file in a stage's tree."""
        inside = self.tree(stage).removeprefix(self.workdir.rstrip("/")).strip("/")
        return f"{inside}/{path}" if inside else path

    @property
    def run(self) -> str:
        """The run directory of the stage `train`."""
        return storage.join(self.tree("train"), RUN)

    def removed(self, stage: str) -> str:
        """The tree of rows that a stage removed."""
        return storage.join(self.workdir, "removed", stage)

    def scratch(self, stage: str, *parts: str) -> str:
        """Intermediate files of a stage (signatures, decisions)."""
        return storage.join(self.kept, "scratch", stage, *parts)

    def state(self, stage: str, *parts: str) -> str:
        """What a stage has done: its fingerprint, one record per finished unit, failures."""
        return storage.join(self.kept, "state", stage, *parts)

    def logs(self, stage: str, *parts: str) -> str:
        """Logs and times of a stage."""
        return storage.join(self.kept, "logs", stage, *parts)

    def manifest(self, stage: str) -> str:
        """The manifest of the tree a stage writes."""
        return storage.join(self.tree(stage), "manifest.json")
