"""Neural MCMC and neural importance sampling: exact laws from deliberately bad proposals of any kind."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch

import mc
from mc.exact import exact
from mc.kernels.independence import independence_steps
from mc.kernels.local_field import typical_fields
from mc.kernels.metropolis import HEAT_BATH_BELOW
from mc.weighted import effective_sample_size, log_mean_weight, weighted_estimate
from nmcmc.importance import ImportanceDriver
from nmcmc.metropolis import NeuralDriver
from nmcmc.proposals import BATCH, ProposalStream, rescore_error
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.tokens import tokens_for
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law, state_numbers


class ProductLaw:
    """Independent biased spins: a Proposal of numpy alone."""

    def __init__(self, hamiltonian, beta, up):
        self.hamiltonian, self.beta, self.tokens = hamiltonian, beta, tokens_for(hamiltonian)
        self.up = np.asarray(up)

    def sample(self, n, generator):
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        spins = np.where(rng.random((n, len(self.up))) < self.up, 1, -1).astype(np.int8)
        return spins, self.log_prob(spins)

    def log_prob(self, spins):
        return np.where(np.asarray(spins) > 0, np.log(self.up), np.log1p(-self.up)).sum(axis=1)


def glass():
    return mc.models.ea2d(L=3, J="gaussian", h="gauss:0.5", boundary="open", seed=3)


def transformer(build, patch, prior, size):
    def at(beta):
        net = NetSettings(patch=patch, prior=prior, width=8, heads=2)
        sampler = build_sampler(build(), beta, net)
        generator = torch.Generator().manual_seed(int(100 * beta))
        with torch.no_grad():
            for parameter in sampler.network.parameters():
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
        return sampler

    return at


PROPOSALS = {
    "transformer alone, SK": (transformer(lambda: mc.models.sk(N=6, seed=2), (3,), "none", 0.2), (0.3, 0.9)),
    "transformer and local prior, glass": (transformer(glass, (1, 3), "local", 0.2), (0.3, 0.6)),
    "product law, p-spin": (
        lambda beta: ProductLaw(mc.models.pspin(N=6, p=3, seed=1), beta, [0.3, 0.6, 0.5, 0.7, 0.4, 0.6]), (0.3, 0.7)),
}  # fmt: skip


class Enumerated(NamedTuple):
    """One proposal and, over all states: p, q, their ratio w / Z and ln Z."""

    proposal: object
    p: np.ndarray
    q: np.ndarray
    ratio: np.ndarray
    log_z: float


@cache
def enumerated(name):
    """One `Enumerated` a beta."""
    at, betas = PROPOSALS[name]
    found = []
    for beta in betas:
        proposal = at(beta)
        states, p = law(proposal.hamiltonian, beta)
        q = np.exp(proposal.log_prob(states))
        found.append(Enumerated(proposal, p, q, p / q, exact(proposal.hamiltonian, beta).log_z))
    return found


def proposals(name):
    return [one.proposal for one in enumerated(name)]


def independence_matrix(one):
    """P[s, s'] of the independence step, from q and w: q(s') min(1, w'/w) off the diagonal."""
    matrix = one.q[None, :] * np.minimum(1.0, one.ratio[None, :] / one.ratio[:, None])
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, 1.0 - matrix.sum(axis=1))
    return matrix


def sweep_matrix(hamiltonian, beta):
    """The Metropolis sweep in site order, with heat-bath rates at sites of small field as the kernel has them, and a
    heat-bath update of a random site at its end."""
    states = all_states(hamiltonian.n_spins)
    numbers, energies = np.arange(len(states)), hamiltonian.energy(states)
    typical = typical_fields(hamiltonian.table.start, hamiltonian.table.coupling)
    product = np.eye(len(states))
    for site in range(hamiltonian.n_spins):
        cost = beta * (energies[numbers ^ (1 << site)] - energies)
        heat_bath = beta * typical[site] < HEAT_BATH_BELOW
        rate = 1.0 / (1.0 + np.exp(cost)) if heat_bath else np.exp(-np.maximum(cost, 0.0))
        # product @ M, M[s, s flipped] = rate[s]
        product = product * (1.0 - rate) + (product * rate)[:, numbers ^ (1 << site)]
    stirred = np.zeros_like(product)
    for site in range(hamiltonian.n_spins):
        rate = 1.0 / (1.0 + np.exp(beta * (energies[numbers ^ (1 << site)] - energies)))
        stirred += product * (1.0 - rate) + (product * rate)[:, numbers ^ (1 << site)]
    return stirred / hamiltonian.n_spins


