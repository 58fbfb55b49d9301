"""The models a command line can name: one file a family, and the registry of them.

`mc.models.ising(L=16)` builds a Hamiltonian directly; `mc.models.build("ising", {"L": 16})` does so by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mc.hamiltonian import Hamiltonian
from mc.models.alloy import alloy
from mc.models.edwards_anderson import ea2d, ea3d
from mc.models.from_file import from_file
from mc.models.graphs import pspin, rrg, sk
from mc.models.ising import critical_beta, ising
from mc.models.vector import vector
from mc.vector.hamiltonian import VectorHamiltonian

__all__ = [
    "MODELS",
    "Model",
    "alloy",
    "build",
    "critical_beta",
    "ea2d",
    "ea3d",
    "from_file",
    "ising",
    "pspin",
    "rrg",
    "sk",
    "vector",
]


@dataclass(frozen=True)
class Model:
    """A model family: its name, its builder, the keys it takes (name -> kind) and one line about it.

    Kinds: "size" (integer >= 1), "seed" (integer >= 0), "order" (integer >= 2), "coupling" and "field" (a number or a
    word), "number", "share" (a number from 0 to 1), "text". found: parameters that the builder puts beside the keys.
    """

    name: str
    builder: Callable[..., Hamiltonian | VectorHamiltonian]
    keys: Mapping[str, str]
    about: str
    found: tuple[str, ...] = ()


SIZES_2D = {"L": "size", "Lx": "size", "Ly": "size"}
SIZES_3D = SIZES_2D | {"Lz": "size"}
DISORDER = {"J": "coupling", "h": "field", "seed": "seed"}

MODELS = {
    model.name: model
    for model in (
        Model(
            "ising",
            ising,
            SIZES_3D | {"dim": "size", "boundary": "text"} | DISORDER,
            "Ising model on a square (L=, or Lx= Ly=) or cubic (dim=3, or Lz=) lattice, J=ferro",
        ),
        Model(
            "ea2d",
            ea2d,
            SIZES_2D | {"boundary": "text"} | DISORDER,
            "Edwards-Anderson spin glass, 2D, J=bimodal",
        ),
        Model(
            "ea3d",
            ea3d,
            SIZES_3D | {"boundary": "text"} | DISORDER,
            "Edwards-Anderson spin glass, 3D, J=bimodal",
        ),
        Model(
            "sk",
            sk,
            {"N": "size"} | DISORDER,
            "Sherrington-Kirkpatrick, couplings of variance 1/N, J=gaussian",
        ),
        Model(
            "pspin",
            pspin,
            {"N": "size", "p": "order"} | DISORDER,
            "p-spin glass, all p-subsets, p=3, J=gaussian",
        ),
        Model(
            "rrg",
            rrg,
            {"N": "size", "degree": "order"} | DISORDER,
            "random regular graph, degree=3, J=bimodal",
        ),
        Model(
            "file",
            from_file,
            {"path": "text", "shape": "text"},
            "couplings from an .npz file (arrays i, j, J, h)",
        ),
        Model(
            "alloy",
            alloy,
            {"cell": "text", "h": "number", "composition": "share", "path": "text"},
            "binary alloy CuAu on a cell of primitive cells, cell=2x2x4 (path=: another cluster expansion)",
            ("elements", "vectors"),
        ),
        Model(
            "vector",
            vector,
            {"N": "size", "D": "size", "J": "field", "coupling": "text", "h": "number", "seed": "seed"}
            | {"path": "text", "energy": "text", "pairs": "text"},
            "vector-spin glass, spins in R^D with dense couplings of variance 1/N and fields of norm h (path=: x, J)",
        ),
    )
}


def build(name: str, parameters: Mapping[str, Any]) -> Hamiltonian | VectorHamiltonian:
    """The Hamiltonian of model `name` with `parameters`; ValueError for an unknown name, key or a wrong value."""
    if name not in MODELS:
        raise ValueError(f"model {name}: not one of {', '.join(MODELS)}")
    model = MODELS[name]
    given = {key: value for key, value in parameters.items() if key not in model.found}
    unknown = sorted(set(given) - set(model.keys))
    if unknown:
        raise ValueError(f"model {name}: unknown key {unknown[0]}; it takes {', '.join(model.keys)}")
    return model.builder(**given)
