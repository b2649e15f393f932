from __future__ import annotations

import numpy as np
import pytest

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