@cache
def laws_of_the_chain(name, b, local, n):
    """Exact laws of the states after 0, 1, ..., n steps from the start, and the chance of acceptance in each step."""
    one = enumerated(name)[b]
    step = independence_matrix(one)
    after = sweep_matrix(one.proposal.hamiltonian, one.proposal.beta) if local else np.eye(len(step))
    accept = (one.q[None, :] * np.minimum(1.0, one.ratio[None, :] / one.ratio[:, None])).sum(axis=1)
    laws, acceptance = [one.q @ after], []
    for _ in range(n):
        acceptance.append(float(laws[-1] @ accept))
        laws.append(laws[-1] @ step @ after)
    return laws, acceptance


@pytest.mark.parametrize("name", PROPOSALS)
def test_the_proposals_of_this_file_are_bad_but_not_hopeless(name):
    for one in enumerated(name):
        assert one.q.sum() == pytest.approx(1.0, abs=1e-5)
        ess = 1.0 / (one.q @ one.ratio**2)
        assert 0.1 < ess < 0.7, ess


@pytest.mark.parametrize("local", [0, 1])
@pytest.mark.parametrize("name", PROPOSALS)
def test_acceptance_formula_and_sweep_leave_the_target_unchanged(name, local):
    # Says that the matrices of the next test are right: their fixed point is p.
    for one in enumerated(name):
        step = independence_matrix(one)
        assert np.abs(one.p[:, None] * step - (one.p[:, None] * step).T).max() < 1e-12
        sweep = sweep_matrix(one.proposal.hamiltonian, one.proposal.beta)
        assert np.abs(one.p @ step - one.p).max() < 1e-12
        assert np.abs(one.p @ sweep - one.p).max() < 1e-12


@pytest.mark.statistical
@pytest.mark.parametrize("local", [0, 1])
@pytest.mark.parametrize("name", PROPOSALS)
def test_independent_chains_have_the_exact_law_after_any_number_of_steps(name, local):
    # 1200 chains, 2 seeds, 2 betas: states after 1 and after 13 steps, and their acceptance. False alarm 1e-4 a test
    # of counts, 7e-6 a test of acceptance.
    n_chains, last = 1200, 12
    p_values = []
    for seed in (1, 2):
        driver = NeuralDriver(proposals(name), n_chains, seed, local, spins_every=last)
        block = driver.block(last + 1)
        assert block.spin_draws.tolist() == [0, last]
        for b, one in enumerate(enumerated(name)):
            laws, acceptance = laws_of_the_chain(name, b, local, last + 1)
            if local == 0:
                assert 0.5 * np.abs(laws[1] - one.p).sum() > 0.1  # not yet the target
            for row, draw in enumerate((0, last)):
                counts = np.bincount(state_numbers(block.spins[:, row, b]), minlength=len(one.p))
                p_values.append(chi_square_p(counts, laws[draw + 1], n_chains))
                accepted = block.sample_stats["accepted"][:, draw, b].mean()
                error = math.sqrt(acceptance[draw] * (1 - acceptance[draw]) / n_chains)
                assert abs(accepted - acceptance[draw]) < 4.5 * error
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize(("local", "thin"), [(0, 60), (2, 8)])
@pytest.mark.parametrize("name", PROPOSALS)
def test_thinned_states_have_the_law_of_the_target(name, local, thin):
    # Nearly independent: without sweeps their correlation is below (1 - Z / largest w)^60 = 0.06. 2 seeds, 2 betas;
    # false alarm 1e-4.
    p_values = []
    for seed in (7, 8):
        driver = NeuralDriver(proposals(name), 100, seed, local, spins_every=thin)
        driver.warm_up(thin)
        spins = driver.block(2 * thin + 1).spins
        assert spins.shape[:3] == (100, 3, 2)
        for b, one in enumerate(enumerated(name)):
            assert (1 - 1 / one.ratio.max()) ** 60 < 0.06
            counts = np.bincount(state_numbers(spins[:, :, b]).ravel(), minlength=len(one.p))
            p_values.append(chi_square_p(counts, one.p, 300))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("local", [0, 1])
