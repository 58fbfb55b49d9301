"""The collective block move: keep one row of a state and draw all the others anew, given that row.

With one row known, a torus or an upright cylinder (y axis periodic) is a strip between two known rows, whose
boundary matrix-product states carry one physical leg instead of two. Its law q(rest | kept row) is therefore far
closer to the exact conditional law than what a proposal of the whole torus reaches with the same bonds. The move is
a Metropolis-Hastings step (Hastings, Biometrika 57, 97 (1970)) with the same kept row on both sides,

    accept with probability min(1, p(s') q(rest | kept) / (p(s) q(rest' | kept))),

which leaves p unchanged for every row and hence for a random one. q is positive everywhere, so two moves with
different rows reach every state. The environment depends on the kept row and is built for each move; old rest and new
rest go through the same sweep over it.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit

from mc.hamiltonian import Hamiltonian
from mc.measure import kept_draws
from mc.simulate import Block, at_least, checked_betas, checked_state, initial_spins, replica_streams
from mc.square import SquareCouplings, square_couplings, square_refusal
from nmcmc.environment.build import build_below
from nmcmc.environment.sweep import RowSweep

BLOCK_STREAMS = 4  # this use of a seed; 0 to 2 are the streams of the drivers, 3 the proposals
ROW, FLIP, ACCEPT, SPINS = 0, 1, 2, 3  # what the uniform numbers of a move are for: one each, then one a spin
NEW, OLD = 0, 1  # columns of the sweep


class Moves(NamedTuple):
    """One move of each chain. spins (chain, N) int8: the state that stays; the others (chain,) float64.

    energy: of that state. accepted: 1 or 0. log_ratio: ln of the acceptance ratio, before the minimum with 1.
    """

    spins: np.ndarray
    energy: np.ndarray
    accepted: np.ndarray
    log_ratio: np.ndarray


def block_refusal(hamiltonian: Hamiltonian) -> str:
    """Why the move does not apply to this model; "" where it does."""
    refusal = square_refusal(hamiltonian)
    if refusal:
        return f"move=block: {refusal}"
    if not hamiltonian.lattice.periodic[0]:
        return "move=block: the y axis is open, a periodic one is needed; use prior=boundary-mps without the move"
    return ""


def numbers_a_move(couplings: SquareCouplings) -> int:
    """Uniform random numbers that a move of one chain takes."""
    height, width = couplings.shape
    return SPINS + (height - 1) * width


def block_moves(
    hamiltonian: Hamiltonian,
    couplings: SquareCouplings,
    beta: float,
    spins: np.ndarray,
    uniform: np.ndarray,
    chi: int = 16,
    always: bool = False,
) -> Moves:
    """One move of every chain, each with a kept row of its own.

    couplings: `square_couplings(hamiltonian)`. beta: in 1 / energy unit. spins: (chain, N) int8. uniform: numbers in
    [0, 1), (chain, `numbers_a_move`). chi: bond of the environments. always: take the new states without the test.
    Each state is first turned over as a whole with the heat-bath probability, 1/2 where E(-s) = E(s), since a kept
    row holds on to the sign of what is aligned with it. It stays so whether or not the rows are then accepted.

    Raises FloatingPointError where ln q is not finite: beta times the couplings is beyond float64.
    """
    height, width = couplings.shape
    kept = (uniform[:, ROW] * height).astype(np.int64)
    flip = uniform[:, FLIP] < expit(beta * (hamiltonian.energy(spins) - hamiltonian.energy(-spins)))
    old = np.where(flip[:, None], -spins, spins)
    order = (kept[:, None] + np.arange(height)) % height  # lattice row of each renumbered one, the kept row first
    chain = np.arange(len(old))[:, None]
    rows = old.reshape(-1, height, width)[chain, order]
    strips = (beta * grid[order] for grid in (couplings.right, couplings.down, couplings.field))
    spin_uniform = uniform[:, SPINS:].reshape(-1, height - 1, width)
    drawn, log_q = redraw(*strips, rows, spin_uniform, couplings.periodic[1], chi)
    if not np.isfinite(log_q).all():
        raise FloatingPointError("move=block: ln q is not finite; beta times the couplings is too large")
    new = np.empty_like(rows)
    new[chain, order] = drawn
    new = new.reshape(old.shape)
    energy, energy_new = hamiltonian.energy(old), hamiltonian.energy(new)
    log_ratio = beta * (energy - energy_new) + log_q[:, OLD] - log_q[:, NEW]
    accepted = always | (uniform[:, ACCEPT] < np.exp(np.minimum(log_ratio, 0.0)))
    stays = np.where(accepted[:, None], new, old)
    return Moves(stays, np.where(accepted, energy_new, energy), accepted.astype(np.float64), log_ratio)


def redraw(
    right: np.ndarray,
    down: np.ndarray,
    field: np.ndarray,
    rows: np.ndarray,
    uniform: np.ndarray,
    ring: bool,
    chi: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows 1 ... H - 1 of G lattices (y axis periodic) given row 0, and score the ones that are there.

    right, down, field: beta times the couplings, (G, H, W). rows: present spins (G, H, W) int8. uniform: one number
    in [0, 1) a drawn spin, (G, H - 1, W). ring: whether the x axis is periodic.
    Returns the new spins (G, H, W) int8, row 0 kept, and ln q (G, 2) float64 of the new rows and of the present ones.
    New and old are the two columns of one batch: the law that draws is the law that scores, to the last digit of the
    cancellations at low temperature.
    """
    G, height, width = rows.shape
    environments = build_below(right, down, field, rows[:, 0].astype(np.float64), ring, chi)
    right, down, field = (torch.from_numpy(np.ascontiguousarray(grid)) for grid in (right, down, field))
    # u < sigmoid(odds) is logit(u) < odds, and leaves ln q to be summed a row at a time: small steps cost their calls
    thresholds, old_up = torch.logit(torch.from_numpy(np.ascontiguousarray(uniform))), torch.from_numpy(rows > 0)
    above = old_up[:, 0, :, None].expand(-1, -1, 2)
    log_q = torch.zeros(G, 2, dtype=torch.float64)
    drawn = rows.copy()
    for k in range(1, height):
        A = torch.from_numpy(environments[k - 1].swapaxes(0, 1))
        h = field[:, k, :, None] + down[:, k - 1, :, None] * (2.0 * above.to(torch.float64) - 1.0)
        sweep = RowSweep(A, h, right[:, k], None, ring)
        odds, above = [], torch.stack((torch.empty_like(old_up[:, k]), old_up[:, k]), 2)
        for j in range(width):
            odds.append(sweep.log_odds())
            above[:, j, NEW] = thresholds[:, k - 1, j] < odds[j][:, NEW]
            sweep.advance(above[:, j])
        odds = torch.stack(odds, 1)
        log_q += torch.nn.functional.logsigmoid(torch.where(above, odds, -odds)).sum(1)
        drawn[:, k] = 2 * above[:, :, NEW].numpy().astype(np.int8) - 1
    return drawn, log_q.numpy()


