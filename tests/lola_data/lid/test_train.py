"""Training: the model answers as fastText says it does, is the same twice, and its card tells the truth."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fasttext
import pyarrow as pa
import pytest

from lola_data.buffers import string_buffer
from lola_data.errors import LolaError, RecipeError
from lola_data.lid.identifier import Identifier, open_classifier
from lola_data.lid.kernel import Classifier
from lola_data.lid.labelled import LabelledText, Source, read_labelled
from lola_data.lid.train import Trained, TrainOptions, card_path, train
from lola_data.sample_corpus import sample_root

LANGS = ("de", "ru", "th", "eu")
QUICK = TrainOptions(epochs=5, dim=8, bucket=5000, min_count=20, lr=1.0, max_chars=400_000, held_out=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabelledText:
    root = tmp_path_factory.mktemp("tree")
    for lang in LANGS:
        (root / lang).symlink_to(sample_root() / lang)
    return read_labelled([str(root)])


@pytest.fixture(scope="module")
def trained(data: LabelledText, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(data, tmp_path_factory.mktemp("models") / "own.bin", QUICK, licence="as the sample")


def small(rows: list[tuple[str, str]]) -> LabelledText:
    texts, codes = zip(*rows, strict=True)
    source = Source("rows.tsv", 1, 0, len(texts), "0" * 64)
    return LabelledText(pa.chunked_array([texts], pa.large_string()), pa.chunked_array([codes]), (source,), 0)


def words(seed: int, letters: str, count: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join("".join(draw.choices(letters, k=5)) for _ in range(30)) for _ in range(count)]


TWO = [(text, "xx") for text in words(0, "abcde", 40)] + [(text, "yy") for text in words(1, "vwxyz", 40)]


def test_it_learns_languages_that_are_easy_to_tell(trained: Trained, data: LabelledText) -> None:
    assert trained.documents is not None
    assert trained.pieces is not None
    assert trained.documents.macro_f1 > 0.95
    assert trained.pieces.texts > trained.documents.texts
    texts = ["Alle Menschen sind frei und gleich an Würde und Rechten geboren.", "Все люди рождаются свободными.",
             "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน", "Gizon-emakume guztiak aske jaiotzen dira."]  # fmt: skip
    assert Identifier(str(trained.path)).identify(pa.array(texts))[0].to_pylist() == ["de", "ru", "th", "eu"]


def test_the_compiled_kernel_and_fasttext_give_the_same_labels(trained: Trained, data: LabelledText) -> None:
    classifier = open_classifier(trained.path)
    assert isinstance(classifier, Classifier)
    assert sorted(classifier.labels) == sorted(f"__label__{lang}" for lang in LANGS)
    reference = fasttext.load_model(str(trained.path))
    chunk = data.text.combine_chunks().slice(0, 400)
    labels, chances = classifier.predict(*string_buffer(chunk))
    for text, label, chance in zip(chunk.to_pylist(), labels, chances, strict=True):
        line = " ".join(text.replace("</s>", "    ").splitlines()).replace("\0", " ")
        ((probability, expected),) = reference.f.predict(line + "\n", 1, 0.0, "strict")
        assert classifier.labels[label] == expected
        assert chance == pytest.approx(probability, abs=1e-4)


def test_the_same_input_gives_the_same_bytes(trained: Trained, data: LabelledText, tmp_path: Path) -> None:
    again = train(data, tmp_path / "own.bin", QUICK, licence="as the sample")
    assert again.path.read_bytes() == trained.path.read_bytes()
    assert card_path(again.path).read_bytes() == card_path(trained.path).read_bytes()
    other = train(data, tmp_path / "seed.bin", replace(QUICK, seed=1))
    assert other.path.read_bytes() != trained.path.read_bytes()


def test_the_card(trained: Trained, data: LabelledText) -> None:
    card = json.loads(card_path(trained.path).read_text(encoding="utf-8"))
    assert card == trained.card
    content = trained.path.read_bytes()
    assert card["model"] == {
        "file": "own.bin",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "languages": sorted(LANGS),
    }
    assert card["licence"] == "as the sample"
    assert card["deterministic"]
    assert card["options"]["epochs"] == 5
    assert card["data"]["texts"] == len(data)
    assert card["data"]["sources"][0]["sha256"] == data.sources[0].sha256
    assert 0.1 * len(data) < card["data"]["held_out"] < 0.3 * len(data)
    counts = card["training"]["by_language"]
    assert sum(count["characters"] for count in counts.values()) == card["training"]["characters"]
    assert card["training"]["characters"] == pytest.approx(400_000, rel=0.01)
    # The share of a language goes by its characters to the power 0.3.
    lengths = dict.fromkeys(LANGS, 0)
    for text, label in zip(data.text.to_pylist(), data.label.to_pylist(), strict=True):
        lengths[label] += len(text)
    ratio = counts["th"]["characters"] / counts["de"]["characters"]
    assert ratio == pytest.approx((lengths["th"] / lengths["de"]) ** 0.3, rel=0.03)
    assert trained.pieces is not None
    assert card["held_out"]["pieces"]["macro_f1"] == pytest.approx(trained.pieces.macro_f1, abs=5e-5)


def test_held_out_documents_are_not_trained_on_and_copies_stay_together(tmp_path: Path) -> None:
    """Held-out documents have words of their own, which a model that had seen them would know."""
    own = [(" ".join(f"{code}{at}{word}" for word in text.split()), code) for at, (text, code) in enumerate(TWO)]
    rows = [row for row in own for _ in range(2)]
    options = replace(QUICK, min_count=1, held_out=0.5, alpha=1.0)
    made = train(small(rows), tmp_path / "m.bin", options)
    assert made.documents is not None
    known = set(fasttext.load_model(str(made.path)).get_words())
    seen = [known.issuperset(text.split()) for text, _ in rows]
    unseen = [not known & set(text.split()) for text, _ in rows]
    assert seen.count(True) + unseen.count(True) == len(rows)
    assert unseen.count(True) == made.documents.texts == made.card["data"]["held_out"]
    assert 40 < made.documents.texts < 120
    assert [seen[at] for at in range(0, len(rows), 2)] == [seen[at] for at in range(1, len(rows), 2)]


def test_every_language_keeps_a_document_to_train_on(tmp_path: Path) -> None:
    rows = [*TWO, ("zzz qqq " * 20, "zz")]
    for seed in range(2):
        made = train(small(rows), tmp_path / f"{seed}.bin", replace(QUICK, held_out=0.5, seed=seed, epochs=1))
        assert made.card["training"]["by_language"]["zz"]["lines"] > 0


def test_nothing_held_out(tmp_path: Path) -> None:
    made = train(small(TWO), tmp_path / "m.bin", replace(QUICK, held_out=0.0))
    assert made.documents is None
    assert made.card["held_out"] is None
    assert made.card["data"]["held_out"] == 0


def test_quantised(data: LabelledText, trained: Trained, tmp_path: Path) -> None:
    made = train(data, tmp_path / "own.ftz", replace(QUICK, quantize=True, cutoff=2000))
    assert made.path.stat().st_size < 0.4 * trained.path.stat().st_size
    assert made.documents is not None
    assert made.documents.macro_f1 > 0.9
    again = train(data, tmp_path / "again.ftz", replace(QUICK, quantize=True, cutoff=2000))
    assert again.path.read_bytes() == made.path.read_bytes()
    reference = fasttext.load_model(str(made.path))
    assert reference.is_quantized()
    texts = data.text.slice(0, 100)
    lang, _ = Identifier(str(made.path)).identify(texts)
    expected = [
        reference.f.predict(" ".join(text.splitlines()) + "\n", 1, 0.0, "strict")[0][1] for text in texts.to_pylist()
    ]
    assert [f"__label__{code}" for code in lang.to_pylist()] == expected


def test_small_data_with_the_default_options(tmp_path: Path) -> None:
    """No word is frequent enough for a vector of its own, not even the end of the line."""
    made = train(small(TWO), tmp_path / "m.bin", replace(TrainOptions(), bucket=5000))
    assert made.documents is not None
    assert fasttext.load_model(str(made.path)).get_words() == []
    assert made.documents.macro_f1 > 0.9


def test_hierarchical_softmax_and_word_n_grams(tmp_path: Path) -> None:
    options = replace(QUICK, loss="hs", word_ngrams=2, minn=0, maxn=0, min_count=1)
    made = train(small(TWO), tmp_path / "m.bin", options)
    arguments = fasttext.load_model(str(made.path)).f.getArgs()
    assert (arguments.loss, arguments.wordNgrams, arguments.maxn) == (fasttext.FastText.loss_name.hs, 2, 0)


def test_several_threads_are_said_not_to_be_deterministic(tmp_path: Path) -> None:
    assert not train(small(TWO), tmp_path / "m.bin", replace(QUICK, threads=2)).card["deterministic"]


def test_refusals(tmp_path: Path) -> None:
    out = tmp_path / "m.bin"
    with pytest.raises(RecipeError, match="'xx' is the only language"):
        train(small(TWO[:5]), out, QUICK)
    with pytest.raises(RecipeError, match="--minn 5 is above --maxn 4"):
        train(small(TWO), out, replace(QUICK, minn=5))
    with pytest.raises(RecipeError, match="--shortest 400 is above --longest 150"):
        train(small(TWO), out, replace(QUICK, shortest=400))
    with pytest.raises(RecipeError, match="--quantize: too few words"):
        train(small(TWO), out, replace(QUICK, quantize=True, bucket=10, min_count=1000))
    with pytest.raises(RecipeError, match=r"--lr 1e\+09: training diverged"):
        train(small(TWO), out, replace(QUICK, lr=1e9))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where a folder should be")
    with pytest.raises(LolaError, match="cannot be written"):
        train(small(TWO), tmp_path / "a" / "m.bin", QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_progress_rises_to_its_end(tmp_path: Path) -> None:
    told: list[tuple[str, float | None]] = []
    train(small(TWO * 10), tmp_path / "m.bin", replace(QUICK, epochs=100), progress=lambda *step: told.append(step))
    steps = list(dict.fromkeys(step for step, _ in told))
    assert steps == ["cutting documents", "training", "measuring on held-out documents"]
    shares = [share for step, share in told if step == "training" and share is not None]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)


KILLED = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from dataclasses import replace
from tests.lola_data.lid.test_train import QUICK, TWO, small
from lola_data.lid.train import train
train(small(TWO), Path(sys.argv[1]), replace(QUICK, epochs=1_000_000), progress=lambda *step: print(step, flush=True))
"""


def test_an_interrupt_ends_fasttext_too_and_leaves_no_model(tmp_path: Path) -> None:
    code = KILLED.format(root=str(Path(__file__).resolve().parents[3]))
    command = [sys.executable, "-c", code, str(tmp_path / "m.bin")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert any("training" in line for line in process.stdout)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(tmp_path.iterdir()) == []
