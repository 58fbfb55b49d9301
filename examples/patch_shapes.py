"""Which patch shape learns fastest: the critical Ising torus without a prior, after Bialas et al., figure 3.

Bialas, Korcyl, Stebel, Stefanski and Zapolski, arXiv:2604.27738, draw the ESS of L = 32 against epochs and wall time,
reverse KL, no approximate probabilities: 1x1 is by far the slowest, 2x4 and 4x2 the fastest and equal, above 0.8.

    python examples/patch_shapes.py            L = 8 and 32, 9 CPU minutes
    python examples/patch_shapes.py --small    L = 8, 3 shapes

Found (seed 1, 30 and 40 CPU s of training a shape, two shared cores of a 2.5 GHz Xeon, one thread):

    patch   L = 8: ms/update   beta (F_q - F)   L = 32: ms/update, updates   beta (F_q - F)
    1x1               75           0.76              3164     13               19.3
    1x2               37           0.79              1031     39               18.1
    2x2               20           0.36               410     98               13.1
    2x4               16           3.2                224    179               22.9
    4x2               16           3.1                228    176               16.4

As published: single spins are the slowest way to an update, 5 (L = 8) and 14 (L = 32) times slower than 2x4, larger
patches overtake them, and 2x4 and 4x2 cost and learn alike. Not as published: 2x2 is the best, and 2x4 and 4x2 are
still behind. They have 256 values a token to learn from 64 states an update (published: 4096 to 8192); when they
leave their plateau (3 to 4 nats at L = 8) depends on the seed. Forty seconds of one core are far from the published
0.8 on four GPUs: at L = 32 every ESS is below 0.03, which is noise, so distances in nats are shown. Other settings
differ, too: width 64, not 128; a rate of 3e-3, not 1e-3; Z2 is built in. 4x4 is refused: 2^16 outputs a token.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch

import mc
import nmcmc
from mc.exact import exact
from nmcmc.objectives import ReverseKL
from nmcmc.objectives.base import StepRandomness
from nmcmc.training import TrainSettings, make_optimizer, training_step, validate

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="L = 8 only, three shapes, 2 CPU seconds each")
parser.add_argument(
    "--out", help="file of the figure (default: examples/figures/patch_shapes.png; none with --small)"
)
parser.add_argument("--seed", type=int, default=1)
options = parser.parse_args()
torch.set_num_threads(1)

SHAPES = ((1, 1), (2, 2), (2, 4)) if options.small else ((1, 1), (1, 2), (2, 2), (2, 4), (4, 2))
BUDGETS = {8: 2.0} if options.small else {8: 30.0, 32: 40.0}  # CPU seconds of training a shape
DRAWS = {8: 1024, 32: 256}  # of q, to judge it by
BETA = 0.5 * math.log(1.0 + math.sqrt(2.0))
SETTINGS = TrainSettings(
    batch=64, learning_rate=3e-3, schedule="constant", warmup=0, clip=math.inf, seed=options.seed
)


def learning_curve(L, patch, seconds):
    """Rows (updates, CPU seconds of training, beta (F_q - F), ESS), spaced evenly in the logarithm of the time."""
    hamiltonian = mc.models.ising(L=L)
    log_z = exact(hamiltonian, BETA).log_z  # Kaufman
    net = nmcmc.NetSettings(patch=patch, prior="none", head="softmax", zero_head=False)
    sampler = nmcmc.build_sampler(hamiltonian, BETA, net, seed=options.seed)
    objective, optimizer = ReverseKL(sampler), make_optimizer(sampler, SETTINGS)
    rows, spent, step, look = [], 0.0, 0, 0.5
    while spent < seconds:
        began = time.process_time()
        training_step(sampler, objective, optimizer, SETTINGS, StepRandomness.of(options.seed, step))
        spent, step = spent + time.process_time() - began, step + 1
        if spent >= min(look, seconds):
            bound, ess = validate(sampler, DRAWS[L], seed=1000 + step)  # judging costs no training time
            rows.append((step, spent, bound + log_z, ess))
            look = max(1.3 * look, spent)
    return np.array(rows)


curves = {}
print("  L patch  updates   ms/update   beta (F_q - F)     ESS    (after the CPU seconds)")
for L, seconds in BUDGETS.items():
    for patch in SHAPES:
        rows = curves[L, patch] = learning_curve(L, patch, seconds)
        step, spent, distance, ess = rows[-1]
        shape, pace = "x".join(map(str, patch)), 1e3 * spent / step
        print(f"{L:3d} {shape:>5} {step:8.0f} {pace:11.1f} {distance:16.3f} {ess:7.3f}    {spent:.0f}", flush=True)
for L in BUDGETS:
    pace = [curves[L, patch][-1, 0] / curves[L, patch][-1, 1] for patch in SHAPES]
    assert pace[0] == min(pace)  # one spin a token is the slowest way to an update, and
    assert pace[SHAPES.index((2, 4))] > 3 * pace[0]
    for patch in SHAPES:
        distances = curves[L, patch][:, 2]
        assert distances[-1] > -0.1  # F_q bounds F from above, up to the noise of the mean
        assert distances[-1] < 0.16 * L * L  # 16 nats untrained at L = 8, 250 at L = 32: all have learned
    if not options.small:
        assert curves[L, (2, 2)][-1, 2] < curves[L, (1, 1)][-1, 2]  # in equal CPU time; in 2 s, single spins lead

out = options.out or (None if options.small else Path(__file__).parent / "figures" / "patch_shapes.png")
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is missing; pip install 'nmcmc[plot]'")
    out = None
if out:
    plt.rcParams.update({"font.size": 8, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 3})
    panels = [(L, 2, rf"$\beta\,(F_q - F)$, L = {L}") for L in reversed(BUDGETS)] + [(8, 3, "ESS, L = 8")]
    figure, axes = plt.subplots(1, len(panels), figsize=(178 / 25.4, 60 / 25.4), layout="constrained")
    styles = (("#000000", "o", "-"), ("#0072B2", "s", ":"), ("#009E73", "D", "--"), ("#D55E00", "^", "-"),
              ("#CC79A7", "v", "-."))  # fmt: skip
    for ax, (L, column, label) in zip(axes, panels, strict=True):
        for patch, (color, marker, line) in zip(SHAPES, styles, strict=False):
            rows = curves[L, patch]
            ax.plot(rows[:, 1], rows[:, column], color=color, marker=marker, ls=line, label="x".join(map(str, patch)))
        ax.set(xscale="log", yscale="log" if column == 2 else "linear", xlabel="CPU s of training", ylabel=label)
        if column == 2:
            ticks = [10, 20, 50, 100, 200] if L == 32 else [0.5, 1, 2, 5, 10]
            ax.set_yticks(ticks, map(str, ticks))
            ax.minorticks_off()
    axes[-1].legend(title="patch")
    figure.savefig(out, dpi=200, pil_kwargs={"optimize": True})
    print(f"figure: {out}")
