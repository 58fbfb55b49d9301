"""Neural MCMC: an independence Metropolis chain on the proposals, mixed with local sweeps where wanted.

Each chain holds a state with its log q and log weight. A step proposes a whole configuration and accepts it on the
ratio of weights; `local` sweeps of single-spin updates may follow, after which log q of the moved state is scored
anew. Stored log_q and log_weight are always those of the state that stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mc.kernels import metropolis
from mc.kernels.independence import independence_steps
from mc.kernels.local_field import kernel_arrays, typical_fields
from mc.measure import kept_draws, of_spins
from mc.simulate import Block, checked_state, replica_streams
from nmcmc.proposals import ProposalBatch, ProposalStream
from nmcmc.sampler import Proposal

LOCAL_STREAMS = 2  # the use of the seed that drives local sweeps; 0 and 1 belong to the classical drivers


class NeuralDriver:
    """Neural MCMC at each beta, one Proposal a beta, vectorised over chains.

    local: Metropolis sweeps after each neural step. seed: of all random numbers. spins_every: keep the spins of draws
    0, K, 2K, ... (0: none). The chain starts from a proposal.
    posterior: `energy`, and those of `mc.measure.of_spins`.
    sample_stats: `log_q` and `log_weight` of the state that stays, `accepted` (1 or 0), `log_weight_proposed`.
    """

    def __init__(
        self, proposals: Sequence[Proposal], n_chains: int = 4, seed: int = 0, local: int = 0, spins_every: int = 1
    ):
        self._proposals = list(proposals)
        self._sources = [ProposalStream(p, n_chains, seed, index) for index, p in enumerate(proposals)]
        self.local, self.spins_every = local, spins_every
        hamiltonian = proposals[0].hamiltonian
        start, coupling, others = kernel_arrays(hamiltonian.table)
        self._tables = (start, coupling, others, typical_fields(start, coupling))
        self._streams = replica_streams(seed, LOCAL_STREAMS, n_chains, len(proposals))
        shape = (n_chains, len(proposals))
        self._spins = np.empty((*shape, hamiltonian.n_spins), np.int8)
        self._energy, self._log_q, self._log_weight = np.empty(shape), np.empty(shape), np.full(shape, -np.inf)
        self._step = 0  # proposals used so far
        self._draw = 0  # draws recorded so far
        self._advance(1)  # ln w = -inf: the first proposal is always taken

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps steps without a draw."""
        while n_sweeps > 0:
            n = min(n_sweeps, 4096)
            self._advance(n)
            n_sweeps -= n

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws of every chain at every beta."""
        series = self._advance(n_draws)
        kept = kept_draws(self._draw, n_draws, self.spins_every)
        spins = series.pop("spins")
        posterior = {"energy": series.pop("energy")} | of_spins(self._proposals[0].hamiltonian, spins)
        spins = spins[:, kept - self._draw]
        self._draw += n_draws
        return Block(posterior, series, spins, kept)

    def state(self) -> dict[str, np.ndarray]:
        return {
            "spins": self._spins.copy(),
            "energy": self._energy.copy(),
            "log_q": self._log_q.copy(),
            "log_weight": self._log_weight.copy(),
            "streams": self._streams.copy(),
            "step": np.array(self._step, np.int64),
            "draw": np.array(self._draw, np.int64),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        self._spins, self._streams = state["spins"], state["streams"]
        self._energy, self._log_q, self._log_weight = (state[n] for n in ("energy", "log_q", "log_weight"))
        self._step, self._draw = int(state["step"]), int(state["draw"])

    def _advance(self, n: int) -> dict[str, np.ndarray]:
        """n steps at every beta; the series of what is recorded, (chain, n, beta, ...)."""
        columns = [self._advance_beta(b, source.take(self._step, n)) for b, source in enumerate(self._sources)]
        self._step += n
        return {name: np.stack([column[name] for column in columns], axis=2) for name in columns[0]}

    def _advance_beta(self, b: int, proposed: ProposalBatch) -> dict[str, np.ndarray]:
        if self.local == 0:
            series = self._independence(b, proposed)
        else:
            # After local sweeps the weight of the state changes, so each step has to wait for the one before.
            parts = []
            for step in range(proposed.energy.shape[1]):
                one = ProposalBatch(*(values[:, step : step + 1] for values in vars(proposed).values()))
                parts.append(self._independence(b, one) | self._local_sweeps(b))
            series = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
        return series | {"log_weight_proposed": proposed.log_weight}

    def _independence(self, b: int, proposed: ProposalBatch) -> dict[str, np.ndarray]:
        held = independence_steps(self._log_weight[:, b].copy(), proposed.log_weight, proposed.uniform)
        chain = np.arange(len(held))[:, None]

        # Row 0 of each extended series is the starting state, so that held = -1 reads it.
        def follow(start: np.ndarray, values: np.ndarray) -> np.ndarray:
            return np.concatenate([start[:, None], values], axis=1)[chain, held + 1]

        series = {
            "spins": follow(self._spins[:, b], proposed.spins),
            "energy": follow(self._energy[:, b], proposed.energy),
            "log_q": follow(self._log_q[:, b], proposed.log_q),
            "log_weight": follow(self._log_weight[:, b], proposed.log_weight),
            "accepted": (held == np.arange(held.shape[1])).astype(np.float64),
        }
        self._spins[:, b], self._energy[:, b] = series["spins"][:, -1], series["energy"][:, -1]
        self._log_q[:, b], self._log_weight[:, b] = series["log_q"][:, -1], series["log_weight"][:, -1]
        return series

    def _local_sweeps(self, b: int) -> dict[str, np.ndarray]:
        """`local` sweeps of every chain at beta b; the series of one draw that they change."""
        proposal = self._proposals[b]
        spins, streams = np.ascontiguousarray(self._spins[:, b]), np.ascontiguousarray(self._streams[:, b])
        betas = np.full(len(spins), proposal.beta)
        metropolis.sweep(spins, self._energy[:, b].copy(), betas, streams, *self._tables, self.local)
        self._spins[:, b], self._streams[:, b] = spins, streams
        self._energy[:, b] = proposal.hamiltonian.energy(spins)
        self._log_q[:, b] = proposal.log_prob(spins)
        self._log_weight[:, b] = -proposal.beta * self._energy[:, b] - self._log_q[:, b]
        now = {"energy": self._energy, "log_q": self._log_q, "log_weight": self._log_weight}
        return {"spins": spins[:, None].copy()} | {name: values[:, None, b].copy() for name, values in now.items()}
