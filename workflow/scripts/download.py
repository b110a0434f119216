"""Fetch the datasets, published boxes and checkpoints of a study."""

import json
from pathlib import Path

from sambench.downloads.catalogue import find, from_checkpoints, read_table
from sambench.downloads.store import Store, download_all
from sambench.files import default_cache
from sambench.script import run


def main(*, names: str, checkpoints: str, weights: str, cache: Path | None = None) -> None:
    """Bring what is missing into the cache, and link it where the study looks for it.

    Parameters
    ----------
    names
        JSON list of names of config/downloads.tsv
    checkpoints
        JSON list of checkpoints as the cards of variants have them
    weights
        JSON list of the folders with checkpoint files
    cache
        the folder that all checkouts share, when it is not the default
    """
    folders = [Path(folder) for folder in json.loads(weights)]
    items = find(json.loads(names), read_table(), {}, folders) + from_checkpoints(json.loads(checkpoints), folders)
    unique = {item.name: item for item in items}.values()
    download_all(unique, Store((cache or default_cache()).expanduser().absolute()))


if __name__ == "__main__":
    run(main)
