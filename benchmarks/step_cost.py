"""Cost of sampling and of a training step, against a plain PyTorch version of the same sampler (`plain.py`).

Both run in this process, in turn, on one thread; CPU time (time.process_time), minimum and median over repetitions.
Before anything is timed, both must give the same log q to the same states.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numba
import numpy as np
import torch
from plain import PLAIN_OBJECTIVES, PlainSampler, plain_step

from mc.models import ising
from nmcmc.objectives import OBJECTIVES
from nmcmc.objectives.base import Batch, StepRandomness
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.training import TrainSettings, make_optimizer, training_step

BETA_C = math.log(1 + math.sqrt(2)) / 2
TOLERANCE = 1e-4  # of ln q at L = 16, in float32, and of gradients
PRIORS = ("none", "local", "lookahead")
OPTIONS = {"reverse-kl": {}, "soft-distillation": {"sweeps": 2, "reuse": 1}}  # of ours, so that both do the same


def plain_like(sampler, L: int, net: NetSettings, matmul: bool) -> PlainSampler:
    """The plain sampler of the same prior, width, layers, heads and patch."""
    network = {"width": net.width, "layers": net.layers, "heads": net.heads}
    return PlainSampler(L, sampler.beta, sampler.tokens.patch, net.prior, **network, matmul=matmul)


@torch.no_grad()
def law_difference(sampler, plain: PlainSampler, n: int) -> float:
    """Largest difference of ln q on n states drawn by each of the two, as drawn and as recomputed by the other."""
    spins, log_q = sampler.sample(n, torch.Generator().manual_seed(0))
    theirs = plain.log_prob(torch.from_numpy(spins).float().view(n, plain.L, plain.L)).numpy()
    drawn, plain_log_q = plain.sample(n)
    ours = sampler.log_prob(drawn.flatten(1).to(torch.int8).numpy())
    return float(max(np.abs(theirs - log_q).max(), np.abs(ours - plain_log_q.numpy()).max()))


def gradient_difference(sampler, plain: PlainSampler, n: int) -> float:
    """Largest relative difference of a weight's gradient of the softened loss on the same states."""
    spins = torch.from_numpy(sampler.sample(n, torch.Generator().manual_seed(0))[0]).float()
    objective, theirs = OBJECTIVES["soft-distillation"], PLAIN_OBJECTIVES["soft-distillation"]
    objective(sampler).loss(Batch(spins)).backward()
    theirs(plain, sampler.hamiltonian).loss(spins.view(n, plain.L, -1), None).backward()
    plain_gradient = {name: p.grad for name, p in plain.network.named_parameters()}
    return max(
        float((p.grad - plain_gradient[name]).abs().max() / plain_gradient[name].abs().max())
        for name, p in sampler.network.named_parameters()
    )


def check_same_law(hamiltonian, L: int, net: NetSettings, matmul: bool, n: int = 64) -> tuple[float, float, float]:
    """Differences: ln q of the untrained samplers (the priors), ln q and gradients with the same random weights."""
    bare = build_sampler(hamiltonian, BETA_C, net)
    alone = law_difference(bare, plain_like(bare, L, net, matmul), n)
    # The plain head is a softmax; ours has one too, of the same weights.
    full = build_sampler(hamiltonian, BETA_C, replace(net, head="softmax", zero_head=False), 1)
    plain = plain_like(full, L, net, matmul)
    for parameter in full.network.parameters():
        parameter.data.mul_(3.0)  # far from the prior
    plain.network.load_state_dict(full.network.state_dict())
    found = alone, law_difference(full, plain, n), gradient_difference(full, plain, n)
    if not max(found) < TOLERANCE * max(1, L / 16) ** 2:
        raise SystemExit(f"step_cost: prior={net.prior}: not the same law, differences {found}")
    return found


class Clock:
    """CPU milliseconds of the parts of a step, one entry a step: sample, teach, fit and step."""

    def __init__(self):
        self.calls: dict[str, float] = {}
        self.times: dict[str, list[float]] = {"sample": [], "teach": [], "fit": [], "step": []}

    def timed(self, name: str, function):
        """`function`, the time of its calls added up under `name`."""

        def call(*args):
            began = time.process_time()
            result = function(*args)
            self.calls[name] = self.calls.get(name, 0.0) + 1e3 * (time.process_time() - began)
            return result

        return call

    def end_step(self) -> None:
        """Close the account of a step: its batch holds its sampling, and it holds its batch."""
        sample, batch, step = (self.calls[name] for name in ("sample", "batch", "step"))
        parts = {"sample": sample, "teach": batch - sample, "fit": step - batch, "step": step}
        for name, time_taken in parts.items():
            self.times[name].append(time_taken)
        self.calls.clear()

    def least(self, name: str) -> float:
        """The minimum, without the first step, which compiles and touches memory for the first time."""
        return min(self.times[name][1:])

    def median(self, name: str) -> float:
        return median(self.times[name][1:])


