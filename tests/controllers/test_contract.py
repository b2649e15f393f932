from __future__ import annotations

import pytest

from autoprune.controllers import CONTROLLERS, make_controller
from autoprune.testing.controllers import ControllerContract, Make

SAMPLERS = ["optuna:TPESampler", "optuna:CmaEsSampler"]


class TestEveryController(ControllerContract):
    @pytest.fixture(params=[*CONTROLLERS.names(), *SAMPLERS])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda domain, seed: make_controller(request.param, domain, seed=seed, settings={})
