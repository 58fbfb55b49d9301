"""Compression of matrix-product states on a chain or on a ring.

A state is an array T (n_sites, G, a, s, t, b): G independent states side by side, a and b the bonds to the left and
to the right, s and t physical. On a ring the right bond of the last site is the left bond of the first; on a chain
the outer bonds are a single index, number 0 of a padded axis. A ring of equal sites may be given by one of them.

At each bond the triangular factors X of all that lies left of it and Y of all that lies right of it give the singular
values of the cut, X Y = U S V, and the chi largest are kept: the optimum for a chain (Schollwoeck, Ann. Phys. 326, 96
(2011), sec. 4.5). For a ring X and Y are those of the ring unrolled on either side. The bond of a ring
need only be about the square root of the bond of a chain that holds the same ring, because each cut of that chain
stands for two cuts of the ring. This is why periodic edges are rings here.
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np
from scipy.linalg import svd as careful_svd

SMALLEST = 1e-13  # singular values below this, relative to the largest, are rounding
CONVERGED = 1e-9  # relative change of X from site to site of a ring of equal sites that no longer matters
UNROLLED, FEWEST = 64, 24  # sites of the unrolled ring on either side: at most, at least


def compress(T: np.ndarray, chi: int, ring: bool, length: int, pool: Executor | None = None) -> np.ndarray:
    """The state with bonds of at most chi, each site scaled to largest entry 1.

    length: sites of the ring or chain; T may hold one site of a ring of equal sites.
    pool: of two workers or more, for the factors from the left and from the right.
    """
    n = len(T)
    if T.shape[2] <= chi:  # nothing to cut, and the metric of an unrolled ring would hide what only a short one sees
        return scaled(T)
    ahead = min(max(length, FEWEST), UNROLLED) if ring else 0
    jobs = [(T, ahead), (T[::-1].transpose(0, 1, 5, 3, 4, 2), ahead)]
    run = pool.map if pool is not None else map
    left, right = run(lambda job: triangles(*job, ring), jobs)
    into: list[np.ndarray | None] = [None] * n  # (G, D, kept) to the right end of the sites left of bond j
    out: list[np.ndarray | None] = [None] * n  # (G, kept, D) to the left end of the site right of bond j
    for j in range(0 if ring else 1, n):
        X, Y = left[j], right[(n - j) % n].swapaxes(1, 2)
        U, S, V = singular_values(X @ Y)
        kept = min(chi, S.shape[1])
        S = S[:, :kept]
        with np.errstate(divide="ignore"):
            scale = np.where(SMALLEST * S[:, :1] < S, 1.0 / np.sqrt(S), 0.0)
        into[j] = Y @ V[:, :kept].swapaxes(1, 2) * scale[:, None, :]
        out[j] = scale[:, :, None] * (U[:, :, :kept].swapaxes(1, 2) @ X)
    width = max((p.shape[2] for p in into if p is not None), default=1)
    G, D, legs = T.shape[1], T.shape[2], T.shape[3:5]
    result = np.zeros((n, G, width, *legs, width))
    for j, site in enumerate(T):
        flat = site.reshape(G, D, -1)
        flat = out[j] @ flat if out[j] is not None else flat[:, :1]
        flat = flat.reshape(G, -1, D)
        behind = into[(j + 1) % n]
        flat = flat @ behind if behind is not None else flat[..., :1]
        kept = flat.shape[1] // (legs[0] * legs[1])
        result[j, :, :kept, :, :, : flat.shape[2]] = flat.reshape(G, kept, *legs, -1)
    return scaled(result)


def scaled(T: np.ndarray) -> np.ndarray:
    """Each site divided by its largest entry."""
    largest = np.abs(T).max(axis=(2, 3, 4, 5), keepdims=True)
    return T / np.where(largest > 0, largest, 1.0)


def triangles(T: np.ndarray, ahead: int, ring: bool) -> list[np.ndarray]:
    """X (G, rows, a) of the bond left of every site: all that lies further left is an isometry times X.

    ahead: sites of the unrolled ring to the left of the first one; 0 for a chain.
    """
    G, D = T.shape[1:3]
    start = np.eye(D) if ring else np.eye(D)[:1]
    X = np.broadcast_to(start, (G, *start.shape))
    for j in range(-ahead, 0):
        before, X = X, triangle(X, T[j % len(T)])
        if len(T) == 1 and before.shape == X.shape and np.abs(before - X).max() < CONVERGED:
            break
    found = []
    for site in T:
        found.append(X)
        X = triangle(X, site)
    return found


def triangle(X: np.ndarray, site: np.ndarray) -> np.ndarray:
    """The triangular factor of X times one site, its diagonal not negative, its largest entry 1."""
    G, D = site.shape[:2]
    product = (X @ site.reshape(G, D, -1)).reshape(G, -1, D)
    R = np.linalg.qr(product, mode="r")
    signs = np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)
    R = R * signs[:, :, None]
    largest = np.abs(R).max(axis=(1, 2), keepdims=True)
    return R / np.where(largest > 0, largest, 1.0)


def singular_values(M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, S, V of matrices (G, m, n), M = U S V; by QR iteration where divide and conquer does not converge."""
    try:
        return np.linalg.svd(M, full_matrices=False)
    except np.linalg.LinAlgError:
        parts = [careful_svd(m, full_matrices=False, lapack_driver="gesvd") for m in M]
        return tuple(np.stack(part) for part in zip(*parts, strict=True))
