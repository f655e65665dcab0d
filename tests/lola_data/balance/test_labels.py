"""Labels summed by the compiled table, against the expressions over every row and against the standard library."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from lola_data.balance.labels import LabelSums
from lola_data.balance.rows import LABELS, document_rows
from lola_data.balance.sums import Sums, document_sums

URLS = [
    "https://a.org/x", "http://a.org/y", "http://www.A.org", "https://a.org", "HTTP://a.org/", "https://a.org?x=/y",
    "https://user:pw@a.org:8080/", "https://[::1]/x", "https://[::1", "http://", "https://", "http:///x", "https:///x",
    "http:/a.org/", "httpx://b.org/", "https+tor://c.org/x", "ftp://d/e/f", "gopher://", "", "a", "://a.org/", "/a/b",
    "https://münchen.example/straße", "https://漢字.example/漢字", "http://é/é", "https://a", "https://a.org#/b",
    " https://a.org/", "https://a.org//b", None,
]  # fmt: skip
STAMPS = [
    "2019-09-17T15:03:38Z", "2019-09-17T00:00:00Z", "  2020/01/02", "2021", "20220131T00", "202201311", "\t2023-01-01",
    "1568733338", "", "x", "2019年9月17日 12:00", "20190917漢字", "2018-1-1 漢字漢字漢字", None,
]  # fmt: skip


def batch_of(count: int, seed: int) -> dict[str, pa.Array]:
    rng = random.Random(seed)
    choices: dict[str, list[Any]] = {
        "url": URLS, "timestamp": STAMPS, "source": ["mC4", "OSCAR", None], "claimed_lang": ["de", "als", None],
        "lang": ["de", "nl", "und", None], "script": ["Latn", "Cyrl", None],
    }  # fmt: skip
    columns = {name: pa.array(rng.choices(choices[name], k=count), pa.string()) for name in LABELS}
    return {"text": pa.nulls(count, pa.string()), **columns}


@pytest.mark.parametrize("present", [LABELS, ("url",), ("timestamp", "lang"), ()])
def test_sums_are_those_of_every_row(present: tuple[str, ...]) -> None:
    labels, rows = LabelSums("de"), Sums(document_sums)
    for number in range(3):
        batch = batch_of(700, number)
        for name in LABELS:
            if name not in present:
                batch[name] = pa.nulls(700, pa.string())
        more = LabelSums("de")
        more.add(batch, present)
        labels.absorb(more)
        rows.add(document_rows(batch, "de"))
    found, wanted = labels.part(), rows.result()
    for name in ("detected", "scripts", "domains", "linked", "years"):
        if name in found:
            assert found[name].equals(wanted[name]), name
        else:
            assert not wanted[name].height
    columns = ["lang", "source", "documents", "elsewhere"]
    assert found["sizes"].select(columns).equals(wanted["sizes"].select(columns))


def test_many_hosts_in_one_batch() -> None:
    hosts = [f"https://{number % 4001}.example/{number}" for number in range(30_000)]
    labels = LabelSums("de")
    labels.add({"url": pa.array(hosts)[5:], "source": pa.nulls(29_995, pa.string())}, ["url"])
    counted = Counter(urlsplit(host).hostname for host in hosts[5:])
    assert dict(labels.part()["domains"].select("domain", "documents").iter_rows()) == counted
