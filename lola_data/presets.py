"""Recipes to start from: ``demo`` (the embedded corpus), ``balanced`` (our defaults), ``lola-v1`` (the paper's)."""

from __future__ import annotations

from typing import Any

from lola_data.errors import RecipeError
from lola_data.recipe import Recipe, render_recipe
from lola_data.train_config import PRESETS

TITLES = {
    "demo": "The embedded corpus, start to end, in a few minutes on two cores.",
    "balanced": "CulturaX, balanced: temperature sampling with at most four epochs of any language.",
    "lola-v1": "CulturaX as LOLA sampled it (arXiv 2409.11272): 4 % of each language, 2 % of English, 16 % of German, "
    "all of the small ones; documents are taken in order. Text is checked and deduplicated here, unlike there.",
}

VALUES: dict[str, dict[str, Any]] = {
    "demo": {
        "workdir": "work/demo",
        "download": {"source": "sample"},
        "identify": {"policy": "drop"},
        "sample": {"method": "temperature", "alpha": 0.7, "max_epochs": 4.0},
        # A small vocabulary: on two cores most of a step is the product with the embedding table. Rare characters
        # are spelled in bytes.
        "tokenizer": {"vocab_size": 2560, "train_bytes": 12_000_000, "alpha": 0.5, "character_coverage": 0.98},
        "tokenize": {"valid_share": 0.05},
        "train": PRESETS["demo"],
        "balance": {"min_documents": 20},
    },
    "balanced": {
        "workdir": "work/balanced",
        "download": {"source": "hub"},
        "sample": {"method": "temperature", "unit": "bytes", "alpha": 0.3, "max_epochs": 4.0},
        "tokenizer": {"vocab_size": 128_000, "train_bytes": 4_000_000_000, "memory_limit_mb": 64_000},
        "train": PRESETS["small"],
        "executor": {"tasks": 64, "workers": 16},
    },
    "lola-v1": {
        "workdir": "work/lola-v1",
        "download": {"source": "hub"},
        "identify": {"policy": "keep"},
        "sample": {"method": "lola-v1", "unit": "documents"},
        "tokenizer": {"vocab_size": 100_000, "train_bytes": 4_000_000_000, "memory_limit_mb": 64_000},
        "tokenize": {"valid_share": 0.02},
        "train": PRESETS["lola-1b"],
        "executor": {"tasks": 64, "workers": 16},
    },
}


def preset(name: str) -> Recipe:
    """The recipe of a preset.

    Raises:
        RecipeError: no such preset.
    """
    if name not in VALUES:
        raise RecipeError(f"no preset `{name}`; there are {', '.join(VALUES)}")
    return Recipe.model_validate(VALUES[name])


def preset_text(name: str) -> str:
    """A preset as commented YAML."""
    return render_recipe(preset(name), title=TITLES[name])
