"""What was measured, as lines and as a page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from autoprune.cost.latency.device_profile import DeviceProfile, HeldOut
from autoprune.cost.latency.profile_files import read_profile
from autoprune.latency.measure import AGREED

NETWORKS = {"resnet20": 32, "mobilenet_v2": 96, "resnet18": 96}
"""Name -> height and width of its images."""

ANCHORS = 12
"""Networks of the profile that tell the machine's speed."""

ERROR, RANK = 0.05, 0.97
"""The claim: median absolute error at most, Spearman's rank correlation at least."""

STEADY = 0.03
"""So much may the machine's speed change between profile and test for milliseconds to be compared as they are."""


@dataclass(frozen=True)
class Result:
    """One network on one backend.

    Attributes:
        network: its name.
        profile: what predicted.
        seconds: what making the profile took.
        ours: error of the prediction: what is claimed on a steady machine.
        line: error of a line fitted on FLOPs.
        level: error of the prediction at the speed that the machine had when the profile was made.
        speed: of the machine in the test, 1 when the profile was made.
        span: smallest and largest measured milliseconds.
        rate: predictions per second.
        repeats: timed runs of each network in each of two measurements.
    """

    network: str
    profile: DeviceProfile
    seconds: float
    ours: HeldOut
    line: HeldOut
    level: HeldOut
    speed: float
    span: tuple[float, float]
    rate: float
    repeats: int

    @property
    def holds(self) -> bool:
        """Whether the claim does."""
        judged = self.ours if self.steady else self.level
        return judged.median <= ERROR and judged.spearman >= RANK

    @property
    def steady(self) -> bool:
        """Whether the machine was as fast in the test as for the profile."""
        return abs(self.speed - 1.0) <= STEADY


def write_row(result: Result, folder: Path) -> None:
    """Keep a row beside its profile."""
    row = {name: getattr(result, name) for name in result.__dataclass_fields__ if name != "profile"}
    row |= {name: asdict(row[name]) for name in ("ours", "line", "level")}
    (folder / f"{result.network}_{result.profile.conditions.backend}.row").write_text(json.dumps(row))


def kept_rows(folder: Path) -> list[Result]:
    """All rows that were kept, by backend and network."""
    found = []
    for path in folder.glob("*.row"):
        row = json.loads(path.read_text())
        row |= {name: HeldOut(**row[name]) for name in ("ours", "line", "level")}
        found.append(Result(profile=read_profile(path.with_suffix(".json")), **{**row, "span": tuple(row["span"])}))
    return sorted(found, key=lambda r: (r.profile.conditions.backend != "torch", list(NETWORKS).index(r.network)))


def line_of(result: Result) -> str:
    """One result as text."""
    low, high = result.span
    profile = result.profile
    return (
        f"{result.network} on {profile.conditions.backend}: {low:.3g} to {high:.3g} ms; error {told(result.ours)}; "
        f"line on FLOPs {told(result.line)}; measured twice {result.ours.noise:.1%}, "
        f"{result.repeats} repeats; speed {result.speed:.2f}, at the profile's {told(result.level)}; "
        f"{result.rate:,.0f} predictions/s; profile of {len(profile.tables)} kernels and "
        f"{len(profile.networks)} networks in {result.seconds:.0f} s: {profile.error}; "
        f"{'holds' if result.holds else 'DOES NOT HOLD'}{'' if result.steady else ', judged at equal speed'}"
    )


def told(error: HeldOut) -> str:
    """Median, 90th percentile and rank correlation."""
    return f"{error.median:.1%} (90 % within {error.p90:.1%}), Spearman {error.spearman:.3f}"


def page(results: list[Result], *, test: int, repeats: int) -> str:
    """All results as a markdown page."""
    head = (
        "| network | backend | measured ms | median error | 90 % within | Spearman | line on FLOPs: error | Spearman |"
        " measured twice | repeats | speed | error at the profile's | predictions/s |"
    )
    rows = [
        f"| {r.network} at {NETWORKS[r.network]} | {r.profile.conditions.backend} | {r.span[0]:.2f} to {r.span[1]:.2f} "
        f"| {r.ours.median:.1%} | {r.ours.p90:.1%} | {r.ours.spearman:.3f} | {r.line.median:.1%} "
        f"| {r.line.spearman:.3f} | {r.ours.noise:.1%} | {r.repeats} | {r.speed:.2f} | {r.level.median:.1%} "
        f"| {r.rate:,.0f} |"
        for r in results
    ]
    first = results[0].profile
    versions = ", ".join(sorted({f"{n} {v}" for r in results for n, v in r.profile.versions.items()}))
    return "\n".join(
        [
            "# Latency: predicted beside measured",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {first.machine}, {first.conditions.threads} thread, batch "
            f"{first.conditions.batch}, {first.conditions.dtype}; {versions}. Made by `benchmarks/latency.py`.",
            "",
            f"Each row: {test} networks of random widths that the profile had not seen, each around a size of its own, "
            f"measured twice in turns; of at least {repeats} repeats each, the 5th percentile counts: what a run takes "
            "undisturbed. A single thread is timed by its processor time. *Line on FLOPs* is fitted to the same "
            "networks as the profile. *Measured twice* is the median difference of the two measurements: no prediction "
            f"can do much better. Where it is above {AGREED:.0%}, both are made up to five times longer. "
            "The claimed error is that of the profile as it was fitted against the measurements as they are. *Speed* "
            f"is that of the machine in the test, 1 when the profile was made, told by {ANCHORS} networks of the "
            "profile that are measured again among the others; the last column but one is the error once that is "
            f"taken out, and is judged where the speed changed by more than {STEADY:.0%}: "
            "how busy a machine is that day no profile can know.",
            "",
            head,
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"Claim: median error at most {ERROR:.0%} and Spearman at least {RANK}. "
            + ("It holds in every row." if all(r.holds for r in results) else "It does not hold in every row."),
            "",
        ]
    )
