from __future__ import annotations

import pytest

pytest.importorskip("ray")

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError

from autoprune.engines.ray.tune_errors import understood
from autoprune.engines.ray.tune_worker import Outgrown

HEAD = "Failure # 1 (occurred at 2026-01-01_00-00-00)\n"


@pytest.mark.parametrize(
    "error",
    [
        RayActorError(),
        ActorDiedError(),
        ActorUnavailableError("no answer", None),
        ActorDiedError(RayTaskError("f", "ray::T.__init__()\nValueError: no", ValueError("no"))),
    ],
)
def test_a_lost_worker_is_known_by_its_text(error: RayActorError) -> None:
    found = understood(f"{HEAD}{error}\n", of_worker=True)
    assert isinstance(found, RayActorError)
    assert (str(found), found.actor_init_failed) == (str(error), error.actor_init_failed)


def test_the_last_failure_counts_and_a_worker_that_outgrew_its_memory_is_known() -> None:
    text = "\x1b[36mray::Training.train()\x1b[39m (pid=1)\nautoprune.engines.ray.tune_worker.Outgrown: 5 of 3 MB"
    error = RayTaskError("f", text, Outgrown("5 of 3 MB"))
    found = understood(f"{HEAD}{RayActorError()}\n{HEAD}{error}\n", of_worker=True)
    assert isinstance(found, Outgrown)
    assert str(found) == "5 of 3 MB"


def test_any_other_error_of_a_worker_keeps_its_traceback() -> None:
    text = "ray::Training.train() (pid=1)\n  File x\nValueError: bad"
    found = understood(f"{HEAD}{RayTaskError('f', text, ValueError('bad'))}\n", of_worker=True)
    assert isinstance(found, RayTaskError)
    assert str(found).endswith("ValueError: bad")
    assert type(understood("", of_worker=False)) is RuntimeError
