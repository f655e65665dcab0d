"""The structure of the house: imports point down only, and the ground floor stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("lola_data", "tokenizer", "train", "pipelines")
MAY_IMPORT = {
    "lola_data": set(),
    "tokenizer": {"lola_data"},
    "train": {"lola_data"},
    "pipelines": {"lola_data", "tokenizer", "train"},
}


def imports_of(path: Path) -> set[str]:
    """Top-level packages a file imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        above = (imports_of(path) & set(ROOMS)) - MAY_IMPORT[room] - {room}
        assert not above, f"{path.relative_to(ROOT)} imports {above}"


def test_ground_floor_knows_no_datatrove_and_no_torch() -> None:
    for path in (ROOT / "lola_data").rglob("*.py"):
        assert not imports_of(path) & {"datatrove", "torch"}, path


def test_trainer_needs_little() -> None:
    heavy = {"datatrove", "polars", "pydantic", "numba", "fasttext", "jinja2", "huggingface_hub", "xxhash"}
    for path in (ROOT / "train").rglob("*.py"):
        assert not imports_of(path) & heavy, path


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import lola_data", ("torch", "datatrove", "polars", "numba", "pyarrow", "pydantic")),
        ("import lola_data.cli", ("torch", "datatrove", "polars", "numba", "pyarrow", "pydantic", "rich")),
        ("import train.loop", ("datatrove", "polars", "numba", "pydantic")),
    ],
)
def test_imports_pull_in_nothing_heavy(statement: str, absent: tuple[str, ...]) -> None:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(loaded.stdout.split()) & set(absent)


def test_no_drawer_for_everything() -> None:
    for room in ROOMS:
        assert not list((ROOT / room).rglob("utils.py"))
