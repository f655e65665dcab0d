"""URL normal forms: which pairs are one page for deduplication, which are not, and what is no URL."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lola_data.urls import normalise_urls


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://example.org/a", "example.org/a"),
        ("https://example.org/a", "example.org/a"),
        ("HTTPS://Example.ORG/a", "example.org/a"),
        ("//example.org/a", "example.org/a"),
        ("example.org/a", "example.org/a"),
        ("http://example.org/a/", "example.org/a"),
        ("http://example.org/a//", "example.org/a"),
        ("http://example.org/a#part", "example.org/a"),
        ("http://example.org/a/#part", "example.org/a"),
        ("http://example.org/a/?q=1#x?y", "example.org/a?q=1"),
        ("http://example.org", "example.org"),
        ("http://example.org/", "example.org"),
        ("http://example.org?q=1", "example.org?q=1"),
        ("http://example.org:8080/a", "example.org:8080/a"),
        (" http://example.org/a\n", "example.org/a"),
        ("http://example.org/A/b", "example.org/A/b"),
        ("http://example.org/a?Q=B/", "example.org/a?Q=B/"),
        ("http://example.org/a?u=http://other.org/", "example.org/a?u=http://other.org/"),
        ("http://example.org/a%2F", "example.org/a%2F"),
        ("http://example.org/a/../b", "example.org/a/../b"),
        ("ftp://Example.org/a", "ftp://example.org/a"),
        ("http://bücher.example/ä", "bücher.example/ä"),
        ("http://example.org/a\nb", "example.org/a\nb"),
        ("", None),
        ("   ", None),
        ("http://", None),
        ("https:///path", None),
        ("#only", None),
        (None, None),
    ],
)
def test_normal_form(url: str | None, normal: str | None) -> None:
    assert normalise_urls(pa.array([url], pa.string())).to_pylist() == [normal]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_columns_of_any_length(kind: pa.DataType) -> None:
    column = pa.array(["x", "http://a.org/1", None, "http://b.org/"], kind).slice(1)
    assert normalise_urls(column).to_pylist() == ["a.org/1", None, "b.org"]
    assert normalise_urls(pa.array([], kind)).to_pylist() == []
    assert normalise_urls(pa.nulls(2)).to_pylist() == [None, None]


def test_bytes_that_are_not_utf8_are_no_url() -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(pa.array([0, 10], pa.int32()).buffers()[1]), pa.py_buffer(b"http://\xff/a")]
    )
    assert normalise_urls(broken).to_pylist() == [None]
