"""The tables of a study as LaTeX: sound by its text, and with a real LaTeX where there is one. Numbers are INVENTED."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from invented import invent, names

from sambench.results.latex import FITTED, SPECIAL, latex
from sambench.results.table import all_tables

VARIANTS = [*names(5), "a_b 50% & $x$ #1 {c} ~^\\ <s> \"q\" 'r' Größe|·−–×²"]
TEXTS = {
    name: latex(table, invent(table, VARIANTS, ("scenes", "my_data"), ("eager",)))
    for name, table in all_tables().items()
}
# What inputenc and T1 know besides ASCII, of what occurs.
LETTERS = "öß·"


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_is_sound(name: str) -> None:
    """Braces balance, every row has a cell per column, and no sign is left that means something else to LaTeX."""
    text = TEXTS[name]
    plain = re.sub(r"\\[\\{}&%$#_]", lambda found: r"\\" if found[0] == r"\\" else "", text)
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns
    body = text.split("\\toprule\n")[1].split("\\bottomrule")[0]
    rows = [line for line in body.splitlines() if line not in ("\\midrule",)]
    assert all(line.endswith(r" \\") for line in rows)
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in rows} == {len(columns[1])}
    inside = re.sub(r"\\label\{[^}]*\}", "", plain.partition("\n")[2].replace(FITTED, ""))
    assert not re.search(r"[%$#_~^<>|\"]", inside), name
    assert {sign for sign in text if ord(sign) > 127} <= {*LETTERS}
    assert text.count("\\begin{") == text.count("\\end{") == 2


def test_every_sign_that_is_special_is_written_otherwise() -> None:
    assert {*"&%$#_{}~^\\"} <= {*SPECIAL}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here: Debian's texlive-latex-recommended brings one")
def test_latex_takes_them_all(tmp_path: Path) -> None:
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs}\usepackage{graphicx}"
    parts = [text + "\\clearpage\n" for text in TEXTS.values()]
    document = "\n".join([r"\documentclass{article}", packages, r"\begin{document}", *parts, r"\end{document}"])
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert "Missing character" not in log and "Overfull" not in log, "no table is wider than the page"
