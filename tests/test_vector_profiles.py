"""What a file of vector spins says beside scalar observables: whether replicas are in equilibrium."""

import numpy as np
import pytest

from mc.vector.profiles import verdicts

PAIRS = {(0, 1): 0, (0, 2): 1, (0, 3): 2, (1, 2): 3, (1, 3): 4, (2, 3): 5}


def of_four_replicas(chains=1, draws=400):
    """Independent draws of two betas that nothing can be said against."""
    random = np.random.default_rng(3)
    energy = random.normal(size=(chains, draws, 2, 4))
    norm = 1.0 + 0.1 * random.normal(size=(chains, draws, 2, 6))
    return {"energy": energy, "overlap_norm": norm}


@pytest.mark.parametrize("chains", [1, 2])
def test_replicas_count_as_chains(chains):
    calm, second = verdicts(of_four_replicas(chains))
    assert (calm.status, second.status) == ("yes", "yes")
    assert f"so do {4 * chains} chains" in calm.reason
    assert f"so do {2 * chains} chains" in calm.reason  # the pairs (0, 1) and (2, 3)
    stuck = of_four_replicas(chains)
    stuck["energy"][0, :, 1, 2] += 3.0
    assert [verdict.status for verdict in verdicts(stuck)] == ["yes", "no"]
    assert "energy" in verdicts(stuck)[1].reason


@pytest.mark.parametrize(("pair", "status"), [((0, 1), "no"), ((2, 3), "no"), ((0, 3), "yes"), ((1, 2), "yes")])
def test_of_the_pairs_those_count_that_share_no_replica(pair, status):
    posterior = of_four_replicas()
    posterior["overlap_norm"][0, :, 0, PAIRS[pair]] += 2.0
    first, second = verdicts(posterior)
    assert (first.status, second.status) == (status, "yes")


def test_two_replicas_of_one_chain_leave_their_overlap_unshown():
    posterior = of_four_replicas()
    first, _ = verdicts({"energy": posterior["energy"][..., :2], "overlap_norm": posterior["overlap_norm"][..., 0]})
    assert (first.status, "q2: one chain" in first.reason) == ("not shown", True)
    alone, _ = verdicts({"energy": posterior["energy"][..., 0]})
    assert (alone.status, "energy: one chain" in alone.reason) == ("not shown", True)
