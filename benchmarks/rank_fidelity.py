"""Do cheap scores order networks of one budget as training does?

    python benchmarks/rank_fidelity.py truth|scores|page [--networks resnet20 mobilenetv2] [--workers 2] [--hours H]
                                       [--judges NAME …] [--bases runs/bases] [--keep docs/results/rank_fidelity]

`truth` trains 40 vectors of widths within 2 % of 25 % of the FLOPs and 24 at 50 %, of a ResNet-20 on CIFAR-10 and a
MobileNetV2 of half width on Fashion-MNIST: reconstructed and fine-tuned with distillation, and from scratch, three
seeds each, one schedule. Six hours on two cores, once; the three seeds are kept the moment they end, and a run that was
ended goes on where it was. `scores` scores the vectors that are trained with every evaluator and measure, an hour on
one core for all.
`page` writes how the orders agree to KEEP.md; it needs no data.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from ranking.networks import NETWORKS, ranked
from ranking.page import page
from ranking.rows import Appended, read
from ranking.scores import Scored, judges, score_all
from ranking.truth import Trainer, Training, all_trainings

from autoprune.space.groups import Widths

_MADE: dict[str, Trainer] = {}
_GIVEN: list[tuple[argparse.Namespace, float]] = []


def main() -> int:
    """Do one step."""
    options = _parsed()
    if options.step == "truth":
        _truth(options)
    elif options.step == "scores":
        _scores(options)
    else:
        trainings = [Training(**row) for row in read(options.keep / "truth.jsonl")]
        scored = [Scored(**row) for row in read(options.keep / "scores.jsonl")]
        options.keep.with_suffix(".md").write_text(page(trainings, scored))
    return 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("truth", "scores", "page"))
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--hours", type=float, help="begin nothing after so long")
    parser.add_argument("--judges", nargs="+", default=list(judges()), choices=list(judges()), metavar="NAME")
    parser.add_argument("--data", type=Path, help="folder of the data sets; None: AUTOPRUNE_DATA")
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--keep", type=Path, default=Path("docs/results/rank_fidelity"))
    return parser.parse_args()


def _truth(options: argparse.Namespace) -> None:
    place = options.keep / "truth.jsonl"
    known = [Training(**row) for row in read(place)]
    # trained here, once, before several processes want it
    vectors = {name: ranked(name, options.bases, data=options.data).vectors for name in options.networks}
    for one in known:  # those of earlier calls count, should another version draw others
        if one.network in vectors:
            vectors[one.network][one.budget][one.number] = tuple(one.widths)
    done = {one.key for one in known}
    missing = [one for one in all_trainings(vectors) if one.key not in done]
    print(f"{len(known)} trainings are known, {len(missing)} are missing", flush=True)
    file, end = Appended(place), math.inf if options.hours is None else time.time() + 3600 * options.hours
    with multiprocessing.get_context("spawn").Pool(options.workers, _begin, (options, end)) as pool:
        for trained in chain.from_iterable(pool.imap_unordered(_work, _together(missing))):
            file.add(trained)
            print(f"{' '.join(map(str, trained.key))}: {trained.score:.2f} %, {trained.cpu_seconds:.0f} s", flush=True)


def _together(missing: Iterable[Training]) -> list[list[Training]]:
    """The trainings of one vector one way, which begin with the same weights."""
    return [list(own) for _, own in groupby(missing, lambda one: one.key[:-1])]


def _scores(options: argparse.Namespace) -> None:
    place = options.keep / "scores.jsonl"
    file, known = Appended(place), {Scored(**row).key for row in read(place)}
    torch.set_num_threads(1)
    trained = [Training(**row) for row in read(options.keep / "truth.jsonl")]
    for name in options.networks:
        made = ranked(name, options.bases, data=options.data)
        vectors: dict[int, dict[int, Widths]] = {budget: {} for budget in made.vectors}
        for one in trained:
            if one.network == name:
                vectors[one.budget][one.number] = tuple(one.widths)
        for scored in score_all(made, vectors, known, options.judges):
            file.add(scored)
            print(f"{' '.join(map(str, scored.key))}: {scored.score:.4g}, {scored.cpu_seconds:.1f} s", flush=True)


def _begin(options: argparse.Namespace, end: float) -> None:
    torch.set_num_threads(1)
    _GIVEN.append((options, end))


def _work(given: Sequence[Training]) -> list[Training]:
    options, end = _GIVEN[0]
    name, done = given[0].network, list[Training]()
    for one in given:
        if time.time() > end:
            break
        if name not in _MADE:
            _MADE[name] = Trainer(ranked(name, options.bases, data=options.data), options.bases)
        done.append(_MADE[name].train(one))
    return done


if __name__ == "__main__":
    sys.exit(main())
