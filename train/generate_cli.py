"""``lola-data generate``."""

from __future__ import annotations

import json
import math
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lola_data.errors import RecipeError
from lola_data.storage import exists, is_remote, join, parent
from train.threads import let_threads_sleep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from train.generate import Continuation, LoadedRun, Step


class FiniteRange(click.FloatRange):
    """A range of numbers that excludes infinity and what is not a number at all."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class StepType(click.ParamType):
    """``newest``, ``best``, or the number of a step."""

    name = "step"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Shown in the help."""
        return "N|best|newest"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Step:
        """The choice."""
        if value not in ("newest", "best") and not str(value).isdecimal():
            self.fail(f"{value!r} is not newest, best or the number of a step.", param, ctx)
        return value if value in ("newest", "best") else int(value)


def loading_options(command: Any) -> Any:
    """``--step``, ``--tokenizer`` and ``--device``, which every command that loads a run has."""
    for option in (
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
                     help="Where to compute; auto takes CUDA if there is one."),
        click.option("--tokenizer", type=click.Path(path_type=Path), help="SentencePiece model, if RUN holds none."),
        click.option("--step", type=StepType(), default="newest", show_default=True,
                     help="Checkpoint; best is that of the least mean held-out loss, of those that are kept."),
    ):  # fmt: skip
        command = option(command)
    return command


precision_option = click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="fp32", show_default=True,
    help="Of the computation; the router is fp32 in any case. auto: bf16 on CUDA where it has that.",
)  # fmt: skip
"""For the commands that compute with a run."""


def load(run: str, tokenizer: Path | None, step: Step, device: str, precision: Any = "fp32") -> LoadedRun:
    """The run at a path or URL, as :func:`loading_options` and :data:`precision_option` name it.

    Raises:
        RecipeError: CUDA is asked for where there is none.
        TrainingError: as :func:`train.generate.load_run` and :func:`train.stored_run.run_here`.
    """
    let_threads_sleep()
    import torch

    from lola_data.terminal import bytes_bar
    from train.generate import load_run
    from train.stored_run import run_here

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise RecipeError("--device cuda: no CUDA device here; leave the option out")
    kind = "cuda" if there and device != "cpu" else "cpu"
    with ExitStack() as stack:
        bar = stack.enter_context(bytes_bar("fetching")) if is_remote(run) else None
        folder = stack.enter_context(run_here(run, step, progress=bar))
        return load_run(folder, tokenizer=tokenizer, step=step, device=kind, precision=precision)


@dataclass(frozen=True)
class Prompt:
    """What is to be continued: token ids, the text they stand for, and where they come from."""

    ids: list[int]
    text: str
    source: dict[str, Any]


@click.command()
@click.argument("run")
@click.option("--prompt", "given", multiple=True, metavar="TEXT",
              help="Text to continue; may be given many times. Without any a new document is begun.")  # fmt: skip
@click.option("--prompts", "file", metavar="FILE",
              help="Texts to continue, one a line, or `prompt` of each object of a .jsonl file; -: stdin.")  # fmt: skip
@click.option("--lang", "languages", multiple=True, metavar="A,B,...",
              help="Begin with the first tokens of a held-out document of each of these.")  # fmt: skip
@click.option("--lang-tokens", type=click.IntRange(min=1), default=16, show_default=True,
              help="So many tokens of it.")  # fmt: skip
@click.option("--tree", metavar="PATH",
              help="Token tree with the held-out documents  [default: that of RUN's work folder].")  # fmt: skip
@click.option("--num", type=click.IntRange(min=1), default=1, show_default=True, help="Texts for each prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Most tokens made.")
@click.option("--temperature", type=FiniteRange(min=0), default=0.8, show_default=True,
              help="0 takes the likeliest token.")  # fmt: skip
@click.option("--top-k", type=click.IntRange(min=1), help="Draw among the k likeliest tokens alone.")
@click.option("--top-p", type=FiniteRange(min=0, min_open=True, max=1),
              help="Draw among the fewest likeliest tokens that have this probability together.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True,
              help="The same seed gives the same text.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True,
              help="Texts made at a time; changes none of them.")  # fmt: skip
