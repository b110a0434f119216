"""The docs site: hooks of mkdocs (mkdocs.yml) that add pages from outside of docs/ and adapt links to the repository.

README.md is the home page, CONTRIBUTING.md, CHANGELOG.md and config/README.md are pages too, and the pages of reference
are written from the registries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sambench import reference

PROJECT = Path(__file__).resolve().parents[2]
# Files of the repository that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "config/README.md": "configuration-files.md",
}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from elsewhere in the repository and those of reference."""
    from mkdocs.structure.files import File

    texts = {page: (PROJECT / source).read_text(encoding="utf-8") for source, page in PAGES.items()}
    texts["index.md"] = texts["index.md"].replace('"docs/images/', '"images/')
    for page, text in {**texts, **reference.pages()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files of the repository as links of the site."""
    here = {f"docs/{file.src_uri}": file.src_uri for file in files.documentation_pages()}
    return reference.links(markdown, {**here, **PAGES}, lambda path: (PROJECT / path).exists())
