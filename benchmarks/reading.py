"""What reading a run costs and how far its errors can be trusted: the figures that docs and notes quote.

python benchmarks/reading.py            # all; some minutes
python benchmarks/reading.py big        # 10^6 draws x 8 chains: seconds and memory of analyze, plot, report
python benchmarks/reading.py live       # share of the time that the notes of the progress line take
python benchmarks/reading.py coverage   # of one-sigma intervals: known chains, and a slow mode of small amplitude
python benchmarks/reading.py compare    # how often two runs of one law are called different
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

import mc
from cli.live import Live
from mc.chain import create_chain
from mc.comparison import Side, combined_p_value, compare_sides
from mc.distribution_distance import Draws
from mc.simulate import LocalDriver
from mc.statistics import estimate
from mc.tempering import TemperingDriver

CHAINS, DRAWS, BLOCK = 8, 10**6, 10**5


def autoregressive(random, tau, chains, draws):
    """A stationary AR(1) of variance 1 with this integrated time, (chains, draws)."""
    rho = (2 * tau - 1) / (2 * tau + 1)
    noise = random.standard_normal((chains, draws)) * np.sqrt(1 - rho**2)
    noise[:, 0] /= np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise, axis=1)


def big():
    """Seconds and memory of the commands, on series of known times in place of a model's."""
    random = np.random.default_rng(0)
    energy = np.round((autoregressive(random, 9.5, CHAINS, DRAWS) * 40 - 370) / 4) * 4
    magnetization = np.round(autoregressive(random, 4.5, CHAINS, DRAWS) * 64) / 128
    weights = 300 + 0.001 * energy
    number = ({}, np.float64)
    made = {
        "wolff": ("magnetization_k2", ["accepted"]),
        "nmcmc": (None, ["log_q", "log_weight", "log_weight_proposed"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for mode, (mode_of_m, stats) in made.items():
            posterior = {"energy": energy, "magnetization": magnetization}
            posterior |= {mode_of_m: 0.09 * magnetization**2} if mode_of_m else {}
            series = dict.fromkeys(stats, weights) | {"accepted": (magnetization > -1) * 1.0}
            with create_chain(f"{mode}.h5", mode=mode, command="benchmarks/reading.py", config={}, rng_seed=0,
                              hamiltonian=mc.models.ising(L=16), betas=np.array([0.44]), n_chains=CHAINS,
                              posterior=dict.fromkeys(posterior, number),
                              sample_stats=dict.fromkeys(series, number)) as writer:  # fmt: skip
                for first in range(0, DRAWS, BLOCK):
                    part = np.s_[:, first : first + BLOCK, None]
                    writer.append({k: x[part] for k, x in posterior.items()}, {k: x[part] for k, x in series.items()})
                    writer.commit()
                writer.commit(complete=True)
            for command in ("analyze", "plot", "report"):
                began = time.monotonic()
                words = [sys.executable, "-m", "cli.main", command, f"{mode}.h5"]
                silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
                environment = os.environ | {"PYTHONPATH": str(ROOT)}
                process = os.posix_spawn(sys.executable, words, environment, file_actions=silent)
                _, status, used = os.wait4(process, 0)
                wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
                print(
                    f"{command:>8} {mode}: {wall:.1f} s, {cpu:.1f} CPU s, {used.ru_maxrss / 1e6:.2f} GB", flush=True
                )
                assert status == 0


def live():
    """CPU time of a note against that of the draws it is of."""
    ising, glass = mc.models.ising(L=64), mc.models.ea3d(L=8, seed=1)
    drivers = {
        "2D Ising L=64": (LocalDriver(ising, [0.44], n_chains=4, seed=1, rule="metropolis", thin=150), 2000),
        "PT, 3D +-J L=8, 32 betas": (
            TemperingDriver(glass, np.linspace(0.1, 1.2, 32), replicas=2, n_chains=4, seed=1, thin=50), 50),
    }  # fmt: skip
    for name, (driver, draws) in drivers.items():
        driver.block(5)
        notes = Live(driver.hamiltonian.n_spins, driver.betas, "J")
        shares = []
        for _ in range(3):
            began = time.process_time()
            block = driver.block(draws)
            drawn = time.process_time()
            notes.note(block)
            shares.append((time.process_time() - drawn) / (drawn - began))
        print(f"{name}: notes take {min(shares):.2%} to {max(shares):.2%} of the time", flush=True)


def coverage():
    """Share of one-sigma intervals that hold the true mean, of 2000 sets of chains a line (200 with a slow mode)."""
    random = np.random.default_rng(1)
    for chains in (1, 4):
        for times in (50, 200):
            for tau in (0.5, 1.5, 9.5):
                ones = [estimate(autoregressive(random, tau, chains, int(times * tau))) for _ in range(2000)]
                held = np.mean([abs(one.mean) < one.error for one in ones])
                print(f"{chains} chains of {times} tau, tau {tau}: {held:.3f}", flush=True)
    held, ratio = [], []
    for _ in range(200):
        one = estimate(autoregressive(random, 5, 4, 50_000) + 0.1 * autoregressive(random, 1000, 4, 50_000))
        held.append(abs(one.mean) < one.error)
        ratio.append(one.error / np.sqrt(30 / 200_000))
    print(f"a mode of 1 % of the variance, 200 times slower: {np.mean(held):.2f}, error / true {np.mean(ratio):.2f}")


def compare():
    """Pairs of runs of one law: tau 4.5 against tau 20, and against weighted draws."""
    random = np.random.default_rng(2)
    for name in ("Markov", "weighted"):
        found = []
        for pair in range(300):
            one, other = autoregressive(random, 4.5, 4, 2000), autoregressive(random, 20, 4, 2000)
            log_weight = None
            if name == "weighted":  # draws of N(0, 1.2^2) for the law N(0, 1)
                other = 1.2 * random.standard_normal((4, 2000))
                log_weight = -0.5 * other**2 * (1 - 1 / 1.44)
            sides = [Side({}, {"energy": Draws(x, w)}, None, 4) for x, w in ((one, None), (other, log_weight))]
            found.append(combined_p_value(d.p_value for d in compare_sides(*sides, seed=pair)))
        shares = [np.mean(np.array(found) < level) for level in (0.05, 0.01)]
        print(f"{name}: p < 0.05 in {shares[0]:.3f}, p < 0.01 in {shares[1]:.3f} of 300 pairs", flush=True)


ROOT = Path(__file__).resolve().parents[1]
PARTS = {"big": big, "live": live, "coverage": coverage, "compare": compare}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        print(f"--- {part}", flush=True)
        PARTS[part]()
