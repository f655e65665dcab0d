"""A cluster for the tests of this folder. They are run by ``make test-cluster``, which installs what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster import one_node

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ARRAY_SIZE = 4
"""So small that arrays of a few tasks have to be split."""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Slurm of one node, as environment variables."""
    if (reason := one_node.why_not()) is not None:
        pytest.skip(f"no Slurm here: {reason}")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        found = one_node.start(folder, max_array_size=MAX_ARRAY_SIZE)
    except RuntimeError as error:
        pytest.skip(f"no Slurm here: {error}")
    try:
        yield found
    finally:
        one_node.stop(folder)
