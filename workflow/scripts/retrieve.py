"""Fetch what a dataset, variant or detector lacks, and note what is here now."""

from pathlib import Path
from typing import Any

from sambench.downloads.catalogue import Retrieval
from sambench.downloads.store import retrieve
from sambench.files import write_text
from sambench.script import run


def main(
    *, retrieval: dict[str, Any], download: bool, folders: list[Path], cache: str, attempt: str, marker: Path
) -> None:
    """Bring missing files into the cache and link them where the study looks for them; write a line per file.

    What a variant or detector lacks becomes a status of its results; a dataset without files ends with an InputError.
    download: false stays offline. attempt: names this run, the first line of the note. cache: the folder that all
    checkouts share; empty: the default.
    """
    lines = retrieve(Retrieval(**retrieval), folders, cache, offline=not download)
    write_text(marker, "".join(f"{line}\n" for line in [attempt, *lines]))


if __name__ == "__main__":
    run(main)
