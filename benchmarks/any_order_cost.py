"""Memory and time of any-order networks beside a fixed-order transformer, and beside the published form.

    python benchmarks/any_order_cost.py            the table and benchmarks/results/any_order_cost.json
    python benchmarks/any_order_cost.py --small    a quick pass over small sizes, nothing written

All of width 64 and 2 layers, 4 heads, on the Ising torus, one thread. fixed order: the package's causal transformer,
one spin a token and 2 x 4 spins a token. published form: every token attends to and is transformed by every other
(torch.nn.TransformerEncoder), so that a draw takes N passes over N tokens; its cost alone is measured, from one pass.
draw: CPU ms a state; score: CPU ms of log q of a state; step: CPU ms a state of forward, backward and update. memory:
MB that a process has grown by while drawing 64 states and stepping with 32; each form has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import mc
from nmcmc.objectives import OBJECTIVES
from nmcmc.objectives.base import StepRandomness
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.training import TrainSettings, training_step

RESULTS = Path(__file__).parent / "results" / "any_order_cost.json"
SHAPE = dict(width=64, layers=2, prior="local")
FORMS = {
    "any order, attention": NetSettings(net="anyorder", heads=4, **SHAPE),
    "any order, attention, window 4": NetSettings(net="anyorder", heads=4, window=4, **SHAPE),
    "any order, no attention": NetSettings(net="anyorder", heads=0, **SHAPE),
    "any order, no attention, window 4": NetSettings(net="anyorder", heads=0, window=4, **SHAPE),
    "mlp baseline, 512 x 3": NetSettings(net="mlp", width=512, layers=3, prior="local"),
    "fixed order, 1 x 1": NetSettings(net="transformer", patch=(1, 1), **SHAPE),
    "fixed order, 2 x 4": NetSettings(net="transformer", patch=(2, 4), **SHAPE),
    "published form": None,
}
DRAWN, STEPPED = 64, 32
BETA = 0.44


def cpu(work: Callable[[], object], repeats: int) -> float:
    """Smallest CPU seconds of a call, after one that warms up."""
    work()
    found = []
    for _ in range(repeats):
        clock = time.process_time()
        work()
        found.append(time.process_time() - clock)
    return min(found)


def megabytes() -> float:
    """Largest memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def of_sampler(settings: NetSettings, L: int, repeats: int) -> dict[str, float]:
    """The columns of a form of the package."""
    hamiltonian = mc.models.ising(L=L)
    sampler = build_sampler(hamiltonian, BETA, settings, 1)
    states = 2 * np.random.default_rng(1).integers(0, 2, (STEPPED, L * L)).astype(np.int8) - 1
    kind = "any-order" if settings.net in ("anyorder", "mlp") else "soft-likelihood"
    objective = OBJECTIVES[kind]([sampler], [states]) if kind == "any-order" else OBJECTIVES[kind](sampler, states)
    train = TrainSettings(batch=STEPPED, validation_draws=8)
    optimizer = torch.optim.AdamW(sampler.network.parameters())
    sampler.sample(2, torch.Generator().manual_seed(1))
    before = megabytes()

    def step() -> None:
        training_step(sampler, objective, optimizer, train, StepRandomness.of(1, 1))

    return {
        "draw": 1e3 * cpu(lambda: sampler.sample(DRAWN, torch.Generator().manual_seed(1)), repeats) / DRAWN,
        "score": 1e3 * cpu(lambda: sampler.log_prob(states), repeats) / STEPPED,
        "step": 1e3 * cpu(step, repeats) / STEPPED,
        "weights": sum(p.numel() for p in sampler.network.parameters()),
        "memory": megabytes() - before,
    }  # fmt: skip


def of_published_form(L: int, repeats: int) -> dict[str, float]:
    """The same of a transformer over all tokens, by what one pass costs."""
    width, n_spins = SHAPE["width"], L * L
    layer = torch.nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    network = torch.nn.TransformerEncoder(layer, SHAPE["layers"], enable_nested_tensor=False)
    tokens = torch.randn(STEPPED, n_spins, width)
    optimizer = torch.optim.AdamW(network.parameters())
    before = megabytes()

    def step() -> None:
        optimizer.zero_grad()
        network(tokens).square().mean().backward()
        optimizer.step()

    def one_pass() -> None:
        with torch.no_grad():
            network(tokens)

    a_pass = 1e3 * cpu(one_pass, repeats) / STEPPED
    return {"draw": n_spins * a_pass, "score": n_spins * a_pass, "step": 1e3 * cpu(step, repeats) / STEPPED,
            "weights": sum(p.numel() for p in network.parameters()), "memory": megabytes() - before}  # fmt: skip


def line(record: dict) -> str:
    return (f"{record['form']:<34} L {record['L']:<3} draw {record['draw']:8.2f} ms  score "
            f"{record['score']:8.2f} ms  step {record['step']:7.2f} ms  memory {record['memory']:6.0f} MB "
            f" {record['weights']} weights")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("FORM", "L", "REPEATS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        form, L, repeats = arguments.one[0], int(arguments.one[1]), int(arguments.one[2])
        found = of_sampler(FORMS[form], L, repeats) if FORMS[form] else of_published_form(L, repeats)
        print(json.dumps({"form": form, "L": L} | found))
        return
    records = []
    for L in (8,) if arguments.small else (12, 20):
        for form in FORMS:
            repeats = 1 if arguments.small else 3
            called = [sys.executable, __file__, "--one", form, str(L), str(repeats)]
            output = subprocess.run(called, check=True, capture_output=True, text=True).stdout
            records.append(json.loads(output.splitlines()[-1]))
            print(line(records[-1]), flush=True)
    if not arguments.small:
        content = {
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "records": records,
        }
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