@loading_options
@precision_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a text.")
def generate(
    run: str, given: tuple[str, ...], file: str | None, languages: tuple[str, ...], lang_tokens: int,
    tree: str | None, num: int, max_tokens: int, temperature: float, top_k: int | None, top_p: float | None, seed: int,
    batch_size: int, step: Step, tokenizer: Path | None, device: str, precision: str, as_json: bool,
) -> None:  # fmt: skip
    """Continue texts with a checkpoint of RUN, a folder or an address on an object store.

    A text ends at the model's end of document, or after --max-tokens. Prompts of several lengths run in one batch; each
    text draws from a generator of its own, keyed by the seed, the number of its prompt and its own.

    \b
    Examples:
      lola-data generate runs/first --prompt "Alle Menschen sind" --seed 3
      lola-data generate runs/first --prompts questions.txt --top-p 0.9 --num 4 --json
      lola-data generate work/demo/runs/moe --lang yo,de --num 2
      lola-data generate s3://bucket/corpus/runs/moe --prompt "Alle Menschen sind"
    """
    if languages and (given or file):
        raise RecipeError(
            "--lang begins a text by itself, for the model has no other way to be told a language; leave --prompt and "
            "--prompts out, or write the prompt in the language"
        )
    wanted = [lang for names in languages for lang in names.split(",") if lang]
    texts = [*given, *(read_prompts(file) if file is not None else [])]
    loaded = load(run, tokenizer, step, device, precision)
    from train.generate import Sampling, generate_texts
    from train.text import encode

    if wanted:
        prompts = _of_languages(run, loaded, wanted, tree, num, lang_tokens, seed)
        num = 1
    else:
        prompts = [Prompt(encode(loaded.tokenizer, text), text, {}) for text in texts or [""]]
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p)
    found = generate_texts(
        loaded, [prompt.ids for prompt in prompts], sampling, num=num, batch_size=batch_size, seed=seed
    )
    several = len(prompts) * num > 1
    for text in _counted(found, len(prompts) * num):
        prompt = prompts[text.number]
        if as_json:
            record = {
                "prompt": prompt.text, "continuation": text.text, "number": text.number, "sample": text.sample,
                **prompt.source, "tokens": text.tokens, "ended": text.ended, "step": loaded.step, "seed": seed,
            }  # fmt: skip
            click.echo(json.dumps(record, ensure_ascii=False))
            continue
        if several:
            place = f"{prompt.source['lang']}, document {prompt.source['document']:,}" if prompt.source else ""
            place = place or f"prompt {text.number + 1:,}" + (f", text {text.sample + 1:,}" if num > 1 else "")
            click.echo(f"--- {place}")
        click.echo(prompt.text + text.text)


def _counted(texts: Iterator[Continuation], total: int) -> Iterable[Continuation]:
    """The texts, with a bar where standard error is a terminal that they do not go to themselves."""
    if total == 1 or not sys.stderr.isatty() or sys.stdout.isatty():
        return texts
    from rich.console import Console
    from rich.progress import track

    return track(texts, "generating", total, console=Console(stderr=True), transient=True)


def read_prompts(file: str) -> list[str]:
    """Prompts of a file: its lines that are not blank, or the field ``prompt`` of each object of a ``.jsonl`` file.

    Raises:
        RecipeError: a file that cannot be read, is not valid UTF-8 or holds no prompt; a line that is no such object.
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise RecipeError(f"{file}: {error.strerror or error}; name a file with prompts") from error
    prompts: list[str] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{file}: line {number:,} is not valid UTF-8 (byte {error.start}); mend it") from error
        if text.strip():
            prompts.append(_field(text, file, number) if file.endswith(".jsonl") else text)
    if not prompts:
        raise RecipeError(f"{file}: no prompt in it; write one a line, or give --prompt")
    return prompts


def _field(line: str, file: str, number: int) -> str:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise RecipeError(f"{file}: line {number:,} is not JSON ({error}); write one object a line") from error
    prompt = found.get("prompt") if isinstance(found, dict) else None
    if not isinstance(prompt, str):
        raise RecipeError(f'{file}: line {number:,} has no string `prompt`; write {{"prompt": "..."}}')
    return prompt


def _of_languages(
    run: str, loaded: LoadedRun, languages: Sequence[str], tree: str | None, num: int, tokens: int, seed: int
) -> list[Prompt]:
    from train.prefixes import held_out_prefixes

    if tree is None:
        # As `lola-data run` lays it out: WORK/runs/moe beside WORK/tokens.
        tree = join(parent(parent(run if is_remote(run) else str(Path(run).resolve()))), "tokens")
        if not exists(join(tree, "manifest.json")):
            raise RecipeError(f"--lang {languages[0]}: {run} has no token tree beside it; name it with --tree")
    return [
        Prompt(prefix.ids, prefix.text, {"lang": lang, "document": prefix.document})
        for lang in languages
        for prefix in held_out_prefixes(tree, loaded, lang, num=num, tokens=tokens, seed=seed)
    ]
