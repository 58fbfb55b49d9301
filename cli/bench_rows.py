"""The races of `nmcmc bench mc`: which kernel runs which model against whom, and what it must reach.

The bounds against our plain kernel, `replicas`, are generous: a ratio below one means that the compiler no longer
vectorises the fast kernel, which it does not say.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from cli.bench_rivals import Contender, openjij, peapods, rounds, sweeps, wolff
from mc import models
from mc.hamiltonian import Hamiltonian
from mc.models.ising import CRITICAL_BETA
from mc.simulate import LocalDriver
from mc.tempering import TemperingDriver

GENERIC, PLAIN = "graph", "replicas"
BETA_C = CRITICAL_BETA[2]
BETA_GLASS = 1.0 / 1.1
LADDER = np.geomspace(0.4, 2.0, 32)  # temperatures


@dataclass(frozen=True)
class Row:
    """A race: ours against a rival, built when it is run. Of two rivals the second is the first without its move.

    must, close: ratios of the rates, to be reached and close to the limit of the machine.
    """

    kernel: str
    model: str
    rival: str
    ours: Callable[[], Contender]
    theirs: Callable[[], list[Contender]]
    must: float | None = None
    close: float | None = None
    pick: Callable[[list[float]], float] = min

    @property
    def name(self) -> str:
        return f"{self.kernel}: {self.model} / {self.rival}"


ising, ea, sk, rrg = cache(models.ising), cache(models.ea3d), cache(models.sk), cache(models.rrg)
pspin = cache(models.pspin)
wolff_at = cache(lambda L: wolff(ising(L), BETA_C))
Model = Callable[[], Hamiltonian]


def local(kernel: str, words: str, model: Model, beta: float, lanes: int, must: float, close: float) -> Row:
    """Metropolis sweeps of some replicas, against those of one by peapods."""
    ours, theirs = lambda: sweeps(model(), beta, lanes, kernel), lambda: [peapods(model(), [1.0 / beta])]
    return Row(kernel, words, "peapods", ours, theirs, must, close)


def tempering(kernel: str, J: str, replicas: int, measured: bool, must: float, close: float) -> Row:
    """Rounds of a glass of 512 spins at 32 temperatures; goals are for rounds without measuring."""
    words = f"PT round 3D EA {J}, L=8, 32 T{', 2 replicas' * (replicas > 1)}{', measured' * measured}"
    return Row(
        kernel,
        words,
        "peapods",
        lambda: rounds(ea(8, J=J), LADDER, replicas, kernel, measured),
        lambda: [peapods(ea(8, J=J), LADDER, replicas, measured, pt_interval=1)],
        *((None, None) if measured else (must, close)),
    )


def clusters(rule: str, L: int) -> Row:
    """Cluster moves of the 2D ferromagnet at its critical point; of peapods' clusters the size is taken from ours."""
    is_wolff = rule == "wolff"

    def theirs() -> list[Contender]:
        updates = wolff_at(L)[1] if is_wolff else float(L * L)
        move = {"cluster_update_interval": 1, "cluster_mode": "wolff" if is_wolff else "sw"}
        return [peapods(ising(L), [1.0 / BETA_C], updates=updates, **move), peapods(ising(L), [1.0 / BETA_C])]

    ours = (lambda: wolff_at(L)[0]) if is_wolff else lambda: sweeps(ising(L), BETA_C, 1, "clusters", rule)
    pick = statistics.median if is_wolff else min
    return Row("clusters", f"{rule}, 2D Ising beta_c, L={L}", "peapods", ours, theirs, 1.5, 2.5, pick)


def dense(N: int) -> Row:
    """Sweeps of one replica of the Sherrington-Kirkpatrick model."""
    ours, theirs = lambda: sweeps(sk(N), 1.0, 1, "dense"), lambda: [openjij(sk(N), 1.0)]
    return Row("dense", f"SK N={N}, T=1", "openjij", ours, theirs, 1.2, 2.0)


def random_graph() -> Row:
    """A random graph against the cubic lattice, which has as many neighbours: peapods takes lattices only."""
    ours = lambda: sweeps(rrg(1000, degree=6), BETA_GLASS, 1, GENERIC)  # noqa: E731
    theirs = lambda: [peapods(ea(10), [1.0 / BETA_GLASS])]  # noqa: E731
    return Row(GENERIC, "random regular graph N=1000 degree 6 (rival: 3D EA L=10)", "peapods", ours, theirs, 1.0, 2.3)


def plain(kernel: str, words: str, model: Model, beta: float, lanes: int, must: float) -> Row:
    """A fast kernel against the plain one, which moves a replica at a time."""
    ours, theirs = lambda: sweeps(model(), beta, lanes, kernel), lambda: [sweeps(model(), beta, 1, PLAIN)]
    return Row(kernel, words, PLAIN, ours, theirs, must)


def all_rows() -> list[Row]:
    """Every race, in the order of the table."""
    rows = []
    for L, must, close in ((64, 8.0, 12.0), (128, 12.0, 35.0), (512, 12.0, 35.0)):
        rows.append(local("packed", f"2D Ising beta_c, L={L}", partial(ising, L), BETA_C, 1, must, close))
    for L in (8, 10, 16):
        words = f"3D EA bimodal, L={L}, T=1.1, 64 lanes"
        rows.append(local("bit-planes", words, partial(ea, L), BETA_GLASS, 64, 12.0, 20.0))
    gaussian = partial(ea, 10, J="gaussian")
    for lanes, must, close in ((32, 4.0, 6.0), (128, 8.0, 11.0)):
        words = f"3D EA gaussian, L=10, T=1.1, {lanes} lanes"
        rows.append(local("lanes", words, gaussian, BETA_GLASS, lanes, must, close))
    for measured in (False, True):
        rows.append(tempering("lanes", "gaussian", 1, measured, 5.0, 6.6))
        rows.append(tempering("bit-planes", "bimodal", 2, measured, 10.0, 20.0))
    rows += [dense(N) for N in (256, 1024)]
    rows += [clusters(rule, L) for rule in ("wolff", "swendsen-wang") for L in (64, 128)]
    for J in ("gaussian", "bimodal"):
        words = f"3D EA {J}, L=10, T=1.1, one replica"
        rows.append(local(GENERIC, words, partial(ea, 10, J=J), BETA_GLASS, 1, 1.0, 2.3))
    rows.append(random_graph())
    rows.append(plain("packed", "2D Ising beta_c, L=128", partial(ising, 128), BETA_C, 1, 8.0))
    rows.append(plain("bit-planes", "3D EA bimodal, L=10, T=1.1, 64 lanes", partial(ea, 10), BETA_GLASS, 64, 40.0))
    rows.append(plain("lanes", "3D EA gaussian, L=10, T=1.1, 32 lanes", gaussian, BETA_GLASS, 32, 6.0))
    rows.append(plain("dense", "SK N=1024, T=1", partial(sk, 1024), 1.0, 1, 5.0))
    rows.append(plain("fields", "p-spin p=3, N=48, T=1", partial(pspin, 48), 1.0, 1, 3.0))
    return rows


MEASURED: dict[str, Callable[[], LocalDriver | TemperingDriver]] = {
    "packed, 2D Ising beta_c, L=64": lambda: LocalDriver(ising(64), [BETA_C], kernel="packed"),
    "bit-planes, PT 3D EA bimodal, L=8, 32 T": lambda: TemperingDriver(ea(8), 1.0 / LADDER, kernel="bit-planes"),
}
