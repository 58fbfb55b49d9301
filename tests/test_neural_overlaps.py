"""Overlaps of weighted draws and of neural chains with each other, against sums over all pairs of states.

Seeds are fixed; the false-alarm rate of every p-value is `tests.enumerated.FALSE_ALARM`, 1e-4.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import mc
from mc.chain import open_chain
from mc.kernels import overlaps
from mc.kernels.batch import pack
from mc.measure import has_modes
from mc.overlap_distance import compare_overlaps, overlap_blocks
from mc.weighted_overlaps import pair_observables, pair_overlaps
from nmcmc.metropolis import NeuralDriver
from tests.enumerated import FALSE_ALARM, combined_p_value, law

TORUS = mc.models.ea2d(L=3, J="gaussian", seed=4)
SK = mc.models.sk(N=12, seed=2)
FIELD = mc.models.ea2d(L=3, J="gaussian", h="gauss:0.5", seed=3)
CASES = [(TORUS, 0.4), (TORUS, 1.2), (SK, 0.7), (SK, 1.5), (FIELD, 0.8)]
NAMES = [f"{h.name}-{h.n_spins}-{beta}{'' if h.is_z2_symmetric else '-field'}" for h, beta in CASES]


class Table:
    """A deliberately imperfect q over all states: the law of a higher temperature, distorted, with a floor."""

    def __init__(self, hamiltonian, beta, seed=0):
        self.hamiltonian, self.beta, self.max_batch = hamiltonian, beta, 4096
        self.states, self.law = law(hamiltonian, beta)
        q = self.law**0.6 * np.exp(0.4 * np.random.default_rng(seed).normal(size=len(self.law)))
        self.q = 0.9 * q / q.sum() + 0.1 / len(q)

    def sample(self, n, generator):
        random = np.random.default_rng(generator.initial_seed())
        number = random.choice(len(self.q), size=n, p=self.q)
        return self.states[number], np.log(self.q[number])

    def log_prob(self, spins):
        return np.log(self.q[(np.asarray(spins) > 0) @ (1 << np.arange(spins.shape[-1]))])

    def weighted(self, shape, seed):
        """Spins (*shape, N) and log weights (*shape) of independent draws."""
        spins, log_q = self.sample(math.prod(shape), SimpleNamespace(initial_seed=lambda: seed))
        log_weight = -self.beta * self.hamiltonian.energy(spins) - log_q
        return spins.reshape(*shape, -1), log_weight.reshape(shape)

    def chains(self, chains, draws, seed, local=0):
        """Spins (chain, draw, N) of neural MCMC."""
        driver = NeuralDriver([self], chains, seed, local)
        driver.warm_up(50)
        return driver.block(draws).spins[:, :, 0]

    def exact(self):
        """P(q) and the observables; the field s_i^a s_i^b of two states is the XOR of their numbers."""
        n, hamiltonian, numbers = self.hamiltonian.n_spins, self.hamiltonian, np.arange(len(self.law))
        field_law = np.array([self.law @ self.law[numbers ^ one] for one in numbers])
        up = pack(np.ones(n, np.int8))
        rows = pack(-self.states)  # where a bit is set the two states differ
        q = np.array([overlaps.overlap(up, row, n) for row in rows])
        bonds = overlaps.links(hamiltonian.bonds[0], n)
        means = {"q2": field_law @ q**2, "q4": field_law @ q**4}
        ratio = means["q4"] / means["q2"] ** 2
        values = means | {
            "abs_overlap": field_law @ np.abs(q),
            "link_overlap": field_law @ [overlaps.link_overlap(up, row, bonds) for row in rows],
            "binder_overlap": 1 - ratio / 3,
            "overlap_binder": 0.5 * (3 - ratio),
            "chi_sg": n * means["q2"],
        }
        if has_modes(hamiltonian):
            normal = overlaps.planes(hamiltonian.lattice)
            mode = field_law @ [overlaps.lowest_mode(up, row, n, normal) for row in rows]
            xi = math.sqrt(means["q2"] / mode - 1) / (2 * math.sin(math.pi / 3))
            values |= {"overlap_k2": mode, "overlap_correlation_length": xi, "overlap_xi_over_length": xi / 3}
        p_of_q = np.bincount(np.rint((q + 1) * n / 2).astype(int), weights=field_law, minlength=n + 1)
        return values, p_of_q


def p_of_distribution(blocks, exact):
    """Hotelling's test of P(q) against the exact one, neighbouring q joined until each has a probability of 0.03."""
    edges, have = [0], 0.0
    for k, p in enumerate(exact):
        have += p
        if have >= 0.03 and exact[k + 1 :].sum() >= 0.03:
            edges, have = edges + [k + 1], 0.0
    off = np.add.reduceat(blocks.probability - exact, edges)[1:]  # the first follows from the others
    pulls = np.add.reduceat(blocks.pulls, edges, axis=1)[:, 1:]
    n_blocks, bins = len(pulls), len(off)
    covariance = pulls.T @ pulls * n_blocks / (n_blocks - 1)
    t2 = off @ np.linalg.solve(covariance, off)
    return stats.f.sf(t2 * (n_blocks - bins) / (bins * (n_blocks - 1)), bins, n_blocks - bins)


