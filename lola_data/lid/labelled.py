"""Labelled text: what a language identifier is trained on and judged by.

In: files or a tree. Out: a column of texts, a column of CulturaX codes, and what was read, with its digests.

| given | read as |
| --- | --- |
| a folder | a tree ``<lang>/*.parquet``; the folder's name is the label. Other files in it are not read |
| ``.parquet`` | a row a text; columns ``text`` and ``lang``, or those named |
| ``.tsv`` | the same, with a header; no quoting |
| ``.jsonl``, ``.ndjson`` | the same, an object a line |
| ``.txt`` | fastText's own form, ``__label__de Guten Tag`` |

Labels go through :func:`lola_data.lid.labels.culturax_code`: ``deu_Latn``, ``__label__de`` and ``de`` are one language.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.checks import first_row, invalid_utf8, is_blank
from lola_data.errors import RecipeError, ShardError
from lola_data.lid.labels import PREFIX, UNDETERMINED, culturax_code
from lola_data.shards import open_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SUFFIXES = (".parquet", ".tsv", ".jsonl", ".ndjson", ".txt")
_ACCEPTED = "give a folder of <lang>/*.parquet, or a file that ends in .parquet, .tsv, .jsonl, .ndjson or .txt"


@dataclass(frozen=True, slots=True)
class Source:
    """One ``--data``: as given, its files and bytes on disk, the rows taken from it, and a digest.

    ``sha256`` is that of the file; of a tree, that of the lines ``<sha256>  <path>`` of its files, sorted by path.
    """

    path: str
    files: int
    bytes: int
    rows: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


@dataclass(frozen=True)
class LabelledText:
    """N texts with their languages.

    Attributes:
        text: (N,) large_string, none null or blank.
        label: (N,) string, CulturaX codes, or labels that no CulturaX language answers to.
        sources: what was read.
        left_out: rows without text, without a label, or with ``und``.
        where: the condition on rows, if there was one.
    """

    text: pa.ChunkedArray
    label: pa.ChunkedArray
    sources: tuple[Source, ...]
    left_out: int
    where: str | None = None

    def described(self) -> dict[str, Any]:
        """What was read, for a record."""
        return {
            "sources": [source.to_json() for source in self.sources],
            "where": self.where,
            "texts": len(self),
            "left_out": self.left_out,
        }

    def __len__(self) -> int:
        return len(self.text)


def read_labelled(
    paths: Sequence[str],
    *,
    text_column: str = "text",
    label_column: str = "lang",
    where: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> LabelledText:
    """All labelled text of some files and trees, in the order given; shards of a tree sorted by path.

    Args:
        paths: local paths or fsspec URLs.
        text_column: of the text.
        label_column: of the label; not asked for in a tree and in fastText's form.
        where: a condition in SQL on the columns of the file, such as ``length(text) >= 20 and "primary"``; rows for
            which it does not hold are not read.
        progress: told the path of each file before it is read.

    Raises:
        ShardError: a file that is missing, damaged, of another form, without such columns, or not UTF-8.
        RecipeError: a condition that cannot be understood, nothing to read, or nothing left of it.
    """
    if not paths:
        raise RecipeError("no labelled text given; name a file or a folder with --data")
    condition = _condition(where) if where else None
    texts: list[pa.ChunkedArray] = []
    labels: list[pa.ChunkedArray] = []
    sources: list[Source] = []
    left_out = 0
    for path in paths:
        files = _files(path)
        digests: list[str] = []
        taken = 0
        for file, lang in files:
            if progress is not None:
                progress(file)
            frame = _read(file, lang, text_column, label_column, condition)
            kept, blank = _usable(file, frame)
            left_out += blank
            taken += kept.num_rows
            texts.append(cast("pa.ChunkedArray", kept["text"]))
            labels.append(cast("pa.ChunkedArray", kept["label"]))
            digests.append(_sha256(file))
        sources.append(
            Source(path, len(files), sum(storage.size(file) for file, _ in files), taken, _of_all(path, files, digests))
        )
    if not sum(map(len, texts)):
        raise RecipeError(
            f"{', '.join(paths)}: no labelled text in it ({left_out:,} rows without text or label"
            f"{'' if where is None else f'; others for which {where!r} does not hold'}); name other data or columns"
        )
    return LabelledText(
        pa.chunked_array([chunk for text in texts for chunk in text.chunks], pa.large_string()),
        pa.chunked_array([chunk for label in labels for chunk in label.chunks], pa.string()),
        tuple(sources),
        left_out,
        where,
    )


def _files(path: str) -> list[tuple[str, str | None]]:
    """Files of one path, each with the label of its folder (None: the rows have labels of their own)."""
    if path.lower().endswith(SUFFIXES) and (storage.is_remote(path) or not storage.local_path(path).is_dir()):
        if not storage.exists(path):
            raise ShardError(f"{path}: no such file; {_ACCEPTED}")
        return [(path, None)]
    if not storage.exists(path):
        raise ShardError(f"{path}: no such file or folder; {_ACCEPTED}")
    if not storage.is_remote(path) and not storage.local_path(path).is_dir():
        raise ShardError(f"{path}: of a form that is not read here; {_ACCEPTED}")
    # What lies beside the folders of languages, such as a table of licences, has no label.
    shards = [shard for shard, _ in storage.list_files(path, ".parquet") if shard.count("/") == 1]
    if not shards:
        raise ShardError(f"{path}: no <lang>/*.parquet in it; {_ACCEPTED}")
    return [(storage.join(path, shard), shard.split("/")[0]) for shard in shards]


def _condition(where: str) -> pl.Expr:
    try:
        return pl.sql_expr(where)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise RecipeError(f"--where {where!r}: not a condition in SQL: {_first_line(error)}") from error


def _read(file: str, lang: str | None, text_column: str, label_column: str, condition: pl.Expr | None) -> pl.DataFrame:
    """The columns ``text`` and ``label`` of a file, where the condition holds."""
    wanted = [text_column] if lang is not None else [text_column, label_column]
    if file.lower().endswith(".txt"):
        wanted = ["text", "label"]
        frame = _fasttext_lines(file)
    else:
        asked = [] if condition is None else condition.meta.root_names()
        frame = _columns(file, list(dict.fromkeys([*wanted, *asked])), wanted)
    if condition is not None:
        try:
            frame = frame.filter(condition)
        except pl.exceptions.PolarsError as error:
            raise RecipeError(f"--where: cannot be asked of {file}: {_first_line(error)}") from error
    return frame.select(
        pl.col(wanted[0]).cast(pl.String).alias("text"),
        (pl.lit(lang, pl.String) if lang is not None else pl.col(wanted[1]).cast(pl.String)).alias("label"),
    )


def _columns(file: str, names: list[str], needed: list[str]) -> pl.DataFrame:
    suffix = file.lower().rpartition(".")[2]
    if suffix == "parquet":
        with open_parquet(file) as parquet:
            _check_columns(file, parquet.schema_arrow.names, names, needed)
            try:
                # Not through polars: it takes text for UTF-8 without a look.
                table = parquet.read(columns=names, use_threads=True)
            except (pa.ArrowException, OSError) as error:
                raise ShardError(f"{file}: cannot be read ({_first_line(error)}); bring a sound copy") from error
        for name in needed:
            column = cast("pa.ChunkedArray", table[name])
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
                bad = first_row(invalid_utf8(column))
                if bad is not None:
                    raise ShardError(f"{file}: row {bad:,}: column `{name}` is not valid UTF-8; mend or remove the row")
            elif not pa.types.is_null(kind):
                raise ShardError(f"{file}: column `{name}` is {kind}, not string; name another column or convert it")
        return cast("pl.DataFrame", pl.from_arrow(table))
    content = _content(file)
    try:
        if suffix == "tsv":
            frame = pl.read_csv(content, separator="\t", quote_char=None, infer_schema=False)
        else:
            frame = pl.read_ndjson(content, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        if suffix != "tsv":
            raise ShardError(f"{file}: {_first_bad_line(content)}; expected a JSON object a line") from error
        form = "a header and as many columns in each line"
        raise ShardError(f"{file}: cannot be read ({_first_line(error)}); expected {form}") from error
    _check_columns(file, frame.columns, names, needed)
    for name in needed:
        if frame[name].dtype not in (pl.String, pl.Null):
            raise ShardError(f"{file}: column `{name}` is {frame[name].dtype}, not text; name another column")
    return frame.select(names)


def _first_bad_line(content: bytes) -> str:
    """The first line that is not a JSON object, in words."""
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            return f"line {number:,} is not JSON ({error})"
        if not isinstance(found, dict):
            return f"line {number:,} is not an object"
    return "a field is not of one kind in all lines"


def _check_columns(file: str, there: list[str], names: list[str], needed: list[str]) -> None:
    for name in names:
        if there.count(name) == 1:
            continue
        option = dict(zip(needed, ("--text-column", "--label-column"), strict=False)).get(name, "--where")
        told = "two columns have the name" if name in there else "no column"
        raise ShardError(
            f"{file}: {told} `{name}`; its columns are {', '.join(there) or 'none'}: name one with {option}"
        )


def _fasttext_lines(file: str) -> pl.DataFrame:
    content = _content(file)
    lines = pl.Series("line", content.decode().split("\n"), pl.String)
    frame = lines.to_frame().with_row_index("number", offset=1).filter(pl.col("line").str.strip_chars() != "")
    # fastText takes every token that begins so for a label, wherever it stands.
    found = frame.select(
        "number",
        pl.col("line").str.extract(rf"^\s*{PREFIX}(\S+)", 1).alias("label"),
        pl.col("line").str.replace(rf"^\s*{PREFIX}\S+\s*", "").alias("text"),
    )
    for row in found.filter(pl.col("label").is_null()).head(1).iter_rows(named=True):
        raise ShardError(f"{file}: line {row['number']:,} does not begin with {PREFIX}<language>; mend the line")
    for row in found.filter(pl.col("text").str.contains(rf"^{PREFIX}\S")).head(1).iter_rows(named=True):
        raise ShardError(f"{file}: line {row['number']:,} has two labels, and a text has one language; mend the line")
    return found.select("text", "label")


def _content(file: str) -> bytes:
    try:
        with storage.open_input(file) as handle:
            content = handle.read()
    except OSError as error:
        raise ShardError(f"{file}: cannot be read: {error.strerror or error}; check the path and its rights") from error
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ShardError(
            f"{file}: line {line:,} is not valid UTF-8 (byte {error.start:,}); convert the file"
        ) from error
    return content


def _usable(file: str, frame: pl.DataFrame) -> tuple[pa.Table, int]:
    """The rows that have a text and a language, the label as a code; how many have not."""
    codes: dict[str, str] = {}
    for name in frame["label"].unique().drop_nulls().sort().to_list():
        if len(name.split()) > 1:
            raise ShardError(
                f"{file}: {name!r} is no label: a language code has no white space; name another --label-column"
            )
        if name.strip() and culturax_code(name) != UNDETERMINED:
            codes[name] = culturax_code(name)
    found = frame.with_columns(pl.col("label").replace_strict(codes, default=None, return_dtype=pl.String)).to_arrow()
    text, label = found["text"].cast(pa.large_string()), found["label"].cast(pa.string())
    kept = pc.and_(pc.is_valid(label), pc.invert(pa.array(is_blank(text))))
    table = pa.table({"text": text, "label": label}).filter(kept)
    return table, frame.height - table.num_rows


def _sha256(file: str) -> str:
    with storage.open_input(file) as handle:
        return hashlib.file_digest(cast("Any", handle), "sha256").hexdigest()


def _of_all(path: str, files: list[tuple[str, str | None]], digests: list[str]) -> str:
    if files[0][1] is None:
        return digests[0]
    lines = (
        f"{digest}  {file[len(path.rstrip('/')) + 1 :]}\n" for (file, _), digest in zip(files, digests, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
