"""MLflow's pages over the results of a study."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from sambench.errors import InputError


def show(results: Path, folder: Path, port: int) -> None:
    """Print the address of a study's runs and serve it on the loopback interface until Ctrl-C.

    folder: of the study. Where the study was logged to a server of the user's own, its address is all there is to say.
    Raises InputError when the study has not been logged yet.
    """
    note = folder / "mlflow.json"
    try:
        where = json.loads(note.read_text(encoding="utf-8"))
        uri, page = where["uri"], where["page"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(note, expected="the address of the study in MLflow", remedy="run the study first") from None
    if uri:
        print(f"{uri.rstrip('/')}/{page}")
        return
    database = results / "mlflow.db"
    if not database.is_file():
        raise InputError(database, expected="MLflow's database", found="none", remedy="run the study again")
    print(f"http://127.0.0.1:{port}/{page}\n(Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database.resolve()}"]
    command += ["--artifacts-destination", str((results / "mlartifacts").resolve())]
    os.execv(sys.executable, command)
