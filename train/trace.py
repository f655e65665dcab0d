"""The documents of a batch: a run directory and a step in, documents with id and address out.

Which tokens a batch is made of hangs on settings and token shards alone, so nothing has to have been written down: the
loader is asked again. Ids come from the ``.ids.parquet`` files beside the token shards, addresses from the ``sampled/``
tree beside the token tree; where one of them is not there, the answer says so.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import RecipeError, TrainingError
from lola_data.remote_tokens import RemoteTokenShard
from lola_data.train_config import TrainConfig
from train.data import Loader
from train.shard_cache import ShardCache, cache_folder
from train.stored_run import run_here
from train.token_tree import TokenTree, open_token_tree, training_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lola_data.tokens import TokenShard


@dataclass(frozen=True)
class TracedDocument:
    """A stretch of a document in a sample of a batch.

    Attributes:
        sample: number of the sample in the batch, from 0.
        lang: language of the sample.
        epoch: pass over the language that it was read in, from 0.
        at: place in the sample of the first token, from 0.
        start: first of the document's tokens that is in the sample, from 0.
        stop: the one behind the last.
        length: tokens of the whole document, its end included.
        shard: token shard, below the token tree, without ``.bin`` or ``.idx``.
        document: number of the document in the shard, from 0.
        id: ``<lang>/<shard>/<row>`` of the raw shard; None if it is not known.
        url: its address; None if it is not known.
    """

    sample: int
    lang: str
    epoch: int
    at: int
    start: int
    stop: int
    length: int
    shard: str
    document: int
    id: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class TracedBatch:
    """The documents of a batch, in the order of its samples and of their tokens.

    Attributes:
        step: as in ``metrics.jsonl``: 1 is the first optimiser step.
        steps: of the whole run.
        tokens: the token tree.
        documents: what the batch is made of.
        notices: why ids or addresses are missing.
    """

    step: int
    steps: int
    tokens: str | Path
    documents: tuple[TracedDocument, ...]
    notices: tuple[str, ...]


def trace_batch(
    run_dir: str | Path, step: int, *, sample: int | None = None, tokens_dir: str | Path | None = None
) -> TracedBatch:
    """The documents of the batch of a step of a run, whether that step has been done yet or not.

    Args:
        run_dir: directory with ``config.json``, or its URL.
        step: from 1 on.
        sample: only this sample of the batch, from 0.
        tokens_dir: the token tree. None: the one that ``config.json`` names, else ``tokens`` in the folder above that
            of the run, as in a work folder. It is opened without reading the token ids again.

    Raises:
        RecipeError: a step or sample that the run does not have, or no token tree where one is looked for.
        TrainingError: no run there, shards that are missing, or those of another run.
    """
    with run_here(run_dir) as here:
        record, trained_on = _read_run(here), _newest_shards(here)
    config = TrainConfig.from_dict(record["config"])
    if not 1 <= step <= config.steps:
        raise RecipeError(f"--step {step}: the run has the steps 1 to {config.steps:,}, as numbered in metrics.jsonl")
    if sample is not None and not 0 <= sample < config.batch_size:
        raise RecipeError(f"--sample {sample}: a batch of the run has the samples 0 to {config.batch_size - 1:,}")
    root = _tree_of(run_dir, record, tokens_dir)
    tree = _open(root, record, config)
    _check_tree(run_dir, root, record, trained_on, tree)
    loader = Loader(
        tree.train, training_weights(config, tree), seq_len=config.model.seq_len, batch_size=config.batch_size,
        seed=config.seed, max_epochs=getattr(config, "max_epochs", None) or None,
    )  # fmt: skip
    samples = range(config.batch_size) if sample is None else [sample]
    documents, notices = name_documents(batch_documents(loader, tree.train, root, step - 1, samples), root)
    return TracedBatch(step, config.steps, root, tuple(documents), tuple(notices))


def batch_documents(
    loader: Loader, shards: Mapping[str, Sequence[TokenShard]], root: str | Path, step: int, samples: Iterable[int]
) -> list[TracedDocument]:
    """The documents of some samples of a batch, without ids and addresses.

    Args:
        loader: of the run.
        shards: its training shards by language.
        root: of the token tree.
        step: as the loader counts them, from 0.
        samples: numbers in the batch.
    """
    found: list[TracedDocument] = []
    for sample in samples:
        lang, spans = loader.documents(step, sample)
        at = 0
        for span in spans:
            shard = shards[lang][span.shard]
            length = int(shard.lengths[span.document])
            path = _below(shard, root)
            found.append(
                TracedDocument(sample, lang, span.epoch, at, span.start, span.stop, length, path, span.document)
            )
            at += span.stop - span.start
    return found


def _below(shard: TokenShard, root: str | Path) -> str:
    """Path of a shard below its tree."""
    if isinstance(shard, RemoteTokenShard):
        return shard.url.removeprefix(str(root).rstrip("/")).lstrip("/")
    return shard.prefix.relative_to(root).as_posix()


def name_documents(documents: Sequence[TracedDocument], root: str | Path) -> tuple[list[TracedDocument], list[str]]:
    """The same documents with ids and addresses as far as they are known, and why some are not.

    Raises:
        ShardError: a file with ids or addresses is there and cannot be read.
    """
    notices: list[str] = []
    ids = _ids(documents, root, notices)
    urls = _urls(sorted(set(ids.values())), root, notices)
    named = [
        replace(one, id=ids.get((one.shard, one.document)), url=urls.get(ids.get((one.shard, one.document), "")))
        for one in documents
    ]
    return named, notices


def _ids(documents: Sequence[TracedDocument], root: str | Path, notices: list[str]) -> dict[tuple[str, int], str]:
    """Id by shard and number of the document."""
    from lola_data.balance.trees import IDS_SUFFIX
    from lola_data.inspect.rows import read_rows

    wanted: dict[tuple[str, str], set[int]] = {}
    for one in documents:
        wanted.setdefault((one.shard, one.lang), set()).add(one.document)
    found: dict[tuple[str, int], str] = {}
    without: list[str] = []
    for (shard, lang), numbers in sorted(wanted.items()):
        path = storage.join(str(root), f"{shard}{IDS_SUFFIX}")
        rows = read_rows(path, lang, numbers) if storage.exists(path) else {}
        found |= {(shard, number): row.id for number, row in rows.items() if row.id is not None}
        if len(rows) < len(numbers):
            without.append(path.rpartition("/")[2])
    if without:
        more = f" and {len(without) - 1:,} more" if len(without) > 1 else ""
        notices.append(f"no ids for {without[0]}{more}: not beside the token shard, or too short")
    return found


def _urls(ids: Sequence[str], root: str | Path, notices: list[str]) -> dict[str, str]:
    """Address by id, from the sampled tree beside the token tree."""
    from lola_data.inspect.places import tree_of
    from lola_data.inspect.rows import DocumentId, find_ids, may_hold_rows_of, parse_id
    from lola_data.layout import Layout

    if not ids:
        return {}
    given = str(root).rstrip("/")
    layout = Layout(given.rpartition("/")[0] if storage.is_remote(given) else str(Path(root).resolve().parent))
    place = tree_of(layout, "sample")
    if place is None:
        notices.append(f"no addresses: there is no tree of text at {layout.tree('sample')}")
        return {}
    by_raw: dict[tuple[str, str], list[str]] = {}
    for name in ids:
        parts = parse_id(name)
        if parts is not None:
            by_raw.setdefault((parts.lang, parts.shard), []).append(name)
    found: dict[str, str] = {}
    for (lang, raw), names in by_raw.items():
        for shard in place.shards:
            if may_hold_rows_of(shard, DocumentId(lang, raw, 0)):
                rows = find_ids(shard.path, shard.lang, names)
                found |= _column(shard.path, shard.lang, rows, "url")
    if len(found) < len(ids):
        notices.append(
            f"{len(ids) - len(found):,} of {len(ids):,} documents have no address in {layout.tree('sample')}"
        )
    return found


def _column(path: str, lang: str, rows: Mapping[str, int], name: str) -> dict[str, str]:
    """Values of one column by id, where they are not null; the text, nearly all of a shard, is not read."""
    import pyarrow as pa

    from lola_data.inspect.rows import read_group, row_counts
    from lola_data.schemas import DEDUPED

    found: dict[str, str] = {}
    schema = pa.schema([DEDUPED.field(name)])
    first = 0
    for group, count in enumerate(row_counts(path) if rows else []):
        here = {id_: number - first for id_, number in rows.items() if first <= number < first + count}
        values = pa.Table.from_batches(read_group(path, lang, group, schema), schema)[name] if here else []
        for id_, number in here.items():
            value = values[number].cast(pa.binary()).as_py()
            if value is not None:
                found[id_] = value.decode("utf-8", "backslashreplace")
        first += count
    return found


def _read_run(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "config.json"
    try:
        record = json.loads(path.read_text("utf-8"))
        return {
            "config": dict(record["config"]),
            "tokenizer": dict(record["tokenizer"]),
            "tokens": record.get("tokens"),
        }
    except OSError as error:
        raise TrainingError(
            f"{path}: {error.strerror or error}; name the directory of a run (`lola-data train`)"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: not the settings of a run ({error!r})") from error


def _tree_of(run_dir: str | Path, record: dict[str, Any], given: str | Path | None) -> str | Path:
    if given is not None:
        return str(given) if storage.is_remote(str(given)) else Path(given)
    told = str(record["tokens"] or "")
    if storage.is_remote(told):
        return told
    run = str(run_dir).rstrip("/")
    if storage.is_remote(run):
        protocol, _, inside = run.partition("://")
        looked = [f"{protocol}://{posixpath.normpath(f'{inside}/{told}')}"] if told else []
        looked.append(storage.join(storage.parent(storage.parent(run)), "tokens"))
    else:
        looked = [Path(run, told)] if told else []
        looked.append(Path(run).resolve().parent.parent / "tokens")
    for path in looked:
        if path.is_dir() if isinstance(path, Path) else storage.exists(path):
            return path
    places = " or ".join(str(path) for path in looked)
    raise RecipeError(f"{run_dir}: its token tree is not at {places}; name it with --tokens")


def _open(root: str | Path, record: dict[str, Any], config: TrainConfig) -> TokenTree:
    if storage.is_remote(str(root)):
        cache = ShardCache(cache_folder(config), int(config.cache_gb * 10**9))
        return open_token_tree(root, "size", cache=cache)
    own = (Path(root) / "manifest.json").exists()
    told = (None, None) if own else [int(record["tokenizer"][name]) for name in ("vocab_size", "eod_id")]
    return open_token_tree(root, "size", vocab_size=told[0], eod_id=told[1])


def _check_tree(
    run_dir: str | Path, root: str | Path, record: dict[str, Any], shards: dict[str, str], tree: TokenTree
) -> None:
    """Refuse a tree that the run was not trained on, by the tokenizer and the digests that its checkpoints keep."""
    tokenizer = tree.tokenizer
    pairs: list[tuple[str, Any, Any]] = [
        (f"tokenizer {name}", record["tokenizer"].get(name), getattr(tokenizer, name))
        for name in ("vocab_size", "eod_id", "sha256")
    ]
    if shards:
        pairs += [
            (name, shards.get(name), tree.digests.get(name)) for name in sorted(shards.keys() | tree.digests.keys())
        ]
    for name, old, new in pairs:
        sized = any(str(value).endswith(" bytes") for value in (old, new))  # ids of another tool's file, not read
        if old != new and not sized:
            raise TrainingError(
                f"{root}: not the tokens that {run_dir} was trained on: {name} is {new!r}, the run has {old!r}; "
                "name its token tree with --tokens"
            )


def _newest_shards(run_dir: Path) -> dict[str, str]:
    """Digests of the token shards by the newest checkpoint that can be read; empty without one."""
    for path in sorted(run_dir.glob("checkpoints/step_*/checkpoint.json"), reverse=True):
        try:
            return dict(json.loads(path.read_text("utf-8"))["shards"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}
