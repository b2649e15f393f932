"""`autoprune latency`: profile this device, measure networks on it, predict them from a profile."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoprune.cli.latency_tables import measured_table, prediction_tables, profile_facts, profile_lines
from autoprune.cli.options import (
    ArgOption,
    InputOption,
    JsonOption,
    ModelArgument,
    SpaceOption,
    model_and_example,
    show,
    usable_path,
)
from autoprune.errors import ConfigError

if TYPE_CHECKING:  # `autoprune --help` must not import torch
    from autoprune.cost.latency.device_profile import DeviceProfile

app = typer.Typer(
    help="How long networks take: profile this device, measure networks on it, predict them from a profile.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

WidthsOption = Annotated[str, typer.Option(help="full, uniform:RATIO, or a file with widths")]
BackendOption = Annotated[str, typer.Option(help="torch, torch.compile or onnxruntime")]
ThreadsOption = Annotated[int, typer.Option(help="CPU threads")]
BatchOption = Annotated[int, typer.Option(help="inputs at once; 0 as many as in --input")]
DtypeOption = Annotated[str, typer.Option(help="float32, float16 or bfloat16")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N")]
ChannelsLastOption = Annotated[bool, typer.Option("--channels-last", help="memory format of weights and images")]
FoldOption = Annotated[bool, typer.Option("--fold-batch-norm", help="fold norms into convolutions first")]
RepeatsOption = Annotated[int, typer.Option(help="timed runs of each network, at least 50")]


@app.command("profile")
def make_profile(
    context: typer.Context,
    model: ModelArgument,
    arg: ArgOption = None,
    input_shape: InputOption = "1,3,32,32",
    space_file: SpaceOption = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="the profile to write", callback=usable_path)] = None,
    add_to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a profile that gets what it lacks", callback=usable_path)
    ] = None,
    backend: BackendOption = "torch",
    threads: ThreadsOption = 1,
    batch: BatchOption = 0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    channels_last: ChannelsLastOption = False,
    fold_batch_norm: FoldOption = False,
    networks: Annotated[int, typer.Option(help="whole networks to fit on, at least 10; 0 for kernels alone")] = 48,
    repeats: RepeatsOption = 50,
    seed: Annotated[int, typer.Option(help="of the networks' widths")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure the kernels of MODEL and whole networks of it on this device, and write a profile to predict with."""
    if (out is None) == (add_to is None):
        raise ConfigError("give either --out FILE for a new profile or --add-to FILE for one to extend")
    target = out or add_to
    assert target is not None
    from autoprune.cost.latency.profile_files import check_target, read_profile, write_profile

    check_target(target)
    network, example = model_and_example(model, arg, input_shape)

    from dataclasses import asdict, replace

    from autoprune.api.search import trace
    from autoprune.cost.latency.device_profile import Conditions
    from autoprune.latency.profile import build_profile

    chosen = Conditions(backend, threads, batch, dtype, channels_last, device, fold_batch_norm)
    known = None if add_to is None else read_profile(add_to)
    if known is not None:  # what is not said is as in the profile; what is said must be, too
        sources = {name: context.get_parameter_source(name) for name in asdict(chosen)}
        said = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
        chosen = replace(known.conditions, **{name: getattr(chosen, name) for name in said})
    traced = trace(network, example, options=space_file)
    profile = build_profile(
        traced.search_space,
        lambda widths: traced.slice(network, widths),
        example,
        chosen,
        label=model,
        made_for=_made_for(model, arg, input_shape, space_file),
        networks=networks,
        repeats=repeats,
        seed=seed,
        add_to=known,
        progress=_progress,
    )
    write_profile(profile, target)
    show(profile_facts(profile, target) if as_json else profile_lines(profile, target))


