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
RUN = "moe"
"""Name of the training run below ``runs/``."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one corpus.

    Args:
        workdir: root folder (or fsspec URL).
        trees: stage -> path, for trees that lie elsewhere (a folder of raw shards that another tool keeps).
    """

    workdir: str
    trees: dict[str, str] = field(default_factory=dict)

    def tree(self, stage: str) -> str:
        """The folder a stage writes."""
        return self.trees.get(stage) or storage.join(self.workdir, TREES[stage])

    @property
    def run(self) -> str:
        """The run directory of the stage `train`."""
        return storage.join(self.tree("train"), RUN)

    def removed(self, stage: str) -> str:
        """The tree of rows that a stage removed."""
        return storage.join(self.workdir, "removed", stage)

    def scratch(self, stage: str, *parts: str) -> str:
        """Intermediate files of a stage (signatures, decisions)."""
        return storage.join(self.workdir, "scratch", stage, *parts)

    def state(self, stage: str, *parts: str) -> str:
        """What a stage has done: its fingerprint, one record per finished unit, failures."""
        return storage.join(self.workdir, "state", stage, *parts)

    def logs(self, stage: str, *parts: str) -> str:
        """Logs and times of a stage."""
        return storage.join(self.workdir, "logs", stage, *parts)

    def manifest(self, stage: str) -> str:
        """The manifest of the tree a stage writes."""
        return storage.join(self.tree(stage), "manifest.json")
