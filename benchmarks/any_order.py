"""Any-order networks: free energies, growing, one network for many temperatures, and what they cost.

    python benchmarks/any_order.py                  every row; the table and benchmarks/results/any_order.json
    python benchmarks/any_order.py ising-10 CuAu    rows whose name contains one of the words
    python benchmarks/any_order.py --table          the tables of what was measured so far
    python benchmarks/any_order.py --small          a quick pass over small sizes, nothing written

ESS, dF = ln Z - <ln w> (nats), F_q: (F_q - F) / |F| from independent draws; sigma = (ln <w> - ln Z) in errors, ln Z
by Kaufman, by enumeration, or along a ladder of tempering, whose error counts. KLf = <ln p/q> and ess_mc = Z/<w> on
Monte Carlo states that nothing was fitted to. train: CPU seconds of states and weight updates, ms: CPU ms a draw;
one thread. marginal: root mean square difference of the marginal head from the conditionals, nats. Alloys: F, error
of the free energy in meV an atom; E, x: formation energy and x_Au beside tempering, in errors of both, by weights
(nis) and along chains with 5 sweeps after each neural step (nmcmc). Networks are kept in --nets and used again.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import mc
from mc.equilibrium import equilibrium_states, ladder_states
from mc.exact import ExactRefused, exact
from mc.hamiltonian import Hamiltonian
from mc.statistics import estimate
from mc.stepping_stone import stepping_stones
from mc.tempering import TemperingDriver
from mc.weighted import effective_sample_size, log_mean_weight, weighted_estimate
from nmcmc.anyorder.family import Family, with_field
from nmcmc.anyorder.sampler import AnyOrderSampler, consistency
from nmcmc.checkpoint import Checkpoint, CheckpointError, load_checkpoint, retargeted, save_checkpoint
from nmcmc.metropolis import NeuralDriver
from nmcmc.objectives.any_order import AnyOrderLikelihood
from nmcmc.recipe import NetSettings, build_sampler, resolved
from nmcmc.training import Training, TrainSettings, train

RESULTS = Path(__file__).parent / "results" / "any_order.json"
SEED = 31
UNSEEN = 4096
LOCAL = 5  # sweeps after a neural step
KELVIN = 8.617330337217213e-05  # eV
SITE = NetSettings(net="anyorder", prior="local", width=64, layers=2, heads=4)
PLAIN = replace(SITE, heads=0)
WHOLE = NetSettings(net="mlp", prior="local", width=512, layers=3)
TEMPERATURES = (500.0, 560.0, 620.0, 650.0, 680.0, 720.0, 800.0, 1000.0, 1200.0)


@dataclass(frozen=True)
class Row:
    """What is trained, and where it is judged.

    learn: betas it is trained at, several for one network. fields: h of the same, if any. judge: (beta, h) of the
    targets it is judged at. seconds: CPU time of the weight updates. grows: name of the row whose network is used.
    """

    name: str
    model: Callable[[], Hamiltonian]
    net: NetSettings
    learn: tuple[float, ...]
    judge: tuple[tuple[float, float | None], ...]
    seconds: float
    draws: int = 4096
    fields: tuple[float, ...] = ()
    grows: str | None = None
    states: int = 16_000
    share: float = 0.25

    @property
    def recipe(self) -> str:
        kind = "mlp" if self.net.net == "mlp" else ("transformer" if self.net.heads else "no attention")
        window = f" window {self.net.window}" if self.net.window else ""
        return f"{kind}{window}, prior {self.net.prior}" + (f", from {self.grows}" if self.grows else "")


def ising(L: int) -> Callable[[], Hamiltonian]:
    return lambda: mc.models.ising(L=L)


def alloy(cell: str) -> Callable[[], Hamiltonian]:
    return lambda: mc.models.alloy(cell=cell)


def rows() -> list[Row]:
    """Every row of the table."""
    found = []
    for beta in (0.44, 0.5, 0.3):
        one, easy = ((beta, None),), 0.4 if beta < 0.4 else 1.0  # seconds
        found += [
            Row(f"ising-10 beta {beta:g}", ising(10), SITE, (beta,), one, 200.0 * easy),
            Row(f"ising-10 beta {beta:g}", ising(10), PLAIN, (beta,), one, 100.0 * easy),
            Row(f"ising-10 beta {beta:g}", ising(10), WHOLE, (beta,), one, 100.0 * easy, 2048),
            Row(f"ising-20 beta {beta:g}", ising(20), replace(SITE, window=4), (beta,), one, 150.0 * easy, 2048),
            Row(f"ising-20 beta {beta:g}", ising(20), replace(PLAIN, window=4), (beta,), one, 100.0 * easy, 2048),
            Row(f"ising-20 beta {beta:g}", ising(20), WHOLE, (beta,), one, 100.0 * easy, 256),
            Row(f"grown-20 beta {beta:g}", ising(20), SITE, (beta,), one, 0.0, 2048, grows=f"ising-10 beta {beta:g}"),
            Row(
                f"grown-20 beta {beta:g}", ising(20), PLAIN, (beta,), one, 0.0, 2048, grows=f"ising-10 beta {beta:g}"
            ),
        ]
    ladder = tuple(np.linspace(0.2, 0.6, 9).round(10).tolist())
    between = tuple((float(beta), None) for beta in np.linspace(0.2, 0.6, 17).round(10)) + ((0.44068679350977, None),)
    for prior in ("local", "none"):
        net = replace(PLAIN, prior=prior, window=5)
        found.append(Row("ising-16 beta 0.2 to 0.6", ising(16), net, ladder, between, 240.0, 1024))
    hot = tuple(1.0 / (KELVIN * T) for T in TEMPERATURES)
    everywhere = tuple((beta, h) for h in (-0.01, 0.0, 0.01) for beta in hot)
    at_zero = tuple((beta, 0.0) for beta in hot)
    found += [
        Row("CuAu-2x2x4", alloy("2x2x4"), PLAIN, hot, everywhere, 200.0, 8192, (-0.01, 0.0, 0.01), states=108_000),
        Row("CuAu-4x4x4", alloy("4x4x4"), PLAIN, hot, at_zero, 400.0, 4096, (0.0,), states=72_000),
        Row("CuAu-4x4x8", alloy("4x4x8"), PLAIN, hot, at_zero, 300.0, 2048, (0.0,), states=72_000),
        Row("CuAu-4x4x8 grown", alloy("4x4x8"), PLAIN, hot, at_zero, 0.0, 2048, (0.0,), grows="CuAu-4x4x4"),
        Row("CuAu-4x4x4 grown", alloy("4x4x4"), PLAIN, hot, at_zero, 0.0, 2048, (0.0,), grows="CuAu-2x2x4"),
    ]
    return found


def small_rows() -> list[Row]:
    """What a quick pass goes through."""
    one, hot = ((0.44, None),), (1.0 / (KELVIN * 680.0), 1.0 / (KELVIN * 1000.0))
    small = replace(SITE, width=32, layers=1)
    at = tuple((beta, 0.0) for beta in hot)
    return [
        Row("ising-4", ising(4), small, (0.44,), one, 4.0, 512, states=2000),
        Row("ising-4", ising(4), replace(WHOLE, width=64), (0.44,), one, 4.0, 512, states=2000),
        Row("ising-8", ising(8), small, (0.44,), one, 0.0, 512, grows="ising-4"),
        Row("CuAu-2x2x4", alloy("2x2x4"), small, hot, at, 4.0, 512, (0.0,), states=2000),
    ]


def trained(row: Row, nets: Path) -> tuple[Checkpoint, float]:
    """The checkpoint of a row's network, and the CPU seconds it took; kept in `nets`."""
    hamiltonian = with_field(row.model(), row.fields[0] if row.fields else None)
    grown_from = row.grows or row.name
    kept = nets / f"{grown_from}-{row.recipe.split(', from')[0]}.pt".replace(" ", "_")
    if kept.exists():
        checkpoint = load_checkpoint(kept)
        return checkpoint, checkpoint.training.cpu_seconds
    if row.grows:
        raise CheckpointError(f"{row.name}: measure the row {row.grows} first")
    clock = time.process_time()
    if len(row.learn) > 1 or len(row.fields) > 1:
        sampler = Family(hamiltonian, [(b, h) for h in row.fields or (None,) for b in row.learn], row.net, SEED)
        members, settings = list(sampler.members), sampler.settings
        states = []
        for h in row.fields or (None,):
            n = max(2000, row.states // len(members))
            states += list(ladder_states(with_field(hamiltonian, h), np.array(row.learn), n, SEED)[0])
    else:
        settings = resolved(hamiltonian, row.net)
        sampler = build_sampler(hamiltonian, row.learn[0], settings, SEED)
        members, states = [sampler], [equilibrium_states(hamiltonian, row.learn[0], row.states, SEED)[0]]
    data = time.process_time() - clock
    training = train(
        sampler, AnyOrderLikelihood(members, states, row.share),
        TrainSettings(objective="any-order", steps=10**6, batch=64, learning_rate=2e-3, validate_every=200,
                      validation_draws=256, seed=SEED),
        seconds=row.seconds, clock=time.process_time,
    )  # fmt: skip
    training = Training(step=training.step, cpu_seconds=data + training.cpu_seconds, finished=True,
                        best_weights=training.best_weights, history=training.history)  # fmt: skip
    checkpoint = Checkpoint(hamiltonian, max(row.learn), settings, {}, training)
    nets.mkdir(parents=True, exist_ok=True)
    save_checkpoint(kept, checkpoint)
    return checkpoint, training.cpu_seconds


def judged(row: Row, sampler: AnyOrderSampler, draws: int) -> dict[str, float]:
    """All columns of one target."""
    hamiltonian, beta, n_spins = sampler.hamiltonian, sampler.beta, sampler.tokens.n_spins
    clock = time.process_time()
    spins, log_q = sampler.sample(draws, torch.Generator().manual_seed(SEED))
    seconds = time.process_time() - clock
    log_weight = -beta * hamiltonian.energy(spins) - log_q
    log_mean, log_error = log_mean_weight(log_weight)
    reference = references(hamiltonian, row)
    log_z, log_z_error = reference["log_z"][beta]
    unseen = reference["states"][beta][: None if sampler.network.one_pass else 256]  # N passes each
    ratio = -beta * hamiltonian.energy(unseen) - sampler.log_prob(unseen) - log_z
    found = {
        "ess": effective_sample_size(log_weight), "dF": log_z - float(log_weight.mean()),
        "F_q": (log_z - float(log_weight.mean())) / abs(log_z),
        "sigma": (log_mean - log_z) / math.hypot(log_error, log_z_error),
        "F": 1e3 * abs(log_mean - log_z) / beta / n_spins, "log_z": log_mean, "log_z_error": log_error,
        "log_z_reference": log_z, "log_z_reference_error": log_z_error,
        "KLf": float(ratio.mean()), "ess_mc": 1.0 / float(np.exp(ratio).mean()),
        "ms": 1e3 * seconds / draws, "draws": draws,
        "marginal": consistency(sampler, unseen[:256], torch.Generator().manual_seed(SEED)),
    }  # fmt: skip
    if hamiltonian.name == "alloy":
        found |= of_alloy(sampler, spins, log_weight, reference["means"][beta])
        found["pt seconds"] = reference["seconds"]  # for all temperatures
    return found


def of_alloy(
    sampler: AnyOrderSampler, spins: np.ndarray, log_weight: np.ndarray, reference: dict[str, tuple[float, float]]
) -> dict[str, float]:
    """Formation energy and x_Au an atom beside tempering, by weights and along neural chains."""
    hamiltonian, n_spins = sampler.hamiltonian, sampler.tokens.n_spins
    driver = NeuralDriver([sampler], n_chains=4, seed=SEED, local=LOCAL, spins_every=1)
    driver.warm_up(50)
    chains = driver.block(300)
    found = {"accepted": float(chains.sample_stats["accepted"].mean())}
    of_draws = alloy_series(hamiltonian, spins)
    of_chains = alloy_series(hamiltonian, chains.spins[:, :, 0].reshape(-1, n_spins))
    for name in reference:
        mean, error = reference[name]
        weighted = weighted_estimate(of_draws[name], log_weight)
        chain = estimate(of_chains[name].reshape(4, -1))
        for way, value in (("nis", weighted), ("nmcmc", chain)):
            found[f"{name} {way}"], found[f"{name} {way} error"] = value.mean, value.error
            found[f"{name} {way} sigma"] = (value.mean - mean) / math.hypot(value.error, error)
        found[f"{name} pt"], found[f"{name} pt error"] = mean, error
    return found


def alloy_series(hamiltonian: Hamiltonian, spins: np.ndarray) -> dict[str, np.ndarray]:
    """E: formation energy an atom, eV. x: of Au. of states (n, N)."""
    m = spins.mean(axis=1, dtype=np.float64)
    h = float(hamiltonian.parameters.get("h", 0.0))
    return {"E": hamiltonian.energy(spins) / hamiltonian.n_spins + h * m, "x": 0.5 * (1.0 + m)}


KNOWN: dict[str, dict] = {}


def references(hamiltonian: Hamiltonian, row: Row) -> dict:
    """ln Z with its error, unseen states and means (of alloys), by beta, of all targets of a row in this field."""
    key = hamiltonian.fingerprint
    betas = sorted({beta for beta, _ in row.judge})
    if key in KNOWN and set(betas) <= KNOWN[key]["log_z"].keys():
        return KNOWN[key]
    states, _ = ladder_states(hamiltonian, np.array(betas), UNSEEN, SEED + 1)
    found = {"states": dict(zip(betas, states, strict=True)), "log_z": {}, "means": {}}
    try:
        found["log_z"] = {beta: (exact(hamiltonian, beta).log_z, 0.0) for beta in betas}
    except ExactRefused:
        found["log_z"] = tempered(hamiltonian, betas, found)
    if not found["means"] and hamiltonian.name == "alloy":
        tempered(hamiltonian, betas, found)
    KNOWN[key] = found
    return found


def tempered(hamiltonian: Hamiltonian, betas: list[float], found: dict) -> dict[float, tuple[float, float]]:
    """ln Z at some betas along a ladder from 0, and the means of an alloy into found["means"]."""
    ladder = np.unique(
        np.concatenate([np.linspace(0.0, min(betas), 5), betas, np.linspace(min(betas), max(betas), 25)])
    )
    driver = TemperingDriver(hamiltonian, ladder, 8, SEED + 2, thin=20, spins_every=1)
    clock = time.process_time()
    driver.warm_up(20_000)
    block = driver.block(4000)
    found["seconds"] = time.process_time() - clock
    energy = block.posterior["energy"]
    stones = stepping_stones(energy, ladder, hamiltonian.log_states)
    where = np.searchsorted(ladder, betas)
    if hamiltonian.name == "alloy":
        for beta, b in zip(betas, where, strict=True):
            spins = block.spins[:, :, b]
            series = alloy_series(hamiltonian, spins.reshape(-1, hamiltonian.n_spins))
            values = {name: estimate(one.reshape(spins.shape[:2])) for name, one in series.items()}
            found["means"][beta] = {name: (value.mean, value.error) for name, value in values.items()}
    return {beta: (float(stones.log_z[b]), float(stones.error[b])) for beta, b in zip(betas, where, strict=True)}


def measured(row: Row, nets: Path) -> list[dict]:
    """One record a target of a row."""
    checkpoint, seconds = trained(row, nets)
    base, records = row.model(), []
    for beta, h in row.judge:
        hamiltonian = with_field(base, h)
        sampler = retargeted(row.name, checkpoint, hamiltonian, beta).sampler()
        record = {"row": row.name, "recipe": row.recipe, "beta": beta, "h": h, "seed": SEED,
                  "train": 0.0 if row.grows else seconds, "steps": checkpoint.training.step,
                  **judged(row, sampler, row.draws)}  # fmt: skip
        records.append(record)
        print(line(record), flush=True)
    return records


def line(record: dict) -> str:
    at = f"beta {record['beta']:<10.6g}" if record["beta"] < 5 else f"T {1 / (KELVIN * record['beta']):<6.4g}"
    at += f" h {record['h']:<6g}" if record["h"] is not None else ""
    text = (f"{record['row']:<26} {record['recipe']:<40} {at} ESS {record['ess']:.3f} dF {record['dF']:.4f} "
            f"F_q {record['F_q']:.1e} sigma {record['sigma']:+.1f} KLf {record['KLf']:.3f} "
            f"ess_mc {record['ess_mc']:.3f} "
            f"train {record['train']:.0f} s ms {record['ms']:.2f} marginal {record['marginal']:.2f}")  # fmt: skip
    if "E nis sigma" in record:
        text += (f" F {record['F']:.4f} meV E {record['E nis sigma']:+.1f} {record['E nmcmc sigma']:+.1f} "
                 f"x {record['x nis sigma']:+.1f} {record['x nmcmc sigma']:+.1f} "
                 f"accepted {record['accepted']:.2f}")  # fmt: skip
    return text


def store(records: list[dict]) -> None:
    """Merge records into the results, replacing those of the same row, recipe and target."""
    known = json.loads(RESULTS.read_text())["records"] if RESULTS.exists() else []
    names = ("row", "recipe", "beta", "h")
    fresh = {tuple(record[name] for name in names) for record in records}
    kept = [record for record in known if tuple(record[name] for name in names) not in fresh]
    content = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "records": kept + records,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--nets", type=Path, default=Path("any-order-nets"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.table:
        for record in json.loads(RESULTS.read_text())["records"]:
            print(line(record))
        return
    chosen = small_rows() if arguments.small else rows()
    for row in chosen:
        if not arguments.words or any(word in f"{row.name} {row.recipe}" for word in arguments.words):
            records = measured(row, arguments.nets)
            if not arguments.small:
                store(records)


if __name__ == "__main__":
    main()
