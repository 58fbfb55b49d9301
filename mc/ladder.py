"""Where the betas of a tempering ladder should lie, from how often neighbours refuse to swap.

The rejection rates of neighbouring pairs add up to the communication barrier Lambda(beta), nearly whatever ladder
they were measured on; with the non-reversible swaps of `mc.kernels.swap` round trips are most frequent where every
pair is rejected equally often. Syed, Bouchard-Cote, Deligiannidis and Doucet, J. R. Stat. Soc. B 84, 321 (2022),
section 5.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

LEAST_REJECTION = 1e-3  # of a pair: keeps Lambda strictly rising where every swap was accepted


def barrier(rejection: np.ndarray) -> np.ndarray:
    """Lambda at each beta of a ladder, (B,), 0 at the first, from the rejection rates (B - 1,) of its pairs."""
    return np.concatenate([[0.0], np.cumsum(np.maximum(rejection, LEAST_REJECTION))])


def tuned_betas(betas: np.ndarray, rejection: np.ndarray) -> np.ndarray:
    """As many betas (B,), rising or falling, at equal steps of Lambda; the ends are those given, exactly.

    Between the old betas Lambda is interpolated by a monotone cubic.
    """
    heights = barrier(rejection)
    inner = PchipInterpolator(heights, betas)(np.linspace(0.0, heights[-1], len(betas)))
    inner[0], inner[-1] = betas[0], betas[-1]
    return inner
