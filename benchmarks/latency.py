"""Do two runs of the latency stage agree? `python benchmarks/latency.py RUN1 RUN2`, two results folders.

Prints for every variant and runtime that both have the medians of encoding, of decoding a box and of one image and one
box, their difference in per cent, and whether others used the machine; exit status 1 when a median of one image and one
box differs by more than the limit.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from sambench.errors import InputError
from sambench.records import LATENCY
from sambench.results.measured import read_measured
from sambench.script import command
from sambench.status import OK


def medians(results: Path) -> pd.DataFrame:
    """Medians in ms by (dataset, variant, runtime): encode, decode, one (of one image and one box); busy."""
    folder = results / "latency"
    jobs = sorted(path.relative_to(folder).with_suffix("").parts for path in folder.glob("*/*/*.parquet"))
    lines = []
    for facts, times in read_measured(results, "latency", jobs, LATENCY):
        good = times[times["status"] == OK]
        if good.empty:
            continue
        decode, upsample = (np.stack(good[name].to_numpy()) for name in ("decode_ms", "upsample_ms"))
        key = {name: facts[name] for name in ("dataset", "variant", "runtime")}
        one = good["encode_ms"].to_numpy() + decode[:, 0] + upsample[:, 0]
        medians = {"encode": good["encode_ms"].median(), "decode": np.median(decode), "one": np.median(one)}
        lines.append(key | medians | {"n": len(good), "busy": facts.get("busy")})
    return pd.DataFrame(lines).set_index(["dataset", "variant", "runtime"])


def main(run1: Path, run2: Path, *, limit: float = 5.0) -> None:
    """Compare the medians of two runs.

    Parameters
    ----------
    run1
        a results folder
    run2
        another one
    limit
        the largest difference in per cent of the median of one image and one box
    """
    first, second = medians(run1), medians(run2)
    both = first.add_suffix("_1").join(second.add_suffix("_2"), how="inner")
    if both.empty:
        raise InputError(run2, expected=f"times of a variant and runtime of {run1}", found="none")
    for name in ("encode", "decode", "one"):
        both[f"{name}_%"] = 100 * (both[f"{name}_2"] / both[f"{name}_1"] - 1)
    columns = [f"{name}_{side}" for name in ("encode", "decode", "one") for side in ("1", "2", "%")]
    shown = both[[*columns, "n_1", "n_2", "busy_1", "busy_2"]].reset_index()
    print(shown.to_markdown(index=False, floatfmt=".2f"))
    worst = both["one_%"].abs().max()
    print(f"\nlargest difference of the median of one image and one box: {worst:.2f} % (limit {limit} %)")
    sys.exit(int(worst > limit))


if __name__ == "__main__":
    command(main)
