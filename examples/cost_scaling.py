"""Time of an epoch and peak memory against L, after Bialas et al., figure B.7.

Bialas, Korcyl, Stebel, Stefanski and Zapolski, arXiv:2604.27738, appendix B: patch 2x4, no approximate probabilities,
batch 512 on GPUs, L = 8 to 128. The time of an epoch (one update) grows nearly as L^2 at small L and nearly as L^4 at
large L, the peak memory as L^2 throughout.

    python examples/cost_scaling.py            L = 8 to 96, 45 CPU s
    python examples/cost_scaling.py --small    L = 8, 16, 24

Found (batch 64, width 64, least of 3 steps, two shared cores of a 2.5 GHz Xeon, one thread): the same.

    L                          8     12     16     24     32     48     64     96
    training step, CPU s   0.015  0.031  0.055  0.133  0.251  0.695   1.47   5.37
      local exponent of L           1.8    2.0    2.2    2.2    2.5    2.6    3.2
    drawing, ms a state     0.11   0.23   0.40   0.92   1.79   4.85   11.1   53.2
      local exponent of L           1.9    1.9    2.0    2.3    2.5    2.9    3.9
    kept for gradients, MB   3.5    8.2     15     34     60    136    242    544

What a forward pass keeps for the backward pass is most of the memory (appendix B.2) and grows with an exponent of 2.0
to 2.1: the scores of attention, of which there are L^4, are not kept. It is counted, tensor by tensor; the peak of
the process, 460 to 1704 MB, holds the program, too. In microbatches, our default, 15 MB do up to L = 64; at L = 96
the least, 4 states at a time, keep 34 MB.
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import mc
import nmcmc
from nmcmc.objectives import ReverseKL
from nmcmc.objectives.base import StepRandomness
from nmcmc.training import TrainSettings, make_optimizer, microbatch_of, training_step

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="L = 8, 16, 24 instead of 8 to 96")
parser.add_argument("--out", help="file of the figure (default: beside this script, in figures; none with --small)")
options = parser.parse_args()
torch.set_num_threads(1)

SIZES = np.array([8, 16, 24] if options.small else [8, 12, 16, 24, 32, 48, 64, 96])
REPEATS, BATCH = 3, 64
BETA = 0.5 * math.log(1.0 + math.sqrt(2.0))


def peak_megabytes():
    """Largest memory of this process so far; NaN where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return math.nan
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), math.nan)


def kept_for_gradients(sampler, objective, batch):
    """MB that a forward pass keeps for the backward pass, weights apart."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # alive, so that no other takes its address

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = objective.loss(batch)
    weights = {p.untyped_storage().data_ptr() for p in sampler.network.parameters()}
    assert loss.requires_grad
    return sum(size for address, size in storages.items() if address not in weights) / 2**20


def cost(L, repeats=REPEATS):
    """Least CPU seconds of a training step and of drawing its states; MB kept for gradients by the whole batch and by
    a microbatch; peak MB of this process so far.
    """
    net = nmcmc.NetSettings(patch=(2, 4), prior="none", head="softmax", zero_head=False)
    sampler = nmcmc.build_sampler(mc.models.ising(L=L), BETA, net)
    settings = TrainSettings(batch=BATCH, microbatch=BATCH)
    objective, optimizer = ReverseKL(sampler), make_optimizer(sampler, settings)
    steps, draws = [], []
    for step in range(repeats):
        began = time.process_time()
        training_step(sampler, objective, optimizer, settings, StepRandomness.of(0, step))
        between = time.process_time()
        batch = objective.batch(BATCH, StepRandomness.of(1, step))
        steps.append(between - began)
        draws.append(time.process_time() - between)
    few = slice(0, microbatch_of(replace(settings, microbatch=None), sampler))
    kept = [kept_for_gradients(sampler, objective, part) for part in (batch, batch.part(few))]
    return min(steps), min(draws), *kept, peak_megabytes()


def exponents(values):
    """Local exponents of L between neighbouring sizes, NaN for the first."""
    steps = np.diff(np.log(values)) / np.diff(np.log(SIZES[: len(values)]))
    return np.concatenate([[math.nan], steps])


cost(SIZES[0], 2)  # compiles, and touches memory for the first time
print(f"patch 2x4, batch {BATCH}, one layer of width 64; in brackets the local exponent of L")
print("  L   step, CPU s   draw, ms a state   kept for gradients, MB   in microbatches   peak, MB")
table = []
for L in SIZES:
    table.append(cost(L))
    slopes = [f"({exponents(values)[-1]:4.1f})" for values in np.transpose(table)[:3]]
    step, draw, kept, of_few, peak = table[-1]
    line = f"{L:3d} {step:7.3f} {slopes[0]} {1e3 * draw / BATCH:11.2f} {slopes[1]} {kept:17.1f} {slopes[2]}"
    print(f"{line} {of_few:17.1f} {peak:10.0f}", flush=True)
curves = np.transpose(table)
times, draws, memory, sparing, peaks = curves
assert np.all(np.abs(exponents(memory)[1:] - 2.0) < 0.3)  # memory grows as L^2 throughout
for slopes in (exponents(times)[1:], exponents(draws)[1:]):
    assert 0.5 < slopes[0] < 3.0  # near L^2 where tokens are few (less where overheads count)
    assert slopes.max() < 4.5
    assert options.small or slopes[-2:].mean() > 0.4 + slopes[:2].mean()  # and towards L^4 where they are many

out = options.out or (None if options.small else Path(__file__).parent / "figures" / "cost_scaling.png")
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is missing; pip install 'nmcmc[plot]'")
    out = None
if out:
    plt.rcParams.update({"font.size": 8, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 4})
    figure, (left, right) = plt.subplots(1, 2, figsize=(178 / 25.4, 65 / 25.4), layout="constrained")
    left.plot(SIZES, times, "o-", color="#000000", label="training step")
    left.plot(SIZES, draws, "s--", color="#0072B2", label="drawing its states")
    left.plot(SIZES, times[0] * (SIZES / SIZES[0]) ** 2, ":", color="#E69F00", label=r"$\sim L^2$")
    left.plot(SIZES[-3:], times[-1] * (SIZES[-3:] / SIZES[-1]) ** 4, "-.", color="#009E73", label=r"$\sim L^4$")
    right.plot(SIZES, memory, "o-", color="#000000", label="whole batch at once (published)")
    right.plot(SIZES, sparing, "s--", color="#0072B2", label="in microbatches (our default)")
    right.plot(SIZES, memory[0] * (SIZES / SIZES[0]) ** 2, ":", color="#E69F00", label=r"$\sim L^2$")
    for ax, label in ((left, f"CPU seconds, {BATCH} states"), (right, "MB kept for gradients")):
        ax.set(xscale="log", yscale="log", xlabel="L", ylabel=label)
        ax.set_xticks(SIZES, [str(L) for L in SIZES])
        ax.minorticks_off()
        ax.legend()
    figure.savefig(out, dpi=200, pil_kwargs={"optimize": True})
    print(f"figure: {out}")
