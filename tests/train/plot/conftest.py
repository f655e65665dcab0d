"""Run directories made by hand: every number that a figure or a table should show is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOADS = {"1": [0.25, 0.25, 0.5, 0.0], "3": [0.25, 0.25, 0.25, 0.25]}
EVEN_LOADS = {"1": [0.25] * 4, "3": [0.25] * 4}


def train_record(step: int, loss: float | None, **changes: Any) -> dict[str, Any]:
    """A record as the trainer writes them; 100 tokens a step."""
    record = {
        "kind": "train", "step": step, "tokens": 100 * step, "loss": loss, "balance": 1.0, "z": 2.0, "lr": 1e-3 / step,
        "grad_norm": 1.0, "dropped": 0.0, "load": LOADS, "epochs": {"de": 0.01 * step, "yo": 0.02 * step},
        "tokens_per_second": 1000.0 + step, "mfu": 0.4, "memory": {"peak": 3},
    }  # fmt: skip
    return record | changes


def valid_record(step: int, loss: dict[str, float | None], **changes: Any) -> dict[str, Any]:
    """A record of an evaluation; a byte is worth 2 nats of 3 bits in each language."""
    known = [value for value in loss.values() if value is not None]
    record = {
        "kind": "valid", "step": step, "tokens": 100 * step, "mean": sum(known) / len(known) if known else None,
        "unigram_mean": 5.0, "loss": loss, "unigram": dict.fromkeys(loss, 5.0),
        "bits_per_byte": {code: None if value is None else 1.5 * value for code, value in loss.items()},
    }  # fmt: skip
    return record | changes


def settings(**model: Any) -> dict[str, Any]:
    """Content of ``config.json``."""
    return {
        "config": {"model": {"layers": 4, "seq_len": 25} | model, "tokens": 2000, "batch_size": 4, "seed": 1},
        "tokenizer": {"vocab_size": 64, "eod_id": 0, "sha256": "ab" * 32},
    }


RECORDS = [
    valid_record(0, {"de": 8.0, "yo": 8.5}),
    train_record(5, 8.0),
    train_record(10, 6.0),
    valid_record(10, {"de": 5.0, "yo": 6.0}),
    train_record(15, 5.0),
    train_record(20, 4.5),
    valid_record(20, {"de": 4.0, "yo": 4.4}),
]
SUMMARY = {
    "steps": 20, "tokens": 2000, "parameters": 123456, "active_parameters": 23456,
    "languages": {"de": {"train_tokens": 9000}, "yo": {"train_tokens": 400}},
}  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run directory: ``make_run("first", records, summary=None, config=..., tail="cut off")``."""

    def make(
        name: str = "first",
        records: list[dict[str, Any]] | None = None,
        *,
        summary: dict[str, Any] | None = SUMMARY,
        config: dict[str, Any] | None = None,
        tail: str = "",
    ) -> Path:
        run = tmp_path / name
        run.mkdir(parents=True)
        lines = [json.dumps(record) + "\n" for record in (RECORDS if records is None else records)]
        (run / "metrics.jsonl").write_text("".join(lines) + tail, "utf-8")
        (run / "config.json").write_text(json.dumps(config or settings()), "utf-8")
        if summary is not None:
            (run / "summary.json").write_text(json.dumps(summary), "utf-8")
        return run

    return make
