"""Language balance: trees of shards in, what each language has, and what removed the rest, out as polars frames.

``measure`` counts raw, identified, deduplicated or sampled documents, token shards, or a whole work folder, where it
joins the stages. Everything in a :class:`Balance` is counted from the shards themselves, never taken from a manifest,
so that it can contradict one. Of large trees the texts are sampled: then some figures are estimates, and say so.

>>> balance = measure("work/")                             # doctest: +SKIP
>>> balance.table(by="family").select("family", "bytes")   # doctest: +SKIP
"""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from lola_data.balance import table as balance_table
from lola_data.balance.closer import Closer
from lola_data.balance.count import ESTIMATES, REPEATED, count_documents, count_removed
from lola_data.balance.evenness import Evenness, evenness
from lola_data.balance.sums import empty_frame
from lola_data.balance.trees import find_trees
from lola_data.errors import RecipeError
from lola_data.remote_tokens import open_token_shard
from lola_data.shards import open_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lola_data.balance.count import Tally
    from lola_data.balance.table import Grouping
    from lola_data.balance.tokens import TokenCounter
    from lola_data.balance.trees import Found, Tree

RELABELLED = "relabelled"
"""Reason of documents that identify moved to the folder of another language."""
NOT_SAMPLED = "not_sampled"
"""Reason of documents that the sample stage did not choose."""

EXACT_BELOW = 256 * 2**20
"""Trees of text of no more bytes on disk, all together, are read whole: that takes a second or two."""

_TOKENS = {
    "lang": pl.String,
    "tokens": pl.Float64,
    "half_width": pl.Float64,
    "documents": pl.Int64,
    "bytes": pl.Int64,
}
_READ = {"stage": pl.String, "lang": pl.String, "documents": pl.Int64, "bytes": pl.Int64}
_TEXT_SIZES = ("empty", "bytes", "characters", "elsewhere")


