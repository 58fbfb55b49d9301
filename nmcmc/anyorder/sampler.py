"""The any-order sampler: a Proposal along one fixed order, conditional draws from any known spins, and marginals.

As a proposal it draws in the stored order and its density is the product of the conditionals in that order, from the
very log-odds that decided each spin. The marginal head's number is no density of a sampler unless it is consistent
with the conditionals; it is reported beside them (`log_marginal`, `consistency`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mc.hamiltonian import Hamiltonian
from nmcmc.anyorder.known_fields import KnownFields
from nmcmc.anyorder.window import places_of
from nmcmc.parts import Part, uniforms
from nmcmc.tokens import Tokens

QUERIES_AT_ONCE, TOKENS_AT_ONCE = 2**13, 2**20  # of a full pass; an array over all window tokens has 4 MB
DRAWN_AT_ONCE = 512


class AnyOrderSampler(nn.Module):
    """q(s) = prod_i q(s_i | s_before) along `order`, each conditional prior x network.

    hamiltonian, beta: the target (beta in 1 / energy unit). network: `SiteNetwork` or `WholeNetwork`. order: (N,), a
    permutation of the sites. local: whether the prior is the field of known spins, else there is none.
    condition: (C,) numbers from -1 to 1 that tell a network of many temperatures and fields where it is.
    """

    spinwise, canonical = True, False

    def __init__(
        self, hamiltonian: Hamiltonian, beta: float, network: nn.Module | None, order: np.ndarray, local: bool,
        condition: Tensor | None = None, max_batch: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.hamiltonian, self.beta, self.network, self.local = hamiltonian, float(beta), network, local
        self.tokens = Tokens(np.asarray(order, np.int64)[:, None])
        self.order = self.tokens.sites[:, 0]
        self.rank = np.argsort(self.order)
        self.fields = KnownFields(hamiltonian)
        self.max_batch = max_batch or DRAWN_AT_ONCE
        n_spins = hamiltonian.n_spins
        neighbours = np.zeros((n_spins, 0), np.int64)
        if network is not None and network.one_pass:
            neighbours = network.window.neighbours(places_of(hamiltonian))
        self.register_buffer("neighbours", torch.from_numpy(neighbours), persistent=False)
        self.register_buffer("condition", condition, persistent=False)

    @property
    def device(self) -> torch.device:
        return self.neighbours.device

    def states_within(self, numbers: int) -> int:
        """Most states, at least 1, for which an array of a full pass has at most so many numbers."""
        return max(1, numbers // (4 * self.tokens.n_spins * max(self.neighbours.shape[1], 1)))

    def prior_alone(self) -> AnyOrderSampler:
        """The same without the network."""
        return AnyOrderSampler(self.hamiltonian, self.beta, None, self.order, self.local, None, self.max_batch)

    # --- the proposal -------------------------------------------------------------------------------------------

    def sample(self, n: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n independent states: spins (n, N) int8 and log q (n,) float64."""
        nothing = np.zeros((n, self.tokens.n_spins), np.int8)
        return self.fill(nothing, generator)

    def draw_tokens(self, n: int, generator: torch.Generator | Sequence[Part]) -> tuple[Tensor, Tensor]:
        """n states in one batch: spins (n, N) float32 and log q of each spin in the order (n, N) float64."""
        nothing = np.zeros((n, self.tokens.n_spins), np.int8)
        spins, log_q = self._fill(nothing, uniforms(n, self.tokens.n_spins, generator))
        return spins.float().to(self.device), log_q[:, torch.from_numpy(self.order.copy()).to(self.device)]

    def log_prob(self, spins: np.ndarray) -> np.ndarray:
        """log q (n,) float64 of states (n, N) in the stored order."""
        spins = np.asarray(spins)
        found = np.empty(len(spins))
        at_once = self.states_at_once()
        with torch.no_grad():
            for start in range(0, len(spins), at_once):
                part = torch.from_numpy(spins[start : start + at_once].astype(np.float32)).to(self.device)
                found[start : start + at_once] = self.token_log_probs(part).sum(1).cpu().numpy()
        return found

    def token_log_probs(self, spins: Tensor, rank: np.ndarray | None = None) -> Tensor:
        """log q of every spin (n, N) float64, in site order, of states (n, N); rank (n, N): along other orders."""
        return functional.logsigmoid(self.odds_along(spins, rank).double() * spins)

    # --- any subset -----------------------------------------------------------------------------------------------

    def fill(self, partial: np.ndarray, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the unknown spins, given the known ones, of partial states (n, N) of +1, -1 and 0 for unknown.

        Returns whole states (n, N) int8 and log q(drawn | known) (n,) float64: the product of conditionals of the
        unknown spins, in the stored order. Raises ValueError for entries that are none of the three.
        """
        partial = self.checked_partial(partial)
        spins, log_q = np.empty(partial.shape, np.int8), np.empty(len(partial))
        for start in range(0, len(partial), self.max_batch):
            rows = slice(start, min(start + self.max_batch, len(partial)))
            uniform = torch.rand(*partial[rows].shape, generator=generator, dtype=torch.float64)
            drawn, log = self._fill(partial[rows], uniform)
            spins[rows], log_q[rows] = drawn.numpy(), log.sum(1).cpu().numpy()
        return spins, log_q

    def log_marginal(self, partial: np.ndarray) -> np.ndarray:
        """ln p of the known spins of partial states (n, N), by the marginal head in one pass: (n,) float64.

        Relative to nothing known, whose number is the log of the normalisation. ValueError without a network.
        """
        partial = self.checked_partial(partial)
        if self.network is None:
            raise ValueError("a prior alone has no marginal head; use a trained net=anyorder or net=mlp")
        nothing = np.zeros((1, self.tokens.n_spins), np.int8)
        with torch.no_grad():
            parts = [self.marginal_of(part).cpu().numpy() for part in self._parts(partial)]
            return np.concatenate(parts or [np.zeros(0)]) - float(self.marginal_of(nothing)[0])

    def log_known(self, partial: np.ndarray) -> np.ndarray:
        """ln q (n,) float64 of the known spins of partial states (n, N): product of conditionals in the stored order.

        Each is given those known ones that come before it; unknown spins stay out.
        """
        partial = self.checked_partial(partial)
        found = [np.zeros(0)]
        with torch.no_grad():
            for part in self._parts(partial):
                rank = np.where(part != 0, self.rank, np.iinfo(np.int32).max)
                spins = torch.from_numpy(part.astype(np.float32)).to(self.device)
                log_q = functional.logsigmoid(self.odds_along(spins, rank).double() * spins)
                found.append(torch.where(spins != 0, log_q, 0.0).sum(1).cpu().numpy())
        return np.concatenate(found)

    def checked_partial(self, partial: np.ndarray) -> np.ndarray:
        """Partial states as (n, N) int8; ValueError unless entries are +1, -1 or 0, and N is that of the model."""
        partial = np.atleast_2d(np.asarray(partial))
        if partial.ndim != 2 or partial.shape[1] != self.tokens.n_spins:
            raise ValueError(
                f"partial states {partial.shape}: (n, {self.tokens.n_spins}) is needed, as the model has"
            )
        if not np.isin(partial, (-1, 0, 1)).all():
            raise ValueError("partial states hold other numbers than +1, -1 and 0 (unknown)")
        return partial.astype(np.int8)

    # --- passes, with gradients -----------------------------------------------------------------------------------

    def odds_along(self, spins: Tensor, rank: np.ndarray | None = None) -> Tensor:
        """Log-odds (n, N), in site order, of spins given those before them; rank (n, N) or (N,): of other orders."""
        rank = np.broadcast_to(self.rank if rank is None else rank, spins.shape)
        odds = self.prior_along(spins, rank)
        return odds if self.network is None else self.corrected_along(spins, rank, odds, self._conditions(len(spins)))

    def corrected_along(self, spins: Tensor, rank: np.ndarray, odds: Tensor, conditions: Tensor | None) -> Tensor:
        """Log-odds (n, N) with what the network adds to those of the prior (n, N), known already.

        rank (n, N). conditions (n, C): where each state is in the ranges of temperature and field.
        """
        if not self.network.one_pass:
            return self.network.odds_along(spins, torch.from_numpy(rank.copy()).to(self.device), odds)
        ranks = torch.from_numpy(rank.astype(np.int32)).to(self.device)
        before = _padded(ranks, np.iinfo(np.int32).max)[:, self.neighbours] < ranks[:, :, None]
        return self._queries(_padded(spins)[:, self.neighbours] * before, odds, conditions)

    def odds_given(self, partial: Tensor) -> Tensor:
        """Log-odds (n, N) of every spin given all other known ones of partial states (n, N)."""
        odds = self.prior_given(partial)
        if self.network is None:
            return odds
        if not self.network.one_pass:
            return self.network.odds(partial, odds)
        return self._queries(_padded(partial)[:, self.neighbours], odds, self._conditions(len(partial)))

    def odds_at(self, partial: Tensor, sites: np.ndarray) -> Tensor:
        """Log-odds (n,) of one spin each, at `sites` (n,), given all other known ones."""
        index = torch.from_numpy(np.asarray(sites, np.int64)).to(self.device)
        odds = torch.zeros(len(partial), device=self.device)
        if self.local:
            found = 2.0 * self.beta * self.fields.at_each(partial.to(torch.int8).cpu().numpy(), sites)
            odds = torch.from_numpy(found).float().to(self.device)
        if self.network is None:
            return odds
        if not self.network.one_pass:
            return self.network.odds(partial, odds[:, None]).gather(1, index[:, None])[:, 0]
        seen = _padded(partial).gather(1, self.neighbours[index])
        return self.network.odds(seen, odds, index, self._conditions(len(partial)))

    def marginal_of(self, partial: np.ndarray | Tensor) -> Tensor:
        """The marginal head's ln of the unnormalised marginal of partial states (n, N), (n,) float64."""
        spins = torch.as_tensor(partial).float().to(self.device)
        return self.marginal_with(spins, self.prior_given(spins), self._conditions(len(spins)))

    def marginal_with(self, spins: Tensor, odds: Tensor, conditions: Tensor | None) -> Tensor:
        """The same where log-odds of the prior (n, N) are known already; conditions as of `corrected_along`."""
        if not self.network.one_pass:
            return self.network.log_marginal(spins, odds).double()
        n, n_spins = spins.shape
        seen = _padded(spins)[:, self.neighbours].flatten(0, 1)
        rows = (odds.flatten(), self._sites(n), _for_all_sites(conditions, n_spins))
        return self.network.log_marginal(seen, spins.flatten(), *rows).view(n, n_spins).double().sum(1)

    def prior_along(self, spins: Tensor, rank: np.ndarray) -> Tensor:
        """Log-odds (n, N) float32 of the prior of states (n, N), each given the spins of lower rank (n, N)."""
        return self._prior(lambda states: self.fields.along(states, rank), spins)

    def prior_given(self, partial: Tensor) -> Tensor:
        """Log-odds (n, N) float32 of the prior given all other known spins of partial states (n, N)."""
        return self._prior(self.fields.given, partial)

    def states_at_once(self) -> int:
        """States of a full pass; as many as drawn at once for a network that sees one subset a pass."""
        if self.network is not None and not self.network.one_pass:
            return self.max_batch
        queries = min(QUERIES_AT_ONCE, TOKENS_AT_ONCE // max(self.neighbours.shape[1], 1))
        return max(1, queries // self.tokens.n_spins)

    # --- details --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _fill(self, partial: np.ndarray, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the unknown sites of each row in the stored order: spins (n, N) int8, on the CPU, and their log q.

        log q (n, N) float64, of each drawn spin, 0 where it was known.
        """
        n, device = len(partial), self.device
        states = np.array(partial, np.int8, order="C")
        unknown = states == 0
        # u < sigmoid(o) is logit(u) < o; a bound keeps u = 0 from deciding everything.
        threshold = torch.logit(uniform).clamp_min(-1e3).to(device)
        padded = _padded(torch.from_numpy(states.astype(np.float32)).to(device))
        log_q = torch.zeros(n, self.tokens.n_spins, dtype=torch.float64, device=device)
        for site in self.order.tolist():
            asked = np.flatnonzero(unknown[:, site])
            k = len(asked)
            if k == 0:
                continue
            rows, asked = (slice(None),) * 2 if k == n else (torch.from_numpy(asked).to(device), asked)
            odds = torch.zeros(k, device=device)
            if self.local:
                odds = torch.from_numpy(2.0 * self.beta * self.fields.at(states[asked], site)).float().to(device)
            if self.network is not None and self.network.one_pass:
                where = torch.full((k,), site, device=device) if self.network.place is not None else None
                odds = self.network.odds(padded[rows][:, self.neighbours[site]], odds, where, self._conditions(k))
            elif self.network is not None:
                odds = self.network.odds_at(padded[rows, :-1], odds, site)
            odds = odds.double()
            up = threshold[rows, site] < odds
            log_q[rows, site] = functional.logsigmoid(torch.where(up, odds, -odds))
            padded[rows, site] = 2.0 * up - 1.0
            states[asked, site] = (2 * up.to(torch.int8) - 1).cpu().numpy()
        return torch.from_numpy(states), log_q

    def _prior(self, fields, spins: Tensor) -> Tensor:
        """Log-odds (n, N) float32 of the prior from a function of the states, without gradients."""
        if not self.local:
            return torch.zeros(spins.shape, device=self.device)
        found = 2.0 * self.beta * fields(spins.detach().to(torch.int8).cpu().numpy())
        return torch.from_numpy(found).float().to(self.device)

    def _queries(self, seen: Tensor, odds: Tensor, conditions: Tensor | None) -> Tensor:
        """Log-odds (n, N) of queries at all sites, windows (n, N, M), conditions (n, C)."""
        n, n_spins = odds.shape
        rows = (self._sites(n), _for_all_sites(conditions, n_spins))
        return self.network.odds(seen.flatten(0, 1), odds.flatten(), *rows).view(n, n_spins)

    def _sites(self, n: int) -> Tensor | None:
        if getattr(self.network, "place", None) is None:
            return None
        return torch.arange(self.tokens.n_spins, device=self.device).repeat(n)

    def _conditions(self, rows: int) -> Tensor | None:
        return None if self.condition is None else self.condition.expand(rows, -1)

    def _parts(self, states: np.ndarray) -> list[np.ndarray]:
        at_once = self.states_at_once()
        return [states[start : start + at_once] for start in range(0, len(states), at_once)]


def _for_all_sites(conditions: Tensor | None, n_spins: int) -> Tensor | None:
    """Conditions (n, C) of states as those of their sites, (n N, C)."""
    return None if conditions is None else conditions.repeat_interleave(n_spins, 0)


def _padded(values: Tensor, beyond: float = 0.0) -> Tensor:
    """(n, N) with a column N for what lies beyond an open edge: nothing known."""
    return functional.pad(values, (0, 1), value=beyond)


def consistency(sampler: AnyOrderSampler, spins: np.ndarray, generator: torch.Generator) -> float:
    """Root mean square of [ln p(known) by the marginal head] - [the same by conditionals], in nats.

    spins: (n, N) whole states, of each of which the first d spins of the order are known, d random. The error of the
    marginal head (Liu et al., arXiv:2310.12920: self-consistency).
    """
    cut = torch.randint(1, sampler.tokens.n_spins + 1, (len(spins), 1), generator=generator).numpy()
    partial = np.where(sampler.rank < cut, spins, 0)
    difference = sampler.log_marginal(partial) - sampler.log_known(partial)
    return math.sqrt(float((difference**2).mean()))
