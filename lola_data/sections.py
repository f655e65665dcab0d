"""The sections of a recipe: one validated, immutable model per stage, each field with its description.

A section is also the set of options of the stage's own command. ``train`` is a plain dataclass in
:mod:`lola_data.train_config`, so that the trainer runs on machines without pydantic.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from lola_data import credentials

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class DownloadSection(Section):
    """Where the raw shards come from, and which of them."""

    source: Literal["sample", "local", "hub", "url"] = "sample"
    """`sample`: the embedded corpus; `local`: a folder; `hub`: a Hugging Face dataset repository; `url`: any fsspec
    prefix (s3://, gs://, https:// with directory pages or checksum.sha256 files)."""
    path: str | None = None
    """Folder (`local`) or prefix (`url`)."""
    repo: str = "uonlp/CulturaX"
    """Dataset repository on the hub."""
    revision: str = "main"
    """Branch, tag or commit of the repository; a commit makes the run repeatable. The commit it stood for is kept in
    the manifest."""
    max_shards: int | None = Field(default=None, ge=1)
    """At most this many shards a language, picked by a seeded hash (never simply the first ones)."""
    max_documents: int | None = Field(default=None, ge=1)
    """Of each language, whole shards picked by a seeded hash as long as they hold no more documents together; one at
    least. Row counts are read from the Parquet footers at the source."""
    max_bytes: ByteSize | None = Field(default=None, ge=1)
    """At most so many bytes of all languages together, such as 20GB or 500MiB: whole shards picked by a seeded hash,
    shared out evenly, so that small languages come whole."""
    files: str = "{lang}/**"
    """Which files of the source are shards: {lang} stands for the language, * for anything in a name, ** for anything;
    data/{lang}/train/*, multilingual/c4-{lang}.tfrecord-*."""
    names: dict[str, str] = Field(default_factory=dict)
    """Language -> its name in the source, where that is another: {de: deu_Latn}."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Where text, timestamp, url and source lie, if not in columns of these names: {text: content, url:
    meta.warc_headers.warc-target-uri}; dots lead inside. Known without being told: CulturaX, mC4, OSCAR 22.01 and
    23.01."""
    extra_columns: Literal["keep", "drop"] = "keep"
    """Further columns: `keep` them in the raw shards (those of JSON lines as one column `extra`), or `drop` them.
    What is kept goes with its document to `sampled/`."""
    source_name: str | None = None
    """Value of the column `source` for rows without one, such as mC4."""
    checksums: bool = True
    """Check files against the `checksum.sha256` beside them as well. Turn it off where that list is known to be out of
    date."""

    @model_validator(mode="after")
    def _path_fits(self) -> DownloadSection:
        if self.source in ("local", "url") and not self.path:
            raise ValueError(f"`source: {self.source}` needs `path`")
        if self.source in ("sample", "hub") and self.path:
            raise ValueError(f"`path` has no meaning with `source: {self.source}`; remove it or set `source: local`")
        if self.path and credentials.in_address(self.path):
            raise ValueError(
                "`path` has credentials in it, which manifests and logs would keep. Leave them out: they are found "
                "where the library of the protocol looks for them (of http: headers in fsspec's configuration, "
                "FSSPEC_HTTP)"
            )
        if "{lang}" not in self.files:
            raise ValueError("`files` needs {lang}, where the source names the language")
        unknown = [name for name in self.columns if name not in ("text", "timestamp", "url", "source")]
        if unknown:
            raise ValueError(f"`columns` maps text, timestamp, url and source, not {unknown[0]}")
        if len(set(self.names.values())) < len(self.names):
            raise ValueError("`names` gives two languages the same name")
        return self


class ChecksSection(Section):
    """What to do with documents that are not clean text. `error` fails the shard and names the row; others go on."""

    invalid_utf8: Literal["error", "drop"] = "error"
    """A text, URL, source or timestamp that is not valid UTF-8."""
    nul: Literal["error", "drop", "keep"] = "error"
    """A text with a NUL (U+0000) character."""
    oversized: Literal["error", "drop"] = "error"
    """A text longer than `max_document_bytes`."""
    max_document_bytes: int = Field(default=64 * 2**20, ge=1, le=2**31 - 2**20)
    """Longest text let through, in UTF-8 bytes."""


class IdentifySection(Section):
    """Language identification."""

    model: str = "lid.176.ftz"
    """A registered name (lid.176.ftz, embedded; lid.176.bin, glotlid-v3, openlid-v2: downloaded once, pinned by digest)
    or the path of a fastText model."""
    policy: Literal["drop", "keep", "relabel"] = "drop"
    """A document whose language is not its folder's: `drop` it (into removed/identify), `keep` it where it is, or
    `relabel`: move it to the folder of its language, if that language is worked on (else it is dropped)."""
    min_score: Share = 0.0
    """A document whose language is its folder's but with a lower score is removed as `low_score`. Above 0 so is one
    that is doubtful, by `mismatch_score`, or in no language the model can name."""
    min_score_by_language: dict[str, Share] = Field(default_factory=dict)
    """`min_score` for single languages (CulturaX codes)."""
    min_score_rule: Literal["none", "fineweb2"] = "none"
    """`fineweb2`: the minimum of each language is the median of the scores of its own documents less their standard
    deviation, kept between 0.3 and 0.9; `min_score_by_language` goes before it. Every text is then looked at twice."""
    mismatch_score: Share = 0.5
    """The policy applies only where the model is at least this sure of the other language: weak models scatter small
    languages over their neighbours."""
    accept_confusable: bool = True
    """Near kin that models take for each other (hr/bs/sr/sh, id/ms, zh/yue/wuu, de/als/bar, ...) count as the same for
    the policy; lola_data.lid.labels.CONFUSABLE_GROUPS lists them."""
    max_chars: int | None = Field(default=None, ge=100)
    """Show the model only this many leading characters (None: the whole text)."""
    second_model: str | None = None
    """A second opinion: the policy applies only where this model, too, is at least `mismatch_score` sure of another
    language, and `relabel` only where both name the same."""
    unexpected_script: Literal["keep", "drop"] = "keep"
    """A document that stays, but whose letters are mostly of a script that the language is not written in: keep it, or
    `drop` it as `wrong_script`."""
    keep_unknown: bool = False
    """Keep documents that go as `low_score`, whole, in unknown/<lang>/, to be looked at or taken back."""


class DedupSection(Section):
    """Deduplication inside each language."""

    exact: bool = True
    """Remove documents whose normalised text (case-folded, NFC, white space collapsed) is the same."""
    url: bool = True
    """Remove documents with the URL of a document that is kept."""
    minhash: bool = True
    """Remove near-duplicates: MinHash LSH proposes, exact Jaccard on the shingle sets decides."""
    ngram: int = Field(default=5, ge=1, le=64)
    """Words a shingle."""
    bands: int = Field(default=14, ge=1, le=256)
    """LSH bands."""
    rows: int = Field(default=8, ge=1, le=64)
    """MinHash values a band."""
    threshold: float = Field(default=0.8, gt=0.0, le=1.0)
    """Jaccard similarity to a kept document at which a document is removed."""
    survivor: Literal["first", "longest", "highest_score"] = "first"
    """Which document of a pair stays: the first by id, the longest text, or the highest lang_score (ties: first)."""
    partitions: int | None = Field(default=None, ge=1, le=65_536)
    """Parts that each language is matched in. None: in one go where a task's `executor.memory_mb` allows that, else in
    as many as it takes. More parts are more tasks at a time. Outputs do not depend on it."""
    max_removed_share: Share = 0.6
    """A language that loses more than this share of its documents stops the run with samples shown."""
    alarm_min_documents: int = Field(default=10, ge=1)
    """Languages with fewer documents raise no alarm."""
    waive: list[str] = Field(default_factory=list)
    """Languages whose alarm you have looked at and accept."""


class SampleSection(Section):
    """How much of each language goes on, and with what weight it is trained on."""

    method: Literal["all", "proportional", "temperature", "unimax", "budgets", "lola-v1"] = "temperature"
    """`all`: everything, weighted by size. `proportional`: shares as the sizes, cut to `total`. `temperature`: share
    ~ size^alpha. `unimax`: equal shares, no language beyond `max_epochs` (arXiv 2304.09151). `budgets`: as given.
    `lola-v1`: 4 % of each language, 2 % of English, 16 % of German, all of those under 100,000 documents."""
    unit: Literal["documents", "bytes", "tokens"] = "bytes"
    """What sizes and budgets count. `tokens` needs `tokenizer`."""
    total: int | None = Field(default=None, ge=1)
    """Budget over all languages, in units (None: as many as there are). For `proportional`, `temperature`, `unimax`."""
    alpha: float = Field(default=0.3, ge=0.0, le=1.0)
    """Exponent of `temperature`: 1 is proportional, 0 is uniform."""
    max_epochs: float = Field(default=4.0, gt=0.0, le=10_000.0)
    """No language is gone over more often than this (`temperature`, `unimax`, `budgets`). Files hold a document once; a
    budget above what there is becomes a weight in the training."""
    budgets: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Units of each language for `budgets`."""
    tokenizer: str | None = None
    """SentencePiece model that counts tokens for `unit: tokens`."""

    @model_validator(mode="after")
    def _fits(self) -> SampleSection:
        if self.method == "budgets" and not self.budgets:
            raise ValueError("`method: budgets` needs `budgets`, a number of units for each language")
        if self.budgets and self.method != "budgets":
            raise ValueError(f"`budgets` has no meaning with `method: {self.method}`")
        if self.unit == "tokens" and not self.tokenizer:
            raise ValueError("`unit: tokens` needs `tokenizer`, the SentencePiece model to count with")
        if self.tokenizer and self.unit != "tokens":
            raise ValueError(f"`tokenizer` has no meaning with `unit: {self.unit}`; remove it or set `unit: tokens`")
        if self.total is not None and self.method in ("all", "budgets", "lola-v1"):
            raise ValueError(f"`total` has no meaning with `method: {self.method}`")
        if self.method == "unimax" and self.total is None:
            raise ValueError("`method: unimax` needs `total`, the budget to share out")
        if self.method == "lola-v1" and self.unit != "documents":
            raise ValueError("`method: lola-v1` counts documents: set `unit: documents`")
        return self


class TokenizerSection(Section):
    """The SentencePiece tokenizer."""

    model: str | None = None
    """Use this SentencePiece model instead of training one."""
    vocab_size: int = Field(default=32_000, ge=300, le=1_000_000)
    """Pieces, the 256 bytes and the control tokens included."""
    train_bytes: int = Field(default=200_000_000, ge=10_000)
    """UTF-8 bytes of text to train on, shared out over the languages."""
    alpha: float = Field(default=0.3, ge=0.0, le=1.0)
    """Share of a language in the training text ~ size^alpha."""
    character_coverage: float = Field(default=0.9995, ge=0.98, le=1.0)
    """Share of characters that get a piece of their own; the rest is spelled in bytes."""
    max_line_bytes: int = Field(default=4096, ge=64, le=65_536)
    """Longer lines are cut at safe places before SentencePiece would skip them."""
    memory_limit_mb: int = Field(default=8_000, ge=100)
    """Refuse training text that would need more memory than this."""
    threads: int = Field(default=2, ge=1, le=256)
    """Threads of the trainer; the model does not depend on it."""


class TokenizeSection(Section):
    """Token shards."""

    valid_share: float = Field(default=0.01, ge=0.0, le=0.5)
    """Share of the documents of every language that is held out, chosen by hash of (seed, id). Above 0 at least one of
    two or more, and never all."""


class BalanceSection(Section):
    """The language balance report."""

    html: bool = True
    """Write the page report/balance.html."""
    min_documents: int = Field(default=100, ge=0)
    """Warn of languages with fewer documents."""
    top: int = Field(default=40, ge=5, le=200)
    """Languages drawn in the charts (that of sizes and the table have all)."""


_STAGES = ("download", "identify", "dedup", "sample", "tokenizer", "tokenize", "train", "balance")
_TIME = re.compile(r"\d+|(\d+-)?\d+(:\d+){1,2}|\d+-\d+")
_MEMORY = re.compile(r"\d+[KMGT]?")
_OWN_OPTIONS = ("array", "dependency", "output", "error", "parsable", "signal", "requeue", "open-mode", "wrap")


class StageResources(Section):
    """What one stage has in place of what `executor` says; what is left out stays as there."""

    tasks: int | None = Field(default=None, ge=1)
    """Tasks that the stage is split into."""
    workers: int | None = Field(default=None, ge=1)
    """Tasks that run at the same time (`local`, `ray`)."""
    memory_mb: int | None = Field(default=None, ge=1_000)
    """Memory of a task, in MB."""
    partition: str | None = None
    """Partition of Slurm."""
    time: str | None = None
    """Time limit of a job."""
    qos: str | None = None
    """Quality of service."""
    account: str | None = None
    """Account that the jobs are charged to."""
    cpus_per_task: int | None = Field(default=None, ge=1)
    """Cores of a task."""
    mem_per_cpu: str | None = None
    """Memory a core, as sbatch takes it."""
    max_running: int | None = Field(default=None, ge=1)
    """Tasks of the stage that run at the same time."""
    nodes: int | None = Field(default=None, ge=1)
    """Nodes (`train` alone)."""
    gpus_per_node: int | None = Field(default=None, ge=0)
    """GPUs on each node, a process each (`train` alone)."""
    processes_per_node: int | None = Field(default=None, ge=1)
    """Processes on each node (`train` alone; where there are no GPUs)."""
    sbatch: dict[str, str | int] = Field(default_factory=dict)
    """Further options of sbatch, with or over those of `executor`."""

    @model_validator(mode="after")
    def _fits(self) -> StageResources:
        _check_slurm(self.time, self.mem_per_cpu, self.sbatch)
        return self


def _check_slurm(time: str | None, mem_per_cpu: str | None, sbatch: dict[str, str | int]) -> None:
    if time is not None and not _TIME.fullmatch(time):
        raise ValueError(f'`time` is "{time}"; write it as sbatch takes it: "30" (minutes), "2:00:00", "1-12"')
    if mem_per_cpu is not None and not _MEMORY.fullmatch(mem_per_cpu):
        raise ValueError(f'`mem_per_cpu` is "{mem_per_cpu}"; write it as sbatch takes it: 4G, 3500M')
    for key, value in sbatch.items():
        name = key.replace("_", "-").lstrip("-")
        if name in _OWN_OPTIONS:
            raise ValueError(f"`sbatch: {key}` is set by the run itself; leave it out")
        if "\n" in f"{key}{value}":
            raise ValueError(f"`sbatch: {cut_line(key)}` has a line break in it")


def cut_line(text: str) -> str:
    """The first line of a text."""
    return text.splitlines()[0] if text.splitlines() else text


class ExecutorSection(Section):
    """Where the tasks run."""

    kind: Literal["local", "slurm", "ray"] = "local"
    """`local`: processes on this machine. `slurm`: jobs, all submitted at once. `ray`: a Ray cluster."""
    tasks: int = Field(default=2, ge=1)
    """Tasks a stage is split into, by bytes. Outputs do not depend on it."""
    workers: int = Field(default=2, ge=1)
    """Tasks that run at the same time (`local`, `ray`; for `slurm` see `max_running`)."""
    memory_mb: int = Field(default=4_000, ge=1_000)
    """Memory of a task, in MB. Matching is parted to fit in it (`dedup.partitions`)."""
    partition: str | None = None
    """Partition of Slurm (None: the cluster's default)."""
    time: str = "4:00:00"
    """Time limit of a job, as sbatch takes it: "30" (minutes), "2:00:00", "1-12". A task that comes to it is requeued
    and goes on."""
    qos: str | None = None
    """Quality of service."""
    account: str | None = None
    """Account that the jobs are charged to."""
    cpus_per_task: int = Field(default=1, ge=1)
    """Cores of a task."""
    mem_per_cpu: str | None = None
    """Memory a core, such as 4G. None: `memory_mb` and a quarter more, over the cores of a task."""
    max_running: int | None = Field(default=None, ge=1)
    """Tasks of an array that run at the same time (None: as many as the cluster lets)."""
    lanes: int = Field(default=4, ge=1, le=64)
    """Groups of languages, about equal in bytes, that go from download to dedup without waiting for each other
    (`slurm`)."""
    venv: str | None = None
    """Virtual environment on the nodes (None: the Python that submits)."""
    setup: str | None = None
    """Shell lines that a job begins with, such as `module load cuda`."""
    sbatch: dict[str, str | int] = Field(default_factory=dict)
    """Further options of sbatch: {constraint: cpu, exclude: node7}."""
    grace_seconds: int = Field(default=120, ge=10)
    """A job is told so long before its time limit, so that it can be requeued; the trainer saves a checkpoint."""
    address: str | None = None
    """Address of the Ray cluster, such as ray://head:10001 or auto (None: that of RAY_ADDRESS, else one started here,
    for this run)."""
    stages: dict[str, StageResources] = Field(default_factory=dict)
    """Stage -> what it has instead: {dedup: {cpus_per_task: 2}, train: {partition: gpu, nodes: 2,
    gpus_per_node: 8}}."""

    @model_validator(mode="after")
    def _fits(self) -> ExecutorSection:
        for name in self.stages:
            if name not in _STAGES:
                raise ValueError(f"`stages: {cut_line(name)}` is no stage; the stages are {', '.join(_STAGES)}")
        _check_slurm(self.time, self.mem_per_cpu, self.sbatch)
        return self

    def of_stage(self, name: str) -> ExecutorSection:
        """This section with what a stage has instead."""
        own = self.stages.get(name)
        if own is None:
            return self
        values = {
            key: value
            for key, value in own.model_dump(exclude={"sbatch", "nodes", "gpus_per_node", "processes_per_node"}).items()
            if value is not None
        }
        return self.model_copy(update={**values, "sbatch": {**self.sbatch, **own.sbatch}})
