"""`autoprune compare`: which parts are best on this model and these data, right after the cut."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoprune.cli.options import (
    AddressOption,
    ArgOption,
    EngineOption,
    JsonOption,
    WorkersOption,
    chosen_engine,
    read_arguments,
    show,
    usable_path,
)
from autoprune.errors import ConfigError

if TYPE_CHECKING:
    from autoprune.config.job import Job
    from autoprune.studies.comparison import CompareResult

_SHOWN, _COLUMNS = 8, 5
"""Of each budget's table on the terminal; the pages have all of it."""


def compare(
    source: Annotated[str, typer.Argument(metavar="MODEL|JOB.yaml", help="zoo name, module:factory, or a job file")],
    budgets: Annotated[str, typer.Option(help="percent of the full network, with commas")] = "75,50,25",
    metric: Annotated[str, typer.Option(help="what the budgets limit")] = "flops",
    allocations: Annotated[str | None, typer.Option(help="rules for widths, with commas")] = None,
    criteria: Annotated[str | None, typer.Option(help="what ranks channels, with commas")] = None,
    inherit: Annotated[
        str | None,
        typer.Option(help="methods on the weights, joined by +; lists with commas; none for nothing"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="of a MODEL: a data set's name, or module:function")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="of a MODEL: its trained weights; else it is trained", callback=usable_path)
    ] = None,
    arg: ArgOption = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="where to write, or go on; a free directory below runs/ by default", callback=usable_path
        ),
    ] = None,
    progress: Annotated[str, typer.Option(help="auto, rich, plain or silent")] = "auto",
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare rules for widths, criteria and inheritance under several budgets, right after the cut, untrained."""
    given = {
        "budgets": _numbers(budgets),
        "metric": metric,
        "allocations": _names(allocations),
        "criteria": _names(criteria),
        "inherit": None if inherit is None else [_chain(one) for one in inherit.split(",")],
    }
    from autoprune.config.validation import validated
    from autoprune.studies.options import CompareOptions

    options = validated(CompareOptions, given, "compare")
    job = _job(source, data, weights, arg)
    job = job.model_copy(update={"engine": chosen_engine(job.engine, engine, address, workers)})

    from autoprune.files import free_directory
    from autoprune.pipeline.driver import RUNS
    from autoprune.pipeline.inputs import inputs_of_job
    from autoprune.studies.compare import compare as carry_out

    directory = (to or free_directory(RUNS, f"compare-{job.name}")).absolute()
    found = carry_out(inputs_of_job(job), options, directory, progress=progress)
    show(found.to_json() if as_json else _tables(found))


def _job(source: str, data: str | None, weights: Path | None, arg: list[str] | None) -> Job:
    from autoprune.config.job import Job, load_job
    from autoprune.config.validation import validated

    if source.endswith((".yaml", ".yml")):
        beside = {"--data": data, "--weights": weights, "--arg": arg}
        wrong = [name for name, value in beside.items() if value]
        if wrong:
            raise ConfigError(f"{wrong[0]} goes with a MODEL; {source} is a job file, which says that itself")
        from autoprune.pipeline.names import check_names

        job = load_job(Path(source))
        check_names(job)
        return job
    if data is None:
        raise ConfigError(
            f"compare {source} needs data to score on: add --data cifar10 (`autoprune parts data` lists the names, "
            f"module:function is one of your own), or give a job file"
        )
    model: dict[str, Any] = {"factory": source, "arguments": read_arguments(arg or [])}
    name = "".join(c if c.isalnum() else "_" for c in source).strip("_") or "model"
    return validated(
        Job,
        {
            "name": name,
            "model": {**model, "weights": weights},
            "data": {"name": data},
            "constraints": {"flops": "50%"},
        },
        "compare",
    )


def _tables(found: CompareResult) -> list[Any]:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from autoprune.studies.comparison_pages import path_of, tables
    from autoprune.texts import score_text

    shown: list[Any] = [f"The full network: {score_text(found.full, found.scale)}"]
    for budget, content in tables(found).items():
        table = Table(title=f"{budget:g} % of {found.metric}", title_justify="left", box=SIMPLE_HEAD)
        for number, name in enumerate(content.header[:_COLUMNS]):
            table.add_column(name, justify="right" if number > 2 else "left", no_wrap=number > 2)
        for row in content.rows[:_SHOWN]:
            table.add_row(*row[:_COLUMNS])
        shown.append(table)
        if len(content.rows) > _SHOWN:
            shown.append(f"… and {len(content.rows) - _SHOWN} more in the report")
    return [*shown, *found.sentences, *found.notes, f"report: {path_of(found)}"]


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _chain(text: str) -> list[str]:
    return [] if text.strip() == "none" else [name.strip() for name in text.split("+")]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part.strip().removesuffix("%")) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--budgets {text!r}: give percentages with commas, for example 75,50,25") from None
