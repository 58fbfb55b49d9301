"""Which kernel moves the replicas of a Hamiltonian, and where each replica sits in its batch.

The choice is arithmetic: of the kernels that can run the model, the one with the lowest cost for the number of
replicas at hand. Nothing is timed at run time, so the same run takes the same kernel everywhere.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from mc.hamiltonian import Hamiltonian
from mc.kernels import bit_planes, clusters, dense, fields, float_lanes, graph, packed_lattice, replicas, swaps
from mc.kernels.batch import load_all, pack, store_all, unpack, words

KERNELS: dict[str, ModuleType] = {
    "packed": packed_lattice,
    "bit-planes": bit_planes,
    "lanes": float_lanes,
    "dense": dense,
    "graph": graph,
    "replicas": replicas,
    "fields": fields,
    "swaps": swaps,
    "clusters": clusters,
}


def refusal_of(kernel: ModuleType, hamiltonian: Hamiltonian, rule: str) -> str:
    """Why a kernel cannot run a model under a rule, "" if it can.

    A fixed number of spins up is for kernels that say they keep it (`KEEPS_N_UP`).
    """
    if hamiltonian.n_up is not None and not getattr(kernel, "KEEPS_N_UP", False):
        return "flips change the number of spins up, which is fixed; metropolis with kernel=swaps keeps it"
    return kernel.refusal(hamiltonian, rule)


def choose(hamiltonian: Hamiltonian, rule: str, n_replicas: int, kernel: str = "auto") -> tuple[str, str]:
    """(key of the kernel in `KERNELS`, why) for n_replicas replicas under a rule; `kernel` names one to force it.

    Raises ValueError when the kernel asked for cannot run the model, or the rule fits no kernel.
    """
    if kernel != "auto":
        if kernel not in KERNELS:
            raise ValueError(f"kernel={kernel}: not one of auto, {', '.join(KERNELS)}")
        rules = KERNELS[kernel].RULES
        if rule not in rules:
            raise ValueError(f"kernel={kernel}: it moves spins by {' or '.join(rules)} only, not by {rule}")
        refusal = refusal_of(KERNELS[kernel], hamiltonian, rule)
        if refusal:
            raise ValueError(f"kernel={kernel}: {refusal}")
        return kernel, "as asked"
    fitting = {name: module for name, module in KERNELS.items() if rule in module.RULES}
    refusals = {name: refusal_of(module, hamiltonian, rule) for name, module in fitting.items()}
    if not refusals:
        raise ValueError(f"rule={rule}: no kernel knows it")
    costs = {name: KERNELS[name].cost(hamiltonian, n_replicas) for name, refusal in refusals.items() if not refusal}
    if not costs:
        raise ValueError(f"rule={rule}: {list(refusals.values())[-1]}")
    best = min(costs, key=costs.get)
    return best, f"fastest of {', '.join(costs)} for {n_replicas} replicas" if len(costs) > 1 else "the one that fits"


class Engine:
    """Replicas of one Hamiltonian in the batch of the kernel chosen for them.

    betas: (chains, K), inverse temperatures of the K replicas of each chain. The replicas of a chain that fill units
    have these for themselves, smaller chains share a unit; units that hold the same chains make a group, which one
    thread moves. seed, path: of the random numbers.

    kernel, why: the kernel's key and the reason. lanes: (chains, K) int64, where each replica is in the batch.
    group_units, group_chains: (groups + 1,) int64, the first unit and chain of each group.

    Raises ValueError as `choose` does.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        seed: int,
        path: tuple[int, ...],
        rule: str,
        kernel: str = "auto",
    ):
        betas = np.asarray(betas, np.float64)
        chains, per_chain = betas.shape
        self.kernel, self.why = choose(hamiltonian, rule, chains * per_chain, kernel)
        self.module: ModuleType = KERNELS[self.kernel]
        self.width = self.module.width(chains * per_chain)
        self.n_spins = hamiltonian.n_spins
        together = max(1, self.width // per_chain)  # chains in a group
        units = -(-together * per_chain // self.width)  # of a group
        group, place = np.divmod(np.arange(chains), together)
        self.lanes = (group * units * self.width + place * per_chain)[:, None] + np.arange(per_chain)
        groups = int(group[-1]) + 1
        self.group_units = np.arange(groups + 1, dtype=np.int64) * units
        self.group_chains = np.minimum(np.arange(groups + 1, dtype=np.int64) * together, chains)
        self.batch = self.module.make(hamiltonian, self._by_lane(betas), seed, path, rule)

    @property
    def n_units(self) -> int:
        return int(self.group_units[-1])

    @property
    def name(self) -> str:
        """The kernel in words."""
        return self.module.NAME

    def seats(self) -> np.ndarray:
        """(lanes,) int64: which replica, numbered chain by chain, sits in each lane; -1 for none."""
        seats = np.full(self.n_units * self.width, -1, np.int64)
        seats[self.lanes.ravel()] = np.arange(self.lanes.size)
        return seats

    def set_betas(self, betas: np.ndarray) -> None:
        """Give the replicas inverse temperatures that broadcast to (chains, K); spins and random streams stay."""
        betas = np.broadcast_to(np.asarray(betas, np.float64), self.lanes.shape)
        self.module.set_betas(self.batch, self._by_lane(betas))

    def _by_lane(self, betas: np.ndarray) -> np.ndarray:
        """(chains, K) as (lanes,); idle lanes have the largest, which does not depend on who holds which."""
        by_lane = np.full(self.n_units * self.width, betas.max())
        by_lane[self.lanes] = betas
        return by_lane

    def rows(self) -> np.ndarray:
        """Room for the spins of all units as rows of bits, (units, width, words) uint64."""
        return np.zeros((self.n_units, self.width, words(self.n_spins)), np.uint64)

    def spins(self) -> np.ndarray:
        """Spins of all replicas, (chains, K, N) int8."""
        rows = self.rows()
        store_all(self.batch, rows)
        return unpack(rows.reshape(-1, rows.shape[-1])[self.lanes], self.n_spins)

    def set_spins(self, spins: np.ndarray, idle: np.ndarray | None = None) -> None:
        """Put spins (chains, K, N) into the replicas, and make their energies current; idle lanes start all down."""
        rows = self.rows()
        flat = rows.reshape(-1, rows.shape[-1])
        flat[self.lanes] = pack(spins)
        if idle is not None:
            flat[self.seats() < 0] = idle
        load_all(self.batch, rows)

    def state(self) -> dict[str, np.ndarray]:
        """Copies of what the future depends on beside the betas: spins, streams and what idle lanes hold.

        Lanes of a unit share its supply of random words, so how much an idle lane needs of it matters.
        """
        rows = self.rows()
        store_all(self.batch, rows)
        flat = rows.reshape(-1, rows.shape[-1])
        spins, idle = unpack(flat[self.lanes], self.n_spins), flat[self.seats() < 0]
        return {"spins": spins, "idle": idle, "streams": self.batch.streams.copy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from such a state."""
        self.batch.streams[...] = state["streams"]
        self.set_spins(state["spins"], state["idle"])
