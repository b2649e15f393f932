"""The lane of short evaluations: resident actors that hold model, space and data, and take one candidate at a time.

An actor that dies, hangs past the time limit or grows past the memory limit is replaced, and what it worked on is sent
again or has failed. Nothing is sent that is not in the ledger, and nothing that has ended is sent again.

Longer than others, as one lane keeps count of all that its actors do.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from autoprune.engines.base import Scoring
from autoprune.engines.local import evaluate
from autoprune.engines.ray.cluster import Cluster, own_memory, run_name, short_reason, start_failed
from autoprune.engines.ray.packing import Buffer, unpack_setup
from autoprune.errors import RunError
from autoprune.space.groups import Widths
from autoprune.trials.assignment import Outcome
from autoprune.trials.session import SearchSession

_WORKERS_PER_RESERVE = 8
"""For so many workers one proposal is made in advance: a worker that gets free need not wait for the controller and
the ledger. Few workers wait for less than a better informed proposal is worth."""

_STILLBORN = 3
"""This many workers in a row that die without having evaluated anything are not chance."""

_GLANCE = 0.05
"""Seconds between two looks at a worker's memory."""


class EvaluationWorker:
    """The actor. It builds its evaluator once and keeps it."""

    def start(self, packed: Buffer, device: str) -> None:
        """Unpack the setup; raises what building the evaluator raises."""
        setup = unpack_setup(packed, device)
        self._threads = setup.threads
        self._evaluator = setup.new_evaluator()

    def evaluate(self, widths: Widths, seed: int, full: bool, incumbents: tuple[Widths, ...] = ()) -> Outcome:
        """Score once; an error of the candidate is part of the outcome."""
        torch.set_num_threads(self._threads)  # torch counts threads for each thread of the actor
        return evaluate(self._evaluator, widths, seed=seed, full=full, incumbents=incumbents)

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]  # ray has no types
    def outgrown(self, limit: int) -> int:
        """Wait until this process holds more than `limit` bytes of its own, and return how many."""
        while (held := own_memory()) <= limit:
            time.sleep(_GLANCE)
        return held


@final
@dataclass(frozen=True, slots=True)
class _Piece:
    """What a worker is to evaluate, `number` in the order of those who ask."""

    number: int
    widths: Widths
    seed: int
    full: bool
    attempt: int = 1
    incumbents: tuple[Widths, ...] = ()


@final
@dataclass(eq=False)
class _Member:
    """A worker as the driver sees it: starting, idle, or busy with a piece."""

    actor: Any
    reference: Any  # of what it does: first its start, later its evaluation
    began: float
    growth: Any  # resolves when it holds more memory than it may; None where there is no limit
    ready: bool = False
    piece: _Piece | None = None

    @property
    def seconds(self) -> float:
        """How long it has done what it does."""
        return time.monotonic() - self.began