def check_against_enumeration(table, runs):
    """Every observable and P(q) of independent PairOverlaps."""
    exact, p_of_q = table.exact()
    p_values = {"P(q)": [p_of_distribution(pairs.blocks, p_of_q) for pairs in runs]}
    for pairs in runs:
        found = pair_observables(pairs)
        assert found.keys() == exact.keys()
        assert pairs.distribution.probability == pytest.approx(p_of_q, abs=0.05)
        for name, value in exact.items():
            assert found[name].status == "ok", (name, found[name])
            assert found[name].error < 0.1 * abs(value) + 0.01, name
            p_values.setdefault(name, []).append(2 * stats.norm.sf(abs(found[name].mean - value) / found[name].error))
    for name, values in p_values.items():
        assert combined_p_value(values) > FALSE_ALARM, (name, np.round(values, 4))


@pytest.mark.statistical
@pytest.mark.parametrize(("hamiltonian", "beta"), CASES, ids=NAMES)
def test_weighted_draws_against_enumeration(hamiltonian, beta):
    table = Table(hamiltonian, beta)
    check_against_enumeration(
        table, [pair_overlaps(spins, hamiltonian, w) for spins, w in (table.weighted((4, 600), s) for s in range(6))]
    )


@pytest.mark.statistical
@pytest.mark.parametrize(("hamiltonian", "beta"), CASES, ids=NAMES)
def test_neural_chains_against_enumeration(hamiltonian, beta):
    table = Table(hamiltonian, beta)
    check_against_enumeration(table, [pair_overlaps(table.chains(4, 2000, s), hamiltonian) for s in range(4)])


@pytest.mark.statistical
@pytest.mark.parametrize("beta", [0.0, 1.5])
def test_the_errors_cover(beta):
    # At beta = 0 a single state says nothing of q^2, and the error comes from the scatter of pairs alone.
    runs, table = 250, Table(SK, beta)
    (exact, p_of_q), inside = table.exact(), dict.fromkeys(("abs_overlap", "q2", "link_overlap", "P(1)"), 0)
    for seed in range(runs):
        spins, log_weight = table.weighted((2, 150), 1000 + seed)
        pairs = pair_overlaps(spins, SK, log_weight)
        found = pair_observables(pairs)
        for name in ("abs_overlap", "q2", "link_overlap"):
            inside[name] += abs(found[name].mean - exact[name]) < found[name].error
        inside["P(1)"] += abs(pairs.distribution.probability[-1] - p_of_q[-1]) < pairs.distribution.error[-1]
    for name, count in inside.items():
        assert stats.binomtest(count, runs, 0.683).pvalue > FALSE_ALARM, (name, count / runs)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("weighted", [True, False])
def test_p_values_against_replicas_are_uniform(weighted):
    # Replicas drawn from the exact law stand for tempering; runs of the same law must not look different.
    table = Table(SK, 1.5)
    p_values = []
    for seed in range(120):
        spins, log_weight = table.weighted((4, 150), seed) if weighted else (table.chains(2, 600, seed), None)
        random = np.random.default_rng(10_000 + seed)
        a, b = (table.states[random.choice(len(table.law), size=(4, 200), p=table.law)] for _ in range(2))
        replicas = overlap_blocks((a * b).mean(axis=-1, dtype=float), SK.n_spins)
        found = compare_overlaps(pair_overlaps(spins, SK, log_weight).blocks, replicas, seed, 300)
        assert found.status == "ok"
        p_values.append(found.p_value)
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM


def test_pairs_are_those_of_a_double_loop():
    spins, log_weight = Table(SK, 0.7).weighted((3, 41), 5)
    flat, w = spins.reshape(-1, 12).astype(float), np.exp(log_weight.ravel())
    q, ww = flat @ flat.T / 12, np.outer(w, w)
    np.fill_diagonal(ww, 0.0)
    found = pair_observables(pair_overlaps(spins, SK, log_weight))
    assert found["q2"].mean == pytest.approx((ww * q**2).sum() / ww.sum())
    assert found["link_overlap"].mean == pytest.approx((ww * (12 * q**2 - 1) / 11).sum() / ww.sum())
    r = 2 * ww * (q**2 - found["q2"].mean) / ww.sum()
    expected = math.sqrt((r.sum(axis=0) ** 2).sum() - (r**2).sum() / 2)
    pairs = pair_overlaps(spins, SK, log_weight)
    series = pairs.series["q2"]
    assert math.sqrt(((series - series.mean()) ** 2).sum()) / series.size == pytest.approx(expected)
    assert pairs.n_eff == pytest.approx(w.sum() ** 2 / (w**2).sum())


