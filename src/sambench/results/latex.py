"""A table as LaTeX for a paper: best bold, second underlined, units, footnotes for rows that could not run."""

from __future__ import annotations

import pandas as pd

from sambench.results.layout import FIRST, NOTHING, Layout, in_words, lay_out
from sambench.results.table import Table
from sambench.status import OK

SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "−": r"\ensuremath{-}",
    "×": r"\ensuremath{\times}",
    "²": r"\textsuperscript{2}",
}
# As wide as it is, unless the page is narrower.
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
MARKS = {FIRST: r"\textbf", "second": r"\underline"}
# Columns that no paper prints: they are in the files beside.
LEFT_OUT = ("status", "not_asked", "explanation", "weights_sha256", "boxes_sha256", "rules", "others", "busy", "source")


def escape(text: str) -> str:
    """Text as LaTeX shows it; \\textquotedbl needs the font encoding T1."""
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def latex(table: Table, rows: pd.DataFrame) -> str:
    """A table environment with booktabs' rules. A row without all its numbers has a letter that a footnote explains."""
    layout = lay_out(table, rows)
    places = [k for k, column in enumerate(layout.columns) if column.name not in LEFT_OUT]
    columns = [layout.columns[k] for k in places]
    notes = {
        status: _letter(at) for at, status in enumerate(dict.fromkeys(s for s in layout.status if s not in ("", OK)))
    }
    lines = [
        r"% \usepackage[T1]{fontenc}, \usepackage{booktabs} and \usepackage{graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(table, layout)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\vspace{1ex}",
        FITTED,
        rf"\begin{{tabular}}{{{''.join('l' if column.word else 'r' for column in columns)}}}",
        r"\toprule",
    ]
    # Two lines: what a column is, and below its rule and unit.
    heads = [column.title.partition(", ") for column in columns]
    units = [f"({column.unit})" if column.unit else "" for column in columns]
    lines.append(" & ".join(escape(head) for head, _, _ in heads) + r" \\")
    below = [" ".join(filter(None, [rest, unit])) for (_, _, rest), unit in zip(heads, units, strict=True)]
    if any(below):
        lines.append(" & ".join(map(escape, below)) + r" \\")
    lines.append(r"\midrule")
    for row, status in enumerate(layout.status):
        cells = []
        for at, (place, column) in enumerate(zip(places, columns, strict=True)):
            # Other rules than the headline stand without their intervals, as in papers.
            own = column.cells[row].partition(" (")[0] if "/" in column.name else column.cells[row]
            text = _cell(own, layout.marks.get((row, place), ""))
            if not at and status in notes:
                text += rf"\textsuperscript{{{notes[status]}}}"
            cells.append(text)
        lines.append(" & ".join(cells) + r" \\")
    lines.append(r"\bottomrule")
    width = len(columns)
    for status, letter in notes.items():
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{\footnotesize \textsuperscript{{{letter}}} {escape(status)}}} \\")
    return "\n".join([*lines, r"\end{tabular}}", r"\end{table}", ""])


def _caption(table: Table, layout: Layout) -> str:
    words = [f"{table.title}.", table.explanation]
    if layout.same:
        words.append(f"In all rows: {in_words(layout.same)}.")
    if layout.marks:
        words.append("Best in bold, second underlined.")
    return escape(" ".join(words))


def _cell(text: str, mark: str) -> str:
    if text == NOTHING:
        return "--"
    number, bracket, interval = text.partition(" (")
    if bracket and not interval.endswith(")"):
        return escape(text)
    shown = f"{MARKS[mark]}{{{escape(number)}}}" if mark else escape(number)
    return f"{shown} {{\\scriptsize ({escape(interval)}}}" if bracket else shown


def _letter(at: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    return (_letter(at // 26 - 1) if at >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[at % 26]