@pytest.mark.parametrize("name", PROPOSALS)
def test_stored_weights_are_those_of_the_state_that_stays(name, local):
    driver = NeuralDriver(proposals(name), 5, 3, local)
    driver.warm_up(3)
    block = driver.block(80)
    stats, spins = block.sample_stats, block.spins
    assert spins.shape[:3] == (5, 80, 2)
    assert set(np.unique(stats["accepted"])) == {0.0, 1.0}
    assert block.posterior["magnetization"] == pytest.approx(spins.mean(axis=-1))
    for b, proposal in enumerate(proposals(name)):
        states = spins[:, :, b].reshape(-1, spins.shape[-1])
        log_q, energy = proposal.log_prob(states).reshape(5, 80), proposal.hamiltonian.energy(states).reshape(5, 80)
        assert np.abs(stats["log_q"][:, :, b] - log_q).max() < 1e-5
        assert np.abs(block.posterior["energy"][:, :, b] - energy).max() < 1e-9
        assert np.abs(stats["log_weight"][:, :, b] + proposal.beta * energy + log_q).max() < 1e-5
    moved = (spins[:, 1:] != spins[:, :-1]).any(axis=-1)
    rejected = stats["accepted"][:, 1:] == 0.0
    if local == 0:
        assert not moved[rejected].any()
        taken = stats["accepted"] == 1.0
        assert (stats["log_weight"] == stats["log_weight_proposed"])[taken].all()
        assert (stats["log_weight"][:, 1:] == stats["log_weight"][:, :-1])[rejected].all()
    else:
        assert moved[rejected].mean() > 0.2


@pytest.mark.parametrize("name", PROPOSALS)
def test_proposed_weights_are_recorded_for_rejected_proposals_too(name):
    driver = NeuralDriver(proposals(name), 4, 11)
    proposed = driver.block(1500).sample_stats["log_weight_proposed"]
    assert proposed.shape == (4, 1500, 2)
    for b, one in enumerate(enumerated(name)):
        # Means of 6000 independent proposals, within 4.5 errors: false alarm 7e-6 each.
        log_z, _ = log_mean_weight(proposed[:, :, b])
        error = math.sqrt((one.q @ one.ratio**2 - 1.0) / 6000)
        assert abs(math.exp(log_z - one.log_z) - 1.0) < 4.5 * error


def test_independence_steps_follow_the_acceptance_formula_number_by_number():
    rng = np.random.default_rng(1)
    now, proposed = np.array([-np.inf, 0.0, 3.0, -1.0]), rng.normal(size=(4, 200))
    proposed[3, 5:9] = -np.inf
    uniform = rng.random((4, 200))
    uniform[1, :20] = 0.0
    held = independence_steps(now.copy(), proposed, uniform)
    for chain in range(4):
        weight, number = now[chain], -1
        for step in range(200):
            with np.errstate(invalid="ignore"):
                chance = min(1.0, math.exp(min(proposed[chain, step] - weight, 0.0)))
            if uniform[chain, step] < chance:
                weight, number = proposed[chain, step], step
            assert held[chain, step] == number
    assert (held[0] >= 0).all()  # from weight 0 everything is taken


