from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from autoprune.controllers import CONTROLLERS, make_controller
from autoprune.testing.controllers import ControllerContract, Make

VARIANTS: list[tuple[str, Mapping[str, Any]]] = [
    ("optuna:TPESampler", {}),
    ("optuna:CmaEsSampler", {}),
    ("evolution", {"variant": "metapruning", "population": 10}),
    ("evolution", {"trust_region": 0.5, "population": 6, "sample": 2}),
    ("abc", {"trust_region": 0.3}),
    ("pareto", {"population": 6, "metrics": ["flops", "params"]}),
]


def _label(controller: tuple[str, Mapping[str, Any]]) -> str:
    return "-".join(map(str, (controller[0], *controller[1].values())))


class TestEveryController(ControllerContract):
    @pytest.fixture(params=[*((name, {}) for name in CONTROLLERS.names()), *VARIANTS], ids=_label)
    def make(self, request: pytest.FixtureRequest) -> Make:
        name, settings = request.param
        return lambda domain, seed: make_controller(name, domain, seed=seed, settings=settings)


@pytest.mark.slow
class TestEveryControllerThatKnowsTheLengthOfTheSearch(ControllerContract):
    @pytest.fixture(params=["legr", "netadapt", "autoslim", "fastnas", "amc"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda domain, seed: make_controller(request.param, domain, seed=seed, settings={}, trials=24)
