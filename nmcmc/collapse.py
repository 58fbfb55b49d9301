"""Whether a sampler has dropped modes: its own draws beside the same draws after a short parallel tempering.

Draws of q cannot show what q lacks. Refined by tempering they are states near the target that come from everywhere,
and three numbers tell:

    gap       <ln w>_refined - ln <w>_q, w = exp(-beta E) / q: an estimate of the forward KL divergence <ln p/q>_p
    unseen    the share of refined states that weigh more than the heaviest draw
    overlap   <q^2> of pairs, q = (1/N) sum s s': higher among draws where these know fewer valleys

Where q is good, or merely rough, the gap is about the reverse divergence dF = ln <w> - <ln w>_q. A dropped mode has a
large gap beside a small dF.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from mc.weighted import log_mean_weight
from nmcmc.refine import CHAINS, tempered
from nmcmc.sampler import Proposal

COLLAPSE = 2**31 + 3  # a use of the seed
ROUNDS = 400  # of the tempering before its first state
STATES, SPINS = 512, 2**19  # states at most, and spins of all of them
FEWEST = 4 * CHAINS
SURE = 4.0  # errors
NATS, TIMES = 1.0, 2.0  # a gap beyond TIMES dF + NATS is one of dropped modes, not of a rough law
SHARE = 0.1  # of refined states beyond all weights of the draws; of <q^2>


@dataclass(frozen=True)
class Collapse:
    """The numbers of the module, with errors. reverse: dF of the draws, nats. states: draws, and refined states."""

    gap: float
    gap_error: float
    reverse: float
    unseen: float
    overlap_draws: float
    overlap_draws_error: float
    overlap_refined: float
    overlap_refined_error: float
    states: int

    @property
    def reasons(self) -> list[str]:
        """What tells of missing modes, in words; empty when draws and refined states agree."""
        found = []
        if self.gap - (TIMES * self.reverse + NATS) > SURE * self.gap_error and self.unseen > SHARE:
            found.append(
                f"refined states have ln w {self.gap:.3g} +- {self.gap_error:.2g} above the draws "
                f"(dF {self.reverse:.2g}), {100 * self.unseen:.0f} % above all of them"
            )
        error = math.hypot(self.overlap_draws_error, self.overlap_refined_error)
        excess = self.overlap_draws - self.overlap_refined
        if excess > SURE * error and excess > SHARE * self.overlap_refined:
            found.append(
                f"<q^2> of pairs is {self.overlap_draws:.3f} among draws, {self.overlap_refined:.3f} among refined "
                f"states (+- {error:.2g})"
            )
        return found

    def line(self) -> str:
        """One plain line for the end of a training."""
        if self.reasons:
            remedy = "learn from tempering (--mode distill distill.from=pt, or train.objective=soft-likelihood)"
            return f"modes are missing: {'; '.join(self.reasons)}; {remedy}"
        return (
            f"draws agree with refined states: ln w gap {self.gap:.2g} +- {self.gap_error:.1g} "
            f"(dF {self.reverse:.2g}), <q^2> {self.overlap_draws:.3f} and {self.overlap_refined:.3f}"
        )

    def numbers(self) -> dict[str, float]:
        """For diagnostics."""
        names = ("gap", "gap_error", "unseen", "overlap_draws", "overlap_refined")
        return {f"collapse_{name}": getattr(self, name) for name in names}


def watch(proposal: Proposal, seed: int, states: int | None = None) -> Collapse:
    """Draw `states` states, refine them, compare; None for 512, fewer beyond 1024 spins.

    Raises ValueError for fewer than 64 states, FloatingPointError for a log q that is not finite.
    """
    hamiltonian, beta = proposal.hamiltonian, proposal.beta
    n = states_to_watch(hamiltonian.n_spins) if states is None else states
    if n < FEWEST:
        raise ValueError(f"watch: {n} states, at least {FEWEST} are needed")
    words = np.random.SeedSequence(seed, spawn_key=(COLLAPSE,)).generate_state(2)
    spins, log_q = proposal.sample(n, torch.Generator().manual_seed(int(words[0])))
    refined = tempered(hamiltonian, beta, spins, n, ROUNDS, int(words[1] >> 1))
    flat = refined.reshape(-1, hamiltonian.n_spins)
    log_weight = -beta * hamiltonian.energy(spins) - log_q
    log_weight_refined = -beta * hamiltonian.energy(flat) - proposal.log_prob(flat)
    return compare(spins, log_weight, refined, log_weight_refined.reshape(refined.shape[:2]))


def states_to_watch(n_spins: int) -> int:
    """How many draws to look at by default."""
    return max(FEWEST, min(STATES, SPINS // n_spins))


def compare(
    spins: np.ndarray, log_weight: np.ndarray, refined: np.ndarray, log_weight_refined: np.ndarray
) -> Collapse:
    """Independent draws (n, N) and their ln w (n,), refined states (chains, m, N) and theirs (chains, m).

    The chains are independent of each other, their states are not: errors are those of means of chains.
    """
    if not (np.isfinite(log_weight).all() and np.isfinite(log_weight_refined).all()):
        raise FloatingPointError("log q is not finite; train with a smaller train.lr=")
    log_z, error = log_mean_weight(log_weight)
    of_chains = log_weight_refined.mean(axis=1)
    gap_error = math.hypot(error, of_chains.std(ddof=1) / math.sqrt(len(of_chains)))
    pairs = _square_overlap(spins[: len(spins) // 2], spins[len(spins) // 2 : len(spins) // 2 * 2])
    others = np.roll(refined, 1, axis=0)
    per_chain = _square_overlap(refined, others).mean(axis=1)
    return Collapse(
        gap=float(of_chains.mean() - log_z),
        gap_error=gap_error,
        reverse=float(log_z - log_weight.mean()),
        unseen=float((log_weight_refined > log_weight.max()).mean()),
        overlap_draws=float(pairs.mean()),
        overlap_draws_error=float(pairs.std(ddof=1) / math.sqrt(len(pairs))),
        overlap_refined=float(per_chain.mean()),
        # Each chain is in two pairs, which at most doubles the variance of the mean.
        overlap_refined_error=float(per_chain.std(ddof=1) * math.sqrt(2.0 / len(per_chain))),
        states=len(spins),
    )


def _square_overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """q^2 of states (..., N) with others, (...)."""
    return (one.astype(np.float32) * other).mean(axis=-1, dtype=np.float64) ** 2
