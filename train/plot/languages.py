"""The language figure: how well each language is predicted at the last evaluation of each run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lola_data.errors import RecipeError
from lola_data.languages import LANGUAGES
from lola_data.plain_settings import nearest
from lola_data.report.text import visible
from train.plot.loss import legend
from train.plot.read import number
from train.plot.style import COLOURS, FONT, WIDE, run_colour, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from train.plot.read import RunRecords

MOST = 40
"""Languages drawn, unless they are named."""
_ONE_COLUMN = 20
"""More languages than these are drawn in two columns."""


@dataclass(frozen=True)
class Score:
    """A language in a run, in bits per byte or in nats a token; None where it is not known. ``unigram`` is what a model
    of the language's token frequencies alone would get."""

    value: float | None
    unigram: float | None


@dataclass(frozen=True)
class Languages:
    """What is drawn.

    Attributes:
        unit: ``bits per byte``, or ``nats a token`` if a run has none in bits per byte.
        shown: codes, the best predicted by the first run that has the language first.
        scores: a mapping from code to score for each run; all languages, shown or not.
        sizes: training tokens of each language, of the runs that are complete.
        total: languages there are.
        chosen: whether ``shown`` was asked for by name.
    """

    unit: str
    shown: tuple[str, ...]
    scores: tuple[dict[str, Score], ...]
    sizes: dict[str, int]
    total: int
    chosen: bool

    @property
    def note(self) -> str:
        """Which languages are shown, if not all."""
        left = self.total - len(self.shown)
        if left <= 0:
            return ""
        if self.chosen:
            return f"{len(self.shown)} of {self.total} languages"
        which = "with the most training tokens" if self.sizes else "first by code"
        return f"the {len(self.shown)} languages {which}, {left:,} more are not drawn"


def language_scores(runs: Sequence[RunRecords], wanted: Sequence[str] = ()) -> Languages:
    """Gather the languages of the last evaluations.

    Args:
        runs: the runs.
        wanted: codes to show; by default the :data:`MOST` with the most training tokens.

    Raises:
        RecipeError: a wanted language that no run has.
    """
    bytewise = bool(runs) and all(_bits(run) for run in runs if run.valid)
    scores = tuple(_scores(run, bytewise) for run in runs)
    known = sorted({code for one in scores for code in one})
    for code in wanted:
        if code not in known:
            raise RecipeError(f"--languages {code}: not in the evaluations of these runs; {nearest(code, known)}")
    sizes: dict[str, int] = {}
    for run in runs:
        for code in known:
            if (size := number(run.summary, "languages", code, "train_tokens")) is not None:
                sizes[code] = max(size, sizes.get(code, 0))
    chosen = list(dict.fromkeys(wanted)) or sorted(known, key=lambda code: (-sizes.get(code, 0), code))[:MOST]

    def rank(code: str) -> tuple[bool, float, str]:
        values = [one[code].value for one in scores if code in one and one[code].value is not None]
        return (not values, values[0] or 0.0 if values else 0.0, code)

    unit = "bits per byte" if bytewise else "nats a token"
    return Languages(unit, tuple(sorted(chosen, key=rank)), scores, sizes, len(known), bool(wanted))


