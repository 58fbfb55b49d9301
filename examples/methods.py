"""Which method when: the honest table of `nmcmc compare` for two targets, and a picture of it.

    python examples/methods.py            critical Ising model, L = 32; 3D +-J glass, L = 4, beta = 0.9; some minutes
    python examples/methods.py --small    L = 16; beta = 0.7, with few draws: half a minute
    python examples/methods.py --table    the tables and the picture of the files in --folder again

Wolff's clusters, parallel tempering, Neural MCMC and neural importance sampling (prior=auto) draw from the same law
in a run each; on the glass, where clusters percolate, without Wolff. The runs must agree, and are measured by the
error of the energy that one CPU second buys, sampling alone and with building and training counted.

Each run has a folder of its own, so that none finds what another has built. With --small there is a picture only
where --out says so.
"""

import argparse
import contextlib
import io
import json
import math
import shlex
import sys
import tempfile
from pathlib import Path

parser = argparse.ArgumentParser(
    description=__doc__.splitlines()[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--small", action="store_true", help="small sizes, few draws")
parser.add_argument("--table", action="store_true", help="no runs but those that are in --folder")
parser.add_argument("--folder", type=Path, help="where the chain files go and stay [default: none stays]")
parser.add_argument("--out", type=Path, help="file of the picture [default: examples/figures/methods.png]")
options = parser.parse_args()

BETA_C = 0.44068679350977147  # ln(1 + sqrt 2) / 2
NAMES = {"wolff": "Wolff", "pt": "parallel tempering", "nmcmc": "Neural MCMC", "nis": "importance sampling"}
WORST = 5.0  # errors from the exact energy: 1 in 2 million by chance


def targets():
    """{title: {mode: words of nmcmc run}}."""
    small = options.small
    ising, ladder = ("ising", "L=16" if small else "L=32"), f"beta=0.41,0.42,0.43,{BETA_C!r}"
    glass = ("ea3d", "L=4", "seed=1")
    beta = 0.7 if small else 0.9
    n, few = (4000, 500) if small else (50_000, 4000)
    # As many states as a fit to 64 spins needs, when nothing else is to be shown than that all this works.
    fit = ("prior=belief", "net=linear", "train.states=4000", "train.steps=10") if small else ()
    return {
        f"critical Ising model, {ising[1]}": {
            "wolff": (*ising, "--draws", n),
            "pt": (*ising, ladder, "--draws", n // 2),
            "nmcmc": (*ising, "--draws", few),
            "nis": (*ising, "--draws", few),
        },
        f"3D +-J glass, L=4, beta={beta}": {
            "pt": (*glass, f"beta=0.1:{beta}:{7 if small else 9}", "replicas=2", "--draws", n),
            "nmcmc": (*glass, f"beta={beta}", *fit, "--draws", few),
            "nis": (*glass, f"beta={beta}", *fit, "--draws", few),
        },
    }


def nmcmc(*words):
    """A command of nmcmc in this process; returns what it printed."""
    from cli.main import app

    sys.argv = ["nmcmc", *map(str, words)]
    print("$", shlex.join(sys.argv), flush=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = app(sys.argv[1:], standalone_mode=False)
    assert not code, printed.getvalue()
    return printed.getvalue()


def compared(folder, title, runs):
    """Run what is missing and print the comparison; returns the object of `nmcmc compare --json`."""
    files = []
    for seed, (mode, words) in enumerate(runs.items(), 1):
        place = folder / f"{words[0]}-{mode}"
        place.mkdir(parents=True, exist_ok=True)
        files.append(place / f"{words[0]}-{mode}.h5")
        if not options.table:
            nmcmc("run", "--mode", mode, *words, "--rng-seed", seed, "--quiet", "--out", files[-1])
    *table, last = nmcmc("compare", *files, "--json").splitlines()
    print(f"\n{title}\n", *table, sep="\n", end="\n\n")
    return json.loads(last)


def picture(path, found):
    """The error that one CPU second buys, over the smallest; without training, and with it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
    except ImportError:
        print("no picture: matplotlib is not installed (pip install nmcmc[plot])")
        return
    figure = Figure(figsize=(10.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, data) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        rows = next(cost for cost in data["costs"] if cost["observable"] == "energy")["files"]
        alone, total = ([row[key] for row in rows] for key in ("one_second", "one_second_total"))
        least = min(alone)
        places = range(len(rows))
        axes.hlines(places, [x / least for x in alone], [x / least for x in total], color="0.6", zorder=1)
        for values, label, style in (
            (alone, "sampling alone", dict(color="#3b6ea5", marker="o", s=60)),
            (total, "building and training counted", dict(color="#d98e3f", marker="D", s=28)),
        ):
            axes.scatter([x / least for x in values], places, label=label, zorder=2, **style)
        for place, one, all_of_it in zip(places, alone, total, strict=True):
            both = f"{one / least:.2g}" + (f", {all_of_it / least:.2g}" if all_of_it > 1.005 * one else "")
            axes.annotate(
                both, (all_of_it / least, place), (8, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(places, [NAMES[file["mode"]] for file in data["files"]])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.set_xlim(0.8, 2.2 * max(total) / least)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        axes.set_xlabel("error of the energy in equal CPU time (smallest = 1)", fontsize=9)
        axes.set_title(title, fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"picture: {path}")


with contextlib.ExitStack() as stack:
    folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
    found = {title: compared(folder, title, runs) for title, runs in targets().items()}

for title, data in found.items():
    off = [value for file in data["files"] for value in file["off_exact"]["energy"] if value is not None]
    if off:
        print(f"{title}: at most {max(map(abs, off)):.1f} errors from the exact energy")
        assert max(map(abs, off)) < WORST
    # p-values of pairs that agree are rarely this small: at most 1 in 10^4 of them.
    assert all(pair["p_value"] > 1e-4 for pair in data["pairs"]), title
    rows = next(cost for cost in data["costs"] if cost["observable"] == "energy")["files"]
    assert all(row["one_second_total"] > 0 and math.isfinite(row["one_second_total"]) for row in rows)
if options.out or not options.small:
    picture(options.out or Path(__file__).parent / "figures" / "methods.png", found)
