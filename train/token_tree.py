"""The token tree a run trains on: ``manifest.json`` and shards in, checked and opened per language.

A shard that is missing, truncated, not the one the manifest speaks of, or one that it does not speak of, is refused by
name before the first step. A folder of Megatron-Core's or datatrove's token files, which have no manifest, is opened
too; a run then remembers the digests of its own first start.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lola_data import storage
from lola_data.errors import RecipeError, ShardError, TrainingError
from lola_data.plain_settings import nearest
from lola_data.remote_trees import objects_below
from lola_data.tokens import TokenShard, bin_path, file_digest, idx_path
from train.foreign_tokens import ForeignShard, find_foreign_shards
from train.shard_cache import CachedShard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lola_data.train_config import TrainConfig
    from train.shard_cache import ShardCache

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_LOOKED_AT = 100
"""Documents of a shard of another tool that are looked at for their end-of-document token."""


@dataclass(frozen=True)
class TokenizerInfo:
    """The tokenizer the shards were made with.

    Attributes:
        vocab_size: pieces; token ids are below it.
        eod_id: id of the end-of-document token.
        sha256: digest of the model file.
        path: the SentencePiece model file, or None if the manifest names none that exists.
    """

    vocab_size: int
    eod_id: int
    sha256: str
    path: Path | None = None


@dataclass(frozen=True)
class TokenTree:
    """An opened token tree.

    Attributes:
        tokenizer: what the ids stand for.
        shares: target share of each language in training, from the sampling plan; may be empty.
        train: shards of the training split by language, languages in order.
        valid: shards of the held-out split by language.
        digests: SHA-256 of every file by its path below the tree, as the manifest states them. Of files of another
            tool, as they are; with ``verify="size"`` of the ids their size.
        notices: what a person should know of the files of another tool; nothing about a tree of our own.
    """

    tokenizer: TokenizerInfo
    shares: dict[str, float]
    train: dict[str, list[TokenShard]] = field(repr=False)
    valid: dict[str, list[TokenShard]] = field(repr=False)
    digests: dict[str, str] = field(repr=False)
    notices: tuple[str, ...] = ()


def open_token_tree(
    tokens_dir: str | Path,
    verify: Literal["sha256", "size"] = "sha256",
    *,
    vocab_size: int | None = None,
    eod_id: int | None = None,
    cache: ShardCache | None = None,
) -> TokenTree:
    """Open and check the token tree in ``tokens_dir``.

    A folder without ``manifest.json`` is taken for one of Megatron-Core's or datatrove's token files, see
    :mod:`train.foreign_tokens`. It needs ``vocab_size`` and ``eod_id``, has a held-out split only in a folder
    ``valid``, and no shares.

    Args:
        tokens_dir: the folder, or the URL of one with a manifest.
        verify: ``sha256`` reads every shard, compares digests and looks for ids beyond the vocabulary; ``size``
            compares the digests of the indexes, and of the ids documents, tokens and file sizes alone.
        vocab_size: pieces of the vocabulary, where there is no manifest; with one, it must be the manifest's.
        eod_id: id of the end-of-document token, likewise.
        cache: for the shards of a URL.

    Raises:
        TrainingError: neither a manifest nor token files, a key it lacks, or a shard that is missing, truncated,
            changed or not in the manifest.
        RecipeError: ``vocab_size`` or ``eod_id`` missing, or not the manifest's.
    """
    if storage.is_remote(str(tokens_dir)):
        return _open_remote(str(tokens_dir).rstrip("/"), verify, vocab_size, eod_id, cache)
    root = Path(tokens_dir)
    source = root / "manifest.json"
    if not source.exists():
        try:
            shards = find_foreign_shards(root) if root.is_dir() else []
            if shards:
                return _open_foreign(root, shards, verify, vocab_size, eod_id)
        except ShardError as error:
            raise TrainingError(str(error)) from error
    manifest = _read_manifest(source)
    with _sensible(source):
        model = root / (manifest["tokenizer"].get("path") or "")
        info = replace(_tokenizer_of(manifest, source, vocab_size, eod_id), path=model if model.is_file() else None)
        entries = sorted(manifest["shards"], key=lambda entry: entry["path"])
        _refuse_strangers(root, {entry["path"] for entry in entries})
        opened = _each(lambda entry: _open_shard(root, entry, info.vocab_size, verify), entries)
        return _put_together(info, manifest, entries, opened)


def _open_remote(
    root: str, verify: str, vocab_size: int | None, eod_id: int | None, cache: ShardCache | None
) -> TokenTree:
    """The same for a URL: one listing, the manifest, and the rest through the cache."""
    if cache is None:
        raise TrainingError(f"{root}: this command reads token trees on this machine only; copy it here")
    source = f"{root}/manifest.json"
    try:
        files = objects_below(root)
        if "manifest.json" not in files:
            raise TrainingError(
                f"{source}: is not there; make token shards first (`lola-data tokenize`). Token files of other tools "
                f"are read from a local folder"
            )
        manifest = storage.read_json(source)
        if not isinstance(manifest, dict):
            raise TrainingError(f"{source}: not a token manifest; write the tokens again")
        with _sensible(source):
            info = _tokenizer_of(manifest, source, vocab_size, eod_id)
            info = replace(info, path=_fetched_model(root, manifest["tokenizer"].get("path"), cache))
            entries = sorted(manifest["shards"], key=lambda entry: entry["path"])
            known = {f"{entry['path']}.{kind}" for entry in entries for kind in ("bin", "idx")}
            for path in files:
                if path.endswith((".bin", ".idx")) and path not in known:
                    raise TrainingError(
                        f"{root}/{path}: is not in manifest.json; take it away, or write the tokens again"
                    )

            def opened(entry: dict[str, Any]) -> TokenShard:
                shard = CachedShard(cache, root, entry["path"], files)
                _check_entry(shard, entry, shard.url)
                for kind in ("idx", "bin") if verify == "sha256" else ("idx",):
                    _check_digest(shard.files[kind].digest(), entry["sha256"][kind], shard.files[kind].url)
                if verify == "sha256":
                    check_ids(shard.tokens, info.vocab_size, shard.files["bin"].url)
                return shard

            return _put_together(info, manifest, entries, _each(opened, entries))
    except ShardError as error:
        raise TrainingError(str(error)) from error


def _fetched_model(root: str, path: str | None, cache: ShardCache) -> Path | None:
    """A copy here of the tokenizer that the manifest of a remote tree names, relative to it or by its own URL."""
    if not path:
        return None
    protocol, _, inside = root.partition("://")
    place = path if storage.is_remote(path) else f"{protocol}://{posixpath.normpath(f'{inside}/{path}')}"
    try:
        content = storage.read_bytes(place)
    except FileNotFoundError:
        return None
    copy = cache.folder / f"{hashlib.sha256(content).hexdigest()}.model"
    if not copy.exists():
        with storage.atomic_output(str(copy)) as handle:
            handle.write(content)
    return copy


@contextmanager
def _sensible(source: Path | str) -> Iterator[None]:
    """Raise TrainingError where a manifest is not as a stage writes it."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(f"{source}: not a token manifest ({error!r}); write the tokens again") from error


