"""AMC: He et al. 2018, https://arxiv.org/abs/1802.03494: an agent that sets one ratio after the other.

A DDPG agent (Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971) walks through the groups, sees what each one is
and what has been cut, and gives the share of channels that it keeps. Actions are clipped so that the budget can still
be met if all later groups are cut as far as allowed (Algorithm 1). Only the whole network is scored, and every step of
the episode gets that score as its reward. Networks, rates, noise and buffer are those of the authors' code.

Departures: what the agent sees comes from the space, as a group may span layers: its place, kind, width, positions,
whether it is residual, its layers, its shares of FLOPs and parameters, then as in the paper what is reduced, what is
left, and the last action. Rewards are standardised over all trials, as scores may have any scale. What is left of the
budget is filled by `repair`; the agent learns the ratios that were scored, and others' trials fill its buffer. Where a
search has fewer than 400 trials, a quarter of them is the random start instead of 100 episodes.

Longer than others, as the agent, its memory and its networks serve this one algorithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import as_widths, unseen_near
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.shares import group_shares
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths
from autoprune.space.kinds import KINDS

_HIDDEN = 300
_ACTOR_RATE, _CRITIC_RATE = 1e-4, 1e-3
_BATCH, _EPISODES_KEPT = 64, 100
_TARGET_RATE = 0.01  # tau
_LAST_LAYER = 0.003  # init_w
_REWARD_RATE = 0.5  # of the moving average that is subtracted
_NOISE, _NOISE_DECAY = 0.5, 0.95
_WARMUP = 100
_REDUCED, _LEFT, _LAST = -3, -2, -1  # columns of a state that change

Episode: TypeAlias = tuple[FloatArray, FloatArray, float]
"""(G, S) states, (G,) actions, score."""


@final
class Amc(Controller):
    """Episodes of a DDPG agent, after a random start.

    Args:
        domain: the space under its budget.
        seed: of weights, noise and batches.
        trials: how many proposals the search will make, where that is known.
        least: the smallest ratio that the agent may give a group (lbound).
        warmup: random episodes; None: 100, or a quarter of `trials`.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        least: float = 0.2,
        warmup: int | None = None,
    ) -> None:
        if not 0 < least < 1:
            raise ConfigError(f"amc: least must be between 0 and 1, got {least}")
        if warmup is not None and warmup < 1:
            raise ConfigError(f"amc: warmup must be at least 1, got {warmup}")
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._warmup = warmup or min(_WARMUP, max(1, trials // 4) if trials else _WARMUP)
        self._full = np.array(domain.space.full, dtype=np.float64)
        self._least = self._reachable(least)
        self._static = _describe(domain)
        self._agent = _Agent(self._static.shape[1], self._rng)
        self._episodes: list[Episode] = []
        self._scored = 0  # the buffer forgets

    def ask(self, n: int = 1) -> list[Widths]:
        """Return the ends of `n` episodes: random ones at first, then the actor's with fading noise."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add scored episodes to the buffer and, after the random start, train once per group for each own one."""
        own = self._history.pending & {trial.widths for trial in trials}
        for trial, score in self._history.tell(trials):
            states, actions = self._trajectory(trial.widths)
            self._episodes = [*self._episodes[1 - _EPISODES_KEPT :], (states, actions, score)]
            self._scored += 1
            if trial.widths in own and self._scored >= self._warmup:
                self._agent.learn(self._episodes, self._rng, steps=len(actions))

    def exchange(self, proposed: Widths, handed_out: Widths) -> None:
        """Count what is evaluated in place of a proposal as an own episode."""
        self._history.exchange(proposed, handed_out)

    def _propose(self) -> Widths:
        widths = self._episode(max(0, len(self._history.seen) - self._warmup))
        if widths in self._history.seen:
            return unseen_near(self._domain, widths, self._history.seen, self._rng)
        return widths

    def _episode(self, age: int) -> Widths:
        """Walk through the groups; later ones count with their smallest width until their turn (Algorithm 1)."""
        widths = self._least * self._full
        last = 1.0
        for group in range(len(widths)):
            state = self._state(group, widths, last)
            if self._scored < self._warmup:
                action = self._rng.uniform(self._least[group], 1.0)
            else:
                noise = _NOISE * _NOISE_DECAY**age
                action = _truncated_normal(self._agent.act(state), noise, self._least[group], self._rng)
            last = self._within_budget(group, float(action), widths)
            widths[group] = last * self._full[group]
        return as_widths(self._domain.repair(widths[None, :])[0])

    def _within_budget(self, group: int, action: float, widths: FloatArray) -> float:
        """The largest ratio up to `action` with which the rest can still meet the budget."""
        ratios = np.linspace(self._least[group], max(action, self._least[group]), 33)
        rows = np.repeat(widths[None, :], len(ratios), axis=0)
        rows[:, group] = ratios * self._full[group]
        inside = np.flatnonzero(self._domain.budget.usage(rows) <= 1.0)
        return float(ratios[inside[-1] if len(inside) else 0])

    def _trajectory(self, widths: Widths) -> tuple[FloatArray, FloatArray]:
        """(G, S) states and (G,) actions of the episode that ends in these widths."""
        actions = np.array(widths) / self._full
        so_far = self._least * self._full
        states, last = [], 1.0
        for group, action in enumerate(actions):
            states.append(self._state(group, so_far, last))
            so_far[group], last = action * self._full[group], float(action)
        return np.array(states), actions

    def _state(self, group: int, widths: FloatArray, last: float) -> FloatArray:
        """What the agent sees before it sets a group, given what it did before."""
        done, rest = self._full.copy(), self._full.copy()
        done[:group] = widths[:group]
        rest[group + 1 :] = self._least[group + 1 :] * self._full[group + 1 :]
        full, after, spared = self._domain.budget.usage(np.stack([self._full, done, rest]))
        state: FloatArray = self._static[group].copy()
        state[[_REDUCED, _LEFT, _LAST]] = 1 - after / full, 1 - spared / full, last
        return state

    def _reachable(self, least: float) -> FloatArray:
        """(G,) smallest ratios: `least`, or the smallest choices where the budget demands less."""
        choices: FloatArray = np.array(self._domain.space.smallest) / self._full
        ratios: FloatArray = np.maximum(choices, least)
        held = ~self._domain.space.kinds.scales  # there or not
        ratios[held] = choices[held]
        return ratios if self._domain.budget.usage((ratios * self._full)[None, :])[0] <= 1.0 else choices


def _describe(domain: BudgetedSpace) -> FloatArray:
    """(G, S) what does not change of the states, every column from 0 to 1; the last three are empty."""
    kinds = {kind: number for number, kind in enumerate(KINDS)}
    groups, shares = domain.space.groups, group_shares(domain.space)
    rows = [
        [i, kinds[g.kind], g.slots, g.positions, g.residual, len(g.members), share["flops"], share["params"], 0, 0, 0]
        for i, (g, share) in enumerate(zip(groups, shares, strict=True))
    ]
    columns = np.array(rows, dtype=np.float64)
    lowest = columns.min(axis=0)
    scaled: FloatArray = (columns - lowest) / np.maximum(columns.max(axis=0) - lowest, 1e-12)
    return scaled


def _truncated_normal(mean: float, sd: float, least: float, rng: np.random.Generator) -> float:
    """A draw around the mean between `least` and 1, by rejection."""
    for _ in range(100):
        draw = rng.normal(mean, sd)
        if least <= draw <= 1:
            return float(draw)
    return float(np.clip(mean, least, 1.0))


@final
class _Agent:
    """Actor, critic and their slow copies."""

    def __init__(self, states: int, rng: np.random.Generator) -> None:
        self._actor, self._actor_target = _network(states, 1, rng), _network(states, 1, rng)
        self._critic, self._critic_target = _network(states + 1, 1, rng), _network(states + 1, 1, rng)
        with torch.no_grad():
            for slow, fast in self._pairs():
                slow.copy_(fast)
        self._actor_step = torch.optim.Adam(self._actor, _ACTOR_RATE, fused=True)
        self._critic_step = torch.optim.Adam(self._critic, _CRITIC_RATE, fused=True)
        self._average: float | None = None

    def act(self, state: FloatArray) -> float:
        """The actor's ratio, between 0 and 1."""
        with torch.no_grad():
            return float(torch.sigmoid(_forward(self._actor, _tensor(state))))

    def learn(self, episodes: Sequence[Episode], rng: np.random.Generator, *, steps: int) -> None:
        """Train on batches of single steps of the episodes."""
        states, after, actions, rewards, goes_on = _transitions(episodes)
        for _ in range(steps):
            batch = rng.integers(len(rewards), size=_BATCH)
            mean = float(rewards[batch].mean())
            self._average = mean if self._average is None else self._average + _REWARD_RATE * (mean - self._average)
            with torch.enable_grad():
                self._update(
                    _tensor(states[batch]),
                    _tensor(after[batch]),
                    _tensor(actions[batch, None]),
                    _tensor(rewards[batch, None] - self._average),
                    _tensor(goes_on[batch, None]),
                )

    def _update(self, s: Tensor, s_next: Tensor, a: Tensor, r: Tensor, goes_on: Tensor) -> None:
        with torch.no_grad():
            a_next = torch.sigmoid(_forward(self._actor_target, s_next))
            target = r + goes_on * _forward(self._critic_target, torch.cat([s_next, a_next], dim=1))
        value_loss = F.mse_loss(_forward(self._critic, torch.cat([s, a], dim=1)), target)
        _descend(value_loss, self._critic, self._critic_step)
        acted = torch.sigmoid(_forward(self._actor, s))
        policy_loss = -_forward(self._critic, torch.cat([s, acted], dim=1)).mean()
        _descend(policy_loss, self._actor, self._actor_step)
        with torch.no_grad():
            for slow, fast in self._pairs():
                slow.lerp_(fast, _TARGET_RATE)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        slow, fast = self._actor_target + self._critic_target, self._actor + self._critic
        return list(zip(slow, fast, strict=True))


def _descend(loss: Tensor, network: list[Tensor], step: torch.optim.Adam) -> None:
    """One step along the gradient of this network alone: `backward` would also compute the other one's."""
    for tensor, gradient in zip(network, torch.autograd.grad(loss, network), strict=True):
        tensor.grad = gradient
    step.step()


def _transitions(episodes: Sequence[Episode]) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """States, next states, actions, rewards, and 1 where the episode goes on, of all steps of all episodes."""
    scores = np.array([score for _, _, score in episodes])
    rewards = (scores - scores.mean()) / (float(scores.std()) or 1.0)
    states = np.concatenate([s for s, _, _ in episodes])
    after = np.concatenate([np.concatenate([s[1:], s[-1:]]) for s, _, _ in episodes])
    length = len(episodes[0][1])
    goes_on = np.tile(np.arange(length) < length - 1, len(episodes)).astype(np.float64)
    return states, after, np.concatenate([a for _, a, _ in episodes]), np.repeat(rewards, length), goes_on


def _network(inputs: int, outputs: int, rng: np.random.Generator) -> list[Tensor]:
    """Weights and biases of two hidden layers, drawn from `rng`: torch's own generator belongs to the caller."""
    sizes = [inputs, _HIDDEN, _HIDDEN, outputs]
    tensors = []
    for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
        bound = _LAST_LAYER if layer == 2 else 1 / n_in**0.5
        for shape in ((n_out, n_in), (n_out,)):
            tensors.append(_tensor(rng.uniform(-bound, bound, shape)).requires_grad_())
    return tensors


def _forward(network: list[Tensor], x: Tensor) -> Tensor:
    for weight, bias in zip(network[:-2:2], network[1:-2:2], strict=True):
        x = F.relu(F.linear(x, weight, bias))
    return F.linear(x, network[-2], network[-1])


def _tensor(values: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
