"""Models written here field by field: fastText itself reads the sound one; unsound numbers are found before it can."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from lola_data.errors import LolaError
from lola_data.lid.format import check_model_file
from lola_data.lid.identifier import Identifier
from lola_data.lid.models import model_path

if TYPE_CHECKING:
    from pathlib import Path

WORDS, LABELS = ("</s>", "guten", "good"), ("__label__de", "__label__en")
SOUND: dict[str, Any] = {
    "dim": 4, "wordNgrams": 1, "loss": 3, "model": 3, "bucket": 5, "minn": 0, "maxn": 2,
    "size": 5, "nwords": 3, "nlabels": 2, "pruned": -1, "kinds": (0, 0, 0, 1, 1), "counts": (9, 5, 5, 5, 4),
    "label": b"__label__de", "rows": 8, "columns": 4, "labels": 2, "label_columns": 4, "weight": 0.5, "end": b"",
}  # fmt: skip


def model(**changes: Any) -> bytes:
    """A dense classifier of three words, five buckets of n-grams and two labels, with some numbers changed."""
    at = SOUND | changes
    arguments = (
        at["dim"], 5, 5, 1, 5, at["wordNgrams"], at["loss"], at["model"], at["bucket"], at["minn"], at["maxn"], 100
    )  # fmt: skip
    parts = [struct.pack("<ii", 793_712_314, 12), struct.pack("<12id", *arguments, 1e-4)]
    parts.append(struct.pack("<iiiqq", at["size"], at["nwords"], at["nlabels"], 28, at["pruned"]))
    entries = [*(word.encode() for word in WORDS), at["label"], LABELS[1].encode()]
    for entry, count, kind in zip(entries, at["counts"], at["kinds"], strict=True):
        parts.append(entry + b"\0" + struct.pack("<qb", count, kind))
    weights = np.zeros((8, 4), np.float32)
    weights[1, 0] = weights[2, 1] = 3.0
    weights[7, 3] = at["weight"]
    parts += [b"\0", struct.pack("<qq", at["rows"], at["columns"]), weights.tobytes()]
    output = np.array([[9, 0, 0, 0], [0, 9, 0, 0]], np.float32)
    parts += [b"\0", struct.pack("<qq", at["labels"], at["label_columns"]), output.tobytes(), at["end"]]
    return b"".join(parts)


@pytest.mark.parametrize("loss", [1, 2, 3, 4])
def test_the_sound_model_is_one_to_fasttext(tmp_path: Path, loss: int) -> None:
    path = tmp_path / "own.bin"
    path.write_bytes(model(loss=loss, maxn=0, bucket=0, rows=8))
    check_model_file(path)
    read = fasttext.load_model(str(path))
    assert read.get_dimension() == 4
    assert read.get_words() == list(WORDS)
    if loss == 3:
        assert Identifier(str(path)).identify(pa.array(["guten", "good"]))[0].to_pylist() == ["de", "en"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dim": 2**31 - 1}, "its dim is 2,147,483,647, not in 1 to"),
        ({"dim": -4}, "its dim is -4"),
        ({"dim": 0}, "its dim is 0"),
        ({"dim": 5}, "a table of 8 vectors of 4 numbers, where its dim is 5"),
        ({"loss": 0}, "its loss is 0"),
        ({"loss": 9}, "its loss is 9"),
        ({"bucket": -1}, "its bucket is -1"),
        ({"bucket": 0}, "it uses n-grams, but its bucket is 0"),
        ({"bucket": 0, "maxn": 0, "wordNgrams": 2}, "it uses n-grams, but its bucket is 0"),
        ({"bucket": 6}, "8 input vectors are fewer than its words and n-grams need"),
        ({"bucket": 2**31 - 1}, "8 input vectors are fewer"),
        ({"maxn": 2**31 - 1}, "its maxn is 2,147,483,647"),
        ({"minn": -1}, "its minn is -1"),
        ({"wordNgrams": 2**30}, "its wordNgrams is"),
        ({"size": -1}, "are not its -1 entries"),
        ({"size": 2**31 - 1}, "are not its 2,147,483,647 entries"),
        ({"nwords": -3, "nlabels": 8}, "-3 words and 8 labels"),
        ({"nwords": 4, "nlabels": 1}, "entry 3 of its dictionary is of kind 1"),
        ({"size": 2**30 + 2, "nwords": 2**30}, "entry 3 of its dictionary is of kind 1"),
        ({"nlabels": 0, "nwords": 5}, "the model has no labels"),
        ({"kinds": (0, 1, 0, 1, 1)}, "entry 1 of its dictionary is of kind 1"),
        ({"kinds": (0, 0, 0, 1, 77)}, "entry 4 of its dictionary is of kind 77"),
        ({"counts": (9, 5, 5, 10**15, 4)}, "label 0 is said to occur 1,000,000,000,000,000 times"),
        ({"counts": (9, 5, 5, 5, -1)}, "label 1 is said to occur -1 times"),
        ({"label": b"__label__d\xff"}, "label 0 is not valid UTF-8"),
        ({"pruned": 3}, "damaged"),
        ({"pruned": 0}, "words were taken out of it, yet it is not quantised"),
        ({"pruned": -2}, "-2 n-grams were kept"),
        ({"pruned": 2**60}, "cut off or damaged"),
        ({"rows": 2**62, "columns": 4}, "cut off or damaged"),
        ({"rows": -8, "columns": -4}, "a table of -8 vectors of -4 numbers"),
        ({"rows": 4, "columns": 8}, "a table of 4 vectors of 8 numbers"),
        ({"rows": 7}, "7 input vectors are fewer"),
        ({"labels": 1}, "1 output vectors for 2 labels"),
        ({"labels": 3}, "cut off or damaged"),
        ({"labels": 0, "label_columns": 2**40}, "a table of 0 vectors of 1,099,511,627,776 numbers"),
        ({"weight": float("nan")}, "a weight that is not a number"),
        ({"weight": float("-inf")}, "a weight that is not a number"),
        ({"weight": 3e38}, "far too large a one"),
        ({"end": b"\0"}, "1 bytes follow its end"),
    ],
)
def test_a_number_that_cannot_be_is_found(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "own.bin"
    path.write_bytes(model())
    check_model_file(path)
    path.write_bytes(model(**changes))
    with pytest.raises(LolaError) as caught:
        check_model_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


# The quantised model that comes with the package: where its numbers lie is written in the fastText sources.
HEADER = 8 + 12 * 4 + 8


def fields_of(content: bytes) -> dict[str, tuple[int, str]]:
    """Offset and layout of some numbers behind the dictionary."""
    size, _, _, _, pruned = struct.unpack_from("<iiiqq", content, HEADER)
    at = HEADER + 28
    for _ in range(size):
        at = content.index(b"\0", at) + 1 + 9
    table = at
    at += 8 * max(0, pruned)
    assert content[at] == 1
    # quantised, normed, rows, columns, bytes of codes, codes, then the quantiser.
    (code_bytes,) = struct.unpack_from("<i", content, at + 18)
    quantiser = at + 22 + code_bytes
    return {
        "n-gram": (table, "<i"),
        "vector": (table + 4, "<i"),
        "rows": (at + 2, "<q"),
        "columns": (at + 10, "<q"),
        "code bytes": (at + 18, "<i"),
        "parts": (quantiser + 4, "<i"),
        "width": (quantiser + 8, "<i"),
        "last": (quantiser + 12, "<i"),
        "centroid": (quantiser + 16, "<f"),
    }


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("n-gram", [-1, 2**31 - 1]),
        ("vector", [-1, 2**30]),
        ("rows", [-1, 1, 2**62]),
        ("columns", [0, -16, 17]),
        ("code bytes", [0, -1, 2**31 - 1]),
        ("parts", [0, -8, 9]),
        ("width", [0, -2, 3, 2**30]),
        ("last", [0, 1, -2, 2**30]),
        ("centroid", [float("nan"), float("inf"), -1e30]),
    ],
)
def test_a_number_of_a_quantised_model_that_cannot_be_is_found(tmp_path: Path, field: str, values: list[float]) -> None:
    content = model_path("lid.176.ftz").read_bytes()
    offset, layout = fields_of(content)[field]
    path = tmp_path / "own.ftz"
    for value in values:
        changed = bytearray(content)
        struct.pack_into(layout, changed, offset, value)
        assert bytes(changed) != content
        path.write_bytes(changed)
        with pytest.raises(LolaError, match=r"own\.ftz: the fastText model is (cut off or )?damaged"):
            check_model_file(path)
