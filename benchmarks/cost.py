"""Costing and cutting candidates: ours beside fvcore, PyTorch's counter, Torch-Pruning and a plain copy of the memory.

    python benchmarks/cost.py [--network resnet50 --network mobilenet_v2] [--size 224] [--seed 0] [--threads 1]

Networks are torchvision's, or of the zoo where torchvision lacks the name. For each it prints

- candidates costed (FLOPs and parameters) per second, in batches of 1, 1,000 and 100,000, and one really built network
  at a time by fvcore, `torch.utils.flop_counter` and, where it is installed, Torch-Pruning's counter;
- the seconds that one cut network takes, at random widths: by us, by Torch-Pruning (copy, then prune, to one ratio), by
  `copy.deepcopy` of the cut network, and by copying nothing but the surviving tensors, the four in turns. Beside them
  what bounds ours: copying the rows whole of which columns are cut, which have to be read, into memory that is there;
  and the bare calls without which there is no network: for each tensor `index_select` along each cut axis (`clone`
  where none is), for each module an object, its attributes copied and its dozen of hook tables made anew.

Ends with an error if a cost differs from fvcore's, or if a claim does not hold: CANDIDATES per second in large batches,
RATIO times fvcore's rate, a cut network in at most COPIES times the memory copy, and PEER times faster than
Torch-Pruning.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib
import platform
import statistics
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import autoprune
from autoprune.cost.flops import flops
from autoprune.cost.params import params
from autoprune.cost.polynomial import CostFunction
from autoprune.space.cutting.slicing import Slicer, random_ranking
from autoprune.space.groups import IntArray, SearchSpace, Widths
from autoprune.space.verification.flop_check import counted_by_fvcore, multiply_adds
from autoprune.zoo import build_model

CANDIDATES = 1_000_000
RATIO = 100_000
COPIES = 3.0
PEER = 20.0

BATCHES = (1, 1_000, 100_000)
REPEATS = 7
ROUNDS = 31


def main() -> int:
    """Measure, print, and return 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", help="may be given several times")
    parser.add_argument("--size", type=int, default=224, help="of the images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, numpy {np.__version__}, python {platform.python_version()}, {platform.machine()}, "
        f"{options.threads} threads"
    )
    failed = []
    for name in options.network or networks():
        torch.manual_seed(options.seed)
        failed += [f"{name}: {claim}" for claim in measure(name, build(name), options.size, options.seed)]
    print("every claim holds" if not failed else "do not hold: " + "; ".join(failed))
    return 1 if failed else 0


def networks() -> list[str]:
    """Those that the claims are about; two of the zoo where torchvision is not installed."""
    if vision_models() is not None:
        return ["resnet50", "mobilenet_v2"]
    print("torchvision is not installed: networks of the zoo instead")
    return ["resnet56", "mobilenetv2"]


def vision_models() -> Any:
    """The models of torchvision; None where it is not installed."""
    try:
        importlib.import_module("coverage_models.vision_operators")  # lets torchvision in beside any build of torch
        return importlib.import_module("torchvision.models")
    except ImportError:
        return None


def build(name: str) -> nn.Module:
    """A network of torchvision, else of the zoo.

    Raises:
        RegistryError: neither has it.
    """
    models = vision_models()
    if models is not None and name in models.list_models():
        return models.get_model(name, weights=None).eval()  # type: ignore[no-any-return]
    return build_model(name).eval()


def measure(name: str, model: nn.Module, size: int, seed: int) -> list[str]:
    """Print everything about one network; return the claims that do not hold."""
    example, rng = torch.randn(1, 3, size, size), np.random.default_rng(seed)
    space = autoprune.trace(model, example, verify=False).search_space
    print(f"\n{name} at {size}: {len(space.groups)} groups")
    slicer = Slicer(model, space, random_ranking(space, rng))
    return [*costing(space, slicer, example, rng), *cutting(model, space, slicer, example, rng)]


