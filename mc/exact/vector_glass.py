"""Replica-symmetric theory of the fully connected vector glass in random fields, and where it becomes unstable.

N spins of norm R in R^D, couplings of variance g^2 / N, fields of norm h in random directions; T, h and g in units of
J, k_B = 1. For large N the others act on a spin as a Gaussian field, f = |h e + g R sqrt(q / D) z|, z ~ N(0, 1) in
R^D, and with k = R f / T and A(k) = I_{D/2}(k) / I_{D/2-1}(k), the mean cosine,

    q = E A(k)^2,        q = sum_i |<s_i>|^2 / (N R^2),
    x = (g R^2 / T)^2 E [A'(k)^2 + (D - 1) (A(k) / k)^2] / D < 1     where the solution is stable.

x is the ratio of the geometric series that the spin-glass susceptibility is: the square of a spin's response to a
field, along and across it. Without fields q = 0 down to T_c = g R^2 / D, and chi_sg = 1 / (1 - (T_c / T)^2) above.
The line x = 1 is that of A. Sharma and A. P. Young, Phys. Rev. E 81, 061115 (2010), who have Gaussian fields; to
leading order it is h^2 = 4 (g R)^2 t^3 / (D + 2), t = 1 - T / T_c. D = 1, R = 1 is the SK model
(`mc.exact.almeida_thouless`), whose line has no end; for D >= 3, where a cold spin in a field does not answer it, it
ends at a finite field at T = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import ncx2

from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.readout import bessel_ratio

WIDTHS = 12.0  # of the Gaussian field, to both sides of its mean: beyond is below 1e-20
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
LOWEST = 1e-6  # T / T_c from which on the equations are solved
FAR = 100.0  # h / (g R) beyond the line of any D, at T / T_c of at least LOWEST


@dataclass(frozen=True)
class VectorGlass:
    """n_components: D >= 1. radius: R. strength: g, the standard deviation of the couplings times sqrt(N)."""

    n_components: int
    radius: float
    strength: float = 1.0

    def __post_init__(self):
        if self.n_components < 1 or not (self.radius > 0 and self.strength > 0):
            raise ValueError(f"{self}: D of at least 1 and R and g above 0 are needed")

    @property
    def critical_temperature(self) -> float:
        """T_c = g R^2 / D, where the line begins at h = 0."""
        return self.strength * self.radius**2 / self.n_components

    def overlap(self, T: float, h: float) -> float:
        """q(T, h), from 0 to 1; at h = 0 the positive solution below T_c. ValueError for T below 1e-6 T_c, or h <
        0.
        """
        self._check(T, h)
        lowest = 0.0
        if h == 0.0:
            t = 1.0 - T / self.critical_temperature
            if t <= 1e-6:
                return max(t, 0.0)  # to leading order
            lowest = 0.1 * t
        excess = lambda q: self._averages(T, h, q)[0] - q  # noqa: E731
        return float(brentq(excess, lowest, 1.0, xtol=1e-14))

    def instability(self, T: float, h: float) -> float:
        """x(T, h) at q(T, h), above 1 where the solution is unstable. ValueError as of `overlap`."""
        scale = (self.strength * self.radius**2 / T) ** 2 / self.n_components
        return scale * self._averages(T, h, self.overlap(T, h))[1]

    def is_unstable(self, T: float, h: float) -> bool:
        """Whether (T, h) lies below the line, for any T > 0 and h >= 0; far below 1e-6 T_c it is where it ends."""
        T = max(T, LOWEST * self.critical_temperature)
        near = self.critical_temperature > T and h < FAR * self.strength * self.radius
        return near and self.instability(T, h) > 1.0

    def line(self, T: float) -> float:
        """h_AT(T): below this field the replica-symmetric solution is unstable; 0 from T_c on.

        ValueError for T below 1e-6 T_c.
        """
        if self.critical_temperature <= T:
            return 0.0
        highest = self.strength * self.radius
        while self.instability(T, highest) > 1.0:
            highest *= 2.0
        lowest = 1e-3 * highest * (1.0 - T / self.critical_temperature) ** 1.5
        return float(brentq(lambda h: self.instability(T, h) - 1.0, lowest, highest, xtol=1e-14))

    def _averages(self, T: float, h: float, q: float) -> tuple[float, float]:
        """E A^2, and E of A'^2 + (D - 1) (A / k)^2."""
        D, spread = self.n_components, self.strength * self.radius * math.sqrt(q / self.n_components)
        field, weight = _field_law(h, spread, D, T / self.radius)
        k = self.radius * field / T
        A = bessel_ratio(0.5 * D, k)
        across = np.divide(A, k, out=np.full_like(k, 1.0 / D), where=k > 0)
        along = 1.0 - A**2 - (D - 1) * across
        return float(weight @ A**2), float(weight @ (along**2 + (D - 1) * across**2))

    def _check(self, T: float, h: float) -> None:
        if not LOWEST * self.critical_temperature <= T < math.inf:
            raise ValueError(f"T={T}: a finite temperature of at least {LOWEST:g} T_c is needed")
        if not 0 <= h < math.inf:
            raise ValueError(f"h={h}: a finite field of at least 0 is needed")


def glass_of(hamiltonian: VectorHamiltonian) -> VectorGlass:
    """The large-N theory with D, R and the mean square coupling of this Hamiltonian. ValueError without couplings."""
    N = hamiltonian.n_spins
    mean_square = float((hamiltonian.exchange**2).sum()) / max(N * (N - 1), 1)
    return VectorGlass(hamiltonian.n_components, hamiltonian.radius, math.sqrt(N * mean_square))


def _field_law(h: float, spread: float, dimension: int, fine: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of |h e + spread z| and their weights, for functions that change over `fine` near 0.

    Gauss-Legendre on panels half a spread wide, and on ever narrower ones near 0.
    """
    if spread == 0.0:
        return np.array([h]), np.ones(1)
    middle = math.hypot(h, spread * math.sqrt(dimension))
    low, high = max(0.0, middle - WIDTHS * spread), middle + WIDTHS * spread
    even = np.linspace(low, high, math.ceil(2.0 * (high - low) / spread) + 1)
    halved = high * 0.5 ** np.arange(max(0, math.ceil(math.log2(high / fine))) + 3)
    edges = np.unique(np.concatenate([even, halved[halved > low]]))
    half = 0.5 * np.diff(edges)[:, None]
    field = (edges[:-1, None] + half * (1.0 + NODES)).ravel()
    density = 2.0 * field / spread**2 * ncx2.pdf((field / spread) ** 2, dimension, (h / spread) ** 2)
    return field, (half * WEIGHTS).ravel() * density
