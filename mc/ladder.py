"""Swaps along a tempering ladder: their rates, who holds which beta, and where the betas should lie.

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


def swap_rates(accepted: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """Fractions of swaps accepted, float64, NaN where none was tried."""
    return np.divide(accepted, tried, out=np.full(tried.shape, np.nan), where=tried > 0)


def check_holder(holder: np.ndarray) -> None:
    """ValueError unless holder (chain, replica x beta), of a stored state, names each replica of a chain once."""
    if (np.sort(holder, axis=1) != np.arange(holder.shape[1])).any():
        raise ValueError("state: holder does not name each replica once")
