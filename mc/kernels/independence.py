"""The independence Metropolis step: whole configurations proposed from a known law, accepted on their weights."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def independence_steps(log_weight_now, log_weight_proposed, uniform):
    """Which proposal each chain holds after each step of the independence sampler.

    A proposal of weight w' replaces the state of weight w with probability min(1, w'/w), w = p / q up to one common
    constant (Tierney, Ann. Stat. 22, 1701 (1994); Nicoli et al., Phys. Rev. E 101, 023304 (2020)).
    log_weight_now (C,): ln w of the present states. log_weight_proposed, uniform (C, n): the proposals, numbers in
    [0, 1). Returns (C, n) int64: the number of the proposal held after each step, -1 for the starting state.
    """
    chains, steps = log_weight_proposed.shape
    held = np.empty((chains, steps), np.int64)
    for chain in range(chains):
        now, log_weight = -1, log_weight_now[chain]
        for step in range(steps):
            gain = log_weight_proposed[chain, step] - log_weight
            if gain >= 0.0 or uniform[chain, step] < math.exp(gain):
                now, log_weight = step, log_weight_proposed[chain, step]
            held[chain, step] = now
    return held
