"""A network written in several formats: everything beside its place first, checked, then moved there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.errors import ConfigError, ExportError, RunError
from autoprune.export import EXPORTERS
from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.checking import largest_difference
from autoprune.files import sync_folder, sync_tree
from autoprune.registry import load_object

DEFAULT = ("safetensors",)


def exporters(formats: Sequence[ChosenPart]) -> dict[str, Exporter]:
    """Name -> exporter, each with its settings.

    Args:
        formats: names, `module:attribute` for one of the user's own, or `{"name": …, "settings": {…}}`.

    Raises:
        RegistryError: no exporter has this name.
        ConfigError: none or one twice, a setting that it does not have, or what is made is no exporter.
    """
    if isinstance(formats, str) or not isinstance(formats, Sequence) or not formats:
        raise ConfigError(f"formats is {formats!r}; give a list of {', '.join(EXPORTERS.names())}")
    made: dict[str, Exporter] = {}
    for place, given in enumerate(formats):
        chosen = NamedPart.of(given, f"formats[{place}]")
        if chosen.name in made:
            raise ConfigError(f"the format {chosen.name!r} is given twice; give each once")
        if ":" in chosen.name:
            part = load_object(chosen.name)(**chosen.settings)
        else:
            part = bind(EXPORTERS, chosen.name, chosen.settings)()
        if not isinstance(part, Exporter):
            raise ConfigError(
                f"the exporter {chosen.name!r} is a {type(part).__name__}; it must be a subclass of "
                f"autoprune.export.base.Exporter"
            )
        made[chosen.name] = part
    return made


def write_formats(
    source: ExportSource, made: dict[str, Exporter], folder: Path, *, note: Callable[[str], None] = lambda line: None
) -> Path:
    """Write a network into a new or empty folder, or nothing at all.

    Args:
        source: the network.
        made: from `exporters`.
        folder: where to.
        note: told what each file takes, and how far its outputs are from the network's.

    Raises:
        RunError: the folder is not empty, or cannot be written.
        ExportError: a format cannot be written, two write the same file, or one computes something else.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; give a new folder")
    try:
        with _beside(folder) as (workplace, whole):
            for name, exporter in made.items():
                own = workplace / f"only-{len(list(workplace.iterdir()))}"
                own.mkdir()
                written = exporter.write(source, own)
                error = largest_difference(name, exporter, source, written, own)
                note(_told(name, written, error, own))
                _merge(own, whole, name)
            sync_tree(whole)
            if folder.exists():
                folder.rmdir()
            whole.replace(folder)
            sync_folder(folder.resolve().parent)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}; give another folder") from error
    return folder


@contextmanager
def _beside(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A hidden folder beside the place, and in it the one that becomes it; neither remains."""
    home = folder.resolve().parent
    home.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=home))
    whole = workplace / "whole"
    try:
        whole.mkdir()
        yield workplace, whole
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _merge(own: Path, whole: Path, name: str) -> None:
    for path in sorted(path for path in own.rglob("*") if path.is_file()):
        place = whole / path.relative_to(own)
        if place.exists():
            raise ExportError(
                f"the format {name} writes {place.relative_to(whole)}, and so does another one; export them to "
                f"different folders"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)


def _told(name: str, written: WrittenFiles, error: float | None, folder: Path) -> str:
    files = ", ".join(str(path.relative_to(folder)) for path in written.files)
    batch = "" if written.any_batch else "; takes only the batch size of the example input"
    checked = "" if error is None else f"; outputs are PyTorch's to {error:.1g} of the largest"
    usage = f"; use it by `{written.usage}`" if written.usage else ""
    return f"{name}: {files}{batch}{checked}{usage}"
