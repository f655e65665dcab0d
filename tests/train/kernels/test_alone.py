from __future__ import annotations

from subprocess import CompletedProcess

from tests.train.kernels.alone import passed_alone, run_alone


def test_a_test_that_passes_is_told_from_one_that_is_skipped():
    done = run_alone("tests/train/kernels/test_plan.py::test_a_plan_by_hand")
    assert passed_alone(done), done.stdout
    # Of one that is skipped pytest ends well all the same.
    for line in ("1 skipped in 0.1s", "1 passed, 1 skipped in 0.1s", "11 passed in 0.1s"):
        assert not passed_alone(CompletedProcess([], 0, f"===== {line} =====", ""))
    assert not passed_alone(CompletedProcess([], 1, "===== 1 passed in 0.1s =====", ""))