class BlockDriver:
    """Block moves at each beta, vectorised over chains; a draw is one move of every chain.

    betas: (B,) in 1 / energy unit, finite, >= 0. n_chains: independent chains at each beta. seed: of all random
    numbers; those of move n of chain c at beta number b depend on (seed, b, c, n) only. chi: bond of the
    environments. init: "random", "up" or spins that broadcast to (n_chains, B, N). spins_every: keep the spins of
    draws 0, K, 2K, ... (0: of none).

    From random spins the first move is taken without a test, so a random row is all that is left of them. It acts on
    rows within about a correlation length; the next move draws it anew given a row that is mostly further away, and
    so on. A warm-up of a few moves, ten to be generous, is therefore enough where most moves are accepted and the
    lattice is several correlation lengths high. What a row holds in place, as it does the magnetisation of a
    ferromagnet in a weak field, takes longer; the autocorrelation time tells.

    At low temperature the weights of a row cancel: +-J glasses of L = 32 are drawn well up to beta J = 3 with chi = 8
    and 4 with chi = 16, beyond that acceptance falls and a chain from random spins may stick.

    sample_stats: `accepted` (1 or 0) and `log_ratio`, ln of the acceptance ratio before the minimum with 1.

    Raises ValueError where `block_refusal` says why not, and for wrong betas, sizes or spins.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        n_chains: int = 4,
        seed: int = 0,
        chi: int = 16,
        init: str | np.ndarray = "random",
        spins_every: int = 1,
    ):
        refusal = block_refusal(hamiltonian)
        if refusal:
            raise ValueError(refusal)
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        self.n_chains = at_least("n_chains", n_chains, 1)
        self.chi = at_least("chi", chi, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        self._couplings = square_couplings(hamiltonian)
        self._seed = seed
        self._from_random = isinstance(init, str) and init == "random"
        streams = replica_streams(seed, BLOCK_STREAMS, self.n_chains, len(self.betas))
        self._spins = initial_spins(init, hamiltonian.n_spins, streams)
        self._step = 0  # moves made so far
        self._draw = 0  # draws recorded so far

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps moves of every chain without a draw."""
        for _ in range(n_sweeps):
            self._advance()

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws of every chain at every beta, one move each."""
        shape = (self.n_chains, n_draws, len(self.betas))
        energy, magnetization, accepted, log_ratio = (np.zeros(shape) for _ in range(4))
        kept = kept_draws(self._draw, n_draws, self.spins_every)
        spins = np.zeros((self.n_chains, len(kept), *self._spins.shape[1:]), np.int8)
        for draw in range(n_draws):
            for b, moves in enumerate(self._advance()):
                energy[:, draw, b], accepted[:, draw, b] = moves.energy, moves.accepted
                log_ratio[:, draw, b] = moves.log_ratio
            magnetization[:, draw] = self._spins.mean(axis=-1, dtype=np.float64)
            spins[:, kept == self._draw + draw] = self._spins[:, None]
        self._draw += n_draws
        posterior = {"energy": energy, "magnetization": magnetization}
        return Block(posterior, {"accepted": accepted, "log_ratio": log_ratio}, spins, kept)

    def state(self) -> dict[str, np.ndarray]:
        """spins (chain, beta, N) int8, step () and draw (): moves made and draws recorded."""
        return {
            "spins": self._spins.copy(),
            "step": np.array(self._step, np.int64),
            "draw": np.array(self._draw, np.int64),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        self._spins, self._step, self._draw = state["spins"], int(state["step"]), int(state["draw"])

    def _advance(self) -> list[Moves]:
        """One move of every chain at every beta."""
        always = self._from_random and self._step == 0
        made = []
        for b, beta in enumerate(self.betas):
            words = np.random.SeedSequence(self._seed, spawn_key=(BLOCK_STREAMS, b, self._step))
            rng = np.random.Generator(np.random.PCG64(words))
            # Chain by chain, so that the numbers of a chain do not depend on how many chains there are.
            uniform = rng.random((self.n_chains, numbers_a_move(self._couplings)))
            moves = block_moves(
                self.hamiltonian, self._couplings, float(beta), self._spins[:, b], uniform, self.chi, always
            )
            self._spins[:, b] = moves.spins
            made.append(moves)
        self._step += 1
        return made


def seconds_a_move(hamiltonian: Hamiltonian, beta: float, chi: int = 16, n_chains: int = 1) -> float:
    """CPU seconds of one move of n_chains chains side by side, measured on one; ValueError as `BlockDriver`."""
    driver = BlockDriver(hamiltonian, np.array([beta]), n_chains, chi=chi, spins_every=0)
    began = time.process_time()
    driver.warm_up(1)
    return time.process_time() - began
