"""The checks of the kernels notice what they should: one deliberate fault at a time in a copy of the kernels."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import train.kernels.fused
from tests.train.kernels.checks import CHECKS, Kernels
from tests.train.kernels.faults import FAULTS, Fault
from tests.train.kernels.wide_checks import WIDE_CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable

ALL_CHECKS = CHECKS | WIDE_CHECKS
SOURCES = {
    name: (Path(train.kernels.fused.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    for name in Kernels._fields
}


def changed(fault: Fault) -> tuple[str, str]:
    """Name and text of the module with the fault in it."""
    for module, source in SOURCES.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name == fault.function:
                lines = source.splitlines(keepends=True)
                text = "".join(lines[node.lineno - 1 : node.end_lineno])
                assert fault.old in text, f"{fault.function} does not hold {fault.old!r}: mend the entry in faults.py"
                before, after = lines[: node.lineno - 1], lines[node.end_lineno :]
                return module, "".join([*before, text.replace(fault.old, fault.new), *after])
    raise AssertionError(f"no function is called {fault.function}: mend the entry in faults.py")


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., Kernels]:
    """Kernels from a copy of their source, under another name, with some modules changed."""

    def make(**texts: str) -> Kernels:
        package = f"copy_of_fused_{abs(hash(request.node.name))}"
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        for name, source in (SOURCES | texts).items():
            own = source.replace("train.kernels.fused", package)
            (tmp_path / package / f"{name}.py").write_text(own, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        try:
            return Kernels(*(importlib.import_module(f"{package}.{name}") for name in Kernels._fields))
        finally:
            for name in [name for name in sys.modules if name.split(".")[0] == package]:
                del sys.modules[name]

    return make


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.function}: {fault.what}")
def test_a_fault_is_caught(fault: Fault, copy: Callable[..., Kernels]):
    name, text = changed(fault)
    kernels = copy(**{name: text})
    with pytest.raises(AssertionError):
        ALL_CHECKS[fault.check](kernels)


@pytest.mark.parametrize("check", ALL_CHECKS)
def test_a_copy_without_a_fault_passes(check: str, copy: Callable[..., Kernels]):
    ALL_CHECKS[check](copy())


def test_every_kernel_has_three_faults():
    # A kernel asks which program it is; what it calls does not.
    kernels = {
        node.name
        for source in SOURCES.values()
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and "tl.program_id(" in ast.unparse(node)
    }
    assert {"_count", "_place", "_route_fwd", "_up_fwd", "_weight_grad"} <= kernels
    # The one that is a single program need not ask.
    for kernel in kernels | {"_scan"}:
        assert sum(fault.function == kernel for fault in FAULTS) >= 3, kernel
