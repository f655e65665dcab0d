"""A model of the embedded corpus, trained once for all tests of the tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lola_data.sample_corpus import sample_root
from tokenizer.encode import Encoder
from tokenizer.train import train_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 6,000 pieces, trained on 2 MB in all languages of the embedded corpus."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(str(sample_root()), folder, vocab_size=6_000, train_bytes=2_000_000, seed=1)
    return folder


@pytest.fixture(scope="session")
def encoder(model_dir: Path) -> Encoder:
    """That tokenizer, with whichever engine fits."""
    return Encoder(model_dir / "tokenizer.model")
