"""What an evaluator prepares once in a run: a folder of files, with a list of them that says that it is whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from autoprune.errors import RunError
from autoprune.evaluators.base import Evaluator
from autoprune.files import make_folder, read_json, sync_tree, write_whole

FOLDER, LIST = "evaluator", "evaluator.json"


def prepared(evaluator: Evaluator, run: Path, *, seed: int) -> Path:
    """The folder of what an evaluator prepares, made where a run does not have it yet.

    Args:
        evaluator: has something to prepare.
        run: directory of the run.
        seed: of the preparation.

    Raises:
        RunError: what was prepared before is damaged, and cannot be prepared again as it was.
    """
    folder, complete = run / FOLDER, run / LIST
    if complete.is_file():
        recorded = read_json(complete)
        if (damaged := _different(recorded, _digests(folder))) is not None:
            _make_again(evaluator, folder, recorded, damaged, seed=seed)
        return folder
    make_folder(folder)
    evaluator.prepare(folder, seed=seed)
    sync_tree(folder)
    write_whole(complete, json.dumps(_digests(folder), indent=1).encode())
    return folder


def _make_again(evaluator: Evaluator, folder: Path, recorded: dict[str, str], damaged: str, *, seed: int) -> None:
    """Prepare a damaged folder anew, beside it: it takes its place if it is what the trials so far were scored with."""
    anew = folder.with_name(f".{folder.name}.anew")
    shutil.rmtree(anew, ignore_errors=True)
    make_folder(anew)
    try:
        evaluator.prepare(anew, seed=seed)
        if _different(recorded, _digests(anew)) is not None:
            raise RunError(
                f"{folder / damaged} is not as the evaluator has prepared it, and preparing it again gave something "
                f"else, to which the trials of this run do not belong; restore it, or start a new run"
            )
        sync_tree(anew)
        shutil.rmtree(folder, ignore_errors=True)
        anew.replace(folder)
    finally:
        shutil.rmtree(anew, ignore_errors=True)


def files_of(folder: Path) -> dict[str, bytes]:
    """Path below a folder -> content, of all files in it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write what `files_of` has read below another folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files_of(folder).items()}


def _different(recorded: dict[str, str], now: dict[str, str]) -> str | None:
    """The first file that is not as recorded."""
    return next((name for name, digest in recorded.items() if now.get(name) != digest), None)
