"""The pages of reference of the docs site, written from the registries, and the links of all pages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sambench import reference
from sambench.cli import app
from sambench.config import CONFIG_FOLDER
from sambench.results.table import all_tables

PAGES = reference.pages()


def named(page: str) -> set[str]:
    """The names in the first cells of a page's tables."""
    return {line.split("|")[1].strip(" *`") for line in page.splitlines() if line.startswith("| ")}


@pytest.mark.parametrize(("page", "registry"), [("variants.md", "variants"), ("detector-list.md", "detectors")])
def test_every_card_has_a_row(page: str, registry: str) -> None:
    cards = yaml.safe_load((CONFIG_FOLDER / f"{registry}.yaml").read_text())[registry]
    assert {*cards} <= named(PAGES[page])


def test_facts_and_links_of_a_variant() -> None:
    rows = [line for line in PAGES["variants.md"].splitlines() if line.startswith("| `mobilesam` |")]
    facts, files = rows
    assert "| 9.81 |" in facts and "| Apache-2.0 |" in facts
    assert "[code](https://github.com/ChaoningZhang/MobileSAM" in facts
    assert "[`mobile_sam.pt`](https://github.com/" in files and "| 41 |" in files


def test_every_column_of_every_table_is_there() -> None:
    text = PAGES["tables.md"]
    for table in all_tables().values():
        section = text.partition(f"## `{table.name}`:")[2].partition("\n## ")[0]
        assert {*table.schema.names} == named(section) - {"column", "---"}
        assert {line.split("|")[1].strip() for line in section.splitlines() if "**" in line} == {
            f"**`{name}`**" for name in table.key
        }


def test_every_command_is_there() -> None:
    commands = {name for name in app if not name.startswith("-")}
    headings = {line[3:] for line in PAGES["commands.md"].splitlines() if line.startswith("## ")}
    assert headings == {f"sambench {name}" for name in commands}


def test_tables_have_one_line_per_row() -> None:
    assert reference.grid(("a", "b"), [("x\ny", "1 | 2"), (None, 3)]) == (
        "| a | b |\n| --- | --- |\n| x y | 1 \\| 2 |\n|  | 3 |"
    )


def test_links_to_the_repository_become_links_of_the_site() -> None:
    here = {"docs/cost.md": "cost.md", "README.md": "index.md"}
    for text, wanted in {
        "[docs/cost.md](docs/cost.md#a)": "[docs/cost.md](cost.md#a)",
        "[cost](cost.md)": "[cost](cost.md)",
        "[it](../README.md)": "[it](index.md)",
        "[over two\nlines](docs/cost.md)": "[over two\nlines](cost.md)",
        "see docs/cost.md.": "see [cost.md](cost.md).",
        "`docs/cost.md`": "`docs/cost.md`",
        "    less docs/cost.md\n": "    less docs/cost.md\n",
        "[slurm.py](../src/sambench/slurm.py)": "`src/sambench/slurm.py`",
        "[page](https://example.org/docs/cost.md)": "[page](https://example.org/docs/cost.md)",
        "![picture](images/a.svg)": "![picture](images/a.svg)",
        "[gone](../src/gone.py)": "[gone](../src/gone.py)",
    }.items():
        assert reference.links(text, here, lambda path: path == "src/sambench/slurm.py") == wanted


def test_every_page_is_in_the_navigation(root: Path) -> None:
    """mkdocs refuses a page without a place (`make check`); here it is one line."""
    text = (root / "mkdocs.yml").read_text()
    assert [page.name for page in (root / "docs").glob("*.md") if f" {page.name}\n" not in text] == []
