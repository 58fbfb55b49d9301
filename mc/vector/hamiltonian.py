"""The energy function of N spins in R^D with dense couplings and a field on each: the vector-spin glass.

    bilinear    E(s) = - (1/2) sum_{i != j} K_ij s_i.s_j - sum_i x_i.s_i,    |s_i| = R = sqrt(D / 2 - 1)
    loss        E(s) = (1/2) sum_i |s_i - R f_i / |f_i||^2,  f_i = x_i + sum_j J_ij s_j,    s_i anywhere in R^D

Honkoop, "Statistical Physics of Transformers" (Leiden 2025), eq. 2.14 and 3.3, after Bal's spin-model transformers.
J may be asymmetric, as those of attention are: the bilinear energy knows its symmetric part K = (J + J^T) / 2 only
(A.2.2), the loss energy and the kinetic rule p(s_t | s_t-1) know all of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import gammaln

FORMS = ("bilinear", "loss")
PAIRS = ("once", "ordered")
LARGEST = 1e100  # of fields and couplings: squares of energies overflow far beyond


@dataclass(frozen=True, eq=False)
class VectorHamiltonian:
    """An energy function of N spins in R^D; immutable. Units: J, k_B = 1.

    fields: x (N, D). couplings: J (N, N), the diagonal included, which the bilinear energy leaves out (a constant).
    form: "bilinear" (spins of norm R) or "loss" (spins of any norm).
    pairs: "once" takes each pair of the bilinear energy once, with (J_ij + J_ji) / 2; "ordered" takes (i, j) and
        (j, i), as eq. 2.14 does, which doubles the couplings of equilibrium. Neither matters to the kinetic rule.
    name, parameters: rebuild it (`mc.models.build(name, parameters)`) where that is possible.

    Raises ValueError for shapes that do not match, D below 3 (R would be 0), numbers that are not finite, and other
    words.
    """

    fields: np.ndarray
    couplings: np.ndarray
    form: str = "bilinear"
    pairs: str = "once"
    name: str = "custom"
    parameters: Mapping[str, Any] | None = None

    energy_unit, k_B, constant = "J", 1.0, 0.0
    lattice, n_up = None, None
    is_ferromagnet = is_planar = is_nearest_neighbour = is_plus_minus_j = False

    def __post_init__(self):
        for key, value, words in (("energy", self.form, FORMS), ("pairs", self.pairs, PAIRS)):
            if value not in words:
                raise ValueError(f"{key}={value}: {' or '.join(words)} is needed")
        fields, couplings = (np.array(a, np.float64, order="C") for a in (self.fields, self.couplings))
        if fields.ndim != 2 or not len(fields):
            raise ValueError(f"fields: shape {fields.shape}, (N, D) is needed")
        if couplings.shape != (len(fields),) * 2:
            raise ValueError(
                f"couplings: shape {couplings.shape}, {(len(fields),) * 2} is needed for {fields.shape} fields"
            )
        if fields.shape[1] < 3:
            raise ValueError(f"D={fields.shape[1]}: at least 3 components are needed, as R = sqrt(D/2 - 1)")
        for what, array in (("fields", fields), ("couplings", couplings)):
            if not (np.abs(array) <= LARGEST).all():
                raise ValueError(f"{what}: NaN or infinite numbers, or ones beyond {LARGEST:g}")
            array.setflags(write=False)
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "couplings", couplings)
        object.__setattr__(self, "parameters", dict(self.parameters or {}))

    def __repr__(self) -> str:
        return f"VectorHamiltonian({self.name}, {self.n_spins} spins in R^{self.n_components}, {self.form} energy)"

    @property
    def n_spins(self) -> int:
        return len(self.fields)

    @property
    def n_components(self) -> int:
        """D."""
        return self.fields.shape[1]

    @property
    def radius(self) -> float:
        """R = sqrt(D / 2 - 1), the norm of the spins, and of the targets of the loss energy."""
        return math.sqrt(0.5 * self.n_components - 1.0)

    @cached_property
    def exchange(self) -> np.ndarray:
        """K (N, N) of the bilinear energy: symmetric, without a diagonal."""
        exchange = self.couplings + self.couplings.T
        if self.pairs == "once":
            exchange *= 0.5
        np.fill_diagonal(exchange, 0.0)
        exchange.setflags(write=False)
        return exchange

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether J_ij = J_ji."""
        return bool((self.couplings == self.couplings.T).all())

    @property
    def has_fields(self) -> bool:
        return self.n_fields > 0

    @cached_property
    def n_fields(self) -> int:
        """Number of sites with a field."""
        return int(self.fields.any(axis=1).sum())

    @cached_property
    def directions(self) -> np.ndarray:
        """x_i / |x_i| (N, D), zero where there is no field."""
        norms = np.linalg.norm(self.fields, axis=1, keepdims=True)
        return np.divide(self.fields, norms, out=np.zeros_like(self.fields), where=norms > 0)

    @property
    def is_z2_symmetric(self) -> bool:
        """E(-s) = E(s): no field."""
        return not self.has_fields

    @property
    def log_states(self) -> float:
        """ln Z at beta = 0, of the volume of all states: N ln(2 pi^(D/2) R^(D-1) / Gamma(D/2)); infinite for
        `loss`.
        """
        if self.form == "loss":
            return math.inf
        half = 0.5 * self.n_components
        one = math.log(2.0) + half * math.log(math.pi) - gammaln(half) + (2.0 * half - 1.0) * math.log(self.radius)
        return self.n_spins * float(one)

    def local_fields(self, spins: np.ndarray) -> np.ndarray:
        """l_i = x_i + sum_j K_ij s_j of states (..., N, D): what spins of the bilinear energy feel."""
        return self.fields + np.matmul(self.exchange, spins)

    def driving_fields(self, spins: np.ndarray) -> np.ndarray:
        """f_i = x_i + sum_j J_ij s_j of states (..., N, D), J as it is: of kinetic dynamics, loss and mean field."""
        return self.fields + np.matmul(self.couplings, spins)

    def energy(self, spins: np.ndarray) -> np.ndarray:
        """Total energies of states (..., N, D); shape (...), float64."""
        spins = np.asarray(spins, np.float64)
        if spins.shape[-2:] != self.fields.shape:
            raise ValueError(
                f"energy: states of shape {spins.shape[-2:]}, the Hamiltonian has (N, D) = {self.fields.shape}"
            )
        if self.form == "loss":
            driving = self.driving_fields(spins)
            norm = np.linalg.norm(driving, axis=-1, keepdims=True)
            targets = np.divide(self.radius * driving, norm, out=np.zeros_like(driving), where=norm > 0)
            return 0.5 * ((spins - targets) ** 2).sum(axis=(-2, -1))
        return -0.5 * (spins * (self.local_fields(spins) + self.fields)).sum(axis=(-2, -1))

    def energy_change(self, spins: np.ndarray, site: int, new: np.ndarray) -> np.ndarray:
        """Energy change when the spin at `site` of states (..., N, D) becomes `new` (..., D); shape (...)."""
        spins = np.asarray(spins, np.float64)
        if self.form == "bilinear":
            field = self.fields[site] + np.matmul(self.exchange[site], spins)
            return -((new - spins[..., site, :]) * field).sum(axis=-1)
        moved = spins.copy()
        moved[..., site, :] = new
        return self.energy(moved) - self.energy(spins)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the energy function and the couplings, 64 hexadecimal digits; names do not enter."""
        digest = hashlib.sha256()
        head = {"vector": self.form, "pairs": self.pairs, "shape": list(self.fields.shape)}
        digest.update(json.dumps(head, sort_keys=True).encode())
        for array in (self.fields, self.couplings):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()
