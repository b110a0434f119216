"""Put published figures beside what this study measured: the table `reproduction`."""

import json
from pathlib import Path

from sambench.provenance import provenance
from sambench.results.reproduction import DECIMALS, read_published, reproduction
from sambench.results.schemas import REPRODUCTION, TABLES, read_parquet
from sambench.results.tables import write_table
from sambench.script import run


def main(*, published: Path, tables: str, results: Path) -> None:
    """Write tables/reproduction.*.

    Parameters
    ----------
    published
        CSV file of published figures
    tables
        JSON list of the tables that the study has
    results
        the results folder
    """
    read = {
        name: read_parquet(results / "tables" / f"{name}.parquet", TABLES[name]).to_pandas()
        for name in json.loads(tables)
    }
    table = reproduction(read_published(published), read)
    write_table(results / "tables", "reproduction", table, REPRODUCTION, provenance([tables]), DECIMALS)


if __name__ == "__main__":
    run(main)
