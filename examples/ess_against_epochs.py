"""ESS against weight updates: layers, prior and batch size, after Bialas et al., figure 5.

Bialas, Korcyl, Stebel, Stefanski and Zapolski, arXiv:2604.27738, draw the ESS of the critical Ising torus, L = 128,
against epochs (one epoch is one weight update): one layer, two layers, one layer with approximate probabilities,
batches of 8192 and 4096. Approximate probabilities win by far, two layers beat one, the larger batch is better.

    python examples/ess_against_epochs.py            L = 8, 400 epochs a run, 90 CPU s
    python examples/ess_against_epochs.py --small    60 epochs a run

Found (seed 1, means over the last 100 epochs; two shared cores of a 2.5 GHz Xeon, one thread): the same.

    prior   layers   batch   beta (F_q - F)    ESS   CPU s of training
    none         1      64            5.1     0.03                   7
    none         2      64            3.6     0.03                   9
    none         1     256            3.3     0.02                  19
    local        1      64            0.27    0.63                   7
    local        2      64            0.17    0.71                  10
    local        1     256            0.12    0.78                  17

Without a prior every ESS is noise of 1024 draws, and only the distances tell the runs apart. `local` has the bonds
across the periodic edge, too, which the published prior leaves out. L, width (64) and batches are smaller than
published, the rate is higher (3e-3), Z2 is built in.
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
parser.add_argument("--small", action="store_true", help="60 epochs instead of 400")
parser.add_argument("--out", help="file of the figure (default: beside this script, in figures; none with --small)")
parser.add_argument("--seed", type=int, default=1)
options = parser.parse_args()
torch.set_num_threads(1)

L, EPOCHS, EVERY, DRAWS = (8, 60, 10, 512) if options.small else (8, 400, 10, 1024)
BETA = 0.5 * math.log(1.0 + math.sqrt(2.0))
RUNS = (("none", 1, 64), ("none", 2, 64), ("local", 1, 64), ("local", 2, 64), ("none", 1, 256), ("local", 1, 256))
hamiltonian = mc.models.ising(L=L)
log_z = exact(hamiltonian, BETA).log_z  # Kaufman


def learning_curve(prior, layers, batch):
    """Rows (epochs, CPU seconds of training, beta (F_q - F), ESS): an epoch is one weight update."""
    net = nmcmc.NetSettings(patch=(2, 4), prior=prior, layers=layers, head="softmax", zero_head=False)
    sampler = nmcmc.build_sampler(hamiltonian, BETA, net, seed=options.seed)
    settings = TrainSettings(batch=batch, learning_rate=3e-3, schedule="constant", warmup=0, clip=math.inf)
    objective, optimizer = ReverseKL(sampler), make_optimizer(sampler, settings)
    rows, spent = [], 0.0
    for epoch in range(1, EPOCHS + 1):
        began = time.process_time()
        training_step(sampler, objective, optimizer, settings, StepRandomness.of(options.seed, epoch))
        spent += time.process_time() - began
        if epoch % EVERY == 0:
            bound, ess = validate(sampler, DRAWS, seed=1000 + epoch)
            rows.append((epoch, spent, bound + log_z, ess))
    return np.array(rows)


curves, late = {}, {}
print(f"L = {L}, patch 2x4, {EPOCHS} epochs; means over the last quarter")
print("prior  layers  batch  beta (F_q - F)    ESS   CPU s")
for run in RUNS:
    rows = curves[run] = learning_curve(*run)
    late[run] = rows[-max(1, len(rows) // 4) :, 2:].mean(axis=0)
    print(
        "{:<6} {:6d} {:6d}".format(*run), f"{late[run][0]:15.3f} {late[run][1]:6.3f} {rows[-1, 1]:7.0f}", flush=True
    )
for layers, batch in ((1, 64), (2, 64), (1, 256)):
    without, with_prior = late["none", layers, batch], late["local", layers, batch]
    assert with_prior[1] > without[1]  # after as many epochs, the ESS with the prior is larger
    assert -0.1 < with_prior[0] < 0.5 * without[0]
if not options.small:
    for prior in ("none", "local"):  # epoch by epoch, a larger batch is better, and a second layer, too
        assert max(late[prior, 1, 256][0], late[prior, 2, 64][0]) < late[prior, 1, 64][0]

out = options.out or (None if options.small else Path(__file__).parent / "figures" / "ess_against_epochs.png")
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is missing; pip install 'nmcmc[plot]'")
    out = None
if out:
    plt.rcParams.update({"font.size": 8, "legend.frameon": False, "lines.linewidth": 1.2})
    figure, axes = plt.subplots(1, 2, figsize=(178 / 25.4, 65 / 25.4), layout="constrained", sharey=True)
    window = np.ones(min(5, len(rows))) / min(5, len(rows))
    for ax, shown, other in ((axes[0], RUNS[:4], 1), (axes[1], (RUNS[0], RUNS[4], RUNS[2], RUNS[5]), 2)):
        for run in shown:
            color, line = {"none": "#000000", "local": "#D55E00"}[run[0]], "-" if run[other] in (1, 64) else "--"
            what = (f"{run[1]} layer" + "s" * (run[1] - 1)) if other == 1 else f"batch {run[2]}"
            smooth = [np.convolve(curves[run][:, column], window, "valid") for column in (0, 3)]
            ax.plot(*smooth, color=color, ls=line, label=f"{run[0]}, {what}")
        ax.set_title(("batch 64", "1 layer")[other - 1], fontsize=8)
        ax.set_xlabel("epoch (weight updates)")
        ax.legend(loc="upper left", title="prior", labelspacing=0.3, alignment="left")
    axes[0].set(ylabel=f"ESS, L = {L}", ylim=(0, 1.1))
    figure.savefig(out, dpi=200, pil_kwargs={"optimize": True})
    print(f"figure: {out}")
