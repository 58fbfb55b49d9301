"""Do neural moves help parallel tempering? CPU time of an independent sample with and without, and what is missing.

    python benchmarks/neural_tempering.py           minutes; prints the table, writes results/neural_tempering.json
    python benchmarks/neural_tempering.py --small   seconds of CPU, a small system, nothing is written
    python benchmarks/neural_tempering.py --table   the table of what was measured

3D +-J spin glasses on a torus, seed 1. tau: integrated autocorrelation time of q^2 at the coldest beta, in rounds (a
round is a sweep of all temperatures and a swap phase), q the overlap of two independent ladders. An independent
sample costs 2 tau x (CPU time of a round of one ladder, its share of proposals included). Training is not counted;
fit_s says what it took, fit_samples how many independent samples tempering alone would have made meanwhile.
Samplers: the belief prior alone, and with a linear residual fitted to tempering states.

tau comes from the scatter of means over blocks, 2 tau / length = var(means) / var(q^2): at L = 6 a correlation of a
few per cent lasts for hundreds of rounds, and a sum over lags that stops when it vanishes in the noise misses three
quarters of tau. Blocks of the runs with neural moves are the runs, a few hundred rounds, so their tau is a lower
bound, in favour of the moves.

Break-even: K rounds with a proposal must be worth it, c_p < K c_s (tau_0 / tau_1 - 1), with the cost c_p of a
proposal and of scoring the state it meets, c_s of a round, tau_0 and tau_1 without and with the moves. needed =
1 / c_p is the number of proposals per second at which the moves begin to pay, proposals the number that are drawn.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import mc
from mc.equilibrium import equilibrium_states
from mc.tempering import TemperingDriver
from mc.weighted import effective_sample_size
from nmcmc.linear_fit import choose_window
from nmcmc.linear_training import train_linear
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tempering import NeuralTemperingDriver

RESULTS = Path(__file__).parent / "results" / "neural_tempering.json"
SEED = 5
CHAINS, REPLICAS = 32, 2
BLOCKS = 8  # of a chain of tempering alone, each thousands of rounds long
COLUMNS = ("acceptance", "ess", "tau", "tau_error", "round_us", "proposal_ms", "sample_ms", "factor",
           "break_even_ms", "needed", "proposals", "fit_s", "fit_samples", "q2_sigma")  # fmt: skip


@dataclass(frozen=True)
class Target:
    """betas: of the ladder. at: which of them has the sampler. every: K. thin: rounds a draw, of plain tempering."""

    L: int
    betas: tuple[float, ...]
    at: int
    every: int
    thin: int
    states: int

    @property
    def name(self) -> str:
        where = f"beta {self.betas[self.at]:.3g} every {self.every}"
        return f"L={self.L}, {self.betas[0]:g} to {self.betas[-1]:g} ({len(self.betas)} T), {where}"


def ladder(low: float, high: float, n: int) -> tuple[float, ...]:
    return tuple(np.linspace(low, high, n).tolist())


TARGETS = (
    Target(4, ladder(0.1, 0.9, 6), -1, 2, 1, 16_000),
    Target(4, ladder(0.1, 2.0, 10), -1, 2, 1, 16_000),
    Target(6, ladder(0.2, 0.9, 9), -1, 10, 2, 8_000),
    Target(6, ladder(0.2, 2.0, 18), 7, 10, 5, 8_000),  # at 0.94, where a fit still has an acceptance
)
SMALL = (Target(3, ladder(0.2, 0.8, 4), -1, 2, 2, 1000),)


@dataclass(frozen=True)
class Series:
    """A run: q^2 at the coldest beta, CPU seconds a draw, acceptances and weights of the proposals."""

    q2: np.ndarray  # (chain, draw)
    seconds: float
    accepted: np.ndarray
    log_weight: np.ndarray


def run(driver: TemperingDriver, seconds: float, least: int) -> Series:
    """As many draws as take `seconds` of CPU time, at least `least`."""
    driver.block(1)  # compiles, and draws the first proposals
    began, draws, size, kept = time.process_time(), 0, 1, {"q2": [], "neural_accepted": [], "log_weight_proposed": []}
    while time.process_time() - began < seconds or draws < least:
        block = driver.block(size)
        kept["q2"].append(block.posterior["overlap"][:, :, -1] ** 2)
        for name in kept.keys() & block.sample_stats.keys():
            values = block.sample_stats[name]
            kept[name].append(values[np.isfinite(values)])
        draws += size
        left = seconds / max(time.process_time() - began, 1e-3) - 1.0
        size = max(1, min(2 * size, int(draws * left), 1024))
    took = (time.process_time() - began) / draws
    moves = [np.concatenate(kept[name]) if kept[name] else np.zeros(0) for name in list(kept)[1:]]
    return Series(np.concatenate(kept["q2"], axis=1), took, *moves)


def blocked_tau(q2: np.ndarray, blocks: int, mean: float) -> tuple[float, float]:
    """tau_int in draws of series (chain, draw) and its error, from so many blocks a chain; their mean is known."""
    length = q2.shape[1] // blocks
    means = q2[:, : length * blocks].reshape(len(q2), blocks, length).mean(axis=2)
    scatter = length * ((means - mean) ** 2).mean(axis=1) / (2.0 * q2.var())
    return float(scatter.mean()), float(scatter.std(ddof=1) / len(q2) ** 0.5)


def measured(target: Target, seconds: float) -> dict[str, dict]:
    """The row of plain tempering, and one for each sampler."""
    hamiltonian, betas = mc.models.ea3d(L=target.L, seed=1), np.array(target.betas)
    common = dict(n_chains=CHAINS, seed=SEED, spins_every=0, replicas=REPLICAS)
    ladders = CHAINS * REPLICAS
    plain = TemperingDriver(hamiltonian, betas, thin=target.thin, **common)
    plain.warm_up(2000 if target.L < 6 else 10_000)
    without = run(plain, seconds, 200)
    plain.thin, plain.spins_every = 100, 1
    spins = plain.block(1).spins[:, -1]
    plain.spins_every = 0
    began = time.process_time()
    plain.block(20)
    sweep = (time.process_time() - began) / (2000 * ladders)  # hardly any measurements
    mean, error = without.q2.mean(), without.q2.mean(axis=1).std(ddof=1) / CHAINS**0.5
    tau_0, tau_0_error = (target.thin * value for value in blocked_tau(without.q2, BLOCKS, mean))
    sample_0 = 2e3 * tau_0 * sweep
    rows = {
        "tempering alone": {
            "tau": tau_0, "tau_error": tau_0_error, "round_us": 1e6 * sweep, "sample_ms": sample_0, "factor": 1.0,
            "kernel": plain.engine.kernel, "q2": mean, "q2_error": error, "rounds": without.q2.shape[1] * target.thin,
        }
    }  # fmt: skip
    for name, (sampler, fit) in samplers_of(target).items():
        proposals: list[AutoregressiveSampler | None] = [None] * len(betas)
        proposals[target.at] = sampler
        thin = 1 if target.every <= 2 else target.every // 2
        driver = NeuralTemperingDriver(hamiltonian, betas, proposals, target.every, thin=thin, init=spins, **common)
        found = run(driver, 2 * seconds, 40 * target.every // thin)
        tau_1, tau_1_error = (thin * value for value in blocked_tau(found.q2, 1, mean))
        a_round = found.seconds / (thin * ladders)
        here, here_error = found.q2.mean(), found.q2.mean(axis=1).std(ddof=1) / CHAINS**0.5
        proposal = max(a_round - sweep, 1e-12) * target.every
        worth = target.every * sweep * (tau_0 / tau_1 - 1.0)
        sample = 2e3 * tau_1 * a_round
        rows[name] = {
            "acceptance": float(found.accepted.mean()), "ess": float(effective_sample_size(found.log_weight)),
            "tau": tau_1, "tau_error": tau_1_error, "round_us": 1e6 * a_round,
            "proposal_ms": 1e3 * proposal, "sample_ms": sample, "factor": sample / sample_0,
            "break_even_ms": 1e3 * worth if worth > 0 else None, "needed": 1.0 / worth if worth > 0 else None,
            "proposals": 1.0 / proposal, "fit_s": fit, "fit_samples": 1e3 * fit / sample_0,
            "q2": here, "q2_error": here_error, "q2_sigma": (here - mean) / math.hypot(here_error, error),
            "rounds": found.q2.shape[1] * thin,
        }  # fmt: skip
    return rows


def samplers_of(target: Target) -> dict[str, tuple[AutoregressiveSampler, float]]:
    """The belief prior alone, and with a linear residual; CPU seconds of its states and fit."""
    hamiltonian, beta = mc.models.ea3d(L=target.L, seed=1), target.betas[target.at]
    alone = build_sampler(hamiltonian, beta, NetSettings(prior="belief", net="none"))
    clock = time.process_time()
    window = choose_window(target.states, hamiltonian)
    fitted = build_sampler(hamiltonian, beta, NetSettings(prior="belief", net="linear", window=window))
    states, _ = equilibrium_states(hamiltonian, beta, target.states, SEED)
    train_linear(fitted, states, 512, SEED)
    return {"+ belief": (alone, 0.0), "+ belief and linear": (fitted, time.process_time() - clock)}


def table(results: dict[str, dict]) -> str:
    lines = ["| target | moves | " + " | ".join(COLUMNS) + " |", "| --- " * (2 + len(COLUMNS)) + "|"]
    for key, row in results.items():
        cells = [f"{row[name]:.3g}" if row.get(name) is not None else "" for name in COLUMNS]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(results: dict[str, dict]) -> str:
    """Yes or no, in one sentence a target."""
    lines = []
    for target in dict.fromkeys(key.split(" | ")[0] for key in results):
        neural = {key: row for key, row in results.items() if key.startswith(f"{target} | +")}
        best = min(neural, key=lambda key: neural[key]["factor"])
        row, moves = neural[best], best.split(" | + ")[1]
        cost = f"an independent sample costs {row['factor']:.3g} times that of tempering alone ({moves})"
        need = f"{row['needed']:.3g} proposals per second would break even" if row["needed"] else "tau is no shorter"
        lines.append(
            f"{target}: {'yes' if row['factor'] < 1 else 'no'}: {cost}; {need}, {row['proposals']:.3g} are drawn"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="seconds; nothing is written")
    parser.add_argument("--table", action="store_true", help="of what was measured before")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict] = {}
    if options.table:
        results = json.loads(options.results.read_text())
    else:
        for target in SMALL if options.small else TARGETS:
            found = measured(target, 0.2 if options.small else 4.0)
            for name, row in found.items():
                clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
                clean["machine"] = f"{platform.machine()}, torch {torch.__version__}, one thread"
                results[f"{target.name} | {name}"] = clean
            print(f"{target.name}: done", flush=True)
        if not options.small:
            options.results.parent.mkdir(exist_ok=True)
            options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    print(verdict(results))


if __name__ == "__main__":
    main()
