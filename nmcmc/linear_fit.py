"""The convex fit of a `LinearResidual`: logistic regression, one spin after the other, on states of the target.

The loss is the cross entropy of soft labels, with the prior's log-odds as a fixed offset, plus ridge |w|^2 / 2. It
has one minimum, found by Newton's method. The last states are held out: they choose the ridge for each group of
spins, or that the group keeps the prior, so that spins whose prior is right already lose nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mc.hamiltonian import Hamiltonian
from mc.kernels.heatbath import sweep
from mc.kernels.local_field import kernel_arrays
from mc.square import square_refusal
from nmcmc.networks.linear import FUNCTIONS, LinearResidual

RIDGES = (1000.0, 100.0, 10.0, 1.0)  # from the strongest: each fit starts where the one before ended
VALIDATION = 0.2
BLOCKS = 20  # of the states held out: their spread is the error of a gain, correlations in time included
SURE = 2.0  # errors by which a gain must differ from zero
ITERATIONS = 12  # Newton steps at most
CONVERGED = 0.02  # nats, of all states together, that a step may still promise
HALVINGS = 8  # of a step that does not lower the loss
STEEPEST = 6.0  # log-odds beyond this have the curvature of this: certain and wrong would make a step far too long
EXCESS = 0.1  # KL(p|q) in excess of the best w is EXCESS P N / n for row labels (measured; 0.5 for the spins)
ALLOWED = 0.2  # nats of excess if all spins had weights; groups that keep the prior have none
NARROWEST = 4  # window that paid for itself with the fewest states tried (EA 32 x 32, 3000 states)


@dataclass(frozen=True)
class FitResult:
    """What a fit gained, in nats a state: mean of ln q after minus before, over soft labels.

    train_gain: on the states that were fitted. unseen_gain: on those held out, before the last fit took them in too.
    kept (groups,) bool: groups that have weights now; ridge (groups,) float64: theirs, infinite where there are none.
    gains (groups,): unseen gain of each. n_train, n_unseen: states. seconds: of wall time. finished: not stopped.
    """

    train_gain: float
    unseen_gain: float
    kept: np.ndarray
    ridge: np.ndarray
    gains: np.ndarray
    n_train: int
    n_unseen: int
    seconds: float
    finished: bool


def fit_linear(
    residual: LinearResidual,
    odds: Tensor | np.ndarray,
    spins: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    ridges: tuple[float, ...] = RIDGES,
    iterations: int = ITERATIONS,
    validation: float = VALIDATION,
    group: int | None = None,
    refit: bool = True,
    report: Callable[[int, int], None] = lambda done, spins: None,
    stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Set `residual.weight` to the fit; nothing here is random.

    odds (n, N): the prior's log-odds in generation order, of the states spins (n, N), site order, +-1, in the frame
    in which the sampler draws them (canonical for Z2-symmetric models). labels (n, N): p(+1), site order.
    ridges: strengths to choose from. validation: share of the states, the last ones, that is held out.
    group: spins that share a ridge, consecutive in generation order; default a row, or about sqrt(N).
    refit: whether the chosen ridge is fitted once more to all states. report(spins done, N). stop: asked after every
    group; the groups not reached keep the prior.

    Raises ValueError for arrays that do not match, no states on either side, or ridges that are not positive.
    """
    began = time.monotonic()
    data = _Data.of(residual, odds, spins, labels, validation)
    if not ridges or min(ridges) <= 0:
        raise ValueError(f"fit: ridges={ridges}: positive numbers are needed")
    ridges = tuple(sorted(ridges, reverse=True))
    n_spins = residual.n_spins
    group = group or residual.row or max(1, round(n_spins**0.5))
    n_groups = -(-n_spins // group)
    ridge, gains, train = np.full(n_groups, np.inf), np.zeros(n_groups), np.zeros(n_groups)
    weight = torch.zeros_like(residual.weight.detach())
    finished = True
    for g in range(n_groups):
        if stop():
            finished = False
            break
        members = range(g * group, min((g + 1) * group, n_spins))
        fits = [_path(data, n, ridges, iterations) for n in members]
        blocks = sum(fit.unseen for fit in fits)  # (ridges, blocks)
        unseen, error = blocks.mean(1), blocks.std(1) / max(blocks.shape[1] - 1, 1) ** 0.5
        best = int(unseen.argmax())
        if unseen[best] > SURE * error[best]:
            ridge[g], gains[g] = ridges[best], unseen[best]
            train[g] = sum(fit.train[best] for fit in fits)
            for n, fit in zip(members, fits, strict=True):
                w = fit.weights[best]
                if refit and len(w):
                    w = _newton(*data.of_spin(n), w, ridges[best], iterations)
                weight[n, residual.present[n] > 0] = w.to(weight.dtype)
        report(members.stop, n_spins)
    with torch.no_grad():
        residual.weight.copy_(weight)
    seconds = time.monotonic() - began
    sizes = (data.n_train, len(data.labels[0]) - data.n_train)
    return FitResult(train.sum(), gains.sum(), np.isfinite(ridge), ridge, gains, *sizes, seconds, finished)


@dataclass(frozen=True)
class _Data:
    """Everything by spin, so that one spin's numbers lie side by side: odds, labels (N, n), rows (N + 1, n) int8."""

    residual: LinearResidual
    odds: Tensor
    labels: Tensor
    rows: Tensor
    n_train: int

    @classmethod
    def of(cls, residual: LinearResidual, odds, spins, labels, validation: float) -> _Data:
        device = residual.weight.device
        odds, spins, labels = (torch.as_tensor(array) for array in (odds, spins, labels))
        n = len(spins)
        if not odds.shape == spins.shape == labels.shape == (n, residual.n_spins):
            shapes = ", ".join(str(tuple(array.shape)) for array in (odds, spins, labels))
            raise ValueError(f"fit: odds, spins and labels {shapes} must all be (n, {residual.n_spins})")
        n_train = n - round(validation * n)
        if not 0 < n_train < n:
            raise ValueError(f"fit: {n} states, validation={validation}: both parts need states")
        rows = torch.ones(residual.n_spins + 1, n, dtype=torch.int8, device=device)
        rows[:-1] = spins.T.to(device)
        by_spin = labels.T[residual.order.cpu()].to(device, torch.float32).contiguous()
        return cls(residual, odds.T.to(device, torch.float32).contiguous(), by_spin, rows, n_train)

    def of_spin(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features (P, n) float32 that are present, offset (n,), labels (n,) of the n-th spin of the order."""
        X = self.residual.features(n, self.odds[n], self.rows)
        return X[self.residual.present[n] > 0], self.odds[n], self.labels[n]


@dataclass(frozen=True)
class _Path:
    """Fits of one spin, one for each ridge: weights, and gains in nats a state.

    train (ridges,); unseen (ridges, blocks), means over blocks of consecutive states.
    """

    weights: list[Tensor]
    train: np.ndarray
    unseen: np.ndarray


@torch.no_grad()
def _path(data: _Data, n: int, ridges: tuple[float, ...], iterations: int) -> _Path:
    X, offset, y = data.of_spin(n)
    w = torch.zeros(len(X), dtype=torch.float64, device=X.device)
    n_unseen = len(y) - data.n_train
    blocks = min(BLOCKS, n_unseen)
    in_blocks = slice(len(y) - n_unseen // blocks * blocks, None)
    path = _Path([], np.zeros(len(ridges)), np.zeros((len(ridges), blocks)))
    if not len(X):
        return _Path([w] * len(ridges), path.train, path.unseen)
    seen, before = slice(data.n_train), cross_entropy(offset, y)
    for k, ridge in enumerate(ridges):
        w = _newton(X[:, seen], offset[seen], y[seen], w, ridge, iterations)
        gain = (before - cross_entropy(offset + w.float() @ X, y)).double()
        path.weights.append(w)
        path.train[k] = gain[seen].mean()
        path.unseen[k] = gain[in_blocks].view(blocks, -1).mean(1).cpu()
    return path


def cross_entropy(odds: Tensor, labels: Tensor) -> Tensor:
    """- p ln q - (1 - p) ln(1 - q), elementwise, for log-odds of q and labels p."""
    return functional.softplus(odds) - labels * odds


@torch.no_grad()
def _newton(X: Tensor, offset: Tensor, y: Tensor, w: Tensor, ridge: float, iterations: int) -> Tensor:
    """The minimum over w of the cross entropy of offset + w X with y plus ridge |w|^2 / 2, from a given w; float64.

    Each step lowers the loss, or is the last.
    """
    z = offset + w.float() @ X
    loss = cross_entropy(z, y).sum(dtype=torch.float64) + 0.5 * ridge * (w @ w)
    for _ in range(iterations):
        gradient = (X @ (torch.sigmoid(z) - y)).double() + ridge * w
        q = torch.sigmoid(z.clamp(-STEEPEST, STEEPEST))
        curvature = ((X * (q * (1.0 - q))) @ X.T).double()
        curvature.diagonal().add_(ridge)
        step = torch.linalg.solve(curvature, gradient)
        promised = 0.5 * (gradient @ step)
        if promised < CONVERGED:
            break
        change = step.float() @ X
        size = 1.0
        for _ in range(HALVINGS):
            new_w, new_z = w - size * step, z - size * change
            new_loss = cross_entropy(new_z, y).sum(dtype=torch.float64) + 0.5 * ridge * (new_w @ new_w)
            if new_loss < loss:
                break
            size *= 0.5
        else:
            break
        w, z, loss = new_w, new_z, new_loss
    return w


def choose_window(n_states: int, hamiltonian: Hamiltonian) -> int:
    """The widest window that n_states pay for: EXCESS P N / n nats stay below ALLOWED; at least NARROWEST.

    n_states: that are fitted, with row labels. At most half a row of a square lattice, or half of the spins.
    """
    features = ALLOWED * n_states / (EXCESS * hamiltonian.n_spins)
    square = square_refusal(hamiltonian) == ""
    width = hamiltonian.lattice.shape[1] if square else hamiltonian.n_spins
    sides = 2 if not square or hamiltonian.lattice.periodic[0] else 1  # frontier, and first row
    fits = int(((features - FUNCTIONS) / sides - 1.0) // 2)
    return int(min(max(NARROWEST, fits), max(width // 2, 1)))


def self_made_states(
    hamiltonian: Hamiltonian,
    beta: float,
    spins: np.ndarray,
    log_weight: np.ndarray,
    n: int,
    sweeps: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """n states (n, N) int8 near the target from draws of a proposal: chosen by weight, then moved by heat bath.

    spins (m, N), log_weight (m,): -beta E - ln q of each, up to a constant. Systematic resampling: a draw of m w > k
    times its fair share is taken k times or once more, in a row, so that copies stay together. sweeps: of heat bath,
    for each of the n states by itself.

    Raises ValueError where no weight is finite and positive, or for n < 1 or sweeps < 0.
    """
    if n < 1 or sweeps < 0:
        raise ValueError(f"self_made_states: n={n}, sweeps={sweeps}: n >= 1 and sweeps >= 0 are needed")
    log_weight = np.asarray(log_weight, np.float64)
    if not np.isfinite(log_weight.max(initial=-np.inf)):
        raise ValueError("self_made_states: no draw has a finite weight")
    share = np.exp(log_weight - log_weight.max()).cumsum()
    chosen = np.searchsorted(share, (np.arange(n) + rng.random()) / n * share[-1], side="right")
    states = np.ascontiguousarray(np.asarray(spins, np.int8)[np.minimum(chosen, len(share) - 1)])
    streams = rng.integers(1, 2**64, size=(n, 4), dtype=np.uint64)
    sweep(states, np.zeros(n), np.full(n, float(beta)), streams, *kernel_arrays(hamiltonian.table), sweeps)
    return states
