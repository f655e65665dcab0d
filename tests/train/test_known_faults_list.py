"""The list of faults that other trainers are known for: source, symptom, what happens here, tests that hold it.

docs/known-faults.md is made from it: ``python -m tests.train.test_known_faults_list`` writes the page anew.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests/train/"
PAGE = ROOT / "docs" / "known-faults.md"


class Known(NamedTuple):
    """A fault of another project.

    Attributes:
        source: repository and number of the report.
        symptom: what was seen there.
        outcome: what happens here.
        tests: node ids below ``tests/train/`` (without parameters); none where nothing here can have the fault.
    """

    source: str
    symptom: str
    outcome: str
    tests: tuple[str, ...]


NO_SUCH_CODE = {24}
"""Faults of a tool that nothing here uses."""

EMPTY = "test_known_faults.py::test_01_02_gradients_of_empty_experts_are_zeros_that_were_written"
DEFINITION = "test_moe.py::test_output_and_gradients_are_the_definitions"
SPREAD = "test_parallel.py::test_many_processes_do_the_steps_of_one"
MICRO_BATCHES = "test_step.py::test_micro_batches_do_not_change_the_step"
RECOMPUTED = "test_step.py::test_recomputed_activations_change_nothing"
FORMULA = "test_known_faults.py::test_18_19_the_gradient_of_a_step_is_that_of_the_formula"
STRIDES = "test_moe.py::test_grouped_refuses_strides_it_cannot_take"

KNOWN: dict[int, Known] = {
    1: Known(
        "pytorch/pytorch#152668",
        "The backward pass of a grouped product hangs when an expert has no token.",
        "It ends. The gradient of such an expert, the first, one between, the last or all but one, is exactly 0.",
        (EMPTY, DEFINITION, "test_moe.py::test_gradients_of_an_empty_expert_are_exactly_zero"),
    ),
    2: Known(
        "meta-pytorch/MSLK#158",
        "NaN in weight gradients: groups without rows were skipped, and their memory never written.",
        "Every gradient is written. A step is the same to the last bit where all fresh memory holds NaN.",
        (EMPTY, "test_known_faults.py::test_02_steps_in_poisoned_memory_are_the_same"),
    ),
    3: Known(
        "NVIDIA/Megatron-LM#3626",
        "A process that no token reaches crashes, or lets the others wait for ever.",
        "It takes part in every exchange and gets gradients of 0, in training and in evaluation.",
        (
            "test_moe.py::test_no_token_at_all_keeps_the_graph",
            "test_exchange.py::test_rows_reach_the_owner_of_their_expert_and_come_home",
            "test_parallel.py::test_a_process_that_no_token_reaches_goes_along",
            SPREAD,
            "test_known_faults.py::test_03_15_processes_that_share_experts_evaluate_as_one",
        ),
    ),
    4: Known(
        "databricks/megablocks#186",
        "Row offsets of 32 bits overflow when one process gets many of the tokens: illegal access.",
        "Rows are numbered in 64 bits. `grouped`, whose operator counts rows in 32, is not given more than that.",
        ("test_known_faults.py::test_04_rows_are_numbered_in_64_bits",),
    ),
    5: Known(
        "deepspeedai/DeepSpeed#8261",
        "Expert offsets of 32 bits overflow with 64 experts of 4096 x 14336.",
        "An expert whose weights begin beyond 2^31 elements is computed as any other.",
        ("test_known_faults.py::test_05_an_expert_that_begins_beyond_2_to_the_31_elements",),
    ),
    6: Known(
        "linkedin/Liger-Kernel#1248",
        "NaN or a crash from 2^31 elements on, which tests of small shapes do not see.",
        "The output layer goes through chunks of at most 2^28 logits, whatever the number of tokens.",
        ("test_known_faults.py::test_06_no_table_of_2_to_the_31_logits_is_made",),
    ),
    7: Known(
        "huggingface/transformers#48644",
        "Tensors with strides that the grouped product cannot take reach it.",
        "Shapes, strides and addresses are looked at before. With `moe_backend: grouped` a warning says what does not "
        "fit, and the loop computes the same.",
        (
            "test_known_faults.py::test_07_weights_laid_out_otherwise_give_the_same",
            "test_known_faults.py::test_07_tokens_and_gradients_laid_out_otherwise_give_the_same",
            STRIDES,
            "test_moe.py::test_grouped_falls_back_with_a_reason",
        ),
    ),
    8: Known(
        "pytorch/torchtitan#1651",
        "`strides should be multiple of 16 bytes`: rows of an expert are to be a multiple of a block, and are not.",
        "An expert may have any number of rows. Only the widths matter, see 7.",
        (DEFINITION, STRIDES),
    ),
    9: Known(
        "pytorch/torchtitan#1117",
        "Activation checkpointing routes a second time, and chooses otherwise: shapes differ.",
        "With `recompute` the routing is made once and kept; only activations are made again.",
        (RECOMPUTED,),
    ),
    10: Known(
        "NVIDIA-NeMo/Automodel#3325",
        "The same with the router's output kept: the rows sent to other processes differ.",
        "What is sent the second time follows from the kept choice alone. Spread and recomputed, a run has the losses, "
        "gradient norms and weights of one process.",
        (SPREAD, RECOMPUTED),
    ),
    11: Known(
        "huggingface/accelerate#4195",
        "A resumed run has the position back, but the order of the first pass.",
        "A batch is a function of seed and step. A run that goes on in a later pass reads that pass's order.",
        (
            "test_known_faults.py::test_11_a_run_that_goes_on_in_a_later_pass_has_that_passes_order",
            "test_data.py::test_a_batch_is_a_function_of_seed_and_step",
            "test_data.py::test_a_stream_is_the_same_however_it_is_cut",
        ),
    ),
    12: Known(
        "pytorch/torchtitan#809",
        "The loss jumps after a resume.",
        "On a CPU, weights and records of a run that was stopped or killed are bit for bit those of one that was not.",
        (
            "test_loop.py::test_a_resumed_run_is_the_unbroken_one",
            "test_kill.py::test_killed_at_ten_random_moments_it_ends_the_same",
            "test_parallel.py::test_a_run_goes_on_with_other_processes",
        ),
    ),
    13: Known(
        "deepspeedai/DeepSpeed#1658",
        "Without random token selection the capacity is ignored, or the step crashes.",
        "`capacity_factor` holds with `capacity_order: position` and `random`, and what is dropped is counted.",
        (
            "test_known_faults.py::test_13_no_expert_takes_more_than_its_capacity_in_either_order",
            "test_moe.py::test_tokens_over_capacity_are_dropped_by_position",
            "test_moe.py::test_a_random_order_drops_others_and_the_same_each_time",
        ),
    ),
    14: Known(
        "deepspeedai/DeepSpeed#8155",
        "A capacity above the number of tokens: `topk` out of range.",
        "The capacity is at most the number of tokens, and nothing is dropped.",
        (
            "test_known_faults.py::test_14_a_capacity_above_the_tokens_drops_none",
            "test_moe.py::test_capacity",
        ),
    ),
    15: Known(
        "deepspeedai/DeepSpeed#6809",
        "Inference hangs where tokens are dropped.",
        "Nothing is dropped outside of training, and all processes make the same passes, one without text too.",
        (
            "test_known_faults.py::test_15_evaluation_drops_no_token",
            "test_known_faults.py::test_03_15_processes_that_share_experts_evaluate_as_one",
            "test_moe.py::test_capacity_drops_in_training_alone_and_is_counted",
        ),
    ),
    16: Known(
        "deepspeedai/DeepSpeed#8478",
        "The norm that gradients are clipped by is a third off: experts were averaged as if every process had them.",
        "Each expert counts once. One, two and four processes have the same norm.",
        (SPREAD, "test_parallel.py::test_the_clip_bites_and_the_experts_count"),
    ),
    17: Known(
        "pytorch/pytorch#170862",
        "With FSDP2 the norm seemed to be that of a process's own part.",
        "It is summed over all parts, and all processes clip by the same bits.",
        (SPREAD,),
    ),
    18: Known(
        "NVIDIA/Megatron-LM#5798",
        "The gradient of the balance loss grows or shrinks with the size of the micro-batch.",
        "With `balance_over: step` it is that of the whole batch, however this is cut or spread. `micro_batch`, as "
        "DeepSpeed has it, depends on the cut, and says so.",
        (
            FORMULA,
            "test_known_faults.py::test_18_the_load_in_the_loss_is_that_of_the_step_itself",
            MICRO_BATCHES,
            SPREAD,
        ),
    ),
    19: Known(
        "NVIDIA/Megatron-LM#3768",
        "The strength of the balance loss changes with its kind and with the number of processes.",
        "There is one formula ([training](training.md#the-model)), and the gradient of a step is compared with it.",
        (FORMULA, SPREAD),
    ),
    20: Known(
        "databricks/megablocks#113",
        "A global list of losses is empty, or holds some twice, after recomputation or an evaluation.",
        "Losses are returned, and nothing is kept between two passes: what runs between two steps changes neither.",
        (
            "test_known_faults.py::test_20_what_runs_between_two_steps_leaves_them_alone",
            RECOMPUTED,
            FORMULA,
        ),
    ),
    21: Known(
        "pytorch/torchtitan#1246",
        "The router collapses: all tokens go to one expert.",
        "The balance loss is on by default, the load of each expert is in the records, and a collapse or an expert "
        "without tokens for `dead_steps` steps is told.",
        (
            "test_known_faults.py::test_21_the_balance_loss_and_the_warnings_are_on_where_nothing_is_said",
            "test_known_faults.py::test_21_23_balance_and_load_of_each_step_are_in_the_records",
            "test_step.py::test_the_balance_loss_spreads_the_load",
            "test_watch.py::test_dead_experts_and_collapse_are_told_once",
            "test_watch.py::test_a_dead_expert_is_told_in_a_run",
        ),
    ),
    22: Known(
        "google-research/vmoe#218",
        "NaN gradients at perfect balance, from the derivative of a standard deviation.",
        "The balance loss has no root; its gradient is finite there.",
        ("test_moe.py::test_gradient_is_finite_at_perfect_balance",),
    ),
    23: Known(
        "NVIDIA/Megatron-LM#1545",
        "The router pushes all its sigmoids below an epsilon, and so the balance loss towards 0.",
        "The gate is a softmax without an epsilon: to push all logits down changes nothing. The balance loss is in the "
        "records. It has no lower bound of 1, and none is assumed.",
        (
            "test_known_faults.py::test_23_pushing_all_logits_down_gains_the_router_nothing",
            "test_known_faults.py::test_21_23_balance_and_load_of_each_step_are_in_the_records",
            "test_moe.py::test_balance_loss_of_a_known_case_and_its_gradient",
            "test_moe.py::test_the_weight_of_an_expert_is_its_raw_probability",
        ),
    ),
    24: Known(
        "triton-lang/triton#11584",
        "Triton's interpreter multiplies bfloat16 matrices wrongly, so that tests on a CPU mislead.",
        "It touches tests of Triton kernels alone; they belong with the kernels.",
        (),
    ),
    25: Known(
        "deepspeedai/DeepSpeed#8620",
        "Routing is random in evaluation.",
        "Two evaluations are equal, and a text has the loss that it has alone, whatever stands beside it in a batch.",
        (
            "test_known_faults.py::test_25_two_evaluations_are_equal_and_a_window_has_the_loss_that_it_has_alone",
            "test_score.py::test_two_evaluations_are_equal_and_the_batch_size_is_no_matter",
        ),
    ),
}


def page() -> str:
    """docs/known-faults.md."""
    lines = [
        "# Faults that other trainers are known for",
        "",
        "Twenty-five reports about trainers and kernels of mixtures of experts, what happens here in their place, and",
        "the tests that would see it. All of them run on a CPU: what a GPU's own code does with sizes and alignment",
        "(4 to 8) is for the tests of that code, and 24 is about such tests. [training](training.md) has the settings",
        "that are named here.",
        "",
        "| | reported in | what was seen there | what happens here |",
        "| ---: | --- | --- | --- |",
    ]
    for number, known in KNOWN.items():
        repository, _, report = known.source.partition("#")
        link = f"[{known.source}](https://github.com/{repository}/issues/{report})"
        lines.append(f"| {number} | {link} | {known.symptom} | {known.outcome} |")
    lines += ["", "## Tests", "", "| | file | test |", "| ---: | --- | --- |"]
    for number, known in KNOWN.items():
        for node in known.tests:
            name, _, function = node.partition("::")
            lines.append(f"| {number} | [{name}](../{HERE}{name}) | `{function}` |")
    return "\n".join([*lines, ""])


@cache
def functions_of(name: str) -> frozenset[str]:
    """Test functions of a file of this folder."""
    body = ast.parse((ROOT / HERE / name).read_text("utf-8")).body
    return frozenset(node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def numbers_of(function: str) -> list[int]:
    """18 and 19 of ``test_18_19_the_gradient``."""
    found = re.match(r"test((?:_\d\d)+)_", function)
    return [int(part) for part in found[1].split("_")[1:]] if found else []


def test_each_fault_of_the_list_has_a_test() -> None:
    assert list(KNOWN) == list(range(1, 26))
    assert {number for number, known in KNOWN.items() if not known.tests} == NO_SUCH_CODE
    assert all(re.fullmatch(r"[\w-]+/[\w-]+#\d+", known.source) for known in KNOWN.values())


@pytest.mark.parametrize("number", KNOWN)
def test_the_tests_that_are_named_are_there(number: int) -> None:
    for node in KNOWN[number].tests:
        name, _, function = node.partition("::")
        assert function in functions_of(name), node


def test_the_tests_of_known_faults_stand_in_the_list_under_their_numbers() -> None:
    name = "test_known_faults.py"
    for function in functions_of(name):
        listed = [number for number, known in KNOWN.items() if f"{name}::{function}" in known.tests]
        assert set(numbers_of(function)) <= set(listed), function
        assert listed, function


def test_the_page_is_made_from_the_list() -> None:
    made = PAGE.read_text("utf-8")
    assert made == page(), "the list has changed: run `python -m tests.train.test_known_faults_list`"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