def measure(hamiltonian, objective: str, net: NetSettings, args) -> tuple[Clock, Clock, int, int]:
    """Interleaved timings of ours and of plain; their numbers of weights."""
    train = TrainSettings(objective=objective, batch=args.batch, microbatch=args.microbatch, learning_rate=1e-4)
    sampler = build_sampler(hamiltonian, BETA_C, net)
    plain = plain_like(sampler, args.L, net, args.matmul)
    ours = OBJECTIVES[objective](sampler, **OPTIONS[objective])
    theirs = PLAIN_OBJECTIVES[objective](plain, hamiltonian)
    optimizer = make_optimizer(sampler, train)
    plain_optimizer = torch.optim.AdamW(plain.network.parameters(), lr=1e-4)
    clock, plain_clock, rng = Clock(), Clock(), np.random.default_rng(0)
    sampler.draw_tokens = clock.timed("sample", sampler.draw_tokens)
    plain.sample = plain_clock.timed("sample", plain.sample)
    ours.batch = clock.timed("batch", ours.batch)
    theirs.batch = plain_clock.timed("batch", theirs.batch)
    our_step, their_step = clock.timed("step", training_step), plain_clock.timed("step", plain_step)

    def our_turn(step: int) -> None:
        our_step(sampler, ours, optimizer, train, StepRandomness.of(0, step))
        clock.end_step()

    def plain_turn(step: int) -> None:
        torch.manual_seed(step)
        their_step(theirs, plain_optimizer, args.batch, args.plain_microbatch, train.clip, rng)
        plain_clock.end_step()

    for step in range(args.repeats + 1):
        for turn in (our_turn, plain_turn) if step % 2 else (plain_turn, our_turn):
            turn(step)
    return clock, plain_clock, *(sum(p.numel() for p in s.network.parameters()) for s in (sampler, plain))


def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--L", type=int, default=16, help="side of the torus")
    parser.add_argument("--batch", type=int, default=512, help="states a step")
    parser.add_argument("--microbatch", type=int, help="states a backward pass (default: as trained)")
    parser.add_argument("--plain-microbatch", type=int, default=512, help="the same for plain: large suits it better")
    parser.add_argument("--matmul", action="store_true", help="plain: energies by matrix products, not broadcasting")
    parser.add_argument("--repeats", type=int, default=9, help="timed repetitions of each")
    parser.add_argument("--width", type=int, default=NetSettings.width)
    parser.add_argument("--layers", type=int, default=NetSettings.layers)
    parser.add_argument("--head", default=NetSettings.head, help="head of ours; the plain head is a softmax")
    parser.add_argument("--prior", nargs="+", choices=PRIORS, default=PRIORS)
    parser.add_argument("--objective", nargs="+", choices=PLAIN_OBJECTIVES, default=list(PLAIN_OBJECTIVES))
    args = parser.parse_args()

    torch.set_num_threads(1)
    numba.set_num_threads(1)
    hamiltonian = ising(args.L)
    print(f"# {cpu_model()}, 1 thread, torch {torch.__version__}, numpy {np.__version__}, numba {numba.__version__}")
    print(f"# Ising torus L={args.L}, beta_c, batch {args.batch}, width {args.width}, layers {args.layers}")
    print(f"# every step draws anew; CPU ms, least of {args.repeats} interleaved steps")
    energies = "matrix products" if args.matmul else "broadcasting"
    print(f"# ours: {args.head} head, microbatch {args.microbatch or 'auto'}")
    print(f"# plain: softmax head, microbatch {min(args.plain_microbatch, args.batch)}, energies by {energies}")
    nets = [NetSettings(prior=p, width=args.width, layers=args.layers, head=args.head) for p in args.prior]
    for net in nets:
        alone, full, gradient = check_same_law(hamiltonian, args.L, net, args.matmul)
        print(f"# same law, prior={net.prior}: ln q agrees to {alone:.0e} without the network, {full:.0e} with it,")
        print(f"# gradients of its weights to {gradient:.0e}")
    print("# ratio: ours / plain of the least times, (med) of the medians; teach: labels or rewards of the draws,")
    print("# fit: forward, backward, update")
    columns = "".join(f"|{what:>7}{'plain':>6}{'ratio':>6} " for what in ("sample", "fit", "step"))
    print(f"{'prior':10}{'objective':18}{columns}{'(med)':>6} |{'teach':>6}{'plain':>6}")
    for net in nets:
        for objective in args.objective:
            ours, plain, n_ours, n_plain = measure(hamiltonian, objective, net, args)
            line = f"{net.prior:10}{objective:18}"
            for what in ("sample", "fit", "step"):
                a, b = ours.least(what), plain.least(what)
                line += f"|{a:7.0f}{b:6.0f}{a / b:6.2f} "
            medians = f"({ours.median('step') / plain.median('step'):.2f})"
            print(f"{line}{medians:>6} |{ours.least('teach'):6.0f}{plain.least('teach'):6.0f}", flush=True)
    print(f"# weights: {n_ours} ours, {n_plain} plain")


if __name__ == "__main__":
    main()
