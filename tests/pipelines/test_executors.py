"""The processes of a phase. What they do with units of work is in test_stage and test_kill."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import multiprocess.context
from datatrove.utils.logging import logger

from pipelines import executors
from pipelines.executors import _TaskLog

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

INTERRUPTED = """
import os, signal, sys
import multiprocess.context
from multiprocess import forkserver
from pipelines.executors import _start_fork_server

def work():
    os.kill(os.getpid(), signal.SIGINT)
    sys.exit(7)

if __name__ == "__main__":
    context = multiprocess.context.ForkServerContext()
    context.set_forkserver_preload(["pipelines.preload"])
    _start_fork_server()
    # Long before it has imported what it is to.
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGINT)
    process = context.Process(target=work)
    process.start()
    process.join()
    print(process.exitcode)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        print("the driver hears it")
"""


def test_ctrl_c_reaches_the_driver_alone(tmp_path: Path) -> None:
    """A terminal sends it to every process; the driver ends the others, so that one line is told and no traceback."""
    program = tmp_path / "interrupted.py"
    program.write_text(INTERRUPTED)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("7\nthe driver hears it\n", "")


def test_tasks_that_cannot_be_started_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """click would take the error for Ctrl-C."""

    def server_is_gone(process: object) -> None:
        raise EOFError

    step: Any = object()
    monkeypatch.setattr(executors, "_start_fork_server", lambda: None)
    monkeypatch.setattr(multiprocess.context.ForkServerProcess, "start", server_is_gone)
    told = executors.run_phase(step, tasks=2, workers=2, logging_dir=str(tmp_path))
    assert told == dict.fromkeys(range(2), executors._NOT_STARTED)
    assert "could not be started" in told[0]


def test_log_lines_go_to_the_file_of_their_phase_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = _TaskLog()
    try:
        for name in ("one", "two", "three"):
            if name == "three":  # another program's logging in between
                logger.remove()
                logger.add(sys.stderr)
            log.take_over()
            log.open((tmp_path / name).open("w", encoding="utf-8"))
            logger.info(f"Würde {name}")
            log.close()
            logger.info("after its end")
    finally:
        logger.remove()
    for name in ("one", "two", "three"):
        (line,) = (tmp_path / name).read_text(encoding="utf-8").splitlines()
        assert line.endswith(f" | INFO     | Würde {name}")
    assert capsys.readouterr() == ("", "")
