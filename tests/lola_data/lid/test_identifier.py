"""Identification against fastText's own predict, and the texts that trip it."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lola_data.buffers import string_buffer
from lola_data.errors import LolaError, RecipeError
from lola_data.lid.binding import Binding, one_line_each
from lola_data.lid.format import check_model_file
from lola_data.lid.identifier import Identifier
from lola_data.lid.models import model_path
from tests.lola_data.lid.files import KINDS, write_model

if TYPE_CHECKING:
    from pathlib import Path

ARTICLE_1 = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
    "conscience and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
    "begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и "
    "должны поступать в отношении друг друга в духе братства.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι "
    "με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神互相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "sq": "Të gjithë njerëzit lindin të lirë dhe të barabartë në dinjitet dhe në të drejta. Ata kanë arsye dhe "
    "ndërgjegje dhe duhet të sillen ndaj njëri tjetrit me frymë vëllazërimi.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve "
    "birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון.",
}
"""Article 1 of the Universal Declaration of Human Rights."""


@pytest.fixture(scope="module")
def identifier() -> Identifier:
    return Identifier()


@pytest.fixture(scope="module")
def reference() -> fasttext.FastText._FastText:
    return fasttext.load_model(str(model_path("lid.176.ftz")))


def by_fasttext(model: fasttext.FastText._FastText, line: str) -> tuple[str, float]:
    """One document through fastText's single-line entry."""
    ((score, label),) = model.f.predict(line + "\n", 1, 0.0, "strict")
    return label.removeprefix("__label__"), min(score, 1.0)


def test_known_texts(identifier: Identifier) -> None:
    lang, score = identifier.identify(pa.array(ARTICLE_1.values()))
    assert lang.to_pylist() == list(ARTICLE_1)
    assert lang.type == pa.string()
    assert score.type == pa.float32()
    assert min(score.to_pylist()) > 0.5


def test_equals_fasttext_document_by_document(identifier: Identifier, reference: fasttext.FastText._FastText) -> None:
    texts = [text[:cut] for text in ARTICLE_1.values() for cut in (1, 2, 5, 11, 40, 90, None)]
    texts += [" ".join(texts), "1 2 3", "?", "a", "é", "\u200b", "__label__fr hello", "x" * 5000]
    lang, score = identifier.identify(pa.array(texts))
    expected = [by_fasttext(reference, text) for text in texts]
    assert lang.to_pylist() == [label for label, _ in expected]
    # The rows of a text are added up in another order.
    np.testing.assert_allclose(score.to_numpy(), [value for _, value in expected], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1), max_size=8))
def test_equals_fasttext_on_any_line(
    identifier: Identifier, reference: fasttext.FastText._FastText, texts: list[str]
) -> None:
    texts = [text.replace("</s>", "") + "x" for text in texts]
    lang, score = identifier.identify(pa.array(texts, pa.string()))
    expected = [by_fasttext(reference, text) for text in texts]
    assert lang.to_pylist() == [label for label, _ in expected]
    # The rows of a text are added up in another order.
    np.testing.assert_allclose(score.to_numpy(), [value for _, value in expected], atol=1e-5)


@pytest.mark.parametrize("code", ARTICLE_1)
@pytest.mark.parametrize("break_", ["\n", "\r", "\r\n", "\n\n", "\v", "\f", "\x85", "\u2028", "\u2029", "\0", " </s> "])
def test_a_line_break_gives_the_label_of_a_space(identifier: Identifier, code: str, break_: str) -> None:
    text = ARTICLE_1[code]
    half = len(text) // 2
    spaced, broken, first = (text[:half] + between + text[half:] for between in (" ", break_, " "))
    lang, score = identifier.identify(pa.array([spaced, broken, break_ + first]))
    assert len(set(lang.to_pylist())) == 1
    assert len(set(score.to_pylist())) == 1


@pytest.mark.parametrize("text", [None, "", " ", "\n", " \t\r\n ", "\u00a0\u3000\u2028", "\0"])
def test_nothing_to_judge_is_und_with_score_0(identifier: Identifier, text: str | None) -> None:
    lang, score = identifier.identify(pa.array(["Guten Morgen allerseits", text], pa.string()))
    assert lang.to_pylist() == ["de", "und"]
    assert score[1].as_py() == 0.0


def test_scores_stay_within_one(identifier: Identifier, reference: fasttext.FastText._FastText) -> None:
    """A text of which fastText is surer than possible."""
    text = "이에 지금,"
    assert max(score for score, _ in reference.f.predict(text + "\n", 1, 0.0, "strict")) > 1.0
    assert identifier.identify(pa.array([text]))[1].to_pylist() == [1.0]


def test_slices_chunks_and_other_string_types_change_nothing(identifier: Identifier) -> None:
    texts = list(ARTICLE_1.values())
    whole = [column.to_pylist() for column in identifier.identify(pa.array(texts))]
    for column in (
        pa.array(["x", *texts, "y"]).slice(1, len(texts)),
        pa.array(texts, pa.large_string()),
        pa.array(texts).dictionary_encode(),
        pa.chunked_array([texts[:3], [], texts[3:]], pa.string()),
    ):
        assert [part.to_pylist() for part in identifier.identify(column)] == whole
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        assert [part.to_pylist() for part in identifier.identify(empty)] == [[], []]


