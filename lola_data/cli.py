"""The console script ``lola-data``: finds its commands through the entry-point group ``lola_data.commands``.

A command is imported only when it is called, so that ``--help`` is instant; a plug-in adds one by its own entry point.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import click

from lola_data.credentials import redacted
from lola_data.errors import LolaError

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "lola_data.commands"

SECTIONS: dict[str, dict[str, str]] = {
    "The whole road": {
        "init": "Write a commented recipe to start from.",
        "plan": "Forecast a run from a probe of its corpus.",
        "run": "Run a recipe: shards in, tokens, model and report out.",
        "status": "What each stage of a work folder has done.",
        "recipe": "Check a recipe, or print its JSON Schema.",
    },
    "Single stages": {
        "download": "Bring shards in.",
        "verify": "Check shards against digests and records; fetch damaged ones again.",
        "identify": "Identify the language of every document.",
        "dedup": "Remove exact, same-URL and near-duplicate documents.",
        "sample": "Choose how much of each language goes on.",
        "tokenizer": "Train a SentencePiece tokenizer and measure it per language.",
        "tokenize": "Turn text into token shards.",
        "train": "Train the mixture-of-experts model.",
        "generate": "Continue a prompt with a trained model.",
        "evaluate": "Perplexity and bits per byte of a trained model, per language.",
        "export": "Weights of a trained model as safetensors, for other programs.",
    },
    "Looking": {
        "balance": "How documents, bytes and tokens are spread over languages.",
        "inspect": "Read random documents, or follow one through the stages.",
        "trace": "The documents that a batch of a training run is made of.",
        "diff": "What differs between two corpora or runs, or what one run removed.",
        "card": "A data card and Croissant metadata, from the manifests.",
        "lid": "Train a language identification model, or compare models.",
        "languages": "The 167 languages of CulturaX.",
    },
}
_ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal would obey rather than show. A message may quote a name, or a server's words."""
_STORAGE_LIBRARIES = frozenset({"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs"})
"""Packages whose errors tell that a place far away cannot be had."""


class _Reported(click.ClickException):
    """A LolaError on its way out: one message, its own exit code."""

    def __init__(self, error: LolaError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # pyright: ignore[reportAttributeAccessIssue]

    def show(self, file: Any = None) -> None:
        click.echo(f"lola-data: error: {self.message}", file=file or sys.stderr)


class _ReaderLeft(Exception):
    """Whoever read the output (head, less) has left. A class of its own, because click takes it for a failure."""


class EntryPointGroup(click.Group):
    """A click group whose commands are entry points."""

    def _found(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, plug-ins included."""
        return sorted(self._found())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        point = self._found().get(cmd_name)
        if point is None:
            return None
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            if any(cmd_name in commands for commands in SECTIONS.values()):
                raise
            raise _Reported(
                LolaError(
                    f"{cmd_name}: the plug-in {point.value} cannot be loaded ({error}); "
                    f"mend or uninstall the package it came with"
                )
            ) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; an unknown one is refused with the nearest that there is."""
        import difflib

        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        if near and near[0] != args[0]:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing one."""
        found = self._found()
        for title, commands in SECTIONS.items():
            rows = [(name, text) for name, text in commands.items() if name in found]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        known = {name for commands in SECTIONS.values() for name in commands}
        extra = [(name, f"from {found[name].value}") for name in sorted(found.keys() - known)]
        if extra:
            with formatter.section("Plug-ins"):
                formatter.write_dl(extra)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """The context; the help, if that is asked for, is printed here."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as error:
            raise _reader_left(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a LolaError becomes one message and an exit code, without a traceback.

        So do a full disk, missing rights and the like, wherever they are met: in what a library writes, for example.
        """
        try:
            return super().invoke(ctx)
        except LolaError as error:
            raise _Reported(error) from error
        except BrokenPipeError as error:
            raise _reader_left(error) from error
        except UnicodeEncodeError as error:
            if _is_utf8(sys.getfilesystemencoding()):
                raise
            message = f"{error.object!r}: a name beyond ASCII, which this locale does not have; {_UTF8_HINT}"
            raise _Reported(LolaError(message)) from error
        except OSError as error:
            from lola_data.storage import DISK_ERRORS, STORAGE_FAULTS, disk_error

            place = error.filename or "a file"
            if error.errno in (*DISK_ERRORS, *STORAGE_FAULTS, errno.ENAMETOOLONG):
                raise _Reported(LolaError(str(disk_error(place, error)))) from error
            if isinstance(error, PermissionError) or error.errno == errno.EROFS:
                message = f"{place}: {error.strerror}; check the rights of the file and of its folder"
                raise _Reported(LolaError(message)) from error
            raise
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in _STORAGE_LIBRARIES:
                raise
            places = ", ".join(word for word in ctx.obj or () if "://" in word) or "storage"
            said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            message = f"{places}: {type(error).__name__}: {said}. Check the address, the network and the credentials"
            raise _Reported(LolaError(message)) from error


@click.group(
    cls=EntryPointGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with:  lola-data init --preset demo  and  lola-data run demo.yaml",
)
@click.version_option(package_name="lola-data", prog_name="lola-data")
def cli() -> None:
    """From CulturaX shards in 160+ languages to a balanced token corpus and a trained mixture-of-experts model."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Exit codes: 0 done, 1 the data or the machine is at fault, 2 the recipe or command line is,
    130 interrupted."""
    _open_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _check_words(words)
        cli.main(args=words, prog_name="lola-data", standalone_mode=False, obj=words)
    except click.ClickException as error:
        error.message = _harmless(error.message)  # pyright: ignore[reportAttributeAccessIssue]
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("lola-data: interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except _ReaderLeft:
        # Not an error, unless the progress of a run went there too: then the run is not at its end.
        code = 1 if _nobody_reads(sys.stderr) else 0
        for stream in (sys.stdout, sys.stderr):
            if _nobody_reads(stream):
                # What is still in its buffer must not trip the interpreter when it closes it.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(code)


_UTF8_HINT = "set PYTHONUTF8=1, or a UTF-8 locale such as LC_ALL=C.UTF-8"


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def _open_streams() -> None:
    """Streams that can be written to whatever the caller has closed (`2>&-`) and whatever the locale is."""
    # A file must not be opened under the number of a closed stream: libraries write warnings to 2.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The C locale has ASCII alone; the output is JSON and names in all scripts.
            encoding = (
                "utf-8" if stream.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968") else stream.encoding
            )
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _harmless(message: str) -> str:
    """A message without keys and passwords, and with escapes for what would act on a terminal."""
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), redacted(message))


def _check_words(words: Sequence[str]) -> None:
    """Refuse arguments that are no text: bytes that are not UTF-8 come as half characters that nothing can write."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            told = word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            if _is_utf8(sys.getfilesystemencoding()):
                why = f"not valid UTF-8 (at character {error.start + 1}); convert it, or rename the file"
            else:
                why = f"not ASCII, and this locale has nothing else; {_UTF8_HINT}"
            raise click.UsageError(f"argument '{told}': {why}") from None


def _reader_left(error: BrokenPipeError) -> Exception:
    # Other pipes break too: one to a process that was killed is a failure.
    return _ReaderLeft() if _nobody_reads(sys.stdout) else error


def _nobody_reads(stream: Any) -> bool:
    """Whether a stream is a pipe whose reader has left."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main()
