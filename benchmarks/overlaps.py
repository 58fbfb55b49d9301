"""P(|q|) of neural samples against parallel tempering: 3D EA glasses, distance with error, one combined p-value.

    python benchmarks/overlaps.py               every row (minutes); the table and benchmarks/results/overlaps.json
    python benchmarks/overlaps.py ea3d-4        rows whose name contains one of the words, the others as measured
    python benchmarks/overlaps.py --small       three rows with few draws, for a check that it runs; writes nothing
    python benchmarks/overlaps.py --table       the table of what was measured so far

q is the belief prior with a linear residual, fitted to tempering states. Its samples are weighted draws (nis), a
neural Markov chain (nmcmc), or neural moves at the coldest replicas of a tempering run (pt neural), which also takes
the place of the others where ess_mc is below 0.1. The reference is plain tempering with two replicas. All runs have
random numbers of their own, and each row its own reference. distance: area between the cumulative distributions of
|q|, with its error from blocks; chance: what two runs of one law have on average (`mc.overlap_distance`). ess from
draws, ess_mc from tempering states that the fit has not seen. Seconds are CPU seconds of one thread: states and fit,
neural samples, reference.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from scipy.stats import combine_pvalues

import mc
from mc.equilibrium import equilibrium_states
from mc.overlap_distance import OverlapBlocks, compare_overlaps, overlap_blocks
from mc.tempering import TemperingDriver
from mc.weighted import effective_sample_size
from mc.weighted_overlaps import pair_overlaps
from nmcmc.linear_training import train_linear
from nmcmc.metropolis import NeuralDriver
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tempering import NeuralTemperingDriver

RESULTS = Path(__file__).parent / "results" / "overlaps.json"
BETAS = (0.52, 0.9, 2.0)
INSTANCE = 1
CHAINS = 4
JUDGED = 1024  # tempering states behind ess_mc
WARMUP = 8000  # rounds of tempering
THIN = 20
EVERY = 500  # rounds between neural moves of tempering: scoring eight replicas costs more than all of these
POOR = 0.1  # ess_mc below which q is no sampler of its own here: its few large weights would decide
GOOD = 0.01  # combined p-value above which the table is in order
SAMPLERS = {"nis": "nis", "nmcmc": "nmcmc", "pt": "pt neural=coldest"}
COLUMNS = ("ess", "ess_mc", "acceptance", "distance", "error", "chance", "p", "abs_q", "abs_q_pt", "fit_s", "draw_s",
           "pt_s")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """how: nis, nmcmc or pt. states, window: of the fit. draws: a chain, of q and of tempering runs."""

    L: int
    J: str
    beta: float
    how: str
    states: int
    window: int
    draws: int
    tempering: int = 4000

    @property
    def name(self) -> str:
        return f"ea3d-{self.L}-{self.J}-{self.beta:g}"

    @property
    def seed(self) -> int:
        """The first of ten that belong to this row: equal random numbers would tie the rows together."""
        return 10 * (crc32(self.name.encode()) % 10**6)


def rows(small: bool) -> list[Row]:
    if small:
        return [Row(4, "bimodal", 0.52, how, 3000, 6, 500, 1000) for how in ("nis", "nmcmc", "pt")]
    found = []
    for J in ("bimodal", "gaussian"):
        found += [Row(4, J, 0.52, "nis", 16_000, 32, 2048), Row(4, J, 0.9, "nmcmc", 16_000, 32, 4096)]
        found += [Row(4, J, 2.0, "nis", 16_000, 32, 2048)]
        found += [Row(6, J, beta, how, 8000, 12, 2048) for beta, how in zip(BETAS, ("nis", "nis", "pt"), strict=True)]
    return found


def ladder(row: Row) -> np.ndarray:
    """Betas up to that of the row: steps that exchange a sixth of the time and more."""
    return np.linspace(0.1, row.beta, max(4, round((12 if row.L == 6 else 8) * row.beta)))


def fitted(row: Row, hamiltonian: mc.Hamiltonian) -> AutoregressiveSampler:
    """belief + linear residual, of tempering states."""
    settings = NetSettings(prior="belief", net="linear", window=row.window)
    sampler = build_sampler(hamiltonian, row.beta, settings)
    states, _ = equilibrium_states(hamiltonian, row.beta, row.states, row.seed)
    train_linear(sampler, states, 256, row.seed)
    return sampler


def quality(row: Row, sampler: AutoregressiveSampler) -> dict[str, float]:
    """ESS of 1024 draws, and Z / <w> on states of tempering with ln Z from these states themselves."""
    hamiltonian = sampler.hamiltonian
    spins, log_q = sampler.sample(JUDGED, torch.Generator().manual_seed(row.seed))
    ess = effective_sample_size(-row.beta * hamiltonian.energy(spins) - log_q)
    states, _ = equilibrium_states(hamiltonian, row.beta, JUDGED, row.seed + 1, 20)
    # <w>_p <1/w>_p = Z / ess_mc times 1 / Z, so that no ln Z is needed.
    log_w = -row.beta * hamiltonian.energy(states) - sampler.log_prob(states)
    ess_mc = 1.0 / (np.exp(log_w - log_w.max()).mean() * np.exp(log_w.max() - log_w).mean())
    return {"ess": ess, "ess_mc": ess_mc}


def neural(row: Row, how: str, sampler: AutoregressiveSampler) -> tuple[OverlapBlocks, float]:
    """P(q) of neural samples with its blocks, and how often a proposal was taken (NaN for nis)."""
    hamiltonian = sampler.hamiltonian
    if how == "nis":
        spins, log_q = sampler.sample(CHAINS * row.draws, torch.Generator().manual_seed(row.seed + 2))
        log_weight = (-row.beta * hamiltonian.energy(spins) - log_q).reshape(CHAINS, row.draws)
        return pair_overlaps(spins.reshape(CHAINS, row.draws, -1), hamiltonian, log_weight).blocks, math.nan
    if how == "nmcmc":
        driver = NeuralDriver([sampler], CHAINS, row.seed + 2)
        driver.warm_up(200)
        block = driver.block(row.draws)
        return pair_overlaps(block.spins[:, :, 0], hamiltonian).blocks, float(block.sample_stats["accepted"].mean())
    betas = ladder(row)
    proposals = [None] * (len(betas) - 1) + [sampler]
    driver = NeuralTemperingDriver(
        hamiltonian, betas, proposals, EVERY, CHAINS, row.seed + 2, thin=THIN, replicas=2, spins_every=0
    )
    driver.warm_up(WARMUP)
    block = driver.block(row.tempering)
    taken = float(np.nanmean(block.sample_stats["neural_accepted"][:, :, -1]))
    return overlap_blocks(block.posterior["overlap"][:, :, -1], hamiltonian.n_spins), taken


def reference(row: Row, hamiltonian: mc.Hamiltonian) -> OverlapBlocks:
    """P(q) of plain tempering."""
    driver = TemperingDriver(hamiltonian, ladder(row), CHAINS, row.seed + 3, thin=THIN, replicas=2, spins_every=0)
    driver.warm_up(WARMUP)
    return overlap_blocks(driver.block(row.tempering).posterior["overlap"][:, :, -1], hamiltonian.n_spins)


def mean_abs(blocks: OverlapBlocks) -> float:
    return float(blocks.probability @ np.abs(2.0 * np.arange(blocks.n_spins + 1) / blocks.n_spins - 1.0))


def measured(row: Row) -> dict:
    """All columns of a row."""
    hamiltonian = mc.models.ea3d(L=row.L, J=row.J, seed=INSTANCE)
    clock = [time.process_time()]
    sampler = fitted(row, hamiltonian)
    clock.append(time.process_time())
    good = quality(row, sampler)
    clock.append(time.process_time())
    how = row.how if good["ess_mc"] >= POOR else "pt"
    blocks, acceptance = neural(row, how, sampler)
    clock.append(time.process_time())
    tempering = reference(row, hamiltonian)
    clock.append(time.process_time())
    found = compare_overlaps(blocks, tempering, row.seed)
    fit_s, _, draw_s, pt_s = np.diff(clock).tolist()
    return {
        "sampler": SAMPLERS[how], **good, "acceptance": acceptance, "distance": found.distance, "error": found.error,
        "chance": found.noise, "p": found.p_value, "status": found.status, "abs_q": mean_abs(blocks),
        "abs_q_pt": mean_abs(tempering), "blocks": [len(blocks.pulls), len(tempering.pulls)],
        "states": row.states, "window": row.window, "draws": row.draws, "tempering": row.tempering,
        "fit_s": fit_s, "draw_s": draw_s, "pt_s": pt_s,
    }  # fmt: skip


def table(results: dict[str, dict]) -> str:
    lines = ["| instance | sampler | " + " | ".join(COLUMNS) + " |", "| --- " * (2 + len(COLUMNS)) + "|"]
    for name, found in results.items():
        cells = ["" if found[column] is None else f"{found[column]:.3g}" for column in COLUMNS]
        mark = "" if found["status"] == "ok" else f" ({found['status']})"
        lines.append(
            f"| {name} | {found['sampler']}{mark} | " + " | ".join("" if c == "nan" else c for c in cells) + " |"
        )
    combined = combine_pvalues([found["p"] for found in results.values()]).pvalue
    lines.append(
        f"\n{len(results)} rows: combined p = {combined:.3g} ({'above' if combined > GOOD else 'NOT above'} {GOOD})"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = {}
    if options.results.exists() and not options.small:
        known = json.loads(options.results.read_text())
    for row in [] if options.table else rows(options.small):
        if options.words and not any(word in row.name for word in options.words):
            continue
        found = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                 for name, value in measured(row).items()}  # fmt: skip
        found["machine"] = f"{platform.machine()}, torch {torch.__version__}, one thread"
        key = f"{row.name}/{row.how}" if options.small else row.name
        known[key] = found
        print(table({key: found}).splitlines()[2], flush=True)
        if not options.small:
            options.results.parent.mkdir(exist_ok=True)
            options.results.write_text(json.dumps(known, indent=1) + "\n")
    print(table(known) if known else "nothing measured yet")


if __name__ == "__main__":
    main()
