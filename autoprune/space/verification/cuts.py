"""Which members of a space are tried before it is used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoprune.space.groups import SearchSpace, Widths


def halves(indices: set[int]) -> Iterator[set[int]]:
    """Subsets such that every two indices are apart in at least one of them."""
    numbered = list(enumerate(sorted(indices)))
    for bit in range((len(numbered) - 1).bit_length() if numbered else 0):
        yield {index for number, index in numbered if number >> bit & 1}


def common_widths(space: SearchSpace) -> list[Widths]:
    """Two members in which as many groups as possible are equally wide."""
    widest = max(group.width for group in space.groups)
    targets = (int(np.median([group.width for group in space.groups])) // 2, widest // 4)
    return list(dict.fromkeys(space.nearest([max(1, n)] * len(space.groups)) for n in targets))