def test_a_chain_is_not_paired_with_itself():
    # Two chains that never move, at overlap -1/3 with each other: within a chain q would be 1.
    spins = np.ones((2, 30, 3), np.int8)
    spins[1, :, 1:] = -1
    triangle = mc.Hamiltonian(3, [([(0, 1), (1, 2), (0, 2)], [1.0, 1.0, -1.0])])
    pairs = pair_overlaps(spins, triangle)
    assert pairs.distribution.probability == pytest.approx([0, 0.5, 0.5, 0])
    found = pair_observables(pairs)
    assert found["abs_overlap"].mean == pytest.approx(1 / 3)
    assert found["abs_overlap"].status == "constant"


@pytest.mark.parametrize("weighted", [True, False])
def test_a_single_spin_and_a_single_pair(weighted):
    lone = mc.Hamiltonian(1, [([(0,)], [0.5])])
    pairs = pair_overlaps(np.array([[[1]], [[-1]]], np.int8), lone, np.zeros((2, 1)) if weighted else None)
    assert pairs.distribution.probability == pytest.approx([1, 0])
    assert set(pairs.series) == {"abs_overlap", "q2", "q4"}
    assert pair_observables(pairs)["q2"].mean == pytest.approx(1)


def test_weights_that_one_draw_has_alone():
    spins, _ = Table(SK, 0.7).weighted((2, 50), 1)
    log_weight = np.full((2, 50), -1e4)
    log_weight[1, 3] = 0.0
    pairs = pair_overlaps(spins, SK, log_weight)
    found = pair_observables(pairs)["q2"]
    assert found.status == pairs.blocks.status == "too few effective draws"
    assert math.isfinite(found.mean)
    assert math.isnan(found.error)
    assert np.isnan(pairs.distribution.error).all()
    assert pairs.distribution.probability.sum() == pytest.approx(1)
    log_weight[log_weight < 0] = -np.inf
    with pytest.raises(ValueError, match="no two draws"):
        pair_overlaps(spins, SK, log_weight)


def test_bad_input_is_refused():
    spins, log_weight = Table(SK, 0.7).weighted((2, 50), 1)
    with pytest.raises(ValueError, match="make no pair"):
        pair_overlaps(spins[:1], SK)
    with pytest.raises(ValueError, match="make no pair"):
        pair_overlaps(spins[:1, :1], SK, log_weight[:1, :1])
    with pytest.raises(ValueError, match="make no pair"):
        pair_overlaps(spins[:, :0], SK)
    with pytest.raises(ValueError, match="do not match"):
        pair_overlaps(spins, SK, log_weight[:, 1:])
    with pytest.raises(ValueError, match="do not match"):
        pair_overlaps(spins, TORUS)
    with pytest.raises(ValueError, match="nan"):
        pair_overlaps(spins, SK, log_weight * np.nan)


@pytest.mark.statistical
@pytest.mark.parametrize("mode", ["nis", "nmcmc", "prior"])
def test_a_run_has_the_overlaps_of_its_draws(nmcmc, mode):
    net = [] if mode == "prior" else ["net=none"]
    run = nmcmc("run", "--mode", mode, "ea2d", "L=3", "J=gaussian", "seed=4", "beta=0.4", "prior=local", *net,
                "--draws", 1500, "--json", "--out", "run.h5")  # fmt: skip
    exact, p_of_q = Table(TORUS, 0.4).exact()
    row = run.json["results"][0]
    for name, value in exact.items():
        assert row[name]["status"] == "ok"
        assert abs(row[name]["mean"] - value) < 4.5 * row[name]["error"], name  # 1e-5 each
    chain = open_chain("run.h5")
    assert chain.observables["q2"]["mean"] == pytest.approx([row["q2"]["mean"]])
    found = chain.observables["overlap_distribution"]
    assert found["q"] == pytest.approx(2 * np.arange(10) / 9 - 1)
    assert found["mean"][0] == pytest.approx(p_of_q, abs=0.02)
    assert found["mean"][0] == pytest.approx(found["mean"][0][::-1])
    again = nmcmc("analyze", "run.h5", "--json")
    assert again.json["results"][0]["q2"] == row["q2"]


@pytest.mark.parametrize(
    "words", [("ising", "L=4"), ("ea2d", "L=4", "spins.every=0"), ("ea2d", "L=4", "--chains", 1)], ids=str
)
def test_runs_without_pairs_have_no_overlaps(nmcmc, words):
    run = nmcmc("run", "--mode", "nmcmc", *words, "beta=0.3", "prior=local", "net=none", "--draws", 50, "--json")
    assert "q2" not in run.json["results"][0]
    assert "energy" in run.json["results"][0]
