"""The token tree a run trains on: ``manifest.json`` and shards in, checked and opened per language.

A shard that is missing, truncated or not the one the manifest speaks of is refused by name before the first step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lola_data.errors import ShardError, TrainingError
from lola_data.tokens import TokenShard, shard_digests

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        digests: SHA-256 of every file by its path below the tree, as the manifest states them.
    """

    tokenizer: TokenizerInfo
    shares: dict[str, float]
    train: dict[str, list[TokenShard]] = field(repr=False)
    valid: dict[str, list[TokenShard]] = field(repr=False)
    digests: dict[str, str] = field(repr=False)


def open_token_tree(tokens_dir: str | Path, verify: Literal["sha256", "size"] = "sha256") -> TokenTree:
    """Open and check the token tree in ``tokens_dir``.

    Args:
        tokens_dir: folder with ``manifest.json``.
        verify: ``sha256`` reads every shard, compares digests and looks for ids beyond the vocabulary; ``size``
            compares documents, tokens and file sizes alone.

    Raises:
        TrainingError: no manifest, a key it lacks, or a shard that is missing, truncated or changed.
    """
    root = Path(tokens_dir)
    source = root / "manifest.json"
    manifest = _read_manifest(source)
    try:
        tokenizer = manifest["tokenizer"]
        model = root / tokenizer.get("path", "") if tokenizer.get("path") else None
        info = TokenizerInfo(
            vocab_size=int(tokenizer["vocab_size"]),
            eod_id=int(tokenizer["eod_id"]),
            sha256=str(tokenizer.get("sha256", "")),
            path=model if model is not None and model.is_file() else None,
        )
        shares = {str(name): float(share) for name, share in manifest.get("shares", {}).items()}
        splits: dict[str, dict[str, list[TokenShard]]] = {"train": {}, "valid": {}}
        digests: dict[str, str] = {}
        for entry in sorted(manifest["shards"], key=lambda entry: entry["path"]):
            shard = _open_shard(root, entry, info.vocab_size, verify)
            splits[entry["split"]].setdefault(entry["lang"], []).append(shard)
            digests |= {f"{entry['path']}.{kind}": entry["sha256"][kind] for kind in ("bin", "idx")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{root / 'manifest.json'}: not a token manifest ({error!r}); write the tokens again"
        ) from error
    if not 0 <= info.eod_id < info.vocab_size:
        raise TrainingError(f"{source}: tokenizer.eod_id {info.eod_id} is not below vocab_size {info.vocab_size}")
    return TokenTree(
        info, shares, dict(sorted(splits["train"].items())), dict(sorted(splits["valid"].items())), digests
    )


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
    if tokens.size and int(tokens.max()) >= vocab_size:
        raise TrainingError(
            f"{source}: token id {int(tokens.max())} is beyond the tokenizer's {vocab_size} pieces; "
            "write the tokens again with the tokenizer of the manifest"
        )


def _open_shard(root: Path, entry: dict[str, Any], vocab_size: int, verify: str) -> TokenShard:
    prefix = root / entry["path"]
    try:
        shard = TokenShard(prefix)
        found = shard_digests(prefix) if verify == "sha256" else {}
    except ShardError as error:
        raise TrainingError(str(error)) from error
    for what, value in (("documents", shard.num_documents), ("tokens", shard.num_tokens)):
        if value != entry[what]:
            raise TrainingError(
                f"{prefix}: {value:,} {what}, but the manifest says {entry[what]:,}; the shard has changed: "
                "write the tokens again"
            )
    for kind, digest in found.items():
        if digest != entry["sha256"][kind]:
            raise TrainingError(
                f"{prefix}.{kind}: SHA-256 is not the manifest's; the shard has changed: write the tokens again"
            )
    if verify == "sha256":
        check_ids(shard.tokens, vocab_size, f"{prefix}.bin")
    return shard
