"""Environments of the boundary-mps prior: estimated before they are built, built once, kept beside the chain."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cli.errors import UserError
from cli.output import Screen
from mc.hamiltonian import Hamiltonian
from mc.square import square_couplings
from nmcmc.environment.build import Environment, build_environment, estimate, memory_at_hand
from nmcmc.environment.cache import environment_key, environment_path, load_environment, save_environment
from nmcmc.recipe import NetSettings

SHARE_OF_MEMORY = 0.6  # of what is free
WORTH_SAYING = 2.0  # seconds of building
WORTH_KEEPING = 1.0
LARGEST_CACHE = 2 << 30  # bytes


class Environments:
    """folder: where they are kept between runs."""

    def __init__(self, folder: Path, screen: Screen):
        self._folder, self._screen = folder, screen
        self._known: dict[str, tuple[Environment, float]] = {}  # and the seconds it took, 0 for one on disk

    def get(self, hamiltonian: Hamiltonian, beta: float, net: NetSettings, keep: bool = True) -> Environment | None:
        """The environment of a target; None for a prior that needs none, UserError when memory does not suffice.

        keep: write it to disk if it took long; a pilot tries some that nobody needs again.
        """
        if net.prior != "boundary-mps":
            return None
        key = environment_key(hamiltonian, beta, net.chi, net.form)
        shape = "x".join(map(str, hamiltonian.lattice.shape))
        stem = f"{hamiltonian.name}-{shape}-{hamiltonian.fingerprint[:10]}-beta{beta:.15g}"
        path = environment_path(self._folder, stem, net.chi, net.form)
        if key not in self._known:
            environment, seconds = load_environment(path, key), 0.0
            if environment is None:
                environment, seconds = self._build(hamiltonian, beta, net)
            self._known = {key: (environment, seconds)}  # one at a time: a pilot leaves smaller ones behind
        environment, seconds = self._known[key]
        size = environment.first.nbytes + environment.rest.nbytes
        if keep and seconds > WORTH_KEEPING and size < LARGEST_CACHE and save_environment(path, key, environment):
            self._known = {key: (environment, 0.0)}
        return environment

    def _build(self, hamiltonian: Hamiltonian, beta: float, net: NetSettings) -> tuple[Environment, float]:
        """The environment and the seconds it took."""
        couplings = square_couplings(hamiltonian)
        check_memory(hamiltonian, net)
        seconds, size = estimate(couplings, net.chi, net.form)
        if seconds > WORTH_SAYING:
            self._screen.say(f"environment: chi={net.chi}, about {seconds:.0f} s to build, {size / 2**20:.0f} MB")
        steps = max(couplings.shape[0] - 1, 1)
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool, self._screen.progress("environment, rows", steps) as update:
            environment = build_environment(couplings, beta, net.chi, net.form, pool, report=update)
        return environment, time.monotonic() - began


def fits_memory(hamiltonian: Hamiltonian, net: NetSettings) -> bool:
    """Whether the environment of these settings fits into the memory that is free."""
    needed = estimate(square_couplings(hamiltonian), net.chi, net.form, trial=False)[1]
    return needed <= SHARE_OF_MEMORY * memory_at_hand()


def check_memory(hamiltonian: Hamiltonian, net: NetSettings) -> None:
    """UserError, with the bond that fits, for an environment that is too large for the memory that is free."""
    if fits_memory(hamiltonian, net):
        return
    couplings, room = square_couplings(hamiltonian), SHARE_OF_MEMORY * memory_at_hand()
    needed = estimate(couplings, net.chi, net.form, trial=False)[1]
    fits = max(
        (chi for chi in range(1, net.chi) if estimate(couplings, chi, net.form, trial=False)[1] <= room), default=0
    )
    remedy = f"prior.chi={fits} would fit" if fits else "use prior=local"
    raise UserError(
        f"prior.chi={net.chi}: its environment needs about {needed / 2**30:.2g} GB, "
        f"{room / 2**30:.2g} GB are at hand; {remedy}"
    )
