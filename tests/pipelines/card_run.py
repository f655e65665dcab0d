"""A work folder for tests of data cards: the real stages on two languages of the embedded sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.console import ROAD, lola, only

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LANGUAGES = ("en", "yo")
RECIPE = """\
workdir: {workdir}
languages: [en, yo]
download: {{source: sample}}
sample: {{total: 150000}}
tokenizer: {{vocab_size: 500, train_bytes: 40000}}
tokenize: {{valid_share: 0.1}}
executor: {{tasks: 1, workers: 1}}
"""


def finished_run(factory: pytest.TempPathFactory) -> Path:
    """Its work folder: made once a session, not to be changed."""
    folder = factory.getbasetemp() / "card-run"
    if not folder.exists():
        folder.mkdir()
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(workdir=folder / "work"), encoding="utf-8")
        outcome = lola("run", recipe, *only([*ROAD, "balance"]))
        assert outcome.code == 0, outcome.stderr
    return folder / "work"
