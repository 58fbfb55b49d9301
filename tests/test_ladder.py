"""Tuning of temperature ladders."""

import numpy as np
import pytest

import mc
from mc.ladder import barrier, tuned_betas
from mc.tempering import TemperingDriver


def test_equal_rejections_leave_a_ladder_as_it_is():
    for betas in (np.array([0.0, 0.2, 0.5, 0.6, 2.0]), np.array([3.0, 1.0, 0.1])):
        assert tuned_betas(betas, np.full(len(betas) - 1, 0.3)) == pytest.approx(betas)


def test_betas_gather_where_swaps_are_refused_and_keep_their_ends():
    betas = np.linspace(0.0, 1.0, 6)
    tuned = tuned_betas(betas, np.array([0.0, 0.0, 0.8, 0.1, 0.0]))
    assert (tuned[0], tuned[-1]) == (0.0, 1.0)
    assert (np.diff(tuned) > 0).all()
    assert ((tuned > 0.4) & (tuned < 0.6)).sum() >= 3
    assert barrier(np.array([0.5, 0.25])).tolist() == [0.0, 0.5, 0.75]


def test_the_warm_up_evens_out_the_swap_rates_of_a_glass():
    hamiltonian = mc.models.ea3d(L=4, seed=2)
    betas = np.array([0.0, 0.05, 0.1, 0.15, 0.2, 0.6, 0.9, 1.2])
    spread = {}
    for tuned in (False, True):
        driver = TemperingDriver(hamiltonian, betas, n_chains=8, seed=3, thin=4, tuned=tuned, spins_every=0)
        driver.warm_up(1000)
        rates = np.nanmean(driver.block(200).sample_stats["swap_accepted"][..., :-1], axis=(0, 1))
        spread[tuned] = rates.max() - rates.min()
        assert (driver.betas[0], driver.betas[-1]) == (0.0, 1.2)
        assert (driver.betas == betas).all() != tuned
    assert spread[True] < 0.2 < spread[False]
