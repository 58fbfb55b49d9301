"""Replica exchange between neighbouring temperatures: all even pairs in one round, all odd pairs in the next.

The alternation is fixed, not random, so a replica that keeps being accepted walks straight through the ladder: the
non-reversible scheme of Okabe et al., Chem. Phys. Lett. 335, 435 (2001), analysed by Syed et al., J. R. Stat. Soc. B
84, 321 (2022). Configurations stay where they are: `holder[b]` says which replica sits at beta b.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from mc.kernels.random_streams import next_uniform

HOT, COLD = 1, 2  # the end of the ladder a replica saw last; 0 for none yet


@njit(cache=True, nogil=True)
def swap_ladder(energies, betas, holder, stream, parity, accepted, attempted):
    """One swap phase of one ladder, in place: pairs (b, b + 1) with b = parity, parity + 2, ...

    energies (B,) float64 by replica; betas (B,); holder (B,) int64; stream (4,) uint64; accepted, attempted: (B - 1,)
    int64 or longer, counts added at b. The probability is min(1, exp((beta_b - beta_b+1) (E_b - E_b+1))).
    """
    for b in range(parity, betas.shape[0] - 1, 2):
        lower, upper = holder[b], holder[b + 1]
        gain = (betas[b] - betas[b + 1]) * (energies[lower] - energies[upper])
        attempted[b] += 1
        if gain >= 0.0 or next_uniform(stream) < math.exp(gain):
            holder[b], holder[b + 1] = upper, lower
            accepted[b] += 1


@njit(cache=True, nogil=True)
def follow(holder, betas, last_end, round_trips):
    """Note which replica of one ladder sits at either end; a round trip is hot, cold and hot again.

    last_end (B,) int8 and round_trips (B,) int64, by replica, in place. `betas` may rise or fall.
    """
    last = betas.shape[0] - 1
    if last < 1:
        return
    hot, cold = (holder[0], holder[last]) if betas[0] < betas[last] else (holder[last], holder[0])
    if last_end[hot] == COLD:
        round_trips[hot] += 1
    last_end[hot] = HOT
    if last_end[cold] == HOT:
        last_end[cold] = COLD


@njit(cache=True, nogil=True)
def swap(energies, betas, holder, streams, parity):
    """One swap phase of several ladders: energies, holder (ladders, B), streams (ladders, 4), holder in place.

    Returns (accepted, attempted), each (ladders, B - 1) int64.
    """
    shape = (holder.shape[0], max(betas.shape[0] - 1, 0))
    accepted, attempted = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for ladder in range(holder.shape[0]):
        swap_ladder(
            energies[ladder], betas, holder[ladder], streams[ladder], parity, accepted[ladder], attempted[ladder]
        )
    return accepted, attempted
