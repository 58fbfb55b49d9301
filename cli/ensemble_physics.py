"""What only many disorder samples together can say: ratios of averaged moments, and the energy-overlap identity."""

from __future__ import annotations

import numpy as np

from mc.analysis import smallest_mode_length
from mc.chain_hamiltonian import read_hamiltonian
from mc.chain_tree import tree
from mc.ensemble import Ensemble
from mc.equilibration import NO, NOT_SHOWN, YES, energy_overlap_identity, identity_refusal
from mc.hamiltonian import Hamiltonian
from mc.spin_glass import correlation_length, glass_binder
from mc.statistics import jackknife

FEWEST = 2  # samples of a jackknife


def physics_lines(there: Ensemble) -> list[str]:
    """Lines for people about an ensemble file of runs with overlaps; none for other ensembles."""
    summary = there.summary
    if len(summary.instances) < FEWEST or "q2" not in summary.observables:
        return []
    hamiltonians = [hamiltonian_of(there, number) for number in there.instances]
    return ratios(there, hamiltonians[0]) + identity(there, hamiltonians)


def hamiltonian_of(there: Ensemble, instance: int) -> Hamiltonian:
    """The Hamiltonian of one instance, from the file."""
    with tree(there.source(instance)) as root:
        return read_hamiltonian(root["hamiltonian"])


def ratios(there: Ensemble, hamiltonian: Hamiltonian) -> list[str]:
    """g (`glass_binder`) of [q2] and [q4], xi / L of [q2] and [|q(k)|^2], with jackknife errors over the samples."""
    values = {name: columns["mean"] for name, columns in there.summary.observables.items()}
    length = smallest_mode_length(hamiltonian)
    moments = {"q2": values["q2"], "q4": values["q4"]}
    functions = {"g": (lambda means: glass_binder(means, hamiltonian.n_components), moments)}
    if length and "overlap_k2" in values:
        functions["xi/L"] = (
            lambda means: correlation_length(means, length) / length,
            {"q2": values["q2"], "mode": values["overlap_k2"]},
        )
    samples = len(there.summary.instances)
    lines = ["of the averaged moments" + "".join(f"{name:>15}{'error':>10}" for name in functions)]
    for b, beta in enumerate(there.summary.betas):
        line = f"{beta:>10.6g}{'':13}"
        for function, series in functions.values():
            values_here = {name: value[:, b, None] for name, value in series.items()}
            try:
                mean, error = jackknife(function, values_here, samples)
                line += f"{mean:>15.6g}{error:>10.2g}"
            except (ValueError, ZeroDivisionError):  # no correlation beyond the noise, or a sample without overlap
                line += f"{'-':>15}{'-':>10}"
        lines.append(line)
    return lines


def identity(there: Ensemble, hamiltonians: list[Hamiltonian]) -> list[str]:
    """The verdict of the energy-overlap identity at the gravest beta, or why it cannot be asked."""
    values = there.summary.observables
    variance = 1.0 / hamiltonians[0].n_spins if hamiltonians[0].name == "sk" else 1.0
    refusal = "no link overlap" if "link_overlap" not in values else identity_refusal(hamiltonians, variance)
    if refusal:
        return [f"energy-overlap identity: not asked ({refusal})"]
    bonds = len(hamiltonians[0].bonds[1])
    order, found = [NO, NOT_SHOWN, YES], []
    for b, beta in enumerate(there.summary.betas):
        energy, link = values["energy"]["mean"][:, b] / bonds, values["link_overlap"]["mean"][:, b]
        if beta > 0 and np.isfinite(energy).all() and np.isfinite(link).all():
            found.append((float(beta), energy_overlap_identity(energy, link, float(beta), variance)[1]))
    if not found:
        return []
    beta, worst = min(found, key=lambda pair: order.index(pair[1].status))
    where = f" at beta {beta:.6g}" if worst.status != YES else f" at all {len(found)} betas"
    return [f"equilibrated, by the energy-overlap identity: {worst.status}{where} ({worst.reason})"]
