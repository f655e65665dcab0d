"""Errors a user can mend. Each message names the file, row, field or key at fault and the next step to take.

The command line prints such an error as one plain line and exits with ``exit_code``; anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations


class LolaError(Exception):
    """Base of every error that the user, not the program, can put right."""

    exit_code = 1


class RecipeError(LolaError):
    """A recipe or command line that cannot be run as it stands: unknown key, wrong type, impossible combination."""

    exit_code = 2


class ShardError(LolaError):
    """A shard that cannot be read or written: missing, truncated, foreign schema, invalid UTF-8, no space left."""


class StoreError(ShardError):
    """An object store that cannot be reached, or refuses: it tells nothing of the file that was asked for."""


class StageError(LolaError):
    """A stage that cannot start or did not finish: missing input tree, changed recipe, failed shards."""


class RemovalAlarm(StageError):
    """A language lost more than its stated share of documents; nothing of it is passed on until that is waived."""


class TrainingError(LolaError):
    """Training that cannot start or go on: missing or changed token shards, checkpoint of another model."""
