"""Compare the tables of two results folders, the first from before a change of the code and the second from after it.

    python tests/compare_tables.py BEFORE AFTER [--renamed OLD=NEW ...] [--variant OLD=NEW ...]

CSV, Markdown and LaTeX must be the same bytes and Parquet the same content (its metadata names the commit). `--renamed`
is a table that has another name now. `--variant` is a variant that has: then cells are compared, since a longer name
widens its column. The exit status is 1 when anything differs, is missing or is new.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq

SUFFIXES = (".csv", ".md", ".tex", ".parquet")


def pairs(texts: list[str]) -> dict[str, str]:
    """["old=new"] -> {"old": "new"}."""
    return dict(text.split("=", 1) for text in texts)


def rows(path: Path) -> list[list[object]]:
    """The cells of a table, the header first; LaTeX without its frame."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return [[repr(field) for field in table.schema.remove_metadata()], list(table.column_names)] + [
            list(row.values()) for row in table.to_pylist()
        ]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [list(row) for row in csv.reader(file)]
    lines = path.read_text(encoding="utf-8").replace("\\_", "_").replace("\\\\", "").splitlines()
    return [[cell.strip(" -:") for cell in re.split(r"[|&]", line)] for line in lines]


def renamed(found: list[list[object]], variants: dict[str, str]) -> list[list[object]]:
    """The cells with new names in the column `variant`."""
    at = next((row.index("variant") for row in found if "variant" in row), None)
    if at is None:
        return found
    return [[variants.get(str(v), v) if i == at else v for i, v in enumerate(row)] for row in found]


def same(before: Path, after: Path, variants: dict[str, str]) -> bool:
    """Whether two files of a table say the same."""
    if before.suffix != ".parquet" and not variants:
        return before.read_bytes() == after.read_bytes()
    return repr(renamed(rows(before), variants)) == repr(rows(after))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--renamed", nargs="*", default=[], metavar="OLD=NEW")
    parser.add_argument("--variant", nargs="*", default=[], metavar="OLD=NEW")
    options = parser.parse_args()
    tables, variants = pairs(options.renamed), pairs(options.variant)
    new = {path.name for path in (options.after / "tables").iterdir() if path.suffix in SUFFIXES}
    problems = []
    for path in sorted((options.before / "tables").iterdir()):
        if path.suffix not in SUFFIXES or path.stem == "overview":
            continue
        name = tables.get(path.stem, path.stem) + path.suffix
        other = options.after / "tables" / name
        new.discard(name)
        if not other.is_file():
            problems.append(f"{name}: missing")
        elif not same(path, other, variants):
            problems.append(f"{name}: differs from {path.name}")
    problems += [f"{name}: new" for name in sorted(new) if not name.startswith("overview")]
    print("\n".join(problems) or "all tables are the same")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
