"""Train a SentencePiece BPE model that loses nothing, on a balanced sample of many languages.

In: a tree of Parquet shards, or any :data:`tokenizer.sample.Source`. Out: ``tokenizer.model``, ``tokenizer.vocab``,
``card.md`` and ``card.json`` in one folder; the same text, settings and seed give the same bytes, whatever the shard
layout and the number of threads.

What the model is, and why:

- Byte-pair encoding with byte fallback. ``character_coverage`` of the characters get a piece of their own; the others
  are spelled in UTF-8 bytes, so every text has an encoding and no two texts share one.
- Identity normalisation, no dummy prefix, no clean-up of spaces: decoding gives the text back, byte for byte.
- Runs of spaces may become pieces (``allow_whitespace_only_pieces``), learned from the text like any other.
- Line breaks, tabs and other control characters are never part of a piece. Each is one byte piece, hence one token, and
  no merge reaches across it; a piece of its own would take a place in the vocabulary and save nothing.
- Digits stand alone (``split_digits``): numbers of any length are spelled the same way in every language.
- A piece holds letters of one script (``split_by_unicode_script``): words do not merge with the punctuation after them.
  Without the rule there are 1.7 % fewer tokens (text in 164 languages, 32,000 pieces), and "word.", "word," and "word"
  are three pieces with nothing in common.
- Control tokens ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2 (end of document), ``<pad>`` 3. None is ever made from text.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import sentencepiece

from lola_data import storage
from lola_data.errors import RecipeError, StageError
from lola_data.languages import LANGUAGES
from tokenizer.card import LanguageCard, TokenizerCard, write_card
from tokenizer.encode import Encoder
from tokenizer.formats import parse_model, without_thread_count
from tokenizer.lines import split_lines
from tokenizer.sample import Size, Source, choose, measure, quotas, tree_source

if TYPE_CHECKING:
    import pyarrow as pa

    from lola_data.sections import TokenizerSection
    from tokenizer.formats import ModelFile

CONTROL = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}
"""Control tokens and their ids."""

MIN_COVERAGE = 0.98
"""Less is refused by SentencePiece."""
MIN_TRAIN_BYTES = 10_000
"""Less is no text to speak of."""
MAX_THREADS = 128
"""More are refused by SentencePiece."""

BASE_MB = 400
"""Memory of the process, its libraries and the batches it reads, before any training text is in memory."""
SPACED_RATE = 12
"""Bytes of memory per byte of training text in scripts with spaces between words."""
UNSPACED_RATE = 45
"""The same for scripts without: each stretch between two marks of punctuation is a word of its own.