def draw_languages(figure: Figure, runs: Sequence[RunRecords], languages: Languages) -> None:
    """Draw into an empty figure of the height that :func:`height` tells."""
    wide = figure.get_figwidth() >= WIDE
    if not languages.shown:
        empty(figure, "No held-out text was scored yet." if not any(run.valid for run in runs) else "No languages.")
        return
    columns = _columns(languages, wide)
    rows = -(-len(languages.shown) // columns)
    drawn = [score for one in languages.scores for code in languages.shown if (score := one.get(code))]
    values = [value for score in drawn for value in (score.value, score.unigram) if value is not None]
    largest = max(values, default=1.0)
    for column, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        codes = languages.shown[column * rows : (column + 1) * rows]
        _bars(axes, codes, rows, languages, wide)
        axes.set_xlim(0, largest * 1.04 or 1.0)
        if column == 0:
            axes.set_title(f"Held-out text, {languages.unit}")
    parts = [part for part in (languages.note, _missing(runs, languages)) if part]
    if parts:
        note = wrapped("; ".join(parts), figure.get_figwidth())
        figure.supxlabel(note, x=0.01, ha="left", fontsize=FONT - 0.5, color=COLOURS["soft"])
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[tuple[Any, str]] = []
    for place, run in enumerate(runs):
        step = f", step {run.valid[-1]['step']:,}" if run.valid else ""
        entries.append((Patch(color=run_colour(place)), run.name + step))
    if any(score.unigram is not None for score in drawn):
        tick = Line2D([], [], color=COLOURS["ink"], marker="|", markersize=8, markeredgewidth=1.3, linestyle="")
        entries.append((tick, "token frequencies alone"))
    legend(figure, entries)


def height(languages: Languages, runs: int, width: float) -> float:
    """Inches that the figure needs."""
    rows = -(-len(languages.shown) // _columns(languages, width >= WIDE))
    return max(1.6, rows * max(0.19, 0.06 + 0.1 * runs) + 0.75 + 0.2 * (1 if width >= WIDE else runs + 1))


def empty(figure: Figure, text: str) -> None:
    """A figure that says why there is nothing to see."""
    figure.text(0.5, 0.5, wrapped(text, figure.get_figwidth() * 0.9), ha="center", va="center", color=COLOURS["soft"])


def _bars(axes: Axes, codes: Sequence[str], rows: int, languages: Languages, wide: bool) -> None:
    thick = 0.78 / len(languages.scores)
    for place, scores in enumerate(languages.scores):
        offset = (place - (len(languages.scores) - 1) / 2) * thick
        own = [(row + offset, scores[code]) for row, code in enumerate(codes) if code in scores]
        bars = [(at, score.value) for at, score in own if score.value is not None]
        ticks = [(at, score.unigram) for at, score in own if score.unigram is not None]
        axes.barh([at for at, _ in bars], [value for _, value in bars], height=thick * 0.92,
                  color=run_colour(place), linewidth=0)  # fmt: skip
        axes.vlines([value for _, value in ticks], [at - thick / 2 for at, _ in ticks],
                    [at + thick / 2 for at, _ in ticks], color=COLOURS["ink"], linewidth=1.1)  # fmt: skip
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_yticks(range(len(codes)), [_name(code) if wide else visible(code)[:12] for code in codes])
    axes.grid(visible=False, axis="y")
    axes.tick_params(length=0)
    axes.spines["left"].set_color(COLOURS["soft"])


def _name(code: str) -> str:
    known = LANGUAGES.get(code)
    return f"{known.name}  {code}" if known else visible(code)[:24]


def _columns(languages: Languages, wide: bool) -> int:
    return 2 if wide and len(languages.shown) > _ONE_COLUMN else 1


def _missing(runs: Sequence[RunRecords], languages: Languages) -> str:
    """Runs that have no bar, by name."""
    without = [run.name for run, own in zip(runs, languages.scores, strict=True) if not own]
    return f"not evaluated: {', '.join(without)}" if without else ""


def _bits(run: RunRecords) -> bool:
    bits = run.valid[-1].get("bits_per_byte") if run.valid else None
    return isinstance(bits, dict) and any(number(bits, code) is not None for code in bits)


def _scores(run: RunRecords, bytewise: bool) -> dict[str, Score]:
    record = run.valid[-1] if run.valid else {}
    losses = record.get("loss")
    found: dict[str, Score] = {}
    for code in losses if isinstance(losses, dict) else ():
        loss, bits, unigram = (number(record, key, code) for key in ("loss", "bits_per_byte", "unigram"))
        if bytewise:
            # Nats a token and bits per byte of the same text differ by one factor, whatever the model.
            scale = bits / loss if bits is not None and loss else None
            found[code] = Score(bits, None if unigram is None or scale is None else unigram * scale)
        else:
            found[code] = Score(loss, unigram)
    return found
