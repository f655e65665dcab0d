"""Everything a run imports and compiles, once, in a process that runs and their tasks are forked from.

Imported for its effect, as :mod:`pipelines.preload` is.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.session
import s3fs  # noqa: F401
from multiprocess import reduction

import pipelines.cli
import pipelines.preload
import pipelines.shared_run
import pipelines.verify  # noqa: F401
from benchmarks.chaos import within
from benchmarks.chaos.source import ONLY, write_recipe
from lola_data.cli import main

SOURCE = "LOLA_CHAOS_SOURCE"
"""Environment variable: the corpus to warm up with."""


def _keep_descriptions() -> None:
    """Parse what botocore knows of S3 here, and not anew in every task that has a connection."""
    botocore.loaders.JSONFileLoader.load_file = staticmethod(
        functools.cache(botocore.loaders.JSONFileLoader().load_file)
    )
    keys: Any = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    botocore.session.get_session().create_client("s3", region_name="us-east-1", **keys)


def _warm_up() -> None:
    with tempfile.TemporaryDirectory() as folder, suppress(SystemExit):
        recipe = write_recipe(Path(folder) / "recipe.yaml", Path(os.environ[SOURCE]), f"{folder}/work", 1)
        main(["run", str(recipe), *ONLY])


def _outlive_clients() -> None:
    """The fork server ends when a client is killed between its call and what it sends. A run has a server of its own,
    which ends with it anyhow; here one serves many runs."""
    receive = reduction.recvfds

    def recvfds(connection: Any, size: int) -> Any:
        try:
            return receive(connection, size)
        except EOFError as error:
            raise OSError(errno.ECONNABORTED, "the client is gone") from error

    reduction.recvfds = recvfds


_keep_descriptions()
_outlive_clients()
within.hurry()
within.receive()
if SOURCE in os.environ:
    _warm_up()
sys.stdout.flush()
