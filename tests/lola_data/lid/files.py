"""fastText classifiers written field by field, with weights drawn at random: kinds of models that nobody need train."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Kind:
    """What a model is like; names as fastText's own options. ``kept``: n-grams left by pruning, None for all."""

    loss: int = SOFTMAX
    dim: int = 16
    minn: int = 2
    maxn: int = 4
    bucket: int = 3000
    word_ngrams: int = 1
    labels: int = 30
    quantised: bool = False
    dsub: int = 2
    qnorm: bool = False
    qout: bool = False
    kept: int | None = None
    words: tuple[str, ...] = ("</s>",)
    version: int = 12


def write_model(path: Path, kind: Kind, seed: int = 0) -> Path:
    """Write a whole model file in the layout of fastText's ``saveModel``."""
    draw = np.random.default_rng(seed)
    labels = [f"__label__l{number}" for number in range(kind.labels)]
    counts = np.sort(draw.integers(1, 1000, kind.labels))[::-1]
    entries = [*kind.words, *labels]
    parts = [struct.pack("<ii", 793_712_314, kind.version)]
    arguments = (kind.dim, 5, 5, 1, 5, kind.word_ngrams, kind.loss, 3, kind.bucket, kind.minn, kind.maxn, 100, 1e-4)
    parts.append(struct.pack("<12id", *arguments))
    pruned = -1 if kind.kept is None else kind.kept
    parts.append(struct.pack("<iiiqq", len(entries), len(kind.words), len(labels), 10_000, pruned))
    for place, entry in enumerate(entries):
        label = place - len(kind.words)
        count = int(counts[label]) if label >= 0 else 5
        parts.append(entry.encode() + b"\0" + struct.pack("<qb", count, label >= 0))
    grams = kind.bucket
    if kind.kept is not None:
        grams = kind.kept
        buckets = draw.choice(kind.bucket, grams, replace=False)
        parts.append(np.stack([buckets, draw.permutation(grams)], axis=1).astype("<i4").tobytes())
    parts.append(struct.pack("<?", kind.quantised))
    parts.append(matrix(draw, len(kind.words) + grams, kind, quantised=kind.quantised, scale=1.0))
    parts.append(struct.pack("<?", kind.qout))
    parts.append(matrix(draw, len(labels), kind, quantised=kind.quantised and kind.qout, scale=8.0))
    path.write_bytes(b"".join(parts))
    return path


def matrix(draw: np.random.Generator, rows: int, kind: Kind, *, quantised: bool, scale: float) -> bytes:
    if not quantised:
        weights = draw.standard_normal((rows, kind.dim), dtype=np.float32) * np.float32(scale)
        return struct.pack("<qq", rows, kind.dim) + weights.tobytes()
    parts = -(-kind.dim // kind.dsub)
    codes = draw.integers(0, 256, rows * parts, dtype=np.uint8)
    content = [struct.pack("<?qqi", kind.qnorm, rows, kind.dim, codes.size), codes.tobytes()]
    content.append(quantiser(draw, kind.dim, kind.dsub, scale))
    if kind.qnorm:
        content += [draw.integers(0, 256, rows, dtype=np.uint8).tobytes(), quantiser(draw, 1, 1, 1.0)]
    return b"".join(content)


def quantiser(draw: np.random.Generator, dim: int, dsub: int, scale: float) -> bytes:
    centroids = draw.standard_normal(dim * 256, dtype=np.float32) * np.float32(scale)
    return struct.pack("<4i", dim, -(-dim // dsub), dsub, dim % dsub or dsub) + centroids.tobytes()


WORDS = (
    *("</s>", "the", "of", "and", "in", "de", "la", "der", "die", "und", "и", "в", "на", "que", "les", "des", "të"),
    *("human", "beings", "born", "free", "人人生而自由", "ทุกคน", "모든", "<b>", "a", "b", "x", "1", ",", "."),
)
"""Words that models here know."""

KINDS: dict[str, Kind] = {
    "tree": Kind(loss=HIERARCHICAL, words=WORDS),
    "tree of one": Kind(loss=HIERARCHICAL, labels=1),
    "softmax": Kind(words=WORDS),
    "softmax of many": Kind(dim=100, labels=300, words=WORDS),
    "one-vs-all": Kind(loss=ONE_VS_ALL, words=WORDS),
    "negative sampling": Kind(loss=NEGATIVE_SAMPLING, dim=10),
    "odd width": Kind(loss=HIERARCHICAL, dim=23, minn=1, maxn=3, bucket=1777),
    "narrow": Kind(dim=3, minn=3, maxn=6, bucket=100_000),
    "words only": Kind(minn=0, maxn=0, bucket=0, words=WORDS),
    "no words": Kind(words=()),
    "word n-grams": Kind(minn=0, maxn=0, word_ngrams=3, words=WORDS),
    "n-grams of both": Kind(loss=HIERARCHICAL, minn=1, maxn=2, word_ngrams=2, bucket=5000, words=WORDS),
    "version 11": Kind(version=11, words=WORDS),
    "quantised": Kind(quantised=True, words=WORDS),
    "quantised with norms": Kind(loss=HIERARCHICAL, quantised=True, qnorm=True, dim=15, dsub=4),
    "quantised throughout": Kind(quantised=True, qnorm=True, qout=True, dim=17, words=WORDS),
    "pruned": Kind(loss=HIERARCHICAL, quantised=True, kept=700, bucket=2000, words=WORDS),
    "pruned, one n-gram": Kind(quantised=True, kept=1, bucket=64, minn=1, words=WORDS),
    "pruned, all gone": Kind(quantised=True, kept=0, words=WORDS),
    "pruned word n-grams": Kind(quantised=True, kept=900, bucket=1500, word_ngrams=4, words=WORDS),
}