def costing(space: SearchSpace, slicer: Slicer, example: Tensor, rng: np.random.Generator) -> list[str]:
    """Candidates costed per second."""
    costs, ours = [flops(space), params(space)], {}
    for n in BATCHES:
        widths = draw(space, n, rng)
        price(costs, widths)
        ours[n] = [n / seconds(lambda widths=widths: price(costs, widths)) for _ in range(REPEATS)]  # type: ignore[misc]
        print(f"  costed per second, ours, batch {n:>7,}: {spread(ours[n])}")
    chosen = [tuple(int(w) for w in row) for row in draw(space, REPEATS, rng)]
    networks = [slicer(widths) for widths in chosen]
    counters: dict[str, Callable[[nn.Module], object]] = {
        "fvcore": lambda network: counted_by_fvcore(network, example),
        "torch.utils.flop_counter": lambda network: torch_count(network, example),
    }
    pruning = torch_pruning()
    if pruning is not None:
        counters["Torch-Pruning"] = lambda network: pruning.utils.count_ops_and_params(network, example)
    rates = {}
    for counter, count in counters.items():
        rates[counter] = [1 / seconds(lambda n=network, c=count: c(n)) for network in networks]  # type: ignore[misc]
        print(f"  costed per second, {counter} (building not counted): {spread(rates[counter])}")
    exact = [multiply_adds(space, w) == counted_by_fvcore(n, example) for w, n in zip(chosen, networks, strict=True)]
    most = statistics.median(ours[BATCHES[-1]])
    ratio = most / statistics.median(rates["fvcore"])
    print(f"  ours / fvcore: {ratio:,.0f}; costs equal to fvcore's: {sum(exact)} of {len(exact)}")
    claims = {
        "costs differ from fvcore's": all(exact),
        f"{most:,.0f} candidates per second, claimed {CANDIDATES:,}": most >= CANDIDATES,
        f"{ratio:,.0f} times fvcore, claimed {RATIO:,}": ratio >= RATIO,
    }
    return [claim for claim, holds in claims.items() if not holds]


def cutting(
    model: nn.Module, space: SearchSpace, slicer: Slicer, example: Tensor, rng: np.random.Generator
) -> list[str]:
    """Seconds that one cut network takes."""
    ways: dict[str, list[float]] = {"memory copy": [], "bare calls": [], "ours": []}
    ways |= {"copy.deepcopy": [], "Torch-Pruning": []}
    bounds: dict[str, list[float]] = {"memory copy": [], "rows whole": [], "rows and columns": []}
    pruning = torch_pruning()
    for number in range(ROUNDS):
        widths: Widths = tuple(int(w) for w in draw(space, 1, rng)[0])
        network = slicer(widths)
        tensors = [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]
        ways["memory copy"].append(seconds(lambda tensors=tensors: [t.clone() for t in tensors]))  # type: ignore[misc]
        ways["bare calls"].append(bare_calls(model, slicer, widths))
        ways["ours"].append(seconds(lambda widths=widths: slicer(widths)))  # type: ignore[misc]
        ways["copy.deepcopy"].append(seconds(lambda network=network: copy.deepcopy(network)))  # type: ignore[misc]
        for part, spent in two_axes(model, slicer, widths).items():
            bounds[part].append(spent)
        if pruning is not None and number < REPEATS:
            ways["Torch-Pruning"].append(seconds(lambda: pruned(pruning, model, example)))
    for way, times in ways.items():
        if times:
            print(f"  one cut network, {way}: {spread(1e3 * t for t in times)} ms")
    for part, times in bounds.items():
        print(f"  of it weights cut along two axes, {part}: {spread(1e3 * t for t in times)} ms")
    ours = statistics.median(ways["ours"])
    copies, bare = beside(ways["ours"], ways["memory copy"]), beside(ways["ours"], ways["bare calls"])
    least = beside(ways["bare calls"], ways["memory copy"])
    print(f"  ours / memory copy: {copies:.2f}; bare calls / memory copy: {least:.2f}; ours / bare calls: {bare:.2f}")
    told = f"{copies:.2f} memory copies and {bare:.2f} times the bare calls for one cut network"
    claims = {f"{told}, claimed {COPIES} copies": copies <= COPIES}
    if ways["Torch-Pruning"]:
        faster = statistics.median(ways["Torch-Pruning"]) / ours
        print(f"  Torch-Pruning / ours: {faster:,.0f}")
        claims[f"{faster:.1f} times faster than Torch-Pruning, claimed {PEER}"] = faster >= PEER
    else:
        print("  Torch-Pruning is not installed")
    return [claim for claim, holds in claims.items() if not holds]