def _tokenizer_of(
    manifest: dict[str, Any], source: Path | str, vocab_size: int | None, eod_id: int | None
) -> TokenizerInfo:
    tokenizer = manifest["tokenizer"]
    info = TokenizerInfo(
        vocab_size=int(tokenizer["vocab_size"]),
        eod_id=int(tokenizer["eod_id"]),
        sha256=str(tokenizer.get("sha256", "")),
    )
    for name, given, own in (
        ("vocab_size", vocab_size, info.vocab_size), ("eod_id", eod_id, info.eod_id),
    ):  # fmt: skip
        if given is not None and given != own:
            raise RecipeError(f"{name}: {given}, but {source} says {own}; leave it out")
    if not 0 <= info.eod_id < info.vocab_size:
        raise TrainingError(f"{source}: tokenizer.eod_id {info.eod_id} is not below vocab_size {info.vocab_size}")
    return info


def _put_together(
    info: TokenizerInfo, manifest: dict[str, Any], entries: Sequence[dict[str, Any]], opened: Sequence[TokenShard]
) -> TokenTree:
    shares = {str(name): float(share) for name, share in manifest.get("shares", {}).items()}
    splits: dict[str, dict[str, list[TokenShard]]] = {"train": {}, "valid": {}}
    digests: dict[str, str] = {}
    for entry, shard in zip(entries, opened, strict=True):
        splits[entry["split"]].setdefault(entry["lang"], []).append(shard)
        digests |= {f"{entry['path']}.{kind}": entry["sha256"][kind] for kind in ("bin", "idx")}
    return TokenTree(
        info, shares, dict(sorted(splits["train"].items())), dict(sorted(splits["valid"].items())), digests
    )


def training_weights(config: TrainConfig, tree: TokenTree) -> dict[str, float]:
    """Weight of each language: of the settings, else of the manifest, else its tokens.

    The manifest may give a share to a language of which nothing is left to train on: the sampling plan is made before
    the documents are chosen. The settings are a person's words, so there such a name is taken for a mistake.

    Raises:
        TrainingError: the settings give weight to a language without a training shard.
    """
    for name, weight in config.weights.items():
        if weight > 0 and name not in tree.train:
            raise TrainingError(f"weights: no training shard of language {name!r}; {nearest(name, list(tree.train))}")
    sizes = {name: float(sum(shard.num_tokens for shard in shards)) for name, shards in tree.train.items()}
    return config.weights or tree.shares or sizes


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TrainingError(
            f"{path}: {error.strerror or error}; make token shards first (`lola-data tokenize`)"
        ) from error
    except ValueError as error:
        raise TrainingError(f"{path}: not JSON ({error}); write the tokens again") from error
    if not isinstance(manifest, dict):
        raise TrainingError(f"{path}: not a token manifest; write the tokens again")
    return manifest


