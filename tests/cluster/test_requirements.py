"""What ``make cluster`` installs, without letting pip add to it, lacks nothing that it needs."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def _pinned(file: str) -> dict[str, str]:
    lines = [Requirement(line) for line in (ROOT / file).read_text().splitlines() if line and line[0] not in "#-"]
    return {canonicalize_name(line.name): next(iter(line.specifier)).version for line in lines}


@pytest.mark.parametrize("name", _pinned("tests/cluster/requirements.txt"))
def test_all_that_a_package_needs_is_pinned(name: str) -> None:
    pinned = {**_pinned("constraints.txt"), **_pinned("tests/cluster/requirements.txt")}
    try:
        needed = [Requirement(line) for line in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed: make cluster")
    for one in needed:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            version = pinned.get(canonicalize_name(one.name))
            assert version is not None, f"{name} needs {one}, which is in no list"
            assert version in one.specifier, f"{name} needs {one}, and {version} is listed"
