"""The compiled classifier against fastText's own, on models of every kind and on texts of every kind."""

from __future__ import annotations

import dataclasses
import re
import threading
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lola_data.buffers import string_buffer
from lola_data.lid.binding import Binding
from lola_data.lid.identifier import open_classifier
from lola_data.lid.kernel import Classifier
from lola_data.lid.models import model_path
from lola_data.lid.tokens import is_blank, token_begin, token_end
from lola_data.lid.weights import read_weights
from lola_data.sample_corpus import sample_root
from tests.lola_data.lid.files import KINDS, NEGATIVE_SAMPLING, ONE_VS_ALL, Kind, write_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Answer = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def scrambled(seed: int, lengths: Iterable[int]) -> str:
    """Tokens of such lengths. (The same letter over and over is no test: fastText, which adds up row by row, loses the
    third decimal in a hundred thousand equal rows.)"""
    draw = np.random.default_rng(seed)
    return " ".join("".join(draw.choice([*"abcdefghijklmnopqé語字ไтم"], length)) for length in lengths)


ODD = [
    *["", " ", "\n", "\u00a0", "\u3000 \u2003", "\x1c\x1d", "\0", "</s>", "</s></s>", " </s>\u00a0", "a", "1", "?"],
    *["__label__l3", "__label__l3 the free", "__label__", "__label__x", "_label_", "__label__l", "<", ">", "<>", "<b>"],
    *["a</s>b", "</s", "/s>", "</S>", "a\0b", "a\nb\rc\vd\fe\tf", "x\u0085y", "x\u2028y\u2029z", "\u2027\u202a"],
    *["\u0084", "the", "the the the", "人人生而自由", "ทุกคน", "ть" * 300, "字" * 500, "x" * 1000, "x " * 200],
    *["e\u0301\u0327" * 40, "🏳️‍🌈 \u200b\ufeff", "😀" * 50, "\U0010ffff", "\u007f", "é", "ß" * 16, "ß" * 17],
    *["a" * 31, "a" * 32, "a" * 33],
    # Tokens longer than a key, of which each fills the room for n-grams to another point.
    scrambled(1, (3000, 1, 11, 1400, 700, 350, 12, 5, 2817, 2816, 2815)),
    scrambled(2, range(2700, 2760)),
    scrambled(3, (number % 70 for number in range(2000))),
]


def ask(classifier: Classifier | Binding, texts: Sequence[str | None]) -> Answer:
    return classifier.predict(*string_buffer(pa.array(texts, pa.large_string())))


@pytest.fixture(scope="module")
def sample() -> list[str]:
    """The embedded corpus."""
    paths = sorted(sample_root().glob("*/*.parquet"))
    return [text for path in paths for text in pq.read_table(path, columns=["text"])["text"].to_pylist() if text]


@pytest.fixture(scope="module")
def embedded() -> Classifier:
    return Classifier(read_weights(model_path("lid.176.ftz")))


@pytest.fixture(scope="module")
def embedded_binding() -> Binding:
    return Binding(model_path("lid.176.ftz"))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_answers_as_fasttext_does(tmp_path: Path, sample: list[str], name: str) -> None:
    kind = KINDS[name]
    path = write_model(tmp_path / "own.bin", kind)
    kernel, binding = Classifier(read_weights(path)), Binding(path)
    assert kernel.labels == binding.labels
    texts = [*ODD, *(text[:400] for text in sample[::40])]
    (labels, scores), (expected, chances) = ask(kernel, texts), ask(binding, texts)
    if kind.loss in (ONE_VS_ALL, NEGATIVE_SAMPLING):
        # fastText reads the sigmoid from a table of 512 steps, the highest 1 / 128: at a border of two steps the last
        # bit decides which is taken.
        assert np.mean(labels != expected) < 0.01
        assert np.abs(scores - chances).max() < 1 / 128
        assert np.mean(np.abs(scores - chances) > 1e-5) < 0.01
    else:
        assert labels.tolist() == expected.tolist()
        assert np.abs(scores - chances).max() < 1e-3
        assert np.mean(np.abs(scores - chances) < 1e-5) > 0.95
    if kind.labels > 1 and name != "pruned, all gone":
        assert len(set(labels.tolist())) > 8


def test_the_embedded_model_answers_as_fasttext_does_on_the_sample(
    sample: list[str], embedded: Classifier, embedded_binding: Binding
) -> None:
    (labels, scores), (expected, chances) = ask(embedded, sample), ask(embedded_binding, sample)
    assert labels.tolist() == expected.tolist()
    assert np.abs(scores - chances).max() < 1e-4


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text() | st.text("ab<>/s_ \n\0é字\u0301\u2028\u00a0"), max_size=30))
def test_any_text(embedded: Classifier, embedded_binding: Binding, texts: list[str]) -> None:
    (labels, scores), (expected, chances) = ask(embedded, texts), ask(embedded_binding, texts)
    assert labels.tolist() == expected.tolist()
    np.testing.assert_allclose(scores, chances, atol=1e-5)


