"""What `autoprune latency` prints: predictions, measurements and profiles as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `autoprune --help` must not import torch
    from autoprune.cost.latency.device_profile import DeviceProfile
    from autoprune.latency.measure import Latency


def prediction_tables(prediction: Mapping[str, Any], profile: DeviceProfile) -> list[Any]:
    """Milliseconds by layer, and in total."""
    from rich.bar import Bar
    from rich.table import Table

    rows = {**prediction["layers"], "(the network as a whole)": prediction["rest"]}
    largest = max([1e-9, *rows.values()])
    table = Table(title="Predicted latency by layer", title_justify="left")
    table.add_column("layer", overflow="fold", min_width=8)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("of the largest", min_width=4, max_width=24)
    for layer, ms in rows.items():
        table.add_row(layer, f"{ms:.4f}", Bar(largest, 0, ms))
    share = prediction["latency_ms"] / prediction["full_latency_ms"]
    error = f"Of the profile: {profile.error}." if profile.error else "The profile holds no whole networks."
    return [
        table,
        f"{prediction['latency_ms']:.4g} ms, {share:.1%} of the full network's {prediction['full_latency_ms']:.4g} ms, "
        f"on {profile.machine} ({profile.conditions}). {error}",
    ]


def measured_table(named: Mapping[str, Latency]) -> list[Any]:
    """Networks beside each other, with the spread of their times."""
    from rich.bar import Bar
    from rich.table import Table

    largest = max(latency.ms for latency in named.values())
    table = Table(title="Measured latency", title_justify="left")
    for header in ("widths", "undisturbed ms", "median ms", "quartiles", ""):
        table.add_column(header, justify="left" if header in ("widths", "") else "right")
    for name, latency in named.items():
        low, high = latency.quartiles
        bar = Bar(largest, 0, latency.ms, width=24)
        table.add_row(name, f"{latency.quiet:.4g}", f"{latency.ms:.4g}", f"{low:.4g} to {high:.4g}", bar)
    one = next(iter(named.values()))
    versions = ", ".join(f"{name} {number}" for name, number in one.versions.items())
    told = f"{one.repeats} repeats in turns; {one.conditions}; {one.machine}; {versions}."
    return [table, f"{told} Undisturbed is the 5th percentile, which predictions and limits are about."]


def profile_facts(profile: DeviceProfile, path: Path) -> dict[str, Any]:
    """What a profile holds, as plain values."""
    from dataclasses import asdict

    return {
        "file": str(path),
        "machine": profile.machine,
        "conditions": asdict(profile.conditions),
        "made_for": list(profile.made_for),
        "versions": dict(profile.versions),
        "date": profile.date,
        "kernels": len(profile.tables),
        "networks": len(profile.networks),
        "error": None if profile.error is None else asdict(profile.error),
    }


def profile_lines(profile: DeviceProfile, path: Path) -> list[Any]:
    """What a profile holds, and what to do with it."""
    error = f"{profile.error}" if profile.error else "no whole networks measured, so its error is not known"
    return [
        f"{path}: {len(profile.tables)} kernels on {profile.machine} ({profile.conditions}); {error}.",
        f"It holds what these models need, each in its space: {'; '.join(profile.made_for)}. For others: "
        f"--add-to {path}.",
        f"Use it in a job: metrics: {{latency_ms: {{profile: {path}}}}}, constraints: {{latency_ms: 50%}}",
    ]
