"""The checkpoint file: a sampler, its target and where its training stands. One file, replaced as a whole."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mc.analysis import kelvin
from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice
from nmcmc.anyorder.family import out_of_range, with_field
from nmcmc.environment.build import Environment
from nmcmc.recipe import NetSettings, as_plain, build_sampler, net_from_plain, resolved
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training

FORMAT, VERSION = "nmcmc-checkpoint", 2
FIRST_TRUNK = 2  # version from which the weights of a transformer have the names they have now


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, in one line."""


@dataclass
class Checkpoint:
    """hamiltonian, beta: the target. net: what the sampler is made of. recipe: how it is trained, as JSON types."""

    hamiltonian: Hamiltonian
    beta: float
    net: NetSettings
    recipe: dict
    training: Training

    def sampler(self, environment: Environment | None = None) -> AutoregressiveSampler:
        """The sampler with its best weights; the environment of its prior is built unless it is given."""
        sampler = build_sampler(self.hamiltonian, self.beta, self.net, environment=environment)
        if sampler.network is not None and self.training.best_weights:
            sampler.network.load_state_dict(self.training.best_weights)
        return sampler


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write under a temporary name, then rename, so that a killed process leaves the old file or the new one."""
    path = Path(path)
    hamiltonian, training = checkpoint.hamiltonian, checkpoint.training
    lattice = hamiltonian.lattice
    content = {
        "format": FORMAT,
        "version": VERSION,
        "about": json.dumps(
            {
                "fingerprint": hamiltonian.fingerprint,
                "name": hamiltonian.name,
                "parameters": hamiltonian.parameters,
                "n_spins": hamiltonian.n_spins,
                "constant": hamiltonian.constant,
                "lattice": [lattice.shape, lattice.periodic] if lattice else None,
                "energy_unit": hamiltonian.energy_unit,
                "k_B": hamiltonian.k_B,
                "beta": checkpoint.beta,
                "net": as_plain(checkpoint.net),
                "recipe": checkpoint.recipe,
            }
        ),
        "sites": {k: torch.from_numpy(sites.copy()) for k, (sites, _) in hamiltonian.interactions.items()},
        "couplings": {
            k: torch.from_numpy(couplings.copy()) for k, (_, couplings) in hamiltonian.interactions.items()
        },
        "training": vars(training),
    }
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"checkpoint {path} could not be written ({error.strerror or error})") from None


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without unpickling anything but tensors; CheckpointError when it is not one."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path}: no such file")
    try:
        if zipfile.ZipFile(path).testzip() is not None:  # torch does not look at the checksums
            raise zipfile.BadZipFile("a checksum does not match")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise KeyError(content["format"])
        if content["version"] > VERSION:
            raise CheckpointError(f"checkpoint {path} was written by a newer nmcmc (version {content['version']})")
        about = json.loads(content["about"])
        interactions = {k: (content["sites"][k].numpy(), content["couplings"][k].numpy()) for k in content["sites"]}
        training = Training(**content["training"])
    except CheckpointError:
        raise
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError,
            pickle.UnpicklingError, zipfile.BadZipFile) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:80]
        raise CheckpointError(f"checkpoint {path} is no nmcmc checkpoint ({reason})") from None
    if about["net"]["net"] == "transformer" and content["version"] < FIRST_TRUNK:
        raise CheckpointError(f"checkpoint {path} holds a transformer of an older nmcmc; remove it and train anew")
    lattice = Lattice(*(tuple(item) for item in about["lattice"])) if about["lattice"] else None
    hamiltonian = Hamiltonian(
        about["n_spins"], interactions, about["constant"], lattice, about["name"], about["parameters"],
        about["energy_unit"], about["k_B"],
    )  # fmt: skip
    if hamiltonian.fingerprint != about["fingerprint"]:
        raise CheckpointError(f"checkpoint {path} is damaged: its Hamiltonian does not match its fingerprint")
    return Checkpoint(hamiltonian, about["beta"], net_from_plain(about["net"]), about["recipe"], training)


def require_target(path: str | Path, checkpoint: Checkpoint, hamiltonian: Hamiltonian, beta: float) -> None:
    """CheckpointError unless the checkpoint was trained for this Hamiltonian at this beta, or a range with it."""
    trained, asked = checkpoint.hamiltonian, hamiltonian
    if checkpoint.net.fields is not None and hamiltonian.name == trained.name:
        # Not the other way round: a file that the trained one came from may be elsewhere now.
        asked = with_field(hamiltonian, trained.parameters.get("h", 0.0))
    mine, theirs = asked.fingerprint[:12], trained.fingerprint[:12]
    if mine != theirs:
        raise CheckpointError(f"checkpoint {path} is for another Hamiltonian ({theirs}..., the model is {mine}...)")
    require_beta(path, checkpoint, hamiltonian, beta)


def require_beta(path: str | Path, checkpoint: Checkpoint, hamiltonian: Hamiltonian, beta: float) -> None:
    """CheckpointError unless the checkpoint serves this beta, and the field of the Hamiltonian."""
    if checkpoint.net.betas is None and abs(checkpoint.beta - beta) > 1e-12 * max(1.0, abs(beta)):
        theirs, mine = f"beta={checkpoint.beta:.10g}", f"beta={beta:.10g}"
        if hamiltonian.k_B != 1.0 and min(beta, checkpoint.beta) > 0.0:
            theirs, mine = (
                f"{words} ({kelvin(b, hamiltonian.k_B):.6g} K)"
                for words, b in ((theirs, checkpoint.beta), (mine, beta))
            )
        raise CheckpointError(f"checkpoint {path} is for {theirs}, not {mine}")
    refusal = out_of_range(checkpoint.net, hamiltonian, beta)
    if refusal:
        raise CheckpointError(f"checkpoint {path}: {refusal}")


def retargeted(path: str | Path, checkpoint: Checkpoint, hamiltonian: Hamiltonian, beta: float) -> Checkpoint:
    """The checkpoint as a sampler of a target that it serves: its own, or one that an any-order network reaches.

    Such a network serves a range of temperatures and fields where it was trained so, and larger lattices of the same
    model (`nmcmc.anyorder.window`). CheckpointError for any other target.
    """
    grows = checkpoint.net.net == "anyorder" and same_model(checkpoint, hamiltonian)
    if grows and hamiltonian.n_spins != checkpoint.hamiltonian.n_spins:
        try:
            resolved(hamiltonian, checkpoint.net)
        except ValueError as error:
            raise CheckpointError(f"checkpoint {path}: {error}") from None
        require_beta(path, checkpoint, hamiltonian, beta)
    else:
        require_target(path, checkpoint, hamiltonian, beta)
    return replace(checkpoint, hamiltonian=hamiltonian, beta=beta)


def same_model(checkpoint: Checkpoint, hamiltonian: Hamiltonian) -> bool:
    """Whether a Hamiltonian is the model of a checkpoint at another size, or field where it serves several."""
    free = {"L", "Lx", "Ly", "Lz", "cell"} | ({"h"} if checkpoint.net.fields is not None else set())
    one, other = (
        {key: value for key, value in h.parameters.items() if key not in free}
        for h in (checkpoint.hamiltonian, hamiltonian)
    )
    return checkpoint.hamiltonian.name == hamiltonian.name != "custom" and one == other
