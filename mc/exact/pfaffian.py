"""Exact values of any 2D nearest-neighbour Ising system without field, by Pfaffians, in double-double arithmetic.

With t = tanh(beta J), Z = 2^N prod cosh(beta J) * <prod (1 + t s s')>, the mean over all spins. Let rows enter from
the top, and write what has entered as a function f of the spins of the last row. On a planar lattice its expansion
into products of spins is Gaussian (J. Groeneveld, R. Boel, P. Kasteleyn, Physica A 93, 138 (1978)),

    f = c sum_A Pf(S_A) prod_{i in A} s_i,    S skew, S_ij = <s_i s_j> of what has entered (i < j), |S_ij| <= 1,

so a bond of the row (a, b neighbours in it) is a factor d of c and an update of rank two, and bonds to the next row
rescale S:

    d = 1 + t S_ab,    S_ij <- S_ij + (t/d)(S_ib S_ja - S_ia S_jb),    then S_ja += (t/d) S_jb, S_jb += (t/d) S_ja,
    S_ab += t/d;       S_ij <- t_i t_j S_ij.

A ring of rows keeps the spins of its first row as further legs and joins them to the last: sum_A f_AA = Pf(S + B),
B the pairing of the two. Rings closed in one direction, too, are planar, and one Pfaffian is enough. On the torus
the bond round a row is multiplied by -(-1)^(legs in the row), so that it takes two Gaussians, one right for an even
and one for an odd number of legs, and even and odd parts are (Pf(S + B) +- (-1)^L Pf(S - B))/2: the four Pfaffians of
P. W. Kasteleyn, J. Math. Phys. 4, 287 (1963). They cancel as far as another set of (anti)periodic boundary conditions
has a larger Z; rounding grows with exp(2 |effective coupling|). Hence double-double numbers (32 digits), and a
second sweep, from the last row up, tells how many of them were good.

ln Z is expanded to second order in beta: every number is three Taylor coefficients, and no difference is taken.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

from mc.exact.pfaffian_sweep import closed, sweep
from mc.exact.result import ExactRefused, ExactResult, checked_beta
from mc.hamiltonian import Hamiltonian
from mc.square import SquareCouplings, square_couplings, square_refusal

SECONDS_PER_ENTRY = 7e-8  # of S in one update, twice: measured on one core of a Xeon with AVX-512, with some noise
MAX_HOURS = 1.0
DIGITS = 45  # of Decimal, more than double-double holds
ALL_DIGITS = 31  # of a double-double
GOOD_DIGITS = 10  # of Z, at least
PER_SPIN = 1e-9  # error of ln Z, beta <E> and heat capacity that is accepted
SHAKE = 1e-30  # relative error made in tanh in the second sweep: some twenty units of the last digit


class Bracket(NamedTuple):
    """The logarithm of <prod (1 + t s s')>, its two derivatives in beta, and the digits lost in adding its terms."""

    log: float
    slope: float
    curvature: float
    lost_digits: float


def pfaffian_refusal(hamiltonian: Hamiltonian) -> str:
    """Why the method cannot take the Hamiltonian, and what to do; "" where it can."""
    refusal = square_refusal(hamiltonian)
    if not refusal and 1 in hamiltonian.interactions:
        refusal = "it takes no field"
    if refusal:
        return f"{refusal}; use enumeration or transfer-matrix"
    hours = estimated_seconds(hamiltonian) / 3600.0
    return f"needs about {hours:,.1f} hours; use a smaller system, or --mode pt" if hours > MAX_HOURS else ""


def estimated_seconds(hamiltonian: Hamiltonian) -> float:
    """Seconds of one temperature on one core; the Hamiltonian must be one of nearest neighbours in two dimensions."""
    shape, periodic = hamiltonian.lattice.shape, hamiltonian.lattice.periodic
    return 0.02 + SECONDS_PER_ENTRY * min(_work(*shape, *periodic), _work(*shape[::-1], *periodic[::-1]))


def pfaffian_exact(hamiltonian: Hamiltonian, beta: float) -> ExactResult:
    """ln Z, <E> and heat capacity of nearest-neighbour bonds on a 2D lattice without field; no ground state.

    Couplings of any sign and size, each axis open or periodic. Relative errors are near 1e-15 for ln Z and <E> and
    1e-11 for the heat capacity, down to about T = 1/4 for +-J and lower for Gaussian couplings. Colder, rounding
    grows like exp(const/T): ln Z, <E>/T and the heat capacity (k_B) are then good to 1e-9 per spin, which may be more
    than the heat capacity itself, or they are refused. `lost_digits`: how many of 31 digits cancel between the four
    Pfaffians of a torus; None on other lattices.

    Raises ExactRefused for another Hamiltonian, more than an hour, or a temperature too low for 31 digits; ValueError
    for a negative or non-finite beta.
    """
    beta = checked_beta(beta)
    refusal = pfaffian_refusal(hamiltonian)
    if refusal:
        raise ExactRefused(f"Pfaffians of {hamiltonian.name} ({hamiltonian.n_spins} spins): {refusal}")
    rows = square_couplings(hamiltonian)
    columns = SquareCouplings(rows.down.T, rows.right.T, rows.field.T, rows.periodic[::-1])
    first, second = sorted((rows, columns), key=_entries)
    found = _reliable(first, beta)
    if found is None and _entries(second) <= 2.0 * _entries(first):
        found = _reliable(second, beta)  # rounding grows in other places
    if found is None:
        raise ExactRefused(
            f"Pfaffians of {hamiltonian.name} ({hamiltonian.n_spins} spins) at beta={beta:g}: too cold for 31 digits"
            "; use a higher temperature, or transfer-matrix on a narrow lattice"
        )
    log_bracket, slope, curvature, lost = found
    bonds = np.abs(hamiltonian.bonds[1])
    boltzmann = np.exp(-2.0 * beta * bonds)
    tanh, sech2 = -np.expm1(-2.0 * beta * bonds) / (1.0 + boltzmann), 4.0 * boltzmann / (1.0 + boltzmann) ** 2
    log_cosh = math.fsum(beta * bonds + np.log1p(boltzmann)) + (hamiltonian.n_spins - len(bonds)) * math.log(2.0)
    return ExactResult(
        "pfaffian",
        beta,
        log_cosh + log_bracket - beta * hamiltonian.constant,
        hamiltonian.constant - math.fsum(bonds * tanh) - slope,
        beta * beta * max(math.fsum(bonds**2 * sech2) + curvature, 0.0),
        lost_digits=lost if all(rows.periodic) else None,
    )


def _entries(system: SquareCouplings) -> float:
    """Entries of S updated in sweeping the rows."""
    return _work(*system.shape, *system.periodic)


def _work(height: int, width: int, rows_close: bool, row_closes: bool) -> float:
    return height * width * ((1 + rows_close) * width) ** 2 / 2 * (1 + (rows_close and row_closes))


def _upside_down(system: SquareCouplings) -> SquareCouplings:
    """The rows in the opposite order, and the sites of each."""
    right = np.roll(system.right[::-1, ::-1], -1, axis=1)
    down = np.roll(system.down[::-1, ::-1], -1, axis=0)
    return SquareCouplings(right, down, system.field[::-1, ::-1], system.periodic)


def _reliable(system: SquareCouplings, beta: float) -> Bracket | None:
    """The bracket, if the sweep from the last row up, with slightly wrong t, finds nearly the same; else None."""
    one, other = _bracket(system, beta), _bracket(_upside_down(system), beta, SHAKE)
    if one is None or other is None or max(one.lost_digits, other.lost_digits) > ALL_DIGITS - GOOD_DIGITS:
        return None
    differences = one.log - other.log, beta * (one.slope - other.slope), beta**2 * (one.curvature - other.curvature)
    return one if max(abs(d) for d in differences) < PER_SPIN * system.right.size else None


def _bracket(system: SquareCouplings, beta: float, shake: float = 0.0) -> Bracket | None:
    """<prod (1 + t s s')>; None where no digit of it is left. shake: relative size of random errors to make in t."""
    right, down = _tanh(system.right, beta), _tanh(system.down, beta)
    rng = np.random.default_rng(0)
    for t in (right, down):
        t[0, 1] += shake * t[0, 0] * rng.uniform(-1.0, 1.0, t[0, 0].shape)
    closing, wrapping = system.periodic
    width = system.shape[1]
    terms = []  # value, first and second derivative of the logarithm
    for sector in (1, -1) if closing and wrapping else (1,):
        S, B, product = sweep(right, down, closing, float(sector) if wrapping else 0.0)
        if not np.isfinite(product).all():
            return None
        if not closing:
            terms.append(_term(product))
            continue
        terms.append(_term(closed(S, B, 1.0, product), 0.5 if wrapping else 1.0))
        if wrapping:
            terms.append(_term(closed(S, B, -1.0, product), 0.5 * sector * (-1) ** width))
    with localcontext(prec=DIGITS):
        total = sum(value for value, _, _ in terms)
        if not total > 0:
            return None
        largest = max(abs(value) for value, _, _ in terms)
        weights = [value / total for value, _, _ in terms]
        slope = sum(w * first for w, (_, first, _) in zip(weights, terms, strict=True))
        second = sum(w * (b + (a - slope) ** 2) for w, (_, a, b) in zip(weights, terms, strict=True))
        return Bracket(float(total.ln()), float(slope), float(second), max(float((largest / total).log10()), 0.0))


def _term(product: np.ndarray, factor: float = 1.0) -> tuple[Decimal, Decimal, Decimal]:
    """factor times a product, as the sweep keeps it, and the two derivatives of its logarithm."""
    high, low, exponent, *rest = (Decimal(float(value)) for value in product)
    with localcontext(prec=DIGITS):
        return Decimal(factor) * (high + low) * Decimal(2) ** exponent, rest[0] + rest[1], rest[2] + rest[3]


def _tanh(couplings: np.ndarray, beta: float) -> np.ndarray:
    """Taylor coefficients in beta of tanh(beta J), (3, 2, Ly, Lx): high and low halves of double-double."""
    unique, place = np.unique(couplings, return_inverse=True)
    table = np.zeros((3, 2, len(unique)))
    with localcontext(prec=DIGITS):
        for column, J in enumerate(Decimal(float(J)) for J in unique):
            q = (-2 * Decimal(beta) * abs(J)).exp()
            tanh, sech2 = ((1 - q) / (1 + q)).copy_sign(J), 4 * q / (1 + q) ** 2
            for order, value in enumerate((tanh, J * sech2, -J * J * tanh * sech2)):
                table[order, 0, column] = high = float(value)
                table[order, 1, column] = float(value - Decimal(high))
    return np.ascontiguousarray(table[:, :, place.reshape(-1)].reshape(3, 2, *couplings.shape))