Both are slopes of the peak memory of SentencePiece 0.2.3 at 32,000 pieces, rounded up: Chinese prose took 36, Thai 18,
Russian 5, and 105 MB in 164 languages together 10 bytes per byte. The slope falls as text grows, since ever fewer words
are new. Text of random characters, in which every word is new, takes up to 86.
"""
_UNSPACED_SCRIPTS = frozenset({"Hans", "Hant", "Jpan", "Khmr", "Laoo", "Mymr", "Thai", "Tibt"})


def make_tokenizer(
    section: TokenizerSection, source: Source | str | os.PathLike[str], out_dir: str | os.PathLike[str], *, seed: int
) -> TokenizerCard:
    """The tokenizer that a recipe's section asks for: trained on ``source``, or the model it names, in ``out_dir``.

    Raises:
        RecipeError, StageError, ShardError: as :func:`train_tokenizer` and :func:`adopt_tokenizer`.
    """
    if section.model:
        return adopt_tokenizer(section.model, out_dir)
    return train_tokenizer(source, out_dir, seed=seed, **section.model_dump(exclude={"model"}))


def train_tokenizer(
    source: Source | str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    vocab_size: int = 32_000,
    train_bytes: int = 200_000_000,
    alpha: float = 0.3,
    character_coverage: float = 0.9995,
    max_line_bytes: int = 4096,
    memory_limit_mb: int = 8_000,
    threads: int = 2,
    seed: int = 0,
    sizes: Mapping[str, Size] | None = None,
) -> TokenizerCard:
    """Train a tokenizer and write it to ``out_dir``.

    Args:
        source: root of a tree ``<lang>/<shard>.parquet``, or language -> function that starts reading its batches.
        vocab_size: pieces, the 256 bytes and the control tokens included.
        train_bytes: UTF-8 bytes of text to train on, shared out over the languages.
        alpha: share of a language ~ (its bytes) ^ alpha.
        character_coverage: share of the characters of the training text that get a piece of their own, in [0.98, 1].
        max_line_bytes: longer lines are cut (see :mod:`tokenizer.lines`).
        memory_limit_mb: refuse text that would need more memory than this (see :func:`memory_estimate_mb`).
        threads: of the trainer; the model does not depend on it.
        seed: of the choice of documents.
        sizes: documents and bytes of each language, if known: saves one pass over the text.

    Raises:
        RecipeError: settings that do not go together, or with the text; the message says what would.
        StageError, ShardError: text that is not there or cannot be read.
    """
    if not MIN_COVERAGE <= character_coverage <= 1.0:
        raise RecipeError(
            f"tokenizer.character_coverage: {character_coverage} is not in [{MIN_COVERAGE}, 1]; try 0.9995"
        )
    if not isinstance(source, Mapping):
        source = tree_source(os.fspath(source))
    sizes = measure(source) if sizes is None else {lang: sizes[lang] for lang in source}
    shares = quotas({lang: size.bytes for lang, size in sizes.items()}, train_bytes, alpha)
    if not sum(shares.values()):
        raise StageError("there is no text to train a tokenizer on: every document is empty")
    estimate = memory_estimate_mb(shares)
    if estimate > memory_limit_mb:
        raise RecipeError(_too_big(sizes, train_bytes, alpha, estimate, memory_limit_mb))

    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "train_bytes": train_bytes,
        "alpha": alpha,
        "character_coverage": character_coverage,
        "max_line_bytes": max_line_bytes,
        "seed": seed,
    }
    feed = _Feed(source, shares, sizes, seed=seed, max_line_bytes=max_line_bytes)
    model = parse_model(
        _train(
            feed,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            max_line_bytes=max_line_bytes,
            threads=threads,
        )
    )
    card = TokenizerCard(
        origin="trained",
        vocab_size=len(model.pieces),
        sha256=model.sha256,
        control=dict(CONTROL),
        settings=settings,
        versions={"sentencepiece": str(sentencepiece.__version__)},
        memory_estimate_mb=estimate,
        languages=feed.languages(),
    )
    if card.bytes_dropped:
        raise AssertionError(f"{card.bytes_dropped} bytes of the training text were lost on the way to the trainer")
    _save(os.fspath(out_dir), model, card)
    return card


def adopt_tokenizer(model_path: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> TokenizerCard:
    """Copy a model made elsewhere to ``out_dir``, with a card.

    Raises:
        RecipeError: not a SentencePiece model, or one that loses text.
    """
    encoder = Encoder(model_path)
    control = {name: next((i for i, p in enumerate(encoder.model.pieces) if p.text == name), -1) for name in CONTROL}
    card = TokenizerCard(
        origin="adopted",
        vocab_size=encoder.vocab_size,
        sha256=encoder.sha256,
        control={**control, "</s>": encoder.eod_id},
        versions={"sentencepiece": str(sentencepiece.__version__)},
    )
    _save(os.fspath(out_dir), encoder.model, card)
    return card


def memory_estimate_mb(shares: Mapping[str, int]) -> int:
    """Memory in MiB that training on so many bytes of each language takes, on the high side for text that people write.

    A language outside CulturaX counts as one without spaces.
    """
    spaced = sum(size for lang, size in shares.items() if _is_spaced(lang))
    unspaced = sum(shares.values()) - spaced
    return BASE_MB + (SPACED_RATE * spaced + UNSPACED_RATE * unspaced) // 2**20


def _is_spaced(lang: str) -> bool:
    return lang in LANGUAGES and LANGUAGES[lang].script not in _UNSPACED_SCRIPTS


def _too_big(sizes: Mapping[str, Size], train_bytes: int, alpha: float, estimate: int, limit: int) -> str:
    available = {lang: size.bytes for lang, size in sizes.items()}
    low, high = 0, train_bytes
    while high - low > 1:
        middle = (low + high) // 2
        if memory_estimate_mb(quotas(available, middle, alpha)) <= limit:
            low = middle
        else:
            high = middle
    fits = low // 10 ** max(0, len(str(low)) - 2) * 10 ** max(0, len(str(low)) - 2)
    if fits < MIN_TRAIN_BYTES:
        return f"tokenizer.memory_limit_mb: {limit:,} MB are too few to train in; set it to {estimate:,}"
    return (
        f"tokenizer.train_bytes: training on {train_bytes:,} bytes would take about {estimate:,} MB of memory, more "
        f"than memory_limit_mb = {limit:,}. Set train_bytes to {fits:,}, which fits, or memory_limit_mb to {estimate:,}"
    )


class _Feed(Iterator[bytes]):
    """The training text, line by line, for SentencePiece; it counts what it hands over."""

    def __init__(
        self, source: Source, shares: Mapping[str, int], sizes: Mapping[str, Size], *, seed: int, max_line_bytes: int
    ) -> None:
        self.error: BaseException | None = None
        """What ended the text early: SentencePiece passes on no more than the words of it."""
        self._source, self._shares, self._sizes = source, shares, sizes
        self._seed, self._max_line_bytes = seed, max_line_bytes
        self._counts: dict[str, dict[str, int]] = {}
        self._lines = self._read()

    def __next__(self) -> bytes:
        try:
            return next(self._lines)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise

    def _read(self) -> Iterator[bytes]:
        for lang in sorted(self._source):
            counts = {"used_documents": 0, "used_bytes": 0, "lines": 0, "cut_lines": 0, "reserved_characters": 0}
            self._counts[lang] = {**counts, "bytes_dropped": 0}
            if self._shares[lang]:
                chosen = choose(self._source[lang](), self._shares[lang], self._seed, lang=lang)
                for chunk in chosen.column("text").chunks:
                    yield from self._read_chunk(chunk, self._counts[lang])

    def _read_chunk(self, text: pa.Array, counts: dict[str, int]) -> Iterator[bytes]:
        lines = split_lines(text, self._max_line_bytes)
        size = pc.sum(pc.binary_length(text)).as_py() or 0
        given = 0
        view = lines.data.data
        for start, stop in lines.spans.tolist():
            given += stop - start
            yield bytes(view[start:stop])
        counts["used_documents"] += len(text)
        counts["used_bytes"] += size
        counts["lines"] += len(lines.spans)
        counts["cut_lines"] += lines.cuts
        counts["reserved_characters"] += lines.reserved
        counts["bytes_dropped"] += size - given - lines.separator_bytes

    def languages(self) -> dict[str, LanguageCard]:
        """What was handed over of each language, once the text has been read to its end."""
        total = sum(counts["used_bytes"] for counts in self._counts.values())
        return {
            lang: LanguageCard(
                documents=self._sizes[lang].documents,
                bytes=self._sizes[lang].bytes,
                share=round(counts["used_bytes"] / max(1, total), 9),
                **counts,
            )
            for lang, counts in sorted(self._counts.items())
        }


def _train(feed: _Feed, *, vocab_size: int, character_coverage: float, max_line_bytes: int, threads: int) -> bytes:
    """The bytes of the trained model."""
    writer = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    try:
        trainer.train(
            sentence_iterator=feed,
            model_writer=writer,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            split_by_unicode_script=True,
            max_sentence_length=max_line_bytes,
            input_sentence_size=0,
            shuffle_input_sentence=False,
            num_threads=min(threads, MAX_THREADS),
            unk_id=CONTROL["<unk>"],
            bos_id=CONTROL["<s>"],
            eos_id=CONTROL["</s>"],
            pad_id=CONTROL["<pad>"],
            minloglevel=2,
        )
    except RuntimeError as error:
        if feed.error is not None:
            raise feed.error from None
        raise _explained(error, vocab_size, character_coverage) from error
    return without_thread_count(writer.getvalue())


def _explained(error: RuntimeError, vocab_size: int, character_coverage: float) -> Exception:
    """SentencePiece's refusals in terms of the recipe; any other error as it is."""
    message = str(error)
    if found := re.search(r"Vocabulary size too high .* value <= (\d+)", message):
        return RecipeError(
            f"tokenizer.vocab_size: {vocab_size:,} pieces are more than the training text can give; set it to at most "
            f"{int(found[1]):,}, or train on more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return RecipeError(
            f"tokenizer.vocab_size: {vocab_size:,} pieces are fewer than the {int(found[1]):,} that single characters, "
            f"bytes and control tokens need at character_coverage = {character_coverage}; raise the one or lower the "
            "other"
        )
    return error


def _save(out_dir: str, model: ModelFile, card: TokenizerCard) -> None:
    with storage.atomic_output(storage.join(out_dir, "tokenizer.model")) as handle:
        handle.write(model.data)
    with storage.atomic_output(storage.join(out_dir, "tokenizer.vocab")) as handle:
        handle.write(_vocabulary(model).encode())
    write_card(out_dir, card)


def _vocabulary(model: ModelFile) -> str:
    """The pieces in order of id with their scores, as ``spm_train`` writes them."""
    processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model.data)
    scores = (processor.get_score(token) for token in range(len(model.pieces)))
    return "".join(f"{piece.text}\t{score:g}\n" for piece, score in zip(model.pieces, scores, strict=True))