@dataclass(frozen=True)
class Balance:
    """Counts of one or more trees. ``lang`` is the folder a document lies in, ``claimed`` the one it lay in when raw.

    Attributes:
        stages: names of the trees in order; the last tree of text is the ``subject``, the one that is described.
        languages: every folder of any tree, sorted.
        joined: the trees are stages of one run, so that what one has and the next has not was removed in between.
        sizes: stage, lang, source | documents, empty (no text), bytes (UTF-8), characters (code points), elsewhere
            (detected as another language than the folder's), tokens. Of token shards only ``documents`` and ``tokens``
            are known and ``source`` is null; of text ``tokens`` is null.
        lengths: lang, source, length (characters) | documents; of the subject.
        detected: lang, source, claimed, detected | documents, bytes; of the first tree that has detected languages.
        scripts: lang, script | documents; of that same tree, or by the letters of the texts of the first tree where
            no tree has scripts.
        domains: lang, domain | documents; hosts of the subject's URLs.
        removed: step, lang, source, reason | documents, bytes. ``lang`` is the folder they left: identify's is the
            claimed one. ``relabelled`` and ``not_sampled`` are among the reasons.
        rejected: claimed, detected | documents; what identify removed.
        splits: stage, split, lang | documents, tokens; of the token shards.
        plan: lang | share, epochs; what the sampling plan aims at. Empty without one.
        linked: lang | documents; of the subject, with a host in their URL. It may be more than ``domains`` add up to,
            which are those of the 65,536 most frequent of each language.
        years: lang, year (int32) | documents; of the subject's timestamps.
        repeated: lang | looked, repeated; of the subject, unless dedup has told already what is alike: documents that
            were looked at and those nearly the same as another of them (:mod:`lola_data.balance.copies`).
        estimates: stage, lang, figure | half_width; half of the 95 % interval of what in ``sizes`` is an estimate:
            ``bytes``, ``characters``, ``empty``. Without rows when everything was counted.
        effective: language -> documents drawn one by one that would tell as much of its lengths as what was read of the
            subject; only of languages that were not read whole.
        read: stage, lang | documents, bytes; texts read of languages that were not read whole.
        encoded: lang | tokens, half_width, documents, bytes; tokens of the subject by the tokenizer that was given,
            half of their 95 % interval, and how much was encoded.
        tokenizer: path of that tokenizer.
    """

    stages: tuple[str, ...]
    languages: tuple[str, ...]
    joined: bool
    sizes: pl.DataFrame
    lengths: pl.DataFrame
    detected: pl.DataFrame
    scripts: pl.DataFrame
    domains: pl.DataFrame
    removed: pl.DataFrame
    rejected: pl.DataFrame
    splits: pl.DataFrame
    plan: pl.DataFrame
    linked: pl.DataFrame = field(default_factory=lambda: empty_frame("linked"))
    years: pl.DataFrame = field(default_factory=lambda: empty_frame("years"))
    repeated: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REPEATED))
    estimates: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"stage": pl.String, **ESTIMATES}))
    effective: dict[str, float] = field(default_factory=dict)
    read: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_READ))
    encoded: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_TOKENS))
    tokenizer: str | None = None

    @cached_property
    def text_stages(self) -> tuple[str, ...]:
        """Stages whose documents are text."""
        tokens = set(self.splits["stage"])
        return tuple(stage for stage in self.stages if stage not in tokens)

    @property
    def subject(self) -> str:
        """The last tree of text, or of tokens where there is no text."""
        return (self.text_stages or self.stages)[-1]

    @property
    def token_stage(self) -> str | None:
        """The last tree of token shards."""
        tokens = [stage for stage in self.stages if stage not in self.text_stages]
        return tokens[-1] if tokens else None

    @property
    def unit(self) -> Literal["bytes", "tokens"]:
        """What shares are shares of: bytes, or tokens where there is no text."""
        return "bytes" if self.text_stages else "tokens"

    @property
    def exact(self) -> bool:
        """Whether every figure was counted; else :meth:`estimated_columns` are estimates."""
        return not self.estimates.height and not self.encoded.filter(pl.col("half_width") > 0).height

    def estimated_columns(self, by: Grouping = "language") -> frozenset[str]:
        """Columns of :meth:`table` that hold estimates, in some rows at least. Those for which an interval is known
        have it beside them, as ``<column>_low`` and ``<column>_high``."""
        return balance_table.estimated_columns(self, by)

    def table(self, by: Grouping = "language") -> pl.DataFrame:
        """One row a group, largest first; see :func:`lola_data.balance.table.table` for the columns."""
        return balance_table.table(self, by)

    def totals(self) -> dict[str, Any]:
        """The same figures over everything."""
        return balance_table.totals(self)

    def reasons(self, by: Grouping = "language") -> pl.DataFrame:
        """Group, step, reason | documents, bytes: everything that did not come through."""
        return balance_table.reasons(self, by)

    def confusions(self) -> pl.DataFrame:
        """claimed, detected | documents, share (of the claimed language's judged documents), most documents first:
        every pair of different languages, whether kept, relabelled or removed."""
        pairs = (
            pl.concat([self.detected.select("claimed", "detected", "documents"), self.rejected])
            .filter(pl.col("detected").is_not_null(), pl.col("detected") != "und")
            .group_by("claimed", "detected")
            .agg(pl.col("documents").sum())
            .with_columns((pl.col("documents") / pl.col("documents").sum().over("claimed")).alias("share"))
        )
        others = pairs.filter(pl.col("claimed") != pl.col("detected"))
        return others.sort(["documents", "claimed", "detected"], descending=[True, False, False])

    def evenness(self, stage: str | None = None) -> Evenness:
        """Evenness of the languages of one stage (default: the subject), by bytes, or by tokens for token shards.

        All ``languages`` count, those that the stage has nothing of included.
        """
        stage = stage or self.subject
        unit = "bytes" if stage in self.text_stages else "tokens"
        sizes = self.sizes.filter(pl.col("stage") == stage).group_by("lang").agg(pl.col(unit).sum())
        return evenness(self._listed().join(sizes, on="lang", how="left")[unit].fill_null(0).to_numpy())

    def target_evenness(self) -> Evenness | None:
        """Evenness of the shares that the sampling plan aims at, or None without a plan."""
        if not self.plan.height:
            return None
        shares = self._listed().join(self.plan, on="lang", how="left")["share"].fill_null(0.0)
        return evenness(shares.to_numpy())

    def _listed(self) -> pl.DataFrame:
        return pl.DataFrame({"lang": self.languages}, schema={"lang": pl.String})


