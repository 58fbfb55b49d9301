"""Neural importance sampling: every draw is a fresh proposal and carries its weight.

Averages are sum w O / sum w with w = exp(-beta E) / q (Nicoli et al., Phys. Rev. E 101, 023304 (2020)).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mc.measure import kept_draws, of_spins
from mc.simulate import Block, checked_state
from nmcmc.proposals import ProposalStream
from nmcmc.sampler import Proposal


class ImportanceDriver:
    """Independent weighted draws at each beta, one Proposal a beta.

    seed: of all random numbers. spins_every: keep the spins of draws 0, K, 2K, ... (0: none).
    posterior: `energy`, and those of `mc.measure.of_spins`. sample_stats: `log_q`, `log_weight` of each draw.
    """

    def __init__(self, proposals: Sequence[Proposal], n_chains: int = 4, seed: int = 0, spins_every: int = 1):
        self._hamiltonian = proposals[0].hamiltonian
        self._streams = [ProposalStream(p, n_chains, seed, index) for index, p in enumerate(proposals)]
        self.spins_every = spins_every
        self._draw = 0

    def warm_up(self, n_sweeps: int) -> None:
        """Nothing to do: the draws are independent."""

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws of every chain at every beta."""
        taken = [stream.take(self._draw, n_draws) for stream in self._streams]
        kept = kept_draws(self._draw, n_draws, self.spins_every)
        energy = np.stack([batch.energy for batch in taken], axis=-1)
        own = [of_spins(self._hamiltonian, batch.spins) for batch in taken]
        posterior = {"energy": energy} | {name: np.stack([one[name] for one in own], axis=-1) for name in own[0]}
        stats = {name: np.stack([getattr(batch, name) for batch in taken], -1) for name in ("log_q", "log_weight")}
        spins = np.stack([batch.spins[:, kept - self._draw] for batch in taken], axis=2)
        self._draw += n_draws
        return Block(posterior, stats, spins, kept)

    def state(self) -> dict[str, np.ndarray]:
        return {"draw": np.array(self._draw, np.int64)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()`; ValueError when it belongs to something else."""
        self._draw = int(checked_state(state, self.state())["draw"])
