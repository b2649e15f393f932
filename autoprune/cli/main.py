"""The command line: parse, call, show. Everything heavy is imported inside the command that needs it.

Longer than others, as it holds a signature with its help for each command.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from autoprune._version import __version__
from autoprune.cli import latency as latency_cli
from autoprune.cli.compare import compare
from autoprune.cli.interrupt import asking
from autoprune.cli.options import (
    AddressOption,
    ArgOption,
    EngineOption,
    InputOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    SetOption,
    SpaceOption,
    TrialsOption,
    WorkersOption,
    changes_of,
    chosen_engine,
    model_and_example,
    show,
    usable_path,
)
from autoprune.errors import AutopruneError, ConfigError, DataError, EngineLostError, EvaluationError
from autoprune.signals import exit_code, interruption, terminable
from autoprune.texts import printable

app = typer.Typer(
    help="AutoML search over pruned architectures: per-layer widths under a budget, compared with uniform pruning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(latency_cli.app, name="latency")
app.command()(compare)

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run directory", callback=usable_path)]
ProgressOption = Annotated[str, typer.Option("--progress", help="auto, rich, plain or silent")]


def main() -> None:
    """Run the command line; errors a user can cause end with exit code 2 and no traceback."""
    sys.path.insert(0, str(Path.cwd()))  # module:factory of the user's own, as `python -m` would find it
    try:
        app()
    except AutopruneError as error:
        typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(printable(str(error)), err=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def search(
    job_file: Annotated[
        Path, typer.Argument(metavar="JOB.yaml", help="a job file, see configs/", callback=usable_path)
    ],
    run_dir: Annotated[
        Path | None, typer.Option(help="where to write; a free directory below runs/ by default", callback=usable_path)
    ] = None,
    progress: ProgressOption = "auto",
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    settings: SetOption = None,
    trials: TrialsOption = None,
    seed: SeedOption = None,
) -> None:
    """Search the widths of a network under a budget and compare the winner with uniform pruning."""
    changes = changes_of(settings, trials, seed)

    from autoprune.config.job import load_job
    from autoprune.pipeline.names import check_names

    job = load_job(job_file, changes)
    check_names(job)  # before torch is imported
    job = job.model_copy(update={"engine": chosen_engine(job.engine, engine, address, workers)})

    from autoprune.files import free_directory
    from autoprune.pipeline.driver import RUNS, start_job

    directory = run_dir or free_directory(RUNS, job.name)
    with _stoppable(directory):
        _conclude(start_job(job, directory, progress=progress), directory)


@app.command()
def resume(
    run_dir: RunArgument,
    progress: ProgressOption = "auto",
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    settings: SetOption = None,
    trials: TrialsOption = None,
) -> None:
    """Go on with a run: one that was stopped as if it had not been, one that has ended with more trials, seeds, ….

    With other constraints a run beside it begins, on its base network and scores.
    """
    changes = changes_of(settings, trials)

    from autoprune.pipeline.driver import resume_job
    from autoprune.pipeline.inputs import job_of_run

    chosen = chosen_engine(job_of_run(run_dir, changes).engine, engine, address, workers)
    with _stoppable(run_dir):
        _conclude(resume_job(run_dir, progress=progress, engine=chosen, changes=changes), run_dir)


@app.command()
def finish(
    run_dir: RunArgument,
    progress: ProgressOption = "auto",
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
) -> None:
    """End a search with the trials so far, stopped or at work: verdict, report and export of what there is."""
    from autoprune.pipeline.changes import job_at
    from autoprune.pipeline.finishing import finish_job
    from autoprune.trials.run_directory import check_begun, check_search

    check_begun(run_dir)
    check_search(run_dir)
    given = any(option is not None for option in (engine, address, workers))
    chosen = chosen_engine(job_at(run_dir).engine, engine, address, workers) if given else None
    with _stoppable(run_dir):
        _conclude(finish_job(run_dir, progress=progress, engine=chosen, note=typer.echo), run_dir)


@app.command()
def report(run_dir: RunArgument) -> None:
    """Write report.html and report.md of a finished run anew."""
    from autoprune.pipeline.driver import write_all_reports

    _conclude(write_all_reports(run_dir, note=lambda line: typer.echo(line, err=True)), run_dir)


@app.command()
def export(
    run_dir: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="a new folder", callback=usable_path)],
    formats: Annotated[
        str, typer.Option("--format", help="one or more, with commas; `autoprune parts exporters` lists them")
    ] = "safetensors",
    arm: Annotated[
        str, typer.Option("--arm", metavar="NAME", help="winner, or what it was compared with: uniform_all, …")
    ] = "winner",
    package: Annotated[
        list[str] | None, typer.Option("--package", help="a package whose functions may build the network; repeatable")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="run whatever code the run names: only your own runs")] = False,
) -> None:
    """Write a network of a run to a folder, alone: for autoprune.load, or in formats that do not need autoprune."""
    from autoprune.export.safetensors import loading
    from autoprune.pipeline.driver import export_run

    chosen = [name.strip() for name in formats.split(",") if name.strip()]
    folder = export_run(run_dir, to, chosen, arm=arm, packages=package or (), trust=trust, note=typer.echo)
    loads = loading(folder, shown=to, packages=package or (), trust=trust)
    typer.echo(f"exported to {folder}{loads and f'; load it with {loads}'}")


@app.command()
def space(
    model: ModelArgument,
    arg: ArgOption = None,
    input_shape: InputOption = "1,3,32,32",
    space_file: SpaceOption = None,
    verify: Annotated[bool, typer.Option(help="build random cuts and compare them")] = True,
    as_json: JsonOption = False,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="write the space, as JSON", callback=usable_path)
    ] = None,
) -> None:
    """Show what can be cut in a model, and what stays and why."""
    from autoprune.cli.tables import space_json, space_tables

    traced = _trace(model, arg, input_shape, space_file, verify=verify)
    if save is not None:
        _save(traced.search_space, save)
    show(space_json(traced) if as_json else space_tables(traced))


@app.command()
def cost(
    model: ModelArgument,
    arg: ArgOption = None,
    input_shape: InputOption = "1,3,32,32",
    space_file: SpaceOption = None,
    widths: Annotated[str, typer.Option(help="full, uniform:RATIO, or a file of widths by group")] = "full",
    as_json: JsonOption = False,
) -> None:
    """Show what a network costs: one multiply-add is one FLOP, one pass of the example input."""
    from autoprune.cli.tables import cost_json, cost_tables, parse_widths

    traced = _trace(model, arg, input_shape, space_file, verify=False)
    chosen = parse_widths(widths, traced)
    show(cost_json(traced, chosen) if as_json else cost_tables(traced, chosen))


@app.command()
def parts(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="models, data, metrics, criteria, …")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what a job can name, of every kind or of one: where it comes from and when to use it."""
    from autoprune.cli.parts import parts_json, parts_tables

    show(parts_json(kind) if as_json else parts_tables(kind))


