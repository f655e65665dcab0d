"""Token trees and settings small enough for tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lola_data.tokens import TokenShardWriter
from lola_data.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EOD = 1
VOCAB = 60


def documents(seed: int, count: int, low: int, high: int, longest: int = 40) -> list[list[int]]:
    """Documents of random ids in [low, high), each ended by EOD."""
    rng = np.random.default_rng(seed)
    return [[*rng.integers(low, high, rng.integers(1, longest)).tolist(), EOD] for _ in range(count)]


def write_tree(root: Path, splits: dict[str, dict[str, list[list[list[int]]]]], **changes: Any) -> Path:
    """A token tree of ``splits[split][lang]``, a list of shards, each a list of documents."""
    shards = []
    for split, languages in splits.items():
        for lang, parts in languages.items():
            for number, docs in enumerate(parts):
                path = f"{split}/{lang}_{number:05d}"
                with TokenShardWriter(root / path, np.uint16) as writer:
                    flat = np.array([token for doc in docs for token in doc], np.int64)
                    writer.add_documents(flat, np.array([len(doc) for doc in docs], np.int64))
                shards.append(
                    {
                        "path": path,
                        "split": split,
                        "lang": lang,
                        "documents": writer.documents,
                        "tokens": writer.tokens,
                        "sha256": writer.digests,
                    }
                )
    trained = sorted(splits.get("train", {}))
    manifest = {
        "tokenizer": {"path": "", "sha256": "0" * 64, "vocab_size": VOCAB, "eod_id": EOD},
        "shards": shards,
        "shares": {lang: 1 / len(trained) for lang in trained},
    }
    (root / "manifest.json").write_text(json.dumps(manifest | changes), "utf-8")
    return root


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and on a busy machine lose by it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two languages that share no token but EOD, with a held-out split."""
    return write_tree(
        tmp_path / "tokens",
        {
            "train": {"aa": [documents(1, 30, 2, 20), documents(2, 10, 2, 20)], "bb": [documents(3, 25, 30, 60)]},
            "valid": {"aa": [documents(4, 4, 2, 20)], "bb": [documents(5, 4, 30, 60)]},
        },
    )


def tiny_settings(**changes: Any) -> TrainConfig:
    """Settings of a model that trains in milliseconds; ``tiny_settings(seed=1, model={"layers": 1})`` changes some."""
    base: dict[str, Any] = {
        "model": {"layers": 2, "d_model": 16, "heads": 2, "seq_len": 16, "experts": 4, "vocab_multiple": 4},
        "tokens": 10 * 4 * 16,
        "batch_size": 4,
        "log_every": 1,
        "eval_every": 4,
        "checkpoint_every": 3,
        "tensorboard": False,
        "threads": 1,
    }
    return TrainConfig.from_dict(base).replace(changes)


@pytest.fixture
def tiny() -> Callable[..., TrainConfig]:
    """:func:`tiny_settings`."""
    return tiny_settings
