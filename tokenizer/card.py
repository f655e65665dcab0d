"""What a tokenizer was trained on and how, kept beside the model as ``card.json`` and, to be read, ``card.md``.

The card holds nothing that changes between two trainings on the same text with the same settings.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lola_data import storage
from lola_data.errors import ShardError

FORMAT = 1
"""Version of the layout of ``card.json``."""


@dataclass(frozen=True, slots=True)
class LanguageCard:
    """The part one language had in the training text."""

    documents: int
    """Documents the language has."""
    bytes: int
    """UTF-8 bytes it has."""
    used_documents: int
    """Documents taken; the last one may be taken in part."""
    used_bytes: int
    """Bytes taken."""
    share: float
    """Its share of all bytes taken, in [0, 1]."""
    lines: int
    """Lines handed to the trainer."""
    cut_lines: int
    """Lines that were cut because they were too long to be taken whole."""
    reserved_characters: int
    """U+2581 and U+2585, which the trainer keeps for itself; they are spelled in bytes."""
    bytes_dropped: int
    """Bytes taken that are neither in a line handed over nor a separator between lines. Always 0."""


@dataclass(frozen=True, slots=True)
class TokenizerCard:
    """Everything there is to know of a tokenizer without loading it."""

    origin: str
    """``trained``, or ``adopted`` for a model made elsewhere."""
    vocab_size: int
    sha256: str
    """Digest of ``tokenizer.model``."""
    control: dict[str, int]
    """Ids of ``<unk>``, ``<s>``, ``</s>`` (end of document) and ``<pad>``; -1 where the model has none."""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    memory_estimate_mb: int = 0
    """Memory the training was expected to need."""
    languages: dict[str, LanguageCard] = field(default_factory=dict)

    @property
    def eod_id(self) -> int:
        """Id of the end-of-document token."""
        return self.control["</s>"]

    @property
    def bytes_dropped(self) -> int:
        """Bytes of all languages that the trainer did not get to see. Always 0."""
        return sum(language.bytes_dropped for language in self.languages.values())

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TokenizerCard:
        """The inverse of :meth:`to_json`."""
        value = {key: part for key, part in value.items() if key != "format"}
        value["languages"] = {lang: LanguageCard(**part) for lang, part in value["languages"].items()}
        return cls(**value)

    def to_markdown(self) -> str:
        """The card as a page to read."""
        lines = [
            "# Tokenizer card",
            "",
            f"- SentencePiece model of {self.vocab_size:,} pieces, {self.origin}; SHA-256 `{self.sha256}`",
            f"- Control tokens: {', '.join(f'`{name}` = {token}' for name, token in self.control.items())}; "
            "`</s>` ends a document",
        ]
        if self.versions:
            lines.append(f"- Made with {', '.join(f'{name} {version}' for name, version in self.versions.items())}")
        if self.settings:
            lines.append(f"- Settings: {', '.join(f'{name} = {value}' for name, value in self.settings.items())}")
        if not self.languages:
            return "\n".join([*lines, ""])
        used = sum(language.used_bytes for language in self.languages.values())
        lines += [
            f"- Trained on {used:,} bytes in {len(self.languages)} languages; "
            f"**bytes dropped: {self.bytes_dropped:,}**",
            "",
            "| language | documents | bytes | used documents | used bytes | share | lines | cut | reserved | dropped |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {lang} | {part.documents:,} | {part.bytes:,} | {part.used_documents:,} | {part.used_bytes:,} | "
            f"{part.share:.2%} | {part.lines:,} | {part.cut_lines:,} | {part.reserved_characters:,} | "
            f"{part.bytes_dropped:,} |"
            for lang, part in sorted(self.languages.items(), key=lambda item: (-item[1].used_bytes, item[0]))
        ]
        return "\n".join([*lines, ""])


def write_card(out_dir: str, card: TokenizerCard) -> None:
    """Write ``card.md`` and, last, ``card.json`` into ``out_dir``."""
    with storage.atomic_output(storage.join(out_dir, "card.md")) as handle:
        handle.write(card.to_markdown().encode())
    storage.write_json(storage.join(out_dir, "card.json"), card.to_json())


def read_card(out_dir: str) -> TokenizerCard:
    """The card of a tokenizer folder.

    Raises:
        ShardError: no card there, or one that is damaged.
    """
    path = storage.join(out_dir, "card.json")
    try:
        return TokenizerCard.from_json(storage.read_json(path))
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}; train the tokenizer first") from error
    except (KeyError, TypeError) as error:
        raise ShardError(f"{path}: not a tokenizer card ({error}); train the tokenizer again") from error
