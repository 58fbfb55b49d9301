"""Errors and autocorrelation times beside those of pyerrors, emcee and arviz, on the same chains.

The factor of two: tau_int here and in pyerrors is 1/2 + sum rho(t) (physics), in emcee and arviz 1 + 2 sum rho(t).
"""

import warnings

import numpy as np
import pytest
from scipy.signal import lfilter

import mc
from mc.gamma_method import gamma_method
from mc.simulate import LocalDriver
from mc.statistics import estimate, split_r_hat

CLOSE = 0.05  # relative, of errors; times are errors squared


def autoregressive(rho, chains, draws, seed):
    """A stationary AR(1) of variance 1: tau_int = (1 + rho) / (2 (1 - rho))."""
    noise = np.random.default_rng(seed).standard_normal((chains, draws)) * np.sqrt(1 - rho**2)
    noise[:, 0] /= np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise, axis=1)


def real_chain(rule, name):
    """Energy or |m| of the critical 8 x 8 torus, 4 chains x 20,000 draws."""
    driver = LocalDriver(mc.models.ising(L=8), [0.44068679], n_chains=4, seed=5, rule=rule, spins_every=0)
    driver.warm_up(200)
    x = driver.block(20_000).posterior[name][:, :, 0]
    return np.abs(x) if name == "magnetization" else x


CHAINS = {
    "AR(1), rho = 0": lambda: autoregressive(0.0, 4, 20_000, 1),
    "AR(1), rho = 0.5": lambda: autoregressive(0.5, 4, 20_000, 2),
    "AR(1), rho = 0.9": lambda: autoregressive(0.9, 4, 50_000, 3),
    "AR(1), rho = 0.98, one chain": lambda: autoregressive(0.98, 1, 200_000, 4),
    "Wolff, energy": lambda: real_chain("wolff", "energy"),
    "Wolff, abs m": lambda: real_chain("wolff", "magnetization"),
    "heat bath, energy": lambda: real_chain("heatbath", "energy"),
}


@pytest.fixture(scope="module", params=list(CHAINS))
def chain(request):
    return CHAINS[request.param]()


def test_pyerrors_has_the_same_error_and_time(chain):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyerrors = pytest.importorskip("pyerrors")
        observable = pyerrors.Obs(list(chain), [f"run|{number}" for number in range(len(chain))])
        observable.gamma_method(S=1.5)
    ours = estimate(chain)
    assert ours.mean == pytest.approx(observable.value, rel=1e-9, abs=1e-12)
    assert ours.error == pytest.approx(observable.dvalue, rel=CLOSE)
    assert ours.tau_int == pytest.approx(observable.e_tauint["run"], rel=2 * CLOSE)
    if ours.tau_int > 0.6:  # of uncorrelated draws the last term of the window decides
        assert ours.tau_int_error == pytest.approx(observable.e_dtauint["run"], rel=0.3)


def test_emcee_has_twice_the_time(chain):
    emcee = pytest.importorskip("emcee")
    (theirs,) = emcee.autocorr.integrated_time(chain.T[:, :, None], quiet=True)
    ours = estimate(chain)
    assert 2 * ours.tau_int == pytest.approx(theirs, rel=2 * CLOSE)
    assert ours.error == pytest.approx(chain.std() * np.sqrt(theirs / chain.size), rel=CLOSE)


def test_arviz_has_the_same_error_and_r_hat(chain):
    arviz = pytest.importorskip("arviz")
    ours, named = estimate(chain), {"x": chain}
    assert ours.error == pytest.approx(arviz.mcse(named, method="mean")["x"].item(), rel=CLOSE)
    assert ours.n_eff == pytest.approx(arviz.ess(named, method="mean")["x"].item(), rel=2 * CLOSE)
    if len(chain) > 1:  # arviz wants two
        assert split_r_hat(chain) == pytest.approx(arviz.rhat(named, method="split")["x"].item(), abs=1e-3)


def test_the_exact_error_of_an_autoregressive_chain():
    """4 x 50,000 of rho = 0.9: tau_int 9.5, error sqrt(19 / 200,000) but for terms of order tau / N."""
    ours = estimate(autoregressive(0.9, 4, 50_000, 6))
    assert ours.error == pytest.approx(np.sqrt(19 / 200_000), rel=CLOSE)
    assert ours.tau_int == pytest.approx(9.5, rel=2 * CLOSE)


@pytest.mark.statistical
@pytest.mark.parametrize(("chains", "rho"), [(1, 0.5), (1, 0.9), (4, 0.9), (4, 0.97)])
def test_one_sigma_covers_two_thirds_of_known_chains_of_fifty_times(chains, rho):
    """Of 200 chains 68 +- 7 % hold the true mean: two standard deviations of that share, 5 % false alarms a case."""
    tau = (1 + rho) / (2 * (1 - rho))
    x = autoregressive(rho, 200 * chains, int(np.ceil(50 * tau)), seed=11)
    judged = [estimate(x[k * chains : (k + 1) * chains]) for k in range(200)]
    covered = np.mean([abs(one.mean) <= one.error for one in judged])
    assert abs(covered - 0.68) < 0.07


@pytest.mark.statistical
def test_a_slow_mode_below_the_noise_of_rho_enters_the_error():
    """A fast mode, and one 200 times slower with 1 % of its variance: two thirds of the error squared."""
    shares, ratios = [], []
    truth = np.sqrt((2 * 5 + 2 * 1000 * 0.01) / (4 * 50_000))
    for seed in range(40):
        fast = autoregressive((2 * 5 - 1) / (2 * 5 + 1), 4, 50_000, 100 + seed)
        slow = autoregressive((2 * 1000 - 1) / (2 * 1000 + 1), 4, 50_000, 900 + seed)
        one = estimate(fast + 0.1 * slow)
        shares.append(abs(one.mean) <= one.error)
        ratios.append(one.error / truth)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.15)
    assert 0.5 < np.mean(shares) < 0.9  # of 40: 68 % with two and a half standard deviations


def test_chains_of_one_time_scale_keep_the_error_of_the_window():
    """Blocks take over by chance in less than 1 of 100 chains."""
    taken = 0
    for seed in range(200):
        y = autoregressive(0.9, 4, 4000, 3000 + seed)
        taken += gamma_method(y - y.mean()).slow
    assert taken <= 4