def check_ids(tokens: NDArray[np.integer], vocab_size: int, source: object) -> None:
    """Refuse token ids that the vocabulary does not have.

    Raises:
        TrainingError: naming ``source`` and the id.
    """
    if not tokens.size:
        return
    worst = int(tokens.max())
    if worst < vocab_size and tokens.dtype.kind == "i":
        worst = min(worst, int(tokens.min()))
    if not 0 <= worst < vocab_size:
        raise TrainingError(
            f"{source}: token id {worst} is beyond the tokenizer's {vocab_size} pieces; "
            "write the tokens again with the tokenizer of the manifest"
        )


def _open_foreign(
    root: Path, found: list[ForeignShard], verify: str, vocab_size: int | None, eod_id: int | None
) -> TokenTree:
    if vocab_size is None or eod_id is None:
        missing = " and ".join(
            name for name, value in (("vocab_size", vocab_size), ("eod_id", eod_id)) if value is None
        )
        raise RecipeError(
            f"{root}: no manifest.json, but token files of another tool ({found[0].files[-1].name}), which do not say "
            f"what their ids stand for; give {missing} as well"
        )
    if not 0 <= eod_id < vocab_size:
        raise RecipeError(f"eod_id: {eod_id} is not below vocab_size {vocab_size}")

    def opened(one: ForeignShard) -> tuple[TokenShard, dict[str, str]]:
        shard = one.open(root)
        index, ids = one.files
        if verify == "sha256":
            check_ids(shard.tokens, vocab_size, ids)
        told = file_digest(ids) if verify == "sha256" else f"{ids.stat().st_size} bytes"
        return shard, {index.relative_to(root).as_posix(): file_digest(index), ids.relative_to(root).as_posix(): told}

    splits: dict[str, dict[str, list[TokenShard]]] = {"train": {}, "valid": {}}
    digests: dict[str, str] = {}
    for one, (shard, own) in zip(found, _each(opened, found), strict=True):
        splits[one.split].setdefault(one.lang, []).append(shard)
        digests |= own
    if not splits["train"]:
        raise TrainingError(f"{root}: has token files in a folder `valid` alone; there is nothing to train on")
    return TokenTree(
        TokenizerInfo(vocab_size, eod_id, ""),
        {},
        dict(sorted(splits["train"].items())),
        dict(sorted(splits["valid"].items())),
        digests,
        _notices(splits, eod_id),
    )


def _notices(splits: dict[str, dict[str, list[TokenShard]]], eod_id: int) -> tuple[str, ...]:
    """What is odd about files of another tool, and no reason to refuse them."""
    notices: list[str] = []
    if not splits["valid"]:
        notices.append("no folder `valid` among the token files: there is no held-out loss")
    for lang, shards in sorted(splits["train"].items()):
        ends = [
            int(shard.document(number)[-1])
            for shard in shards
            for number in range(min(_LOOKED_AT, shard.num_documents))
            if shard.lengths[number]
        ]
        if ends and eod_id not in ends:
            notices.append(
                f"{lang}: no document looked at ends with eod_id {eod_id} (the first one with {ends[0]}), so attention "
                "runs on from one into the next; check eod_id, or write the tokens with an end of document"
            )
    return tuple(notices)


def _refuse_strangers(root: Path, known: set[str]) -> None:
    """Refuse token files that the manifest does not speak of: what trains and what is recorded must be the same."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        hidden = any(part[0] == "." for part in relative.parts)
        if path.suffix in (".bin", ".idx") and not hidden and relative.with_suffix("").as_posix() not in known:
            raise TrainingError(f"{path}: is not in manifest.json; take it away, or write the tokens again")


def _open_shard(root: Path, entry: dict[str, Any], vocab_size: int, verify: str) -> TokenShard:
    prefix = root / entry["path"]
    try:
        shard = TokenShard(prefix)
        files = {"idx": idx_path(prefix)} | ({"bin": bin_path(prefix)} if verify == "sha256" else {})
        _check_entry(shard, entry, prefix)
        for kind, path in files.items():
            _check_digest(file_digest(path), entry["sha256"][kind], path)
    except ShardError as error:
        raise TrainingError(str(error)) from error
    if verify == "sha256":
        check_ids(shard.tokens, vocab_size, bin_path(prefix))
    return shard


def _check_entry(shard: TokenShard, entry: dict[str, Any], place: Path | str) -> None:
    for what, value in (("documents", shard.num_documents), ("tokens", shard.num_tokens)):
        if value != entry[what]:
            raise TrainingError(
                f"{place}: {value:,} {what}, but the manifest says {entry[what]:,}; the shard has changed: "
                "write the tokens again"
            )


def _check_digest(digest: str, stated: str, place: Path | str) -> None:
    if digest != stated:
        raise TrainingError(
            f"{place}: SHA-256 is not the manifest's ({digest[:16]}..., not {stated[:16]}...); "
            "the shard has changed: write the tokens again"
        )


def _each(work: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
    """``work`` of each item, in order; several at a time, for hashing lets other threads run. The first fault in the
    order of the items is raised."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))
