"""The cells of a phase diagram: what replicas of vector spins say at one temperature and field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mc.chain import Chain
from mc.exact import almeida_thouless
from mc.exact.vector_glass import LOWEST, VectorGlass, glass_of
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.overlap_matrix import overlap_matrix, pair_values, rotation_overlaps
from mc.vector.profiles import verdicts


@dataclass(frozen=True)
class Cell:
    """Replicas at one temperature and field.

    mean, spread: of |q_ab| over pairs a < b, and the standard deviation of q_ab over pairs, both averaged over draws;
    q_ab = sum_i s_i^a.s_i^b / (N R^2). chi_sg: N times the mean of the squared tensor overlap, over pairs and draws.
    rotation: mean over pairs of the overlap after the best rotation (`mc.vector.overlap_matrix`), of the last draw
    with spins, and rotation_spread its standard deviation.
    energy: a spin. equilibrated, reason: as of `mc.vector.profiles.verdicts`, replicas from random starts as chains.
    matrix: q_ab of the last draw with spins. below_line: whether (T, h) lies below the line of de Almeida and
    Thouless of these spins (`mc.exact.vector_glass`).
    """

    T: float
    h: float
    mean: float
    spread: float
    chi_sg: float
    rotation: float
    rotation_spread: float
    energy: float
    equilibrated: str
    reason: str
    below_line: bool
    matrix: list[list[float]]


def cells_of(chain: Chain, temperatures: Sequence[float], h: float) -> list[Cell]:
    """What the replicas of one run say at the temperatures asked for."""
    overlap, norm, energy = (chain.posterior[name] for name in ("overlap", "overlap_norm", "energy"))
    spins = chain.spins[0, -1]
    if overlap.ndim == 3:
        overlap = overlap[..., None]
    hamiltonian = chain.hamiltonian()
    radius, glass = hamiltonian.radius, theory_of(hamiltonian)
    found = []
    for T in temperatures:
        b = int(np.abs(chain.betas * T - 1.0).argmin())
        q, last = overlap[0, :, b], spins[b].astype(np.float64)
        rotation = pair_values(rotation_overlaps(last, radius))
        verdict = verdicts({"energy": energy[:, :, [b]], "overlap_norm": norm[:, :, [b]]})[0]
        found.append(
            Cell(
                T=float(T),
                h=float(h),
                mean=float(np.abs(q).mean()),
                spread=float(q.std(axis=1).mean()),
                chi_sg=float(chain.n_spins * (norm[:, :, b] ** 2).mean()),
                rotation=float(rotation.mean()),
                rotation_spread=float(rotation.std()),
                energy=float(energy[0, :, b].mean() / chain.n_spins),
                equilibrated=verdict.status,
                reason=verdict.reason,
                below_line=glass is not None and glass.is_unstable(T, h),
                matrix=overlap_matrix(last, radius).tolist(),
            )
        )
    return found


def theory_of(hamiltonian: VectorHamiltonian) -> VectorGlass | None:
    """The theory of many such spins; None without couplings."""
    return glass_of(hamiltonian) if hamiltonian.exchange.any() else None


def line_of_instability(glass: VectorGlass, T: float) -> str:
    """Where the line of de Almeida and Thouless of these spins begins and ends, and that of SK for reference."""
    T = max(T, LOWEST * glass.critical_temperature)
    own = f"T_c {glass.critical_temperature:.4g} at h = 0, h {glass.line(T):.4g} at T = {T:.4g}"
    sk = f"T_c 1, h {almeida_thouless.line(min(T, 1.0)):.4g}"
    return f"AT line of many spins of {glass.n_components} components: {own}; of SK, which has one: {sk}"


def table(cells: Sequence[Cell]) -> list[str]:
    """One line a cell."""
    names = f"{'mean |q|':>10}{'spread':>9}{'q_rot':>8}{'spread':>9}{'chi_sg':>9}{'E/N':>10}"
    lines = [f"{'T':>8}{'h':>7}{names}  equilibrated"]
    for cell in cells:
        numbers = f"{cell.mean:>10.4f}{cell.spread:>9.4f}{cell.rotation:>8.4f}{cell.rotation_spread:>9.4f}"
        numbers += f"{cell.chi_sg:>9.4g}{cell.energy:>10.4f}"
        lines.append(f"{cell.T:>8.4g}{cell.h:>7.4g}{numbers}  {cell.equilibrated}")
    return lines