@app.command("measure")
def measure_network(
    model: ModelArgument,
    arg: ArgOption = None,
    input_shape: InputOption = "1,3,32,32",
    space_file: SpaceOption = None,
    widths: WidthsOption = "full",
    backend: BackendOption = "torch",
    threads: ThreadsOption = 1,
    batch: BatchOption = 0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    channels_last: ChannelsLastOption = False,
    fold_batch_norm: FoldOption = False,
    repeats: RepeatsOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Measure how long a network of these widths takes on this device, beside the full one, in turns."""
    network, example = model_and_example(model, arg, input_shape)

    from autoprune.api.search import trace
    from autoprune.cli.tables import parse_widths
    from autoprune.cost.latency.device_profile import Conditions
    from autoprune.latency.measure import measure_many

    chosen = Conditions(backend, threads, batch, dtype, channels_last, device, fold_batch_norm)
    traced = trace(network, example, options=space_file)
    rows = list(dict.fromkeys([parse_widths(widths, traced), traced.full]))
    found = measure_many([traced.slice(network, row) for row in rows], example, chosen, repeats=repeats)
    named = {widths: found[0], "full": found[-1]}
    show({name: latency.to_json() for name, latency in named.items()} if as_json else measured_table(named))


@app.command("predict")
def predict_network(
    model: ModelArgument,
    profile: Annotated[Path, typer.Option(metavar="FILE", help="of `autoprune latency profile`", callback=usable_path)],
    arg: ArgOption = None,
    input_shape: InputOption = "1,3,32,32",
    space_file: SpaceOption = None,
    widths: WidthsOption = "full",
    elsewhere: Annotated[bool, typer.Option("--elsewhere", help="the profile is of another machine")] = False,
    as_json: JsonOption = False,
) -> None:
    """Predict how long a network of these widths takes on the device of a profile, layer by layer."""
    network, example = model_and_example(model, arg, input_shape)

    from autoprune.api.search import trace
    from autoprune.cli.tables import parse_widths
    from autoprune.cost.latency.profile_files import read_profile
    from autoprune.cost.unpriced import MissingKernelsError

    found = read_profile(profile)
    traced = trace(network, example, options=space_file, verify=False)
    try:
        prediction = _prediction(traced.search_space, found, parse_widths(widths, traced), elsewhere=elsewhere)
    except MissingKernelsError as error:
        model_words, to = _made_for(model, arg, input_shape, space_file), shlex.quote(str(profile))
        raise MissingKernelsError(error.what, f"autoprune latency profile {model_words} --add-to {to}") from None
    show(prediction if as_json else prediction_tables(prediction, found))


def _prediction(space: Any, profile: DeviceProfile, widths: tuple[int, ...], *, elsewhere: bool) -> dict[str, Any]:
    """Milliseconds in total and by layer, for these widths and the full network."""
    from dataclasses import asdict

    import numpy as np

    from autoprune.cost.latency.latency_ms import LatencyPrediction, latency_ms

    predict = latency_ms(space, profile=profile, elsewhere=elsewhere)
    assert isinstance(predict, LatencyPrediction)
    rows = np.array([widths, space.full])
    layers: dict[str, float] = {}
    for call, ms in predict.by_call(rows):
        name = call.layer or call.kernel.operator
        layers[name] = layers.get(name, 0.0) + float(ms[0])
    total, full = (float(ms) for ms in predict(rows))
    return {
        "latency_ms": total,
        "full_latency_ms": full,
        "layers": layers,
        "rest": total - sum(layers.values()),
        "machine": profile.machine,
        "conditions": asdict(profile.conditions),
        "error": None if profile.error is None else asdict(profile.error),
    }


def _made_for(model: str, arg: list[str] | None, inputs: str, space_file: Path | None) -> str:
    """The model and its space, as arguments of the command."""
    words = [model, *(word for pair in arg or () for word in ("--arg", pair)), "--input", inputs]
    return shlex.join([*words, *(() if space_file is None else ("--space", str(space_file)))])


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{what}: {done} of {total} ", nl=done == total, err=True)
