"""What `sambench compare` and `sambench recommend` print."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sambench.results.decide import SEVERAL, Pair, Recommendation
from sambench.results.statistics import UNDECIDED
from sambench.results.tables.comparison import LEAST


def comparison_page(
    names: tuple[str, str], pairs: Sequence[Pair], found: pd.DataFrame, categories: pd.DataFrame, most: pd.DataFrame
) -> str:
    """What `sambench compare` prints, as Markdown. names: of the first and the second."""
    first, second = names
    parts = [
        f"**{second}** against **{first}**, mIoU in %; a difference is shown where its interval, "
        "corrected for all rows of the table, excludes zero."
    ]
    shown = found[found["verdict"] != UNDECIDED]
    parts.append(f"{len(shown)} of {len(found)} differences are shown.")
    for title, rows in (
        ("By prompt", found[found["subset"] == SEVERAL]),
        ("By size and crowd", found[found["subset"] != SEVERAL]),
    ):
        if len(rows):
            parts += [f"**{title}**", _differences_table(rows, names)]
    if len(categories):
        told = categories[categories["verdict"] != UNDECIDED].sort_values("difference", key=abs, ascending=False)
        few = int((categories["images"] < LEAST).sum())
        parts.append(
            f"**By category**: {len(told)} of {len(categories)} differences are shown; {few} are of fewer than {LEAST} "
            "images."
        )
        if len(told):
            parts.append(_differences_table(told, names))
    if len(most):
        parts += [
            f"**The {len(most)} instances that differ most**",
            _markdown(_without_constants(_rounded(most, names))),
        ]
    apart = sum(pair.apart for pair in pairs)
    if apart:
        parts.append(f"{apart} prompts that only one of the two has or answered are left out.")
    return "\n\n".join(parts)


def _differences_table(rows: pd.DataFrame, names: tuple[str, str]) -> str:
    table = rows.copy()
    table["95 % interval"] = [
        "–" if pd.isna(low) else f"{low:.2f} to {high:.2f}"
        for low, high in zip(table.pop("corrected_low"), table.pop("corrected_high"), strict=True)
    ]
    table = _rounded(table.drop(columns=["low", "high"]), names)
    order = [name for name in table if name not in ("95 % interval", "verdict", "instances", "images")]
    return _markdown(_without_constants(table[[*order, "95 % interval", "verdict", "instances", "images"]]))


def _rounded(table: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    digits = {"first": 1, "second": 1, "difference": 2, "area": 0}
    cells = {
        name: [f"{round(value, places) + 0.0:.{places}f}" for value in table[name]]
        for name, places in digits.items()
        if name in table
    }
    return table.assign(**cells).rename(columns={"first": names[0], "second": names[1]})


def _without_constants(table: pd.DataFrame) -> pd.DataFrame:
    """Without coordinates that are the same, or empty, in all rows."""
    return table.drop(columns=[name for name in ("dataset", "label") if name in table and table[name].nunique() == 1])


def _markdown(table: pd.DataFrame) -> str:
    return str(table.to_markdown(index=False, disable_numparse=True))


def recommendation_page(found: Recommendation) -> str:
    """What `sambench recommend` prints of a data set, as Markdown."""
    head = f"**{found.dataset}**, mIoU with {found.prompt}"
    out = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
    left = f"left out: {out}" if out else ""
    best = found.best
    if best is None:
        return "\n\n".join(filter(None, [f"{head}: nothing is within the budget.", left]))
    name = f"{best['variant']} @ {best['runtime']}"
    costs = [
        f"{best[column]:.{digits}f} {unit}"
        for column, digits, unit in (("segany_ms", 1, "ms"), ("peak_memory_mib", 0, "MiB"))
        if pd.notna(best[column])
    ]
    lines = [f"{head}: **{name}**, {best['miou']:.1f} %{''.join(f', {cost}' for cost in costs)}."]
    others = found.within.iloc[1:]
    if others.empty:
        lines.append("Nothing else is within the budget.")
    else:
        second = others.iloc[0]
        runner = f"{second['variant']} @ {second['runtime']}"
        interval = (
            f"{second['difference']:+.2f} points, {second['low']:.2f} to {second['high']:.2f}"
            if pd.notna(second["low"])
            else f"{second['difference']:+.2f} points, too few images for an interval"
        )
        lines.append(f"Against the runner-up {runner}: {interval}: {second['verdict']}.")
        same = others[others["verdict"] == UNDECIDED]
        if len(same):
            words = ", ".join(f"{row.variant} @ {row.runtime}" for row in same.itertuples())
            lines.append(f"No difference from the best is shown for: {words}. Choose among these by cost.")
        shown = found.within[["variant", "runtime", "miou", "difference", "low", "high", "verdict"]].copy()
        shown["ms"], shown["MiB"] = found.within["segany_ms"], found.within["peak_memory_mib"]
        digits = {"miou": 1, "difference": 2, "low": 2, "high": 2, "ms": 1, "MiB": 0}
        for column, places in digits.items():
            shown[column] = ["–" if pd.isna(value) else f"{value:.{places}f}" for value in shown[column]]
        lines.append(_markdown(shown))
    return "\n\n".join(filter(None, [*lines, left]))
