"""`nmcmc run --mode mean-field`: magnetisations of vector spins from mean-field equations, into a chain file without
draws.

observables/m/mean is m (beta, site, component); observables/q and observables/A hold sum_i |m_i|^2 / (N R^2) and the
mean over sites of cos(m_i, x_i); diagnostics say whether and how far the equations were solved.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from cli.errors import UserError
from cli.output import Stopper, counted
from cli.work import Run
from mc.chain import ChainError, ChainWriter
from mc.vector.mean_field import solve

LARGE_D = 1.05  # D / (D - 2) beyond which it is said


def check_before_work(work: Run) -> None:
    """UserError for settings that do not go together, and an energy that has no mean field."""
    hamiltonian = work.target.hamiltonian
    if hamiltonian.form == "loss":
        raise UserError("mode mean-field: the equations are those of spins of fixed norm; leave energy=loss out")
    try:
        solve(hamiltonian.fields, hamiltonian.couplings, 0.0, **arguments(work))  # at once, m = 0
    except ValueError as error:
        raise UserError(str(error)) from None


def arguments(work: Run) -> dict[str, Any]:
    """Those of `mc.vector.mean_field.solve` that settings give."""
    return {key: work.settings[key] for key in ("method", "bessel", "scheme", "damping")}


def solve_all(work: Run, writer: ChainWriter, stop: Stopper) -> None:
    """Solve at every beta and put what was found into the file; done before, it is left as it is."""
    if writer.complete:
        work.screen.say("complete: the equations were solved before; --restart solves them again")
        return
    hamiltonian = work.target.hamiltonian
    if not hamiltonian.has_fields:
        work.screen.say("note: without fields m = 0 solves the equations at every temperature, and is what is found")
    if work.settings["scheme"] == "anderson" and work.settings["damping"] is not None:
        work.screen.say("note: damping= has no effect with scheme=anderson")
    factor = hamiltonian.n_components / (hamiltonian.n_components - 2)
    if work.settings["bessel"] == "large-D" and factor > LARGE_D:
        work.screen.say(f"note: bessel=large-D overstates the answer to weak fields by D/(D-2) = {factor:.3g}; "
                        "bessel=exact (method=nmf) does not")  # fmt: skip
    clock, found = time.process_time(), []
    for beta in work.target.betas:
        if stop():
            work.screen.say(f"stopped before beta {beta:.6g}; the same command begins anew")
            return
        one = solve(hamiltonian.fields, hamiltonian.couplings, beta, **arguments(work))
        said = f"converged in {counted(one.iterations, 'step')}" if one.converged else f"not converged ({one.reason})"
        work.screen.say(f"beta {beta:.6g}: {said}, residual {one.residual:.2g} R")
        found.append(one)
    work.seconds["sample"] += time.process_time() - clock
    writer.set_seconds(sample=work.seconds["sample"])
    shared = {"mean": (("beta", "site", "component"), np.stack([one.m for one in found]))}
    writer.set_group("observables/m", shared)
    for name, key in (("q", "q"), ("A", "alignment")):
        writer.set_group(f"observables/{name}", {"mean": np.array([getattr(one, key) for one in found])})
    names = ("converged", "residual", "iterations", "reaction")
    writer.set_group("diagnostics", {name: np.array([float(getattr(one, name)) for one in found]) for name in names})
    try:
        writer.commit()
    except ChainError as error:
        raise UserError(str(error), code=1) from None