@final
class ActorLane:
    """Keeps as many workers as there is room for, and gives each one candidate after the other.

    Args:
        cluster: where they live.
        packed: reference to the packed setup in the object store.
        directory: of the run, which names the workers; nothing is written there.
    """

    def __init__(self, cluster: Cluster, packed: Any, directory: Path) -> None:
        self._cluster, self._packed = cluster, packed
        self._actor = ray.remote(concurrency_groups={"watch": 1}, max_restarts=0, max_task_retries=0)(EvaluationWorker)
        lane = uuid.uuid4().hex[:6]  # the caller's namespace may hold workers of a run of the same name
        self._names = (f"autoprune {run_name(directory)} evaluation {i} ({lane})" for i in itertools.count())
        self._waiting = cluster.waiting()
        self._stillborn = 0
        self._again: deque[_Piece] = deque()
        self._reserve: deque[_Piece] = deque()  # asked for in advance
        self._members = [self._hire() for _ in range(cluster.workers)]

    @property
    def busy(self) -> int:
        """How many workers evaluate now."""
        return sum(member.piece is not None for member in self._members)

    def search(self, session: SearchSession) -> None:
        """Evaluate until the session has nothing left; a proposal is made when a worker is free for it."""
        pending = {}

        def feed() -> _Piece | None:
            assignment = session.ask()
            if assignment is None:
                return None
            pending[assignment.number] = assignment
            number, widths, seed = assignment.number, assignment.widths, assignment.seed
            return _Piece(number, widths, seed, full=False, incumbents=assignment.incumbents)

        for number, outcome in self._carry_out(feed):
            session.tell(pending.pop(number), outcome)

    def score(self, pieces: Sequence[Scoring]) -> Iterator[tuple[int, Outcome]]:
        """Yield (position, outcome) of evaluations on all validation data, as they end."""
        waiting = iter([_Piece(i, piece.widths, piece.seed, full=True) for i, piece in enumerate(pieces)])
        yield from self._carry_out(lambda: next(waiting, None))

    def close(self) -> None:
        """Dismiss all workers."""
        for member in self._members:
            if not self._cluster.ended:  # or they with it
                ray.kill(member.actor)
        self._members = []

    def _carry_out(self, feed: Callable[[], _Piece | None]) -> Iterator[tuple[int, Outcome]]:
        """Yield outcomes as they come; `feed` is asked when a worker is free, and no more once it has given None."""
        more = True
        try:
            while True:
                for member in [m for m in self._members if m.ready and m.piece is None]:
                    piece = self._at_hand() or (feed() if more else None)
                    if piece is None:
                        more = False
                        break
                    self._send(member, piece)
                if not (more or self._again or self._reserve or self.busy):
                    return
                wanted = more and len(self._reserve) < len(self._members) // _WORKERS_PER_RESERVE
                if wanted and self.busy:
                    piece = feed()
                    more = piece is not None
                    self._reserve.extend([piece] if piece is not None else [])
                yield from self._news(0.0 if wanted else self._until_a_limit())
        finally:  # reached early if whoever asked has stopped listening
            self._again.clear()
            self._reserve.clear()
            for member in [m for m in self._members if m.piece is not None]:
                if not self._cluster.ended:
                    self._replace(member)

    def _at_hand(self) -> _Piece | None:
        """A piece that needs not be asked for: one that was lost, or one of the reserve."""
        return next((pieces.popleft() for pieces in (self._again, self._reserve) if pieces), None)

    def _send(self, member: _Member, piece: _Piece) -> None:
        member.piece, member.began = piece, time.monotonic()
        member.reference = member.actor.evaluate.remote(piece.widths, piece.seed, piece.full, piece.incumbents)

    def _news(self, patience: float) -> Iterator[tuple[int, Outcome]]:
        """Wait for so many seconds until something happens to a worker; yield the outcomes of it."""
        doing = {m.reference: m for m in self._members if not m.ready or m.piece is not None}
        growing = {m.growth: m for m in self._members if m.growth is not None}
        references = [*doing, *growing]
        happened, _ = ray.wait(references, num_returns=1, timeout=patience)
        self._cluster.check_node()
        if happened:  # of several events all are told before the next proposal is made
            happened, _ = ray.wait(references, num_returns=len(references), timeout=0)
        for reference in happened:
            member = doing.get(reference) or growing[reference]
            if member in self._members:
                yield from self._ended(member) if reference in doing else self._outgrown(member)
        yield from self._overdue()
        self._check_patience()

    def _ended(self, member: _Member) -> Iterator[tuple[int, Outcome]]:
        """A worker has started, evaluated, or died."""
        piece = member.piece
        try:
            outcome: Outcome | None = ray.get(member.reference)
        except RayTaskError as error:  # the evaluator cannot be built there, or the outcome cannot travel
            reason = str(error)
            if piece is None:
                raise start_failed(reason) from error
            outcome = Outcome(None, reason, member.seconds)
        except RayError as error:
            self._cluster.check_node(at_once=True)  # it may have died with its node, which is ours
            self._cluster.lost(short_reason(error))
            yield from self._after_loss(member, str(error))
            return
        member.ready = True
        if piece is not None and outcome is not None:
            self._stillborn = 0
            following = self._at_hand()
            if following is not None:
                self._send(member, following)  # before the outcome is told, which takes longer
            yield piece.number, outcome
            if following is None:
                member.piece = None  # busy until then: it is about to get the next one

    def _after_loss(self, member: _Member, why: str) -> Iterator[tuple[int, Outcome]]:
        """Replace a worker that died; its piece is sent again, or has failed if that was tried often enough."""
        piece = member.piece
        self._replace(member)
        if piece is None:
            self._count_stillborn(why)
        elif piece.attempt <= self._cluster.options.retries:
            self._cluster.happened["retried"] += 1
            self._again.append(replace(piece, attempt=piece.attempt + 1))
        else:
            died = f"{why}\nthe worker died, the last of {piece.attempt} attempts at this candidate"
            yield piece.number, Outcome(None, died, member.seconds)

    def _outgrown(self, member: _Member) -> Iterator[tuple[int, Outcome]]:
        """Stop a worker that holds too much memory; another attempt would end the same way."""
        try:
            held = int(ray.get(member.growth))
        except RayError:
            self._cluster.check_node(at_once=True)
            member.growth = None  # it died; that is told by what it was doing
            if member.ready and member.piece is None:
                yield from self._after_loss(member, "it died while it was idle")
            return
        limit = self._cluster.stopping.memory_limit or 0
        reason = f"stopped at {held / 1e9:.2f} GB, above the memory_limit of {limit / 1e9:.2f} GB"
        yield from self._stop(member, "out_of_memory", reason)

    def _overdue(self) -> Iterator[tuple[int, Outcome]]:
        limit = self._cluster.stopping.time_limit
        late = [m for m in self._members if m.piece is not None and limit is not None and m.seconds > limit]
        for member in late:
            yield from self._stop(member, "timed_out", f"stopped after the time_limit of {limit:g} s")

    def _stop(self, member: _Member, event: str, reason: str) -> Iterator[tuple[int, Outcome]]:
        piece = member.piece
        self._cluster.happened[event] += 1
        self._cluster.note(f"a worker was {reason}; another one takes its place")
        self._replace(member)
        if piece is None:
            self._count_stillborn(reason)
        else:
            yield piece.number, Outcome(None, reason, member.seconds)

    def _hire(self) -> _Member:
        actor = self._actor.options(name=next(self._names), **self._cluster.per_worker).remote()
        limit = self._cluster.stopping.memory_limit
        growth = None if limit is None else actor.outgrown.remote(limit)
        return _Member(actor, actor.start.remote(self._packed, self._cluster.device), time.monotonic(), growth)

    def _replace(self, member: _Member) -> None:
        ray.kill(member.actor)
        self._members[self._members.index(member)] = self._hire()

    def _count_stillborn(self, why: str) -> None:
        self._stillborn += 1
        if self._stillborn > _STILLBORN + self._cluster.workers:
            raise RunError(
                f"workers die before they have evaluated anything, {self._stillborn} in a row, the last one: {why}\n"
                f"Give workers more memory, or correct what they load; then resume the run"
            )

    def _until_a_limit(self) -> float:
        """Seconds that nothing needs to be looked at."""
        limit = self._cluster.stopping.time_limit
        left = [limit - m.seconds for m in self._members if m.piece is not None] if limit is not None else []
        return max(0.0, min([1.0, *left]))

    def _check_patience(self) -> None:
        if any(member.ready for member in self._members):
            self._waiting.seen()
        else:
            self._waiting.check()
