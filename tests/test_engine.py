"""The dispatcher: which kernel a model gets, where replicas sit, and what a state holds."""

import numpy as np
import pytest

import mc
from mc.engine import KERNELS, Engine, choose
from mc.kernels.batch import pack, sweep_all, unpack


def chosen(hamiltonian, rule, replicas):
    return choose(hamiltonian, rule, replicas)[0]


def test_the_kernel_follows_from_the_hamiltonian_the_rule_and_the_number_of_replicas():
    ferromagnet, glass = mc.models.ising(L=64), mc.models.ea3d(L=8, seed=1)
    gaussian, sk = mc.models.ea3d(L=8, J="gaussian", seed=1), mc.models.sk(N=1024, seed=1)
    assert chosen(ferromagnet, "metropolis", 1) == "packed"
    assert chosen(glass, "metropolis", 64) == chosen(glass, "metropolis", 4) == "bit-planes"
    assert chosen(gaussian, "metropolis", 32) == chosen(glass, "heatbath", 32) == "lanes"
    assert chosen(gaussian, "metropolis", 1) == "graph"
    assert chosen(sk, "metropolis", 1) == "dense"
    assert chosen(mc.models.pspin(N=10, p=3, seed=1), "heatbath", 64) == "fields"
    assert chosen(ferromagnet, "wolff", 3) == chosen(ferromagnet, "swendsen-wang", 3) == "clusters"
    assert chosen(mc.models.ising(L=64, h=0.1), "metropolis", 32) == "lanes"
    assert "fastest of" in choose(glass, "metropolis", 64)[1]


def test_a_kernel_can_be_asked_for_and_is_refused_with_a_reason():
    glass = mc.models.ea3d(L=3, seed=1)
    assert choose(glass, "metropolis", 1, "graph") == ("graph", "as asked")
    for kernel, rule, words in (
        ("packed", "metropolis", "two-dimensional"),
        ("dense", "metropolis", "bonds a spin"),
        ("bit-planes", "heatbath", "metropolis only, not by heatbath"),
        ("fastest", "metropolis", "not one of auto, packed"),
    ):
        with pytest.raises(ValueError, match=words):
            choose(glass, rule, 1, kernel)
    with pytest.raises(ValueError, match="ferromagnet"):
        choose(glass, "wolff", 1)
    with pytest.raises(ValueError, match="no kernel"):
        choose(glass, "glauber", 1)


@pytest.mark.parametrize(
    ("shape", "kernel", "groups", "units"),
    [((4, 16), "bit-planes", 1, 1), ((5, 16), "bit-planes", 2, 2), ((3, 70), "bit-planes", 3, 6),
     ((7, 10), "lanes", 3, 3), ((2, 3), "graph", 2, 6)],
)  # fmt: skip
def test_chains_share_units_only_when_whole_chains_fit(shape, kernel, groups, units):
    engine = Engine(mc.models.ea3d(L=3, seed=1), np.full(shape, 0.5), 1, (0,), "metropolis", kernel)
    assert len(engine.group_units) - 1 == groups
    assert engine.n_units == units
    assert len(np.unique(engine.lanes)) == np.prod(shape)
    seats = engine.seats()
    assert (seats[engine.lanes.ravel()] == np.arange(np.prod(shape))).all()
    assert (seats < 0).sum() == units * engine.width - np.prod(shape)
    owner = engine.lanes // engine.width
    for group in range(groups):
        chains = slice(*engine.group_chains[group : group + 2])
        assert owner[chains].min() >= engine.group_units[group]
        assert owner[chains].max() < engine.group_units[group + 1]


@pytest.mark.parametrize(
    "kernel", [name for name in KERNELS if name not in ("clusters", "packed", "dense", "fields", "swaps")]
)
def test_spins_betas_and_states(kernel):
    hamiltonian = mc.models.ea3d(L=3, seed=1)
    betas = np.array([[0.1, 0.4, 0.9], [0.2, 0.3, 1.2]])

    def fresh(seed):
        return Engine(hamiltonian, betas, seed, (0,), "metropolis", kernel)

    spins = np.where(np.random.default_rng(1).random((2, 3, 27)) < 0.5, 1, -1)
    engine, other = fresh(1), fresh(2)
    engine.set_spins(spins)
    assert (engine.spins() == spins).all()
    assert engine.batch.energy[engine.lanes] == pytest.approx(hamiltonian.energy(spins))
    sweep_all(engine.batch, engine.n_units, 5, False)
    engine.set_betas(betas[::-1])
    state = engine.state()
    other.set_betas(betas[::-1])
    other.restore({name: array.copy() for name, array in state.items()})
    for one in (engine, other):
        sweep_all(one.batch, one.n_units, 20, False)
    assert (engine.spins() == other.spins()).all()
    assert (engine.batch.beta[engine.lanes] == betas[::-1]).all()


def test_rows_of_bits():
    spins = np.where(np.random.default_rng(2).random((4, 3, 130)) < 0.5, 1, -1).astype(np.int8)
    rows = pack(spins)
    assert rows.shape == (4, 3, 3)
    assert (unpack(rows, 130) == spins).all()
    assert rows[0, 0, 1] >> np.uint64(5) & np.uint64(1) == (spins[0, 0, 69] > 0)
    assert (rows[..., 2] < 4).all()
