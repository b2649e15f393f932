"""What the commands of the command line share: options, how their values are read, and how results are shown."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoprune.cli.inputs import HELP, example_of
from autoprune.config.bounded_files import shown_path
from autoprune.errors import ConfigError

if TYPE_CHECKING:  # `autoprune --help` must not import torch
    from torch import nn

    from autoprune.config.engine import EngineOptions
    from autoprune.space.tracing.program import Example


def usable_path(path: Path | None) -> Path | None:
    """A path of the command line; raises ConfigError where nothing can ever be there, or it may not be looked up."""
    if path is None:
        return None
    try:
        path.stat()
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) not in (errno.ENOENT, errno.ENOTDIR):
            told = getattr(error, "strerror", None) or error
            raise ConfigError(f"{shown_path(path)} cannot be looked up: {told}; give another path") from None
    return path


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="zoo name, or module:factory")]
ArgOption = Annotated[list[str] | None, typer.Option("--arg", metavar="KEY=VALUE", help="argument of the factory")]
InputOption = Annotated[str, typer.Option("--input", metavar="N,C,H,W", help=HELP)]
SpaceOption = Annotated[Path | None, typer.Option("--space", help="a file of search_spaces/", callback=usable_path)]
EngineOption = Annotated[str | None, typer.Option("--engine", help="local or ray, in place of the job's own")]
AddressOption = Annotated[str | None, typer.Option("--address", help="of a Ray cluster: auto or HOST:PORT")]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="on Ray; as many as it holds by default")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="a key of the job by its path, in YAML: search.trials=200"),
]
TrialsOption = Annotated[int | None, typer.Option("--trials", help="short for --set search.trials=…")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="short for --set seed=…")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]


def model_and_example(model: str, arg: list[str] | None, described: str) -> tuple[nn.Module, Example]:
    """The network that MODEL and its arguments name, and an example of the inputs that `--input` describes.

    Raises:
        ConfigError: an argument or an input cannot be read, or the network cannot be built.
    """
    arguments = read_arguments(arg or [])

    from autoprune.zoo import build_model

    network = build_model(model, arguments)
    return network, example_of(described, network)


def read_arguments(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs, their values in YAML.

    Raises:
        ConfigError: something else.
    """
    from autoprune.config.overrides import read_pairs

    return read_pairs(pairs, "--arg", example="classes=100")


def changes_of(pairs: list[str] | None, trials: int | None = None, seed: int | None = None) -> dict[str, Any]:
    """What --set and its short forms say of a job: dotted key -> value.

    Raises:
        ConfigError: a pair cannot be read, or both forms say something of one key.
    """
    from autoprune.config.overrides import read_pairs

    given = read_pairs(pairs or [])
    short = {"--trials": ("search.trials", trials), "--seed": ("seed", seed)}
    for option, (key, value) in short.items():
        if value is not None and given.setdefault(key, value) != value:
            raise ConfigError(f"{option} {value} and --set {key}={given[key]} contradict each other; give one of them")
    return given


def chosen_engine(own: EngineOptions, name: str | None, address: str | None, workers: int | None) -> EngineOptions:
    """The engine of a job, with what the command line says in its place.

    Args:
        own: of the job.
        name: another engine; None: the job's own, or ray where something of ray's is given.
        address: of a Ray cluster.
        workers: how many.

    Raises:
        ConfigError: an unknown engine, or one without such options.
    """
    from autoprune.config.engine import EngineOptions
    from autoprune.config.validation import validated

    given = {key: value for key, value in (("address", address), ("workers", workers)) if value is not None}
    name = ("ray" if given else own.name) if name is None else name
    kept = own.model_dump(exclude_unset=True) if name == own.name else {}
    return validated(EngineOptions, {**kept, "name": name, **given}, "--engine")


def show(content: Any) -> None:
    """Print a mapping as JSON, or a list of tables and texts."""
    if isinstance(content, dict):
        typer.echo(json.dumps(content, indent=2))
        return
    from rich.console import Console

    console = Console()
    for part in content:
        console.print(part)
