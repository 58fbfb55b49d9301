"""Training of a linear residual: states of the target, prior log-odds and soft labels once, then the convex fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from nmcmc.linear_fit import FitResult, fit_linear, self_made_states
from nmcmc.row_labels import row_labels
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training, record_score, validation_seed_of

SWEEPS = 20  # of heat bath for self-made states
ROUNDS = 2  # of self-made states: the second are drawn from the first fit


def train_linear(
    sampler: AutoregressiveSampler,
    states: np.ndarray,
    validation_draws: int,
    seed: int,
    report: Callable[[int, int], None] = lambda done, spins: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Training, FitResult | None]:
    """Fit `sampler.network` to states (n, N) of the target; ends with the better of prior and fit loaded.

    Without states the prior is all there is, and no result.

    Better is a lower mean of ln q + beta E over one fixed validation draw. The Training has two rows: before, after.
    report(spins fitted, N). stop: asked while it works; a stopped fit is not finished.
    """
    training = Training()
    began = time.process_time()
    draw = validation_seed_of(seed)
    record_score(training, sampler, math.nan, validation_draws, draw, began)
    training.prior_ess = training.history["ess"][0]
    if not len(states):
        training.finished = True
        return training, None
    spins = sampler.to_canonical(torch.from_numpy(states.astype(np.float32)))
    with torch.no_grad():
        odds = torch.cat([sampler.prior.log_odds_of(part.to(sampler.device)).float().cpu()
                          for part in spins.split(sampler.max_batch)])  # fmt: skip
    labels = row_labels(sampler.hamiltonian, sampler.beta, spins.to(torch.int8).numpy())
    result = fit_linear(sampler.network, odds, spins.to(torch.int8), labels, report=report, stop=stop)
    training.step = 1
    record_score(training, sampler, -result.unseen_gain, validation_draws, draw, began)
    sampler.network.load_state_dict(training.best_weights)
    training.weights = training.best_weights
    training.finished = result.finished
    return training, result


def own_states(sampler: AutoregressiveSampler, n: int, generator: torch.Generator) -> np.ndarray:
    """n states (n, N) near the target from the sampler's own draws: resampled by weight, then heat-bath sweeps."""
    spins, log_q = sampler.sample(n, generator)
    log_weight = -sampler.beta * sampler.hamiltonian.energy(spins) - log_q
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    return self_made_states(sampler.hamiltonian, sampler.beta, spins, log_weight, n, SWEEPS, rng)
