from __future__ import annotations

import numpy as np
import pytest

from autoprune.controllers import make_controller
from autoprune.controllers.surrogate import Surrogate
from autoprune.testing.controllers import finish, roomy_domain


def test_what_others_had_scored_meanwhile_is_not_proposed_again() -> None:
    domain = roomy_domain()
    known = [tuple(map(int, row)) for row in domain.sample(80, np.random.default_rng(0))]
    ahead = Surrogate(domain, seed=0)
    ahead.tell(finish(known, 0))
    batch = ahead.ask(4)  # 80 scores: five proposals at once
    twin = Surrogate(domain, seed=0)
    twin.tell(finish(known, 0))
    assert twin.ask(1) == batch[:1]
    twin.tell(finish(batch[1:], len(known)))
    assert not set(twin.ask(3)) & set(batch)


def test_many_pending_proposals_are_made_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = roomy_domain()
    controller = Surrogate(domain, seed=0, startup=4)
    controller.tell(finish([tuple(map(int, row)) for row in domain.sample(8, np.random.default_rng(0))], 0))
    searched, search = [], controller._maximisers
    monkeypatch.setattr(controller, "_maximisers", lambda n: searched.append(n) or search(n))
    proposals = [controller.ask(1)[0] for _ in range(24)]
    assert len(searched) <= 16, "one at a time it would be 24"
    assert len(set(proposals)) == 24


@pytest.mark.parametrize(("trials", "random"), [(None, 10), (60, 10), (12, 4), (2, 1)])
def test_a_short_search_is_random_for_a_third_of_it_at_most(
    trials: int | None, random: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = roomy_domain()
    controller = make_controller("surrogate", domain, seed=0, settings={}, trials=trials)
    assert isinstance(controller, Surrogate)
    controller.tell(finish([domain.space.uniform(0.4)], 0))
    asked, search = [], controller._maximisers
    monkeypatch.setattr(controller, "_maximisers", lambda n: asked.append(n) or search(n))
    while not asked:
        controller.tell(finish(controller.ask(1), len(controller._told)))
    assert len(controller._told) - 1 == random
