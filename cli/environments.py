"""Environments of the boundary-mps prior: estimated before they are built, built once, kept beside the chain."""

from __future__ import annotations

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
        self._known: dict[str, Environment] = {}

    def get(self, hamiltonian: Hamiltonian, beta: float, net: NetSettings) -> Environment | None:
        """The environment of a target; None for a prior that needs none, UserError when memory does not suffice."""
        if net.prior != "boundary-mps":
            return None
        key = environment_key(hamiltonian, beta, net.chi, net.form)
        if key in self._known:
            return self._known[key]
        shape = "x".join(map(str, hamiltonian.lattice.shape))
        stem = f"{hamiltonian.name}-{shape}-{hamiltonian.fingerprint[:10]}-beta{beta:.15g}"
        path = environment_path(self._folder, stem, net.chi, net.form)
        environment = load_environment(path, key)
        if environment is None:
            environment = self._build(hamiltonian, beta, net, path, key)
        self._known = {key: environment}  # one at a time: the pilot leaves smaller ones behind
        return environment

    def _build(self, hamiltonian: Hamiltonian, beta: float, net: NetSettings, path: Path, key: str) -> Environment:
        couplings = square_couplings(hamiltonian)
        check_memory(hamiltonian, net)
        seconds, size = estimate(couplings, net.chi, net.form)
        if seconds > WORTH_SAYING:
            self._screen.say(f"environment: chi={net.chi}, about {seconds:.0f} s to build, {size / 2**20:.0f} MB")
        steps = max(couplings.shape[0] - 1, 1)
        with ThreadPoolExecutor(2) as pool, self._screen.progress("environment, rows", steps) as update:
            environment = build_environment(couplings, beta, net.chi, net.form, pool, report=update)
        size = environment.first.nbytes + environment.rest.nbytes
        if seconds > WORTH_KEEPING and size < LARGEST_CACHE:
            save_environment(path, key, environment)
        return environment


def check_memory(hamiltonian: Hamiltonian, net: NetSettings) -> None:
    """UserError, with the bond that fits, for an environment that is too large for the memory that is free."""
    couplings, room = square_couplings(hamiltonian), SHARE_OF_MEMORY * memory_at_hand()
    needed = estimate(couplings, net.chi, net.form, trial=False)[1]
    if needed <= room:
        return
    fits = max(
        (chi for chi in range(1, net.chi) if estimate(couplings, chi, net.form, trial=False)[1] <= room), default=0
    )
    remedy = f"prior.chi={fits} would fit" if fits else "use prior=local"
    raise UserError(
        f"prior.chi={net.chi}: its environment needs about {needed / 2**30:.1f} GB, "
        f"{room / 2**30:.1f} GB are at hand; {remedy}"
    )
