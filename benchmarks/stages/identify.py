"""Stage ``identify``: language and score of every document, texts in memory, lid.176.ftz."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.datatrove_peer import FILTER_NEEDS
from benchmarks.harness import Agreement, Contender, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Finish, Task, Work

OURS = "lola-data Identifier"
SINGLE, BATCHED = "fasttext binding, a call per document", "fasttext binding, batched"
DATATROVE = "datatrove LanguageFilter"
MODEL = "lid.176.ftz"
BATCH = 1_000
"""Documents of a batched call."""


def load_ours(task: Task) -> Work:
    """Arrow batches as the stage reads them, in memory."""
    import pyarrow as pa

    from lola_data.lid.identifier import Identifier
    from lola_data.schemas import RAW
    from lola_data.shards import plan_units, read_batches

    root = str(task.corpus.raw)
    columns = [batch["text"] for unit in plan_units(root) for batch in read_batches(root, unit, RAW, columns=["text"])]
    identifier = Identifier(MODEL)
    identifier.identify(columns[0].slice(0, 2))

    def work() -> Finish:
        answers = [identifier.identify(column) for column in columns]
        table = pa.table(
            {
                "lang": pa.chunked_array([lang for lang, _ in answers]),
                "score": pa.chunked_array([score for _, score in answers]),
            }
        )
        return lambda: _write(table, task.out)

    return work


def load_single(task: Task) -> Work:
    """``predict`` of one Python string after the other, k = 1."""
    model, texts = _binding(), _texts(task)

    def work() -> Finish:
        answers = [model.predict(text.replace("\n", " "), k=1) for text in texts]
        return lambda: _save(((labels[0], scores[0]) for labels, scores in answers), task.out)

    return work


def load_batched(task: Task) -> Work:
    """``predict`` of lists of Python strings, k = 1."""
    model, texts = _binding(), _texts(task)

    def work() -> Finish:
        answers: list[tuple[str, float]] = []
        for start in range(0, len(texts), BATCH):
            labels, scores = model.predict([text.replace("\n", " ") for text in texts[start : start + BATCH]], k=1)
            answers += zip((one[0] for one in labels), (one[0] for one in scores), strict=True)
        return lambda: _save(answers, task.out)

    return work


def load_datatrove(task: Task) -> Work:
    """The block over documents that are made already. Its default k is -1: all labels of each document, sorted."""
    from datatrove.data import Document

    from benchmarks.datatrove_peer import language_filter, quiet
    from lola_data.lid.models import model_path

    quiet()
    block = language_filter(model_path(MODEL), label_only=True)
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(_texts(task))]

    def work() -> Finish:
        answers = [
            (document.metadata["language"], document.metadata["language_score"])
            for document in block.run(iter(documents), 0, 1)
        ]
        return lambda: _save(answers, task.out)

    return work


def _binding() -> Any:
    import fasttext

    from lola_data.lid.models import model_path

    model = fasttext.load_model(str(model_path(MODEL)))
    model.predict("warm up", k=1)
    return model


def _texts(task: Task) -> list[str]:
    from benchmarks.agreement import read_tree

    return read_tree(task.corpus.raw, ["text"])["text"].to_pylist()


def _save(answers: Iterable[tuple[str, float]], out: Path) -> None:
    _write(_table(answers), out)


def _table(answers: Iterable[tuple[str, float]]) -> Any:
    """Labels, as our codes, and scores."""
    import pyarrow as pa

    from lola_data.lid.labels import culturax_code

    pairs = list(answers)
    codes = pa.array([culturax_code(label) for label, _ in pairs], pa.string())
    return pa.table({"lang": codes, "score": pa.array([score for _, score in pairs], pa.float32())})


def _write(table: Any, out: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, out / "labels.parquet")


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Each against ours; the binding also on the languages that were not timed."""
    from benchmarks.agreement import labels_agree, read_tree

    ours = read_tree(outputs[OURS])
    found: list[Agreement] = []
    for name, folder in outputs.items():
        if name != OURS:
            holds, text = labels_agree(ours, read_tree(folder))
            found.append(Agreement(name, text, holds))
    if SINGLE in outputs and corpus.others.exists():
        holds, text = labels_agree(*_both_on(read_tree(corpus.others, ["text"])["text"]))
        found.append(Agreement(SINGLE, f"in {len(corpus.facts['others'])} other languages {text}", holds))
    return found


def _both_on(texts: Any) -> tuple[Any, Any]:
    """Labels and scores of texts by our identifier and by the binding."""
    import pyarrow as pa

    from lola_data.lid.identifier import Identifier

    model = _binding()
    lang, score = Identifier(MODEL).identify(texts)
    answers = [model.predict(text.replace("\n", " "), k=1) for text in texts.to_pylist()]
    return pa.table({"lang": lang, "score": score}), _table((labels[0], scores[0]) for labels, scores in answers)


STAGE = Stage(
    name="identify",
    title=f"language of each document, texts in memory, {MODEL}",
    contenders=(
        Contender(OURS, load_ours),
        Contender(SINGLE, load_single, goal=5),
        Contender(BATCHED, load_batched),
        Contender(DATATROVE, load_datatrove, needs=FILTER_NEEDS, goal=10),
    ),
    agree=agree,
    versions=("datatrove", "fasttext-numpy2-wheel"),
)
