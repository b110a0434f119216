"""Take one measure of one variant, such as its efficiency or its latency."""

from importlib import import_module
from pathlib import Path
from typing import Any

from sambench.measure.session import MeasuringJob
from sambench.parquet import inputs, write_parquet
from sambench.provenance import provenance
from sambench.script import run
from sambench.variants.options import configured


def main(
    *,
    measure: str,
    model: dict[str, Any],
    settings: dict[str, Any],
    threads: int,
    measured: Path,
    images: Path | None = None,
    instances: Path | None = None,
) -> None:
    """Write the rows of a measure, or one row with a status. Without a checkpoint, weights are random.

    measure: a module of sambench.measure. settings: the section of the config with its name.
    """
    module = import_module(f"sambench.measure.{measure}")
    job = MeasuringJob(*configured(model, threads), settings, images, instances)
    table, device, facts = module.run(job)
    data = {name: path for name, path in (("images", images), ("instances", instances)) if path}
    origin = provenance([model, settings], device, **facts) | inputs(**data)
    write_parquet(measured, table, module.RECORD, origin)


if __name__ == "__main__":
    run(main)
