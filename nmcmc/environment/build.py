"""The environment of every row of a square lattice: the sum over all rows below it, as a matrix-product state.

Phi_k(s_k) = sum over the spins of rows k+1 ... of exp(-beta (all their fields and bonds, and the bonds k to k+1)),
from the last row upwards: multiply by the fields and horizontal bonds of row k (the spin is copied along the bond,
which doubles it), sum over s_k with the vertical bonds, compress. Compressing right after the vertical bonds is what
works. On a torus every site carries a second leg, the spin of row 0 in its column, to which the last row is bound:
exact as chi grows ("two-leg"). Without that leg ("one-leg") the last row meets row 0 only when it is drawn: weaker,
but nowhere certain and wrong.

The state is propagated with a bond larger than the one it is read with: rows are compressed to `chi` for the sampler
one by one, so that their errors do not add up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from mc.square import SquareCouplings
from nmcmc.environment.compress import FEWEST, UNROLLED, compress, singular_values, triangle

SPIN = np.array([-1.0, 1.0])
FORMS = ("two-leg", "one-leg")
WIDER = 2  # bond of the propagated state over the bond of the sampler
WIDEST_FIRST = 32  # bond of row 0, which is read once and carries most of the error otherwise


@dataclass(frozen=True)
class Environment:
    """first (1, n, 2, 1, a, b): row 0, its second leg tied to its own spins. rest (H - 1, n, 2, t, a, b): the others.

    Indices s (0 for -1), t (spin of row 0; of length 1 without that leg), bonds left and right. n is the number of
    columns, or 1 for columns that are all equal. float64.
    """

    first: np.ndarray
    rest: np.ndarray


def has_equal_columns(couplings: SquareCouplings) -> bool:
    """A ring whose sites all have the couplings of the first one: one site a row describes it."""
    grids = (couplings.right, couplings.down, couplings.field)
    return couplings.periodic[1] and all((grid == grid[:, :1]).all() for grid in grids)


def legs_of(couplings: SquareCouplings, form: str) -> int:
    """Physical legs of a site: 2 on a torus or upright cylinder in the two-leg form."""
    return 2 if couplings.periodic[0] and form == "two-leg" else 1


def build_environment(
    couplings: SquareCouplings,
    beta: float,
    chi: int,
    form: str = "two-leg",
    pool: Executor | None = None,
    report: Callable[[int], None] = lambda rows: None,
) -> Environment:
    """Environments of all rows with bonds of at most chi; report(rows done) after each of the H - 1 steps."""
    height, width = couplings.shape
    ring, legs = couplings.periodic[1], legs_of(couplings, form)
    n = 1 if has_equal_columns(couplings) else width
    right, down, field = (beta * grid[None, :, :n] for grid in (couplings.right, couplings.down, couplings.field))
    T = np.ones((n, 1, 1, 2, 1, 1))
    if legs == 2:
        last = down[:, -1].T[:, :, None, None]
        T = np.exp(last * SPIN[:, None] * SPIN - np.abs(last))[:, :, None, :, :, None]
    rest = np.zeros((max(height - 1, 0), n, 2, legs, chi, chi))
    for k in range(height - 1, 0, -1):
        small = compress(T, chi, ring, width, pool) if T.shape[2] > chi else T
        rest[k - 1, ..., : small.shape[2], : small.shape[5]] = small[:, 0].transpose(0, 2, 3, 1, 4)
        absorbed = absorb(T, right[:, k], down[:, k - 1], field[:, k], ring)
        T = compress(absorbed, WIDER * chi, ring, width, pool)
        report(height - k)
    if T.shape[2] > max(chi, WIDEST_FIRST):
        T = compress(T, max(chi, WIDEST_FIRST), ring, width, pool)
    first = T[:, 0].transpose(0, 2, 3, 1, 4)
    if legs == 2:
        first = first[:, [0, 1], [0, 1]][:, :, None]
    return Environment(first[None], rest)


def build_below(
    right: np.ndarray, down: np.ndarray, field: np.ndarray, bottom: np.ndarray, ring: bool, chi: int
) -> np.ndarray:
    """Environments (H - 1, n, G, 2, 1, a, b) of rows 1 ... H - 1 of G lattices whose row 0 is known.

    right, down, field: beta times the couplings, (G, H, n). bottom: spins (G, n) of row 0, which the last row meets
    again below. One bond for propagating and reading: these are made for a single draw.
    """
    G, height, n = right.shape
    last = (down[:, -1] * bottom).T[:, :, None]
    T = np.exp(last * SPIN - np.abs(last))[:, :, None, :, None, None]
    rest = np.zeros((height - 1, n, G, 2, 1, chi, chi))
    for k in range(height - 1, 0, -1):
        rest[k - 1, ..., : T.shape[2], : T.shape[5]] = T.transpose(0, 1, 3, 4, 2, 5)
        if k > 1:
            absorbed = absorb(T, right[:, k], down[:, k - 1], field[:, k], ring)
            T = compress(absorbed, chi, ring, min(n, FEWEST))  # for one draw, little unrolling is enough
    return rest


def absorb(T: np.ndarray, right: np.ndarray, down: np.ndarray, field: np.ndarray, ring: bool) -> np.ndarray:
    """One row more: T (n, G, a, s, t, b) of row k to that of row k - 1, uncompressed, bonds twice as wide.

    beta times couplings, (G, n): right and field of row k, down from row k - 1 to row k.
    """
    n, G, a, _, legs, b = T.shape
    before = np.roll(right, 1, axis=1)
    exponent = (
        before.T[:, :, None, None, None] * SPIN[:, None, None] * SPIN
        + down.T[:, :, None, None, None] * SPIN[:, None] * SPIN
        + field.T[:, :, None, None, None] * SPIN
    )  # (n, G, spin of the column before, spin of the row above, own spin)
    weight = np.exp(exponent - exponent.max(axis=(2, 3, 4), keepdims=True))
    # (n, G, a, copied, above, t, b, own)
    wide = weight[:, :, None, :, :, None, None, :] * T.transpose(0, 1, 2, 4, 5, 3)[:, :, :, None, None]
    wide = wide.reshape(n, G, 2 * a, 2, legs, 2 * b)
    if not ring:
        first, last = wide[0, :, :1].copy(), wide[-1, ..., :2].sum(-1)
        wide[0], wide[-1] = 0.0, 0.0
        wide[0, :, :1] = first
        wide[-1, ..., 0] = last
    return wide


def estimate(couplings: SquareCouplings, chi: int, form: str, trial: bool = True) -> tuple[float, float]:
    """(seconds, bytes) that `build_environment` and its sampler need.

    The seconds come from a trial with matrices of the size in question; NaN with trial=False.
    """
    height, width = couplings.shape
    legs, n = legs_of(couplings, form), 1 if has_equal_columns(couplings) else width
    D = 2 * WIDER * chi
    stored = height * n * 2 * legs * chi * chi * (8 + 8)
    size = float(stored + 6 * n * 2 * legs * D * D * 8)
    if not trial:
        return float("nan"), size
    rng = np.random.default_rng(0)
    X, site = rng.normal(size=(1, D, D)), rng.normal(size=(1, D, 2, legs, D))

    def seconds_of(job: Callable[[], object]) -> float:
        took = []
        for _ in range(4):
            began = time.perf_counter()
            job()
            took.append(time.perf_counter() - began)
        return min(took)

    swept = n + (min(max(width, FEWEST), UNROLLED) if couplings.periodic[1] else 0)
    factors = seconds_of(lambda: triangle(X, site))  # those from both sides are made at the same time
    return 2.0 * height * (swept * factors + n * seconds_of(lambda: singular_values(X))), size


def memory_at_hand() -> float:
    """Bytes of memory that are free, infinity where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable"):
                    return 1024.0 * float(line.split()[1])
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
