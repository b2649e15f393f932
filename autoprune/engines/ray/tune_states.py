"""States of trainings on a storage that all workers see: a folder, NFS, or any URL of pyarrow or fsspec (s3://…).

One file for each training under way, written in one step after each epoch and deleted when the training has ended.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import pyarrow as pa
import torch
from pyarrow import fs

from autoprune.errors import ConfigError


@final
class States:
    """The folder of a run; raises OSError where the storage does not answer.

    Args:
        folder: path or URL.

    Raises:
        ConfigError: a URL of a kind that neither pyarrow nor fsspec knows.
    """

    def __init__(self, folder: str) -> None:
        self._system, self._folder = _resolve(folder)

    def read(self, key: str) -> dict[str, Any] | None:
        """The last state of a training; None where there is none that can be read."""
        try:
            with self._system.open_input_file(self._path(key)) as file:
                state: dict[str, Any] = torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        return state

    def write(self, key: str, state: dict[str, Any]) -> None:
        """Replace the state of a training, in one step."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._system.create_dir(self._folder, recursive=True)
        with self._system.open_output_stream(self._path(key) + ".tmp") as file:
            file.write(buffer.getvalue())
        self._system.move(self._path(key) + ".tmp", self._path(key))

    def delete(self, key: str) -> None:
        """Delete the state of a training, if there is one."""
        for path in (self._path(key), self._path(key) + ".tmp"):
            with suppress(FileNotFoundError):
                self._system.delete_file(path)

    def tidy(self) -> None:
        """Remove the folder if nothing is in it."""
        if not self._system.get_file_info(fs.FileSelector(self._folder)):
            self._system.delete_dir(self._folder)

    def check(self) -> None:
        """Find out that the storage can be written before work begins.

        Raises:
            ConfigError: it cannot.
        """
        try:
            self.write("check", {})
            self.delete("check")
        except OSError as error:
            raise ConfigError(
                f"engine.storage_path: {self._folder} cannot be written: {error}; give a folder or a URL (s3://…) that "
                f"this process and all workers can write"
            ) from error

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}.pt"


def _resolve(folder: str) -> tuple[fs.FileSystem, str]:
    if "://" not in folder:
        return fs.LocalFileSystem(), str(Path(folder).expanduser().absolute())
    try:
        system, path = fs.FileSystem.from_uri(folder)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        system, path = _by_fsspec(folder)
    return system, path.rstrip("/")


def _by_fsspec(folder: str) -> tuple[fs.FileSystem, str]:
    from fsspec.core import url_to_fs  # comes with ray[tune]

    try:
        system, path = url_to_fs(folder)
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"engine.storage_path: {folder} cannot be used: {error}; give a folder that all workers see, or a URL of "
            f"a kind that pyarrow or fsspec knows (s3://, gs://, abfs://, hdfs://)"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path