@pytest.mark.statistical
@pytest.mark.parametrize("name", PROPOSALS)
def test_weighted_draws_have_the_law_of_the_target(name):
    # Counts n_s of a state with recorded weight w_s estimate p_s = w_s q_s / Z, so n_s has mean n p_s Z / w_s.
    # 3 seeds, 2 betas, combined; false alarm 1e-4. Weighted means within 4.5 errors of exact ones.
    p_values = []
    for seed in (1, 2, 3):
        block = ImportanceDriver(proposals(name), 4, seed).block(2000)
        for b, one in enumerate(enumerated(name)):
            numbers = state_numbers(block.spins[:, :, b]).ravel()
            log_weight, energy = block.sample_stats["log_weight"][:, :, b], block.posterior["energy"][:, :, b]
            weight_of = np.exp(proposed_log_weight(one, numbers, log_weight.ravel()) - one.log_z)
            expected = one.p / weight_of
            assert expected.sum() == pytest.approx(1.0, abs=1e-4)
            p_values.append(chi_square_p(np.bincount(numbers, minlength=len(one.p)), expected, len(numbers)))
            states, p = law(one.proposal.hamiltonian, one.proposal.beta)
            for values, values_of in (
                (energy, one.proposal.hamiltonian.energy(states)),
                (block.posterior["magnetization"], states.mean(axis=1)),
                (block.posterior["magnetization"] ** 2, states.mean(axis=1) ** 2),
            ):
                drawn = values if values.ndim == 2 else values[:, :, b]
                mean = p @ values_of
                error = math.sqrt(one.q @ (one.ratio * (values_of - mean)) ** 2 / drawn.size)
                assert abs(weighted_estimate(drawn, log_weight).mean - mean) < 4.5 * error + 1e-9
            ess = 1.0 / (one.q @ one.ratio**2)
            assert effective_sample_size(log_weight) == pytest.approx(ess, rel=0.25)
            error = math.sqrt((1.0 / ess - 1.0) / log_weight.size)
            assert abs(math.exp(log_mean_weight(log_weight)[0] - one.log_z) - 1.0) < 4.5 * error
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


def proposed_log_weight(one, numbers, recorded):
    """ln w of every state as recorded in draws of it; states never drawn take the exact value."""
    log_weight = np.log(one.ratio) + one.log_z
    log_weight[numbers] = recorded
    assert np.abs(log_weight[numbers] - recorded).max() < 1e-5  # equal states, equal weights
    return log_weight


@pytest.mark.parametrize("name", PROPOSALS)
def test_importance_draws_carry_their_own_weights(name):
    block = ImportanceDriver(proposals(name), 3, 5).block(50)
    assert block.spins.shape[:3] == (3, 50, 2)
    for b, proposal in enumerate(proposals(name)):
        states = block.spins[:, :, b].reshape(150, -1)
        log_q = block.sample_stats["log_q"][:, :, b].ravel()
        assert np.abs(log_q - proposal.log_prob(states)).max() < 1e-5
        energy = block.posterior["energy"][:, :, b].ravel()
        assert (energy == proposal.hamiltonian.energy(states)).all()
        assert (block.sample_stats["log_weight"][:, :, b].ravel() == -proposal.beta * energy - log_q).all()


def drivers(name):
    """A maker of each kind of driver; 7 chains take BATCH // 7 draws from each batch of proposals."""
    return {
        "neural": lambda: NeuralDriver(proposals(name), 7, 4, 0, spins_every=3),
        "neural with sweeps": lambda: NeuralDriver(proposals(name), 7, 4, 1, spins_every=3),
        "importance": lambda: ImportanceDriver(proposals(name), 7, 4, spins_every=3),
    }


def joined(blocks):
    """All arrays of consecutive blocks."""
    series = {
        key: np.concatenate([getattr(block, group)[key] for block in blocks], axis=1)
        for group in ("posterior", "sample_stats")
        for key in getattr(blocks[0], group)
    }
    spins = np.concatenate([block.spins for block in blocks], axis=1)
    return series | {"spins": spins, "spin_draws": np.concatenate([block.spin_draws for block in blocks])}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, values in one.items():
        assert values.dtype == other[key].dtype
        assert np.array_equal(values, other[key]), key