@app.command()
def controllers(as_json: JsonOption = False) -> None:
    """List what can propose candidates: short for `autoprune parts controllers`."""
    parts("controllers", as_json)


@app.command()
def doctor() -> None:
    """Check this machine: versions, devices, data, and whether runs can be written."""
    from autoprune.cli.doctor import examine

    show(examine())


def _trace(model: str, arg: list[str] | None, input_shape: str, space_file: Path | None, *, verify: bool) -> Any:
    network, example = model_and_example(model, arg, input_shape)

    from autoprune.api.search import trace

    return trace(network, example, options=space_file, verify=verify)


def _save(space: Any, path: Path) -> None:
    from autoprune.files import replace_file
    from autoprune.space.serial import to_json

    if path.exists() and not path.is_file():
        raise ConfigError(f"--save {path}: it is no regular file; give a new file, or one to replace")
    try:
        replace_file(path, json.dumps(to_json(space)).encode())
    except OSError as error:
        raise ConfigError(
            f"--save {path}: cannot be written: {error.strerror}; give a file in a folder that exists"
        ) from error


@contextmanager
def _stoppable(run_dir: Path) -> Iterator[None]:
    """End an interrupted run with how to go on; typer itself would say no more than "Aborted"."""
    place = run_dir.absolute()  # what is called may change the current folder
    command = f"autoprune resume {shlex.quote(str(run_dir))}"
    try:
        with terminable(), asking(place):
            yield
    except EngineLostError as error:
        raise EngineLostError(f"{error}: `{command}` goes on") from error
    except (DataError, EvaluationError) as error:
        from autoprune.trials.run_files import has_begun

        if not has_begun(place):
            raise
        raise type(error)(f"{str(error).rstrip('.')}. Once the cause is gone, `{command}` goes on") from error
    except BaseException as error:
        stopped = interruption(error)
        if stopped is None:
            raise
        from autoprune.trials.run_files import has_begun

        begun = has_begun(place)
        then = f"every ended trial is on disk: `{command}` goes on" if begun else "nothing was written"
        with suppress(OSError):  # the terminal may be gone
            typer.echo(f"\nstopped; {then}", err=True)
        raise typer.Exit(exit_code(stopped)) from None


def _conclude(records: Any, given: Path) -> None:
    from autoprune.files import shown_path
    from autoprune.report.measured import headline

    for record in records:
        none = "No final networks were trained, so there is no verdict."
        typer.echo(record.verdict.sentence if record.verdict else none)
        for line in headline(record):
            typer.echo(line)
        typer.echo(f"report: {shown_path(record.directory / 'report.html', like=given)}")
        typer.echo(f"network: {shown_path(record.directory / 'export', like=given)}")
    if len(records) > 1:
        typer.echo(f"overview: {shown_path(records[0].directory.parent / 'overview.md', like=given)}")


if __name__ == "__main__":
    main()
