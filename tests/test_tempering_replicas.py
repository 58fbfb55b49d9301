"""Parallel tempering on every kernel, with replicas, their overlaps, cluster moves and tuned ladders."""

import numpy as np
import pytest

import mc
from mc.tempering import TemperingDriver
from tests.enumerated import FALSE_ALARM, chi_square_p, combined_p_value, law, law_p_value, state_numbers

BETAS = np.array([0.0, 0.3, 0.8, 1.5])
MODELS = {
    "bit-planes": lambda: mc.models.ea2d(L=3, seed=4),
    "lanes": lambda: mc.models.sk(N=7, h="gauss:0.3", seed=2),
    "dense": lambda: mc.models.sk(N=8, seed=1),
    "graph": lambda: mc.models.ea2d(L=3, J="gaussian", seed=1),
    "replicas": lambda: mc.models.pspin(N=6, p=3, seed=5),
}


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", MODELS)
def test_every_beta_has_its_law_and_replicas_are_independent(kernel, monkeypatch):
    # One draw of each of 1200 chains of two ladders, Houdayer moves at all betas; false alarm 1e-4 a kernel.
    monkeypatch.setattr("mc.tempering.MOST_MINORITY", 1.1)
    hamiltonian = MODELS[kernel]()
    driver = TemperingDriver(
        hamiltonian, BETAS, n_chains=1200, seed=3, init="up", replicas=2, houdayer=True, kernel=kernel
    )
    driver.warm_up(60)
    driver.warm_up(41)
    assert driver.clusters.all()  # so that Houdayer moves were made in the second part
    spins = driver.block(1).spins[:, 0]  # (chain, beta, replica, N)
    p_values = [
        law_p_value(hamiltonian, beta, spins[:, b, replica]) for b, beta in enumerate(BETAS) for replica in range(2)
    ]
    for b, beta in enumerate(BETAS):
        states, probability = law(hamiltonian, beta)
        unlike = (states[:, None, :] != states[None, :, :]).sum(axis=-1)
        exact = np.bincount(unlike.ravel(), weights=np.outer(probability, probability).ravel())
        counts = np.bincount((spins[:, b, 0] != spins[:, b, 1]).sum(axis=-1), minlength=len(exact))
        p_values.append(chi_square_p(counts, exact, len(spins)))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
def test_cluster_moves_keep_the_product_law(monkeypatch):
    # Houdayer moves, swaps and sweeps of two replicas: joint states of four spins, 6000 chains; false alarm 1e-4.
    monkeypatch.setattr("mc.tempering.MOST_MINORITY", 1.1)
    hamiltonian = mc.models.sk(N=4, seed=3)
    driver = TemperingDriver(hamiltonian, BETAS, n_chains=6000, seed=5, init="up", replicas=2, houdayer=True)
    for _ in range(4):
        driver.warm_up(30)
    assert driver.clusters.all()
    spins = driver.block(1).spins[:, 0]
    p_values = []
    for b, beta in enumerate(BETAS):
        _, probability = law(hamiltonian, beta)
        numbers = state_numbers(spins[:, b])
        counts = np.bincount(numbers @ [16, 1], minlength=256)
        p_values.append(chi_square_p(counts, np.outer(probability, probability).ravel(), len(spins)))
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


def modes(field, length):
    """|sum_x field exp(2 pi i x / L)|^2 / N^2 of (..., N) on a cube, mean over the axes."""
    cube = field.reshape(*field.shape[:-1], length, length, length)
    phase = np.exp(2j * np.pi * np.arange(length) / length)
    sums = [np.tensordot(np.moveaxis(cube, axis, -1), phase, axes=1).sum(axis=(-1, -2)) for axis in (-3, -2, -1)]
    return np.mean(np.abs(sums) ** 2, axis=0) / field.shape[-1] ** 2


@pytest.mark.parametrize("J", ["bimodal", "gaussian"])
def test_overlaps_are_those_of_the_spins(J):
    hamiltonian = mc.models.ea3d(L=4, seed=2, J=J)
    driver = TemperingDriver(hamiltonian, BETAS[1:], n_chains=2, seed=1, thin=3, replicas=3)
    driver.warm_up(20)
    block = driver.block(6)
    spins = block.spins
    assert spins.shape == (2, 6, 3, 3, 64)
    assert block.posterior["energy"] == pytest.approx(hamiltonian.energy(spins), abs=1e-9)
    assert block.posterior["magnetization"] == pytest.approx(spins.mean(axis=-1))
    assert set(block.posterior) == set(driver.posterior_axes)
    pairs = [(1, 0), (2, 0), (2, 1)]
    q = np.stack([spins[..., a, :] * spins[..., b, :] for a, b in pairs], axis=-2).astype(float)
    i, j = hamiltonian.bonds[0].T
    assert block.posterior["overlap"] == pytest.approx(q.mean(axis=-1))
    assert block.posterior["link_overlap"] == pytest.approx((q[..., i] * q[..., j]).mean(axis=-1))
    assert block.posterior["overlap_k2"] == pytest.approx(modes(q, 4))


def test_a_ferromagnet_has_its_mode_measured():
    hamiltonian = mc.models.ising(dim=3, L=4)
    block = TemperingDriver(hamiltonian, BETAS[1:3], n_chains=2, seed=1).block(4)
    assert block.posterior["magnetization_k2"] == pytest.approx(modes(block.spins.astype(float), 4))


@pytest.mark.parametrize("J", ["bimodal", "gaussian"])
def test_restored_in_the_warm_up_and_later_it_goes_on_bit_for_bit(J):
    def fresh(seed):
        return TemperingDriver(
            mc.models.ea3d(L=3, seed=1, J=J), np.linspace(0.0, 1.5, 5), n_chains=3, seed=seed, thin=4, replicas=2,
            houdayer=True, tuned=True,
        )  # fmt: skip

    whole, parts = fresh(1), fresh(1)
    for driver in (whole, parts):
        driver.warm_up(120)
    other, third = fresh(2), fresh(3)
    other.restore(parts.state())
    for driver in (whole, other):
        driver.warm_up(130)
    assert (other.betas == whole.betas).all()
    assert (other.clusters == whole.clusters).all()
    long, first = whole.block(30), other.block(11)
    third.restore(other.state())
    rest = third.block(19)
    for name, values in long.posterior.items():
        assert np.array_equal(values, np.concatenate([first.posterior[name], rest.posterior[name]], axis=1))
    assert np.array_equal(long.spins, np.concatenate([first.spins, rest.spins], axis=1))
    assert (third.round_trips == whole.round_trips).all()
    assert third.lowest.energy == whole.lowest.energy <= long.posterior["energy"].min()
    assert whole.hamiltonian.energy(whole.lowest.spins) == pytest.approx(whole.lowest.energy)


def test_start_from_spins_of_every_replica():
    hamiltonian = mc.models.ea2d(L=4, seed=1)
    given = np.where(np.random.default_rng(1).random((2, 4, 3, 16)) < 0.5, 1, -1)
    driver = TemperingDriver(hamiltonian, BETAS, n_chains=2, replicas=3, init=given)
    assert (driver.engine.spins().reshape(2, 3, 4, 16) == given.swapaxes(1, 2)).all()
    with pytest.raises(ValueError, match=r"\(chain, beta, replica, N\)"):
        TemperingDriver(hamiltonian, BETAS, n_chains=2, replicas=3, init=given[:, :2])
