"""Ids taken apart, against a regular expression."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from lola_data.document_ids import split_ids

PATTERN = re.compile(rb"(?s)(.*)/(0|[1-9][0-9]{0,17})")


def split(ids: list[str]) -> list[tuple[bytes, int]]:
    names, name_of, rows = split_ids(pa.array(ids, pa.string()))
    return [(names[name], row) for name, row in zip(name_of.tolist(), rows.tolist(), strict=True)]


def expected(one: str) -> tuple[bytes, int]:
    found = PATTERN.fullmatch(one.encode())
    return (found[1], int(found[2])) if found else (one.encode(), -1)


def test_forms_of_ids() -> None:
    ids = ["de/a/0", "de/a/12", "x", "a/b/c", "de/a/007", "/3", "", "/", "0", "de/a/00", "de//1", "a/٣", "a/-1"]
    ids += [
        "a/999999999999999999",
        "a/1000000000000000000",
        "a/9999999999999999999999",
        "a\n/4",
        "a/4\n",
        "ab/4",
        "a/4",
    ]
    assert split(ids) == [expected(one) for one in ids]
    assert split(["de/a/0", "x"]) == [(b"de/a", 0), (b"x", -1)]


def test_random_ids() -> None:
    draws = np.random.default_rng(5)
    ids = ["".join(draws.choice(list("a/01 9"), size=draws.integers(0, 9))) for _ in range(5_000)]
    assert split(ids) == [expected(one) for one in ids]


def test_names_are_listed_once_a_run() -> None:
    names, name_of, _ = split_ids(pa.array(["a/1", "a/2", "b/1", "b/9", "a/3"]).slice(1))
    assert names == [b"a", b"b", b"a"]
    assert name_of.tolist() == [0, 1, 1, 2]
