"""The energy function in a chain file: its interactions, not the recipe they came from, so no later model code can
change it.

Ising spins: per order k datasets `sites_k` and `couplings_k`. Vector spins: `fields` (site, component) and dense
`couplings` (site, partner), with the attributes `form`, `pairs` and `n_components`.
"""

from __future__ import annotations

import json

import h5py
import numpy as np

from mc.chain_layout import add_array, add_axis, attach_axes, set_attributes, to_json
from mc.chain_lock import ChainError
from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice
from mc.vector.hamiltonian import VectorHamiltonian


def spin_axes(hamiltonian: Hamiltonian | VectorHamiltonian) -> dict[str, int]:
    """{axis: length} of one state: sites, and components of vector spins."""
    if isinstance(hamiltonian, VectorHamiltonian):
        return {"site": hamiltonian.n_spins, "component": hamiltonian.n_components}
    return {"site": hamiltonian.n_spins}


def spin_type(hamiltonian: Hamiltonian | VectorHamiltonian) -> type:
    """What stored spins are: int8, or float32 for vectors."""
    return np.float32 if isinstance(hamiltonian, VectorHamiltonian) else np.int8


def write_hamiltonian(group: h5py.Group, hamiltonian: Hamiltonian | VectorHamiltonian) -> None:
    """Store a Hamiltonian in an empty group."""
    set_attributes(
        group,
        {
            "name": hamiltonian.name,
            "parameters": to_json(hamiltonian.parameters, "the parameters of the Hamiltonian"),
            "n_spins": hamiltonian.n_spins,
            "fingerprint": hamiltonian.fingerprint,
            "constant": hamiltonian.constant,
            "energy_unit": hamiltonian.energy_unit,
            "k_B": hamiltonian.k_B,
        },
    )
    if isinstance(hamiltonian, VectorHamiltonian):
        _write_vector(group, hamiltonian)
        return
    if hamiltonian.n_up is not None:
        group.attrs["n_up"] = hamiltonian.n_up
    lattice = hamiltonian.lattice
    if lattice is not None:
        group.attrs["lattice_shape"] = np.array(lattice.shape, dtype=np.int64)
        group.attrs["lattice_periodic"] = np.array(lattice.periodic, dtype=np.int8)
    for order, (sites, couplings) in hamiltonian.interactions.items():
        axes = (f"interaction_{order}", f"member_{order}")
        for axis, length in zip(axes, sites.shape, strict=True):
            add_axis(group, axis, length, hamiltonian.energy_unit)
        for name, array in ((f"sites_{order}", sites), (f"couplings_{order}", couplings)):
            dataset = add_array(group, name, array)
            attach_axes(dataset, axes[: array.ndim])
            dataset.attrs["units"] = "dimensionless" if name.startswith("sites") else hamiltonian.energy_unit


def _write_vector(group: h5py.Group, hamiltonian: VectorHamiltonian) -> None:
    attributes = {"form": hamiltonian.form, "pairs": hamiltonian.pairs, "n_components": hamiltonian.n_components}
    set_attributes(group, attributes)
    for axis, length in {**spin_axes(hamiltonian), "partner": hamiltonian.n_spins}.items():
        add_axis(group, axis, length, hamiltonian.energy_unit)
    arrays = {"fields": ("site", "component"), "couplings": ("site", "partner")}
    for name, axes in arrays.items():
        dataset = add_array(group, name, getattr(hamiltonian, name))
        attach_axes(dataset, axes)
        dataset.attrs["units"] = hamiltonian.energy_unit


def read_hamiltonian(group: h5py.Group) -> Hamiltonian | VectorHamiltonian:
    """The Hamiltonian of a file; raises ChainError when it is not the one that was stored."""
    hamiltonian = _read_vector(group) if "form" in group.attrs else _read_ising(group)
    if hamiltonian.fingerprint != group.attrs["fingerprint"]:
        raise ChainError(f"{group.file.filename}: the Hamiltonian is not the one stored; the file is damaged")
    return hamiltonian


def _read_vector(group: h5py.Group) -> VectorHamiltonian:
    stored = group.attrs
    arrays = (group["fields"][()], group["couplings"][()])
    return VectorHamiltonian(
        *arrays, stored["form"], stored["pairs"], stored["name"], json.loads(stored["parameters"])
    )


def _read_ising(group: h5py.Group) -> Hamiltonian:
    stored = group.attrs
    lattice = None
    if "lattice_shape" in stored:
        lattice = Lattice(tuple(stored["lattice_shape"]), tuple(stored["lattice_periodic"]))
    orders = sorted(int(name.removeprefix("sites_")) for name in group if name.startswith("sites_"))
    return Hamiltonian(
        int(stored["n_spins"]),
        {order: (group[f"sites_{order}"][()], group[f"couplings_{order}"][()]) for order in orders},
        float(stored["constant"]),
        lattice,
        stored["name"],
        json.loads(stored["parameters"]),
        stored["energy_unit"],
        float(stored["k_B"]),
        int(stored["n_up"]) if "n_up" in stored else None,
    )