def test_an_answer_does_not_depend_on_what_was_asked_before(
    sample: list[str], embedded: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*ODD, *(text[:300] for text in sample[::30])]
    labels, scores = ask(embedded, texts)
    # A memo of 256 words, which forgets most of them, and texts in another order, one call each.
    monkeypatch.setattr("lola_data.lid.kernel._MEMO_BYTES", 0)
    forgetful = Classifier(read_weights(model_path("lid.176.ftz")))
    for place in reversed(range(len(texts))):
        assert ask(forgetful, [texts[place]]) == (labels[place], scores[place]), texts[place]


def test_texts_of_more_than_one_round(embedded: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [None, *ODD] * 3
    whole = [column.tolist() for column in ask(embedded, texts)]
    for size in (1, 7, 100):
        monkeypatch.setattr("lola_data.lid.kernel._TEXTS", size)
        assert [column.tolist() for column in ask(embedded, texts)] == whole
    assert [column.tolist() for column in ask(embedded, [])] == [[], []]


def test_a_slice_reads_nothing_beyond_its_end(embedded: Classifier) -> None:
    """Tokens, separators and n-grams that go on behind the end of a text, and behind the end of the buffer."""
    text = "Guten Morgen</s>\u2028\u0085字字"
    data = np.frombuffer(text.encode() + b"</s", np.uint8)
    for stop in range(len(data) + 1):
        part = data[:stop].copy()
        if part.tobytes().decode("utf-8", "ignore").encode() == part.tobytes():
            alone = embedded.predict(part if stop else np.zeros(1, np.uint8), np.array([0, stop]))
            within = embedded.predict(data, np.array([0, stop]))
            assert [column.tolist() for column in alone] == [column.tolist() for column in within]


def test_threads_share_a_classifier(sample: list[str], embedded: Classifier) -> None:
    texts = sample[::50]
    expected = [column.tolist() for column in ask(embedded, texts)]
    found: list[list[list[float]]] = []
    threads = [
        threading.Thread(target=lambda: found.append([column.tolist() for column in ask(embedded, texts)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_numbers_that_are_not_finite_give_no_label(tmp_path: Path) -> None:
    weights = read_weights(write_model(tmp_path / "own.bin", Kind(words=("</s>", "good", "bad"))))
    rows = np.array(weights.input)
    rows[2, 3] = np.nan
    labels, scores = ask(Classifier(dataclasses.replace(weights, input=rows)), ["good", "bad", ""])
    assert (labels[0] >= 0, labels[1], labels[2]) == (True, -1, -1)
    assert (scores[0] > 0, bool(np.isnan(scores[1])), scores[2]) == (True, True, 0.0)


@pytest.mark.parametrize("kind", [Kind(version=10), Kind(quantised=True)])
def test_other_models_are_left_to_fasttext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    path = write_model(tmp_path / "own.bin", kind)
    expected = ask(Binding(path), ODD)
    monkeypatch.setattr("lola_data.lid.weights._MOST_DEQUANTISED", 4 * 16 * 3000)
    classifier = open_classifier(path)
    assert isinstance(classifier, Binding)
    assert [column.tolist() for column in ask(classifier, ODD)] == [column.tolist() for column in expected]


def test_tokens_are_what_fasttext_and_we_separate() -> None:
    draw = np.random.default_rng(1)
    alphabet = [
        *"ab<>/s\0\t\n\v\f\r \x1f\x0e",
        "</s>",
        "\u0085",
        "\u0084",
        "\u00a0",
        "\u2027",
        "\u2028",
        "\u2029",
        "\u202a",
    ]
    for _ in range(300):
        text = "".join(draw.choice(alphabet, draw.integers(1, 60)))
        data = np.frombuffer(text.encode(), np.uint8)
        tokens, at = [], 0
        while (at := token_begin(data, at, data.size)) < data.size:
            end = token_end(data, at, data.size)
            tokens.append(data[at:end].tobytes().decode())
            at = end
        assert tokens == [token for token in re.split("[\0\t-\r \x85\u2028\u2029]|</s>", text) if token]


def test_white_space_is_what_python_takes_for_it() -> None:
    for point in (*range(0xD800), *range(0xE000, 0x11000)):
        data = np.frombuffer(chr(point).encode(), np.uint8)
        assert is_blank(data, 0, data.size) == (chr(point).isspace() or point == 0), hex(point)
