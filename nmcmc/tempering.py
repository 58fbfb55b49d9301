"""Parallel tempering with neural moves: now and then a whole configuration is offered to the replicas of some betas.

Every K rounds each replica that holds a beta with a proposal q takes a fresh state s' of q instead of its own s with
probability min(1, w(s') / w(s)), w = exp(-beta E) / q: the independence sampler, which leaves the law of that beta as
it is, so sweeps, swaps and neural moves mix freely. The replica has moved since its last offer, so q(s) is scored at
every move. Global moves by a network mixed with local ones: McNaughton et al., Phys. Rev. E 101, 053312 (2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import load_all, pack, store_all, unpack
from mc.kernels.independence import independence_steps
from mc.measure import Measured, Record
from mc.simulate import Block, at_least
from mc.tempering import TemperingDriver
from mc.tempering_rounds import Overlaps
from nmcmc.proposals import ProposalBatch, ProposalStream
from nmcmc.sampler import Proposal

NEURAL_STATS = ("neural_accepted", "log_weight_proposed")


class NeuralTemperingDriver(TemperingDriver):
    """A `TemperingDriver` whose replicas are offered proposals before rounds 0, K, 2K, ...

    proposals: one a beta, in the order of betas, None where there are only sweeps and swaps. every: K, in rounds.
    digest: names the proposals in the state, so that a run goes on with no others. The rest as of `TemperingDriver`.

    sample_stats has besides (chain, draw, beta): `neural_accepted`, the fraction of the offers since the last draw
    that was taken, over replicas, and `log_weight_proposed`, -beta E - ln q of the last offer, to the last replica.
    Both are NaN where there is no proposal and where none was made since the last draw.

    A replica that takes a proposal has no past: its round trip begins anew. So `round_trips` counts those of states
    that only sweeps and swaps moved; with neural moves at an end of the ladder it says little about mixing.

    Raises ValueError as `TemperingDriver` does, and for proposals of another target or at betas that tuning moves;
    FloatingPointError when a proposal's log q is not a number.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        proposals: Sequence[Proposal | None],
        every: int = 10,
        n_chains: int = 4,
        seed: int = 0,
        digest: bytes = b"",
        **tempering,
    ):
        super().__init__(hamiltonian, betas, n_chains, seed, **tempering)
        self.every = at_least("every", every, 1)
        if len(proposals) != len(self.betas):
            raise ValueError(f"{len(proposals)} proposals for {len(self.betas)} betas: one or None a beta is needed")
        offers = {b: proposal for b, proposal in enumerate(proposals) if proposal is not None}
        for b, proposal in offers.items():
            if proposal.beta != self.betas[b] or proposal.hamiltonian.fingerprint != hamiltonian.fingerprint:
                raise ValueError(f"the proposal for beta={self.betas[b]:.10g} has another Hamiltonian or temperature")
            if self.tuned and 0 < b < len(self.betas) - 1:
                raise ValueError(f"tuned: beta={self.betas[b]:.10g} would move away from its proposal")
        self._sources = {b: ProposalStream(q, self.n_chains * self.replicas, seed, b) for b, q in offers.items()}
        self._digest = np.frombuffer(digest, np.uint8)
        self.stat_names += NEURAL_STATS
        self._note(0)

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws: `thin` rounds with their neural moves, then the measurement."""
        block = super().block(n_draws)
        fraction = np.divide(
            self._taken, self._offered, out=np.full(self._taken.shape, np.nan), where=self._offered > 0
        )
        own = dict(zip(NEURAL_STATS, (fraction, self._log_weight), strict=True))
        return replace(block, sample_stats=block.sample_stats | own)

    def state(self) -> dict[str, np.ndarray]:
        """As of `TemperingDriver`, and the digest of the proposals."""
        return super().state() | {"proposals": self._digest.copy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when it differs."""
        if not np.array_equal(state.get("proposals"), self._digest):
            raise ValueError("state: the proposals have other weights")
        super().restore(state)

    def _note(self, n_draws: int) -> None:
        """Room for what the neural moves of some draws report, (chain, draw, beta)."""
        shape = (self.n_chains, n_draws, len(self.betas))
        self._offered, self._taken, self._log_weight = np.zeros(shape), np.zeros(shape), np.full(shape, np.nan)

    def _run(self, n_draws: int, thin: int, spins_every: int) -> tuple[Measured, Overlaps, np.ndarray, np.ndarray]:
        """As the parent's, in pieces that end where a neural move is due."""
        self._note(n_draws)
        first, done, left = self._draw, 0, thin  # left: rounds of the present draw
        pieces, pending = [], np.zeros((2, self.n_chains, len(self.betas)), np.int64)  # swaps of the present draw
        while done < n_draws:
            if self._round % self.every == 0:
                self._move(done)
            rounds = self.every - self._round % self.every
            whole = left == thin and rounds >= thin
            draws = min(rounds // thin, n_draws - done) if whole else 1
            step = thin if whole else min(rounds, left)
            self._draw = first + done
            measured, overlaps, *counts = super()._run(draws, step, spins_every if step == left else 0)
            left -= step
            if left:
                pending += np.stack(counts)[:, :, 0]
                continue
            for swaps, before in zip(counts, pending, strict=True):
                swaps[:, 0] += before
            pieces.append((measured, overlaps, *counts))
            pending[:] = 0
            done, left = done + draws, thin
        self._draw = first
        measured, overlaps, *counts = zip(*pieces, strict=True)
        series = [field for field in Measured._fields if not field.startswith("lowest")]  # the record is kept already
        return (
            _joined(measured, series),
            _joined(overlaps, Overlaps._fields),
            *(np.concatenate(parts, axis=1) for parts in counts),
        )

    def _move(self, draw: int) -> None:
        """One neural move at every beta that has a proposal; its report is put down at `draw` of the block."""
        store_all(self.engine.batch, self._rows)
        rows = self._rows.reshape(-1, self._rows.shape[-1])
        for b, source in self._sources.items():
            lanes = self._ladders.holder[:, :, b].ravel()
            taken, proposed = offer(rows, lanes, source, self._round // self.every)
            self._ladders.last_end[lanes[taken]] = 0  # neither end seen
            self._offered[:, draw, b] += self.replicas
            self._taken[:, draw, b] += taken.reshape(self.n_chains, -1).sum(axis=1)
            self._log_weight[:, draw, b] = proposed.log_weight.reshape(self.n_chains, -1)[:, -1]
            note_lowest(self.lowest, proposed)
        load_all(self.engine.batch, self._rows)


def offer(
    rows: np.ndarray, lanes: np.ndarray, source: ProposalStream, number: int
) -> tuple[np.ndarray, ProposalBatch]:
    """Offer each of some replicas a proposal of its own; which were taken, (n,) bool, and the proposals, (n, 1).

    rows: states as rows of bits (lanes, words) uint64, changed where a proposal is taken. lanes (n,): the replicas.
    source: a stream for n chains; number: of the draw from it. FloatingPointError for a log q that is not a number.
    """
    proposal, proposed = source.proposal, source.take(number, 1)
    hamiltonian = proposal.hamiltonian
    spins = unpack(rows[lanes], hamiltonian.n_spins)
    log_weight = -proposal.beta * hamiltonian.energy(spins) - proposal.log_prob(spins)
    if np.isnan(log_weight).any():
        where = f"log q of a replica at beta={proposal.beta:.10g}"
        raise FloatingPointError(f"{where} is not a number; train again with a smaller train.lr=")
    taken = independence_steps(log_weight, proposed.log_weight, proposed.uniform)[:, 0] == 0
    rows[lanes[taken]] = pack(proposed.spins[taken, 0])
    return taken, proposed


def note_lowest(lowest: Record, proposed: ProposalBatch) -> None:
    """A proposal of the lowest energy so far is worth keeping, taken or not."""
    best = int(proposed.energy[:, 0].argmin())
    if proposed.energy[best, 0] < lowest.energy:
        lowest.energy, lowest.spins = float(proposed.energy[best, 0]), proposed.spins[best, 0].copy()


def _joined(parts: Sequence[NamedTuple], fields: Sequence[str]) -> NamedTuple:
    """The last of some named tuples with the series `fields`, draws along axis 1, of all of them."""
    return parts[-1]._replace(**{name: np.concatenate([getattr(p, name) for p in parts], axis=1) for name in fields})