def test_fasttext_itself_is_shown_a_column_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = Binding(model_path("lid.176.ftz"))
    column = string_buffer(pa.array([*ARTICLE_1.values(), None, "", ARTICLE_1["fr"] * 50] * 3))
    whole = [part.tolist() for part in binding.predict(*column)]
    assert [binding.labels[label].removeprefix("__label__") for label in whole[0][:12]] == list(ARTICLE_1)
    for size in (1, 100, 1000):
        monkeypatch.setattr("lola_data.lid.binding._PIECE_BYTES", size)
        assert [part.tolist() for part in binding.predict(*column)] == whole


def test_max_chars_shows_only_the_beginning(identifier: Identifier) -> None:
    text = ARTICLE_1["de"] + ARTICLE_1["ru"] * 20
    capped = Identifier(max_chars=len(ARTICLE_1["de"]))
    assert identifier.identify(pa.array([text]))[0].to_pylist() == ["ru"]
    assert capped.identify(pa.array([text])) == identifier.identify(pa.array([ARTICLE_1["de"]]))


def test_one_line_each_keeps_every_other_byte() -> None:
    texts = ["a\nb", "<s>\u2027\u202a</s", "é\u0085\u0084", None, "", "</s>", "漢\u2028字"]
    lines = one_line_each(*string_buffer(pa.array(texts)))
    assert lines.to_pylist() == [
        "a b\n",
        "<s>\u2027\u202a</s\n",
        "é  \u0084\n",
        "\n",
        "\n",
        "    \n",
        "漢   字\n",
    ]


def test_an_identifier_travels_without_its_model(identifier: Identifier) -> None:
    identifier.load()
    copy = pickle.loads(pickle.dumps(identifier))
    assert copy.identify(pa.array(list(ARTICLE_1.values())))[0].to_pylist() == list(ARTICLE_1)


def test_the_embedded_model_is_whole() -> None:
    check_model_file(model_path("lid.176.ftz"))


@pytest.mark.parametrize("share", [0.0, 0.000005, 0.0001, 0.5, 0.99, 0.999999])
def test_a_cut_off_model_is_refused_before_fasttext_reads_it(tmp_path: Path, share: float) -> None:
    content = model_path("lid.176.ftz").read_bytes()
    path = tmp_path / "cut.ftz"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(LolaError, match=r"cut\.ftz: "):
        Identifier(str(path)).identify(pa.array(["hello"]))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"PK\x03\x04 something else entirely")
    with pytest.raises(LolaError, match="not a fastText model"):
        Identifier(str(path)).load()
    with pytest.raises(RecipeError, match="neither a file nor one of the registered"):
        Identifier(str(tmp_path / "none.bin")).load()


TRAIN = """
import sys, fasttext
source, target, supervised = sys.argv[1:]
options = dict(input=source, dim=8, bucket=50_000, minn=2, maxn=3, thread=1, verbose=0)
if supervised == "True":
    model = fasttext.train_supervised(**options, epoch=25, lr=0.1)
else:
    model = fasttext.train_unsupervised(**options, epoch=1)
model.save_model(target)
"""


def train(tmp_path: Path, name: str, lines: list[str], supervised: bool) -> Path:
    source = tmp_path / "lines.txt"
    source.write_text("\n".join(lines), encoding="utf-8")
    # In a process of its own: fastText's trainer reads memory it has not set, and in a process that has worked for a
    # while finds a NaN there.
    command = [sys.executable, "-c", TRAIN, str(source), str(tmp_path / name), str(supervised)]
    for attempt in range(5):
        if subprocess.run(command, check=attempt == 4).returncode == 0:
            break
    return tmp_path / name


def test_a_model_of_ones_own_with_iso_labels(tmp_path: Path) -> None:
    labels = {"sq": "als_Latn", "de": "deu_Latn", "ru": "rus_Cyrl", "zh": "cmn_Hani", "xho_Latn": "xho_Latn"}
    texts = {**ARTICLE_1, "xho_Latn": "Bonke abantu bazalwa bekhululekile belingana ngesidima nangokweemfanelo."}
    lines = [f"__label__{label} {texts[code]}" for code, label in labels.items()] * 20
    path = train(tmp_path, "own.bin", lines, supervised=True)
    lang, _ = Identifier(str(path)).identify(pa.array([texts[code] for code in labels]))
    assert lang.to_pylist() == list(labels)
    shutil.copy(path, tmp_path / "short.bin")
    with (tmp_path / "short.bin").open("r+b") as stream:
        stream.truncate(path.stat().st_size - 1)
    with pytest.raises(LolaError, match="cut off"):
        Identifier(str(tmp_path / "short.bin")).load()


def test_word_vectors_are_no_classifier(tmp_path: Path) -> None:
    path = train(tmp_path, "vectors.bin", list(ARTICLE_1.values()), supervised=False)
    with pytest.raises(LolaError, match="not a classifier"):
        Identifier(str(path)).load()


def test_a_model_written_anew_is_loaded_anew(tmp_path: Path) -> None:
    texts = pa.array([*ARTICLE_1.values()])
    path = tmp_path / "model.bin"
    for seed in (1, 2):
        write_model(path, KINDS["softmax"], seed=seed)
        reference = fasttext.load_model(str(path))
        expected = [by_fasttext(reference, " ".join(text.split()))[0] for text in texts.to_pylist()]
        assert Identifier(str(path)).identify(texts)[0].to_pylist() == expected
