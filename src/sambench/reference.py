"""Pages of reference that the docs site writes from the registries: variants, detectors, tables and commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from sambench.config import read_registries
from sambench.detectors.registry import Detector, read_detectors
from sambench.results.table import Table, all_tables
from sambench.variants.cards import Card, read_cards

ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
ADDRESS = re.compile(r"(?<![(<])https?://[^\s,;)]+")
TYPES = {"string": "text", "double": "number", "int32": "whole number", "int64": "whole number", "bool": "yes or no"}


def pages() -> dict[str, str]:
    """Every page of reference, Markdown by the name of its file."""
    registries = read_registries()
    return {
        "variants.md": variants(read_cards(registries["variants"]).values()),
        "detector-list.md": detectors(read_detectors(registries["detectors"]).values()),
        "tables.md": tables(all_tables().values()),
        "commands.md": commands(),
    }


def variants(cards: Iterable[Card]) -> str:
    """The variants that run, those that do not with the reason, and what there is to know of each."""
    known = sorted(cards, key=lambda card: (card.family, card.name))
    running = [card for card in known if card.builder]
    parts = [
        "# Variants",
        "The registry `config/variants.yaml`; `sambench variants` also says which weights are on this machine. "
        "Parameters are in millions. A licence is that of the code and, after a slash, that of the weights where it "
        "differs. [Systems](systems.md) says how each variant was checked.",
        grid(
            ("variant", "family", "prompts", "size", "params", "licence", "code and paper"),
            [
                (f"`{c.name}`", c.family, ", ".join(c.prompts), c.input_size, params(c), licences(c), sources(c))
                for c in running
            ],
        ),
        "## Checkpoints and notes",
        grid(
            ("variant", "files", "MB", "notes"),
            [(f"`{c.name}`", files(c), size(c), linked(c.notes)) for c in running if c.checkpoints or c.notes],
        ),
        "## Without code or weights that run here",
        grid(
            ("variant", "status", "reason", "code and paper"),
            [(f"`{c.name}`", c.status, linked(c.reason), sources(c)) for c in known if not c.builder],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def detectors(cards: Iterable[Detector]) -> str:
    """The detectors with where their boxes come from."""
    rows = [
        (
            f"`{c.name}`",
            c.family,
            "network" if c.builder else "published",
            params(c),
            licences(c),
            sources(c),
            linked(c.notes),
        )
        for c in cards
    ]
    head = ("detector", "family", "boxes", "params", "licence", "code and paper", "notes")
    return (
        "# Detectors\n\nThe registry `config/detectors.yaml`; `sambench detectors` also says what is missing on this "
        f"machine. [Boxes of detectors](detectors.md) says how to use them.\n\n{grid(head, rows)}\n"
    )


def tables(registry: Iterable[Table]) -> str:
    """The tables of a study with the type and unit of every column."""
    parts = [
        "# Tables",
        "A study writes the tables that it has numbers for to `results/STUDY/tables/`, as Parquet, CSV, Markdown and "
        "LaTeX. The columns in bold name a row. [How to read the tables](reading-results.md) explains `summary`, "
        "`comparison` and `calibration`.",
    ]
    for table in registry:
        rows = [
            (f"**`{f.name}`**" if f.name in table.key else f"`{f.name}`", kind(f.type), table.units.get(f.name, ""))
            for f in table.schema
        ]
        parts += [f"## `{table.name}`: {table.title}", table.explanation, grid(("column", "type", "unit"), rows)]
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """`sambench --help` of every command."""
    from sambench.cli import app

    text = app.generate_docs(output_format="markdown")
    before, _, rest = text.partition("## Table of Contents")
    return f"{before}{rest[rest.index('## sambench') :]}"


def grid(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; a cell that is None is empty."""
    lines = [head, ["---"] * len(head), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """A value on one line, with no bar that would end its cell."""
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


def params(card: Card) -> str:
    """Millions of parameters."""
    return "" if card.params_m is None else f"{card.params_m:.2f}"


def licences(card: Card) -> str:
    """The licence of the code, and of the weights where they have another one."""
    return " / ".join(dict.fromkeys(filter(None, (card.licence_code, card.licence_weights))))


def sources(card: Card) -> str:
    """Links to code and paper."""
    code = f"[code]({card.code})" if card.code.startswith("http") else card.code
    return ", ".join(filter(None, (code, linked(card.paper))))


def files(card: Card) -> str:
    """The checkpoint files, each a link to where it is fetched from."""
    names = []
    for checkpoint in card.checkpoints:
        name, url = f"`{checkpoint['file']}`", checkpoint.get("url")
        names.append(f"[{name}]({url})" if url else name)
    return ", ".join(names)


def size(card: Card) -> str:
    """The size of the checkpoint files in MB, where the card knows it."""
    size = card.checkpoint_bytes([])
    return "" if size is None else f"{size / 1e6:.0f}"


def linked(text: str) -> str:
    """A text in which addresses and papers of arXiv are links."""
    text = ADDRESS.sub(r"<\g<0>>", text)
    return ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", text)


def kind(type_: pa.DataType) -> str:
    """The type of a column in a word."""
    if pa.types.is_map(type_):
        return "number by name"
    return TYPES.get(str(type_), str(type_))


def links(text: str, here: Mapping[str, str], exists: Callable[[str], bool]) -> str:
    """Links and mentions of the repository's files as the site needs them.

    here: paths in the repository (docs/cost.md, README.md) -> pages of the site. A link to any other file that exists
    in the repository becomes its name, since the site does not know where the repository is; what does not exist
    stays, for mkdocs to refuse.
    """

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match["words"], match["target"], match["anchor"] or ""
        path = re.sub(r"^(\.\./|\./)+", "", target)
        page = here.get(path) or here.get(f"docs/{path}")
        if page:
            return f"[{words}]({page}{anchor})"
        if not exists(path):
            return match[0]
        return words if "`" in words else f"`{path}`"

    def mention(match: re.Match[str]) -> str:
        page = here.get(match[0])
        return f"[{page}]({page})" if page else match[0]

    parts = re.split(r"(^```.*?^```$|^(?: {4}.*\n)+|`[^`\n]*`)", text, flags=re.MULTILINE | re.DOTALL)
    for index in range(0, len(parts), 2):  # outside of code
        parts[index] = re.sub(r"(?<![\w(/\[])docs/[a-z-]+\.md", mention, parts[index])
    pattern = r"(?<!!)\[(?P<words>[^]]*)\]\((?P<target>(?!https?:|#|mailto:)[^)#\s]+)(?P<anchor>#[^)]*)?\)"
    return re.sub(pattern, link, "".join(parts))