@pytest.mark.parametrize("kind", drivers(next(iter(PROPOSALS))))
@pytest.mark.parametrize("name", PROPOSALS)
def test_blocks_may_be_cut_anywhere_and_restored_elsewhere_bit_for_bit(name, kind):
    make = drivers(name)[kind]
    lengths = [5, 1, BATCH // 7 - 9, 4]  # across the end of a batch of proposals
    whole_driver = make()
    whole_driver.warm_up(4)
    whole = joined([whole_driver.block(sum(lengths))])
    assert whole["spin_draws"].tolist() == list(range(0, sum(lengths), 3))
    driver = make()
    driver.warm_up(2)
    driver.warm_up(2)
    assert_same(joined([driver.block(length) for length in lengths]), whole)
    driver = make()
    driver.warm_up(4)
    blocks = []
    for length in lengths:
        blocks.append(driver.block(length))
        state = driver.state()
        driver.block(2)  # must not change the state that was handed out
        driver = make()
        driver.restore(state)
    assert_same(joined(blocks), whole)


@pytest.mark.parametrize("kind", drivers(next(iter(PROPOSALS))))
def test_chains_and_betas_are_different_streams(kind):
    block = drivers("product law, p-spin")[kind]().block(30)
    series = np.moveaxis(block.posterior["energy"], 1, -1).reshape(14, 30)
    assert len(np.unique(series, axis=0)) == 14


def test_no_spins_are_kept_where_none_are_wanted():
    for driver in (NeuralDriver(proposals("product law, p-spin"), 2, spins_every=0),
                   ImportanceDriver(proposals("product law, p-spin"), 2, spins_every=0)):  # fmt: skip
        block = driver.block(7)
        assert block.spins.shape == (2, 0, 2, 6)
        assert block.spin_draws.shape == (0,)
        assert block.posterior["energy"].shape == (2, 7, 2)


def test_proposals_of_a_stream_depend_on_seed_beta_and_number_only():
    proposal = proposals("product law, p-spin")[0]
    stream = ProposalStream(proposal, 7, 1, 0)
    late = stream.take(100, 50)
    stream.take(0, 3)
    again = stream.take(100, 50)
    parts = ProposalStream(proposal, 7, 1, 0)
    pieces = [parts.take(first, 10) for first in range(100, 150, 10)]
    for field, values in vars(late).items():
        assert (values == getattr(again, field)).all()
        assert (values == np.concatenate([getattr(piece, field) for piece in pieces], axis=1)).all()
    for other in (ProposalStream(proposal, 7, 2, 0), ProposalStream(proposal, 7, 1, 1)):
        assert (other.take(100, 50).uniform != late.uniform).all()


def test_rescoring_finds_a_proposal_that_reports_a_wrong_log_q():
    class Wrong(ProductLaw):
        def sample(self, n, generator):
            spins, log_q = super().sample(n, generator)
            return spins, log_q + 0.25

    good = proposals("product law, p-spin")[0]
    assert rescore_error(good, 100, 1) == 0.0
    assert rescore_error(proposals("transformer alone, SK")[0], 100, 1) < 1e-5
    assert rescore_error(Wrong(good.hamiltonian, good.beta, good.up), 100, 1) == pytest.approx(0.25)


def test_a_log_q_that_is_not_finite_is_an_error():
    class Broken(ProductLaw):
        def log_prob(self, spins):
            return np.full(len(spins), np.nan)

    good = proposals("product law, p-spin")[0]
    broken = Broken(good.hamiltonian, good.beta, good.up)
    for use in (lambda: NeuralDriver([broken]), lambda: ImportanceDriver([broken]).block(1)):
        with pytest.raises(FloatingPointError, match="not finite"):
            use()


# Bug: `restore` checks nothing, against the contract of mc.simulate.Driver.
def test_the_state_of_another_simulation_is_refused():
    state = NeuralDriver(proposals("product law, p-spin"), 3).state()
    with pytest.raises(ValueError, match="spins"):
        NeuralDriver(proposals("product law, p-spin"), 4).restore(state)
