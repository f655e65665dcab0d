"""Beginnings of held-out documents: a token tree and a language in, the first tokens of some of its documents out.

The model knows no language by name. What it writes follows from what it has read, so text in a language is asked for
by a few words of it, here those of a document that it was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lola_data.errors import RecipeError, TrainingError
from lola_data.plain_settings import nearest
from lola_data.storage import is_remote
from train.permutation import Permutation, key_of
from train.stored_run import default_cache
from train.token_tree import open_token_tree

if TYPE_CHECKING:
    from pathlib import Path

    from train.generate import LoadedRun


@dataclass(frozen=True)
class Prefix:
    """The beginning of a document.

    Attributes:
        lang: its language.
        document: number of the document among those held out, from 0, shards in order.
        ids: its first tokens.
        text: these, decoded.
    """

    lang: str
    document: int
    ids: list[int]
    text: str


def held_out_prefixes(tree: str | Path, run: LoadedRun, lang: str, *, num: int, tokens: int, seed: int) -> list[Prefix]:
    """Beginnings of ``num`` held-out documents of a language, drawn without one coming twice before all have come.

    Args:
        tree: the token tree, a folder or a URL.
        run: its tokenizer must be the tree's.
        lang: name of the language in the tree.
        num: beginnings wanted; fewer of them are the first of more.
        tokens: of each beginning, at most; less by what would cut a character, or where the document ends.
        seed: of the draw.

    Raises:
        TrainingError: no token tree there, or one made with another tokenizer.
        RecipeError: the tree holds no held-out document of ``lang``.
    """
    opened = open_token_tree(tree, "size", cache=default_cache() if is_remote(str(tree)) else None)
    eod = run.model.eod_id
    if (opened.tokenizer.vocab_size, opened.tokenizer.eod_id) != (run.model.vocab_size, eod) or (
        run.tokenizer_sha256 and opened.tokenizer.sha256 != run.tokenizer_sha256
    ):
        raise TrainingError(f"{tree}: tokens of another tokenizer than that of the run; name the tree of the run")
    shards = opened.valid.get(lang, [])
    ends = np.cumsum([0, *(shard.num_documents for shard in shards)])
    order = Permutation(int(ends[-1]), key_of(seed, "prefix", lang))(np.arange(ends[-1])) if ends[-1] else []
    found: list[Prefix] = []
    for number in order:
        shard = int(np.searchsorted(ends, number, "right")) - 1
        ids = [int(token) for token in shards[shard].document(int(number - ends[shard]))[:tokens] if token != eod]
        text, ids = _whole_characters(run.tokenizer, ids)
        if ids:
            found.append(Prefix(lang, int(number), ids, text))
        if len(found) == num:
            break
    if not found:
        raise RecipeError(
            f"--lang {lang}: {tree} holds no held-out document of it; {nearest(lang, list(opened.valid))}"
        )
    return [found[number % len(found)] for number in range(num)]


def _whole_characters(tokenizer: Any, ids: list[int]) -> tuple[str, list[int]]:
    """The text of ``ids`` without byte pieces at their end that are only part of a character."""
    text = str(tokenizer.decode(ids))
    while ids and tokenizer.is_byte(ids[-1]) and text.endswith("\ufffd"):
        ids = ids[:-1]
        text = str(tokenizer.decode(ids))
    return text, ids