def measure(
    *paths: str | os.PathLike[str],
    raw: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    exact: bool | None = None,
    tokens: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Balance:
    """Count everything under ``paths``: work folders, trees of Parquet shards, token shards.

    Args:
        paths: local paths or fsspec URLs. Several are taken as stages in the given order.
        raw: the tree of raw shards that the one work folder given was made from, when it lies elsewhere.
        workers: threads (default: the cores of this machine, at most 8). The result does not depend on it.
        exact: True: read every text (and encode it, with ``tokens``). False: read only a sample of the texts of each
            language. None: the former for trees of ``EXACT_BELOW`` bytes or less, the latter for larger ones.
        tokens: a SentencePiece ``.model``: count or estimate the tokens of the subject.
        seed: of the samples.
        progress: called with (bytes on disk done, bytes on disk in all) after each shard.

    Raises:
        ShardError: a path that holds no shards, or a shard that cannot be read.
        RecipeError: ``raw`` with anything but one work folder; ``tokens`` that is no SentencePiece model, or without
            any text to encode.
    """
    found = find_trees([os.fspath(path) for path in paths], raw=None if raw is None else os.fspath(raw))
    total, done = sum(tree.size for tree in (*found.trees, *found.removed.values())), 0
    threads = workers or min(8, os.cpu_count() or 1)

    def step(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    texts = [tree for tree in found.trees if tree.kind == "text"]
    whole = exact if exact is not None else sum(tree.size for tree in texts) <= EXACT_BELOW
    closers = _closers(found, texts, _counter(tokens, texts), seed=seed, all_tokens=bool(exact))
    text: dict[str, Tally] = {}
    for tree in texts:
        closer = closers[tree.name]
        if whole:
            text[tree.name] = count_documents(tree, workers=threads, closer=closer, progress=step)
        else:
            from lola_data.balance.sample import sample_documents

            text[tree.name] = sample_documents(tree, workers=threads, closer=closer, progress=step)
    removed = {name: count_removed(tree, workers=threads, progress=step) for name, tree in found.removed.items()}
    splits = _splits([tree for tree in found.trees if tree.kind == "tokens"], step)
    return _joined(found, text, removed, splits, None if tokens is None else os.fspath(tokens))


def _counter(tokens: str | os.PathLike[str] | None, texts: Sequence[Tree]) -> TokenCounter | None:
    if tokens is None:
        return None
    from lola_data.balance.tokens import TokenCounter

    if not texts:
        raise RecipeError(f"tokenizer {tokens}: there is no text to encode here; give a tree of documents with it")
    return TokenCounter(tokens)


def _closers(
    found: Found, texts: Sequence[Tree], counter: TokenCounter | None, *, seed: int, all_tokens: bool
) -> dict[str, Closer]:
    """What to look at in the texts of each tree: tokens and copies of the last, and scripts of the first where no tree
    has a column of them."""
    closers = {tree.name: Closer(seed=seed) for tree in texts}
    if not texts:
        return closers
    if not any(_has_scripts(tree) for tree in texts):
        first = texts[0].name
        closers[first] = replace(closers[first], scripts=True)
    last = texts[-1].name
    copies = "dedup" not in found.removed
    closers[last] = replace(closers[last], tokens=counter, copies=copies, all_tokens=all_tokens)
    return closers


def _has_scripts(tree: Tree) -> bool:
    for shard in tree.shards[:1]:
        with open_parquet(shard.path) as file:
            return "script" in file.schema_arrow.names
    return False


def _joined(
    found: Found,
    text: dict[str, Tally],
    removed: dict[str, pl.DataFrame],
    splits: pl.DataFrame,
    tokenizer: str | None,
) -> Balance:
    no_tokens = pl.lit(None, pl.Int64).alias("tokens")
    of_text = [tally.sizes.select(pl.lit(name).alias("stage"), pl.all(), no_tokens) for name, tally in text.items()]
    sizes = pl.concat([*of_text, _token_sizes(splits)])
    subject = text[list(text)[-1]] if text else None
    judged = next((tally for tally in text.values() if tally.detected.height), None)
    detected = judged.detected if judged else empty_frame("detected")
    written = judged or next((tally for tally in text.values() if tally.scripts.height), None)
    gone = pl.concat(
        [frame.select(pl.lit(step).alias("step"), pl.all()) for step, frame in removed.items()]
        or [empty_frame("removed").select(pl.lit("").alias("step"), pl.all())]
    )
    left = [_gone(gone)]
    if found.joined:
        left += [_relabelled(detected), _not_sampled(sizes)]
    return Balance(
        stages=tuple(tree.name for tree in found.trees),
        languages=tuple(sorted({lang for tree in (*found.trees, *found.removed.values()) for lang in tree.languages})),
        joined=found.joined,
        sizes=sizes,
        lengths=subject.lengths if subject else empty_frame("lengths"),
        detected=detected,
        scripts=written.scripts if written else empty_frame("scripts"),
        domains=subject.domains if subject else empty_frame("domains"),
        removed=_summed(pl.concat(left), ["step", "lang", "source", "reason"]),
        rejected=_summed(gone.filter(pl.col("step") == "identify"), ["claimed", "detected"]).drop("bytes"),
        splits=splits,
        plan=_plan(found),
        linked=subject.linked if subject else empty_frame("linked"),
        years=subject.years if subject else empty_frame("years"),
        repeated=subject.repeated if subject else pl.DataFrame(schema=REPEATED),
        estimates=pl.concat(
            [
                pl.DataFrame(schema={"stage": pl.String, **ESTIMATES}),
                *(tally.estimates.select(pl.lit(name).alias("stage"), pl.all()) for name, tally in text.items()),
            ]
        ),
        effective=subject.effective if subject else {},
        read=pl.DataFrame(
            [(name, lang, *read) for name, tally in text.items() for lang, read in tally.read.items()],
            schema=_READ,
            orient="row",
        ),
        encoded=pl.DataFrame(
            [(lang, *astuple(total)) for lang, total in (subject.tokens if subject else {}).items()],
            schema=_TOKENS,
            orient="row",
        ),
        tokenizer=tokenizer,
    )


def _summed(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    return frame.group_by(keys).agg(pl.col("documents", "bytes").sum()).sort(keys)


def _splits(trees: Iterable[Tree], step: Callable[[int], None]) -> pl.DataFrame:
    """stage, split, lang | documents, tokens, from the indexes of token shards."""
    rows: list[tuple[str, str, str, int, int]] = []
    for tree in trees:
        for shard in tree.shards:
            tokens = open_token_shard(shard.path.removesuffix(".idx"))
            rows.append((tree.name, shard.split, shard.lang, tokens.num_documents, tokens.num_tokens))
            step(shard.size)
    keys, sums = ["stage", "split", "lang"], ["documents", "tokens"]
    schema = {**dict.fromkeys(keys, pl.String), **dict.fromkeys(sums, pl.Int64)}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.group_by(keys, maintain_order=True).agg(pl.col(sums).sum())


def _token_sizes(splits: pl.DataFrame) -> pl.DataFrame:
    """Rows of ``Balance.sizes`` for token shards, splits added up."""
    added = splits.group_by("stage", "lang").agg(pl.col("documents", "tokens").sum()).sort("stage", "lang")
    blank = [pl.lit(None, pl.Int64).alias(name) for name in _TEXT_SIZES]
    return added.select("stage", "lang", pl.lit(None, pl.String).alias("source"), "documents", *blank, "tokens")


def _gone(gone: pl.DataFrame) -> pl.DataFrame:
    """Removed rows by the folder they left: identify takes them from the claimed one, later steps from their own."""
    folder = pl.when(pl.col("step") == "identify").then("claimed").otherwise("lang")
    return gone.select("step", folder.alias("lang"), "source", "reason", "documents", "bytes")


def _relabelled(detected: pl.DataFrame) -> pl.DataFrame:
    moved = detected.filter(pl.col("claimed") != pl.col("lang"))
    return moved.select(
        pl.lit("identify").alias("step"),
        pl.col("claimed").alias("lang"),
        "source",
        pl.lit(RELABELLED).alias("reason"),
        "documents",
        "bytes",
    )


def _not_sampled(sizes: pl.DataFrame) -> pl.DataFrame:
    """What the sampled tree has less than the one before it."""
    keys, sums = ["lang", "source"], ["documents", "bytes"]
    before = sizes.filter(pl.col("stage") == "deduped").select(*keys, *sums)
    after = sizes.filter(pl.col("stage") == "sampled").select(*keys, *(-pl.col(name) for name in sums))
    left = pl.concat([before, after]) if before.height and after.height else before.clear()
    left = left.group_by(keys).agg(pl.col(sums).sum()).filter(pl.col("documents") > 0)
    return left.select(pl.lit("sample").alias("step"), *keys, pl.lit(NOT_SAMPLED).alias("reason"), *sums)


def _plan(found: Found) -> pl.DataFrame:
    rows = [(row["lang"], row.get("share"), row.get("epochs")) for row in found.plan]
    schema = {"lang": pl.String, "share": pl.Float64, "epochs": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")