def beside(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of what was measured in turns."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def bare_calls(model: nn.Module, slicer: Slicer, widths: Widths) -> float:
    """Seconds of the calls that no way to build the network is without; which they are is looked up before."""
    kept = slicer.cut(widths).kept
    tensors = [(t.detach(), kept.get(name, ())) for name, t in (*model.named_parameters(), *model.named_buffers())]
    steps = [(t, [(dim, i) for dim, i in enumerate(axes) if i is not None]) for t, axes in tensors]
    modules = [(type(module), vars(module)) for module in model.modules()]
    tables = [sum(1 for value in content.values() if type(value) is OrderedDict) for _, content in modules]

    def build() -> list[object]:
        made: list[object] = []
        for t, along in steps:
            left = t
            for dim, indices in along:
                left = left.index_select(dim, indices)
            made.append(left if along else t.clone())
        for (cls, content), n in zip(modules, tables, strict=True):
            made.append((cls.__new__(cls), content.copy(), [OrderedDict() for _ in range(n)]))
        return made

    return seconds(build)


def two_axes(model: nn.Module, slicer: Slicer, widths: Widths) -> dict[str, float]:
    """Seconds that weights take of which rows and columns are cut: copied as they are left, and made in two steps."""
    kept = slicer.cut(widths).kept
    both = [(t.detach(), *kept[name][:2]) for name, t in model.named_parameters() if name in kept and t.ndim > 1]
    cuts = [(t, rows, columns) for t, rows, columns in both if rows is not None and columns is not None]
    room = torch.empty(max((t.numel() for t, _, _ in cuts), default=0))

    def whole(t: Tensor, rows: Tensor) -> Tensor:
        part = room[: len(rows) * t[0].numel()].view(len(rows), *t.shape[1:])
        return torch.index_select(t, 0, rows, out=part)

    left = [whole(t, rows).index_select(1, columns) for t, rows, columns in cuts]
    return {
        "memory copy": seconds(lambda: [t.clone() for t in left]),
        "rows whole": seconds(lambda: [whole(t, rows) for t, rows, _ in cuts]),
        "rows and columns": seconds(lambda: [whole(t, rows).index_select(1, columns) for t, rows, columns in cuts]),
    }


def draw(space: SearchSpace, n: int, rng: np.random.Generator) -> IntArray:
    """(n, G) members, every width as likely as any other."""
    return np.stack([rng.choice(group.choices, size=n) for group in space.groups], axis=1)


def price(costs: Iterable[CostFunction], widths: IntArray) -> None:
    """Cost all rows."""
    for cost in costs:
        cost(widths)


def torch_count(network: nn.Module, example: Tensor) -> int:
    """PyTorch's own counter, which runs the network; two operations are one multiply-add."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(example)
    return counter.get_total_flops() // 2


def torch_pruning() -> Any:
    """The peer; None where it is not installed."""
    try:
        return importlib.import_module("torch_pruning")
    except ImportError:
        return None


def pruned(pruning: Any, model: nn.Module, example: Tensor) -> nn.Module:
    """One network by Torch-Pruning: copy, find what depends on what, cut half of everything."""
    network = copy.deepcopy(model)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = pruning.pruner.BasePruner(
            network,
            example,
            importance=pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[last],
        )
        pruner.step()
    return network


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, without Python's garbage collector; what it makes is let go before the next measurement.

    One thread is timed by its processor time: what other programs take of the processor does not count.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    gc.disable()
    started = clock()
    made = work()
    spent = clock() - started
    gc.enable()
    del made
    return spent


def spread(values: Iterable[float]) -> str:
    """Median, and from the lowest to the highest."""
    known = sorted(values)
    return f"{statistics.median(known):,.2f} (from {known[0]:,.2f} to {known[-1]:,.2f})"


if __name__ == "__main__":
    sys.exit(main())
