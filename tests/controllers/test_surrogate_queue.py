from __future__ import annotations

import numpy as np

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
