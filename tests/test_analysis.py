"""What is made of a chain beside its plain means."""

import math

import numpy as np
import pytest

from mc.analysis import Results, _entropy
from mc.statistics import Estimate


def test_the_entropy_of_a_chain_is_no_better_than_its_energy():
    """Four chains that disagree about the energy, with a ln Z that is known well."""
    energy = np.random.default_rng(3).normal(size=(4, 200, 1)) + 10.0 * np.arange(4)[:, None, None]
    results = Results(np.array([0.5]), {"log_z": [Estimate(20.0, 0.01, n_eff=100.0, n_draws=800)]})
    _entropy(results, energy, None)
    (found,) = results.observables["entropy"]
    assert found.status == "not converged"
    assert found.advice
    assert found.mean == pytest.approx(0.5 * energy.mean() + 20.0)
    assert found.error > 0.5  # beta times the scatter of four chains ten units apart


def test_a_ln_z_of_too_few_weights_spoils_the_entropy():
    energy = np.random.default_rng(4).normal(size=(4, 200, 1))
    poor = Estimate(20.0, math.nan, n_eff=3.0, n_draws=800, status="too few effective draws", advice="more")
    results = Results(np.array([0.5]), {"log_z": [poor]})
    _entropy(results, energy, None)
    (found,) = results.observables["entropy"]
    assert (found.status, found.advice) == ("too few effective draws", "more")
    assert math.isnan(found.error)
