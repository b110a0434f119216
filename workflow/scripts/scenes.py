"""Generate the embedded dataset `scenes`."""

from pathlib import Path

from sambench.datasets import scenes
from sambench.script import run


def main(*, folder: Path) -> None:
    """Write annotations.json and the images of `scenes` into a folder, the same bytes on every machine."""
    scenes.generate(folder)


if __name__ == "__main__":
    run(main)
