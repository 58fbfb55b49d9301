"""`nmcmc report`: one HTML page of a run: what came out, whether to believe it, and how to repeat it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli import tables
from cli.ensemble_results import is_ensemble
from cli.errors import UserError
from cli.figures import FIGURES, NotDrawn, draw, require_matplotlib
from cli.figures.drawn import Drawn
from cli.figures.files import require_free, write_whole
from cli.output import counted
from cli.report_page import Table, code, is_report, items, page, paragraph, picture, verdict
from cli.report_tables import MISSING, all_observables, diagnostics, main_observables, number
from cli.results import refuse_mean_field
from cli.status import describe
from mc import models
from mc.analysis import Results, kelvin
from mc.chain import Chain
from mc.equilibration import NO, YES

DPI = 200
PIXELS_AN_INCH = 130  # a third larger than in print
GRAVE = ("not converged", "wrong", "dropped modes", f"equilibrated: {NO} ")  # not "not shown"
CAPTIONS = {
    "energy": "Energy per spin over the run, and its histogram; of several betas the ends and the middle.",
    "autocorrelation": "Autocorrelation functions with an error band of one sigma; a tick marks the window of the "
    "Gamma method, up to which the integrated time is summed.",
    "magnetization": "Distribution of the magnetization per spin; bars: one standard error, from chain to chain.",
    "overlap": "Distribution of the overlap of two replicas; band: one standard error.",
    "configurations": "States of the first chain from the start of the run to its end; dark: +1, light: -1.",
    "swaps": "Swaps accepted between neighbours, and spins flipped by a sweep; round trips of replicas.",
    "ladder": "Observables over the inverse temperature, with errors of one sigma.",
    "training": "The training: variational free energy, effective sample size and loss over the steps.",
    "weights": "Log weights of the sampler's proposals, as drawn and weighted.",
}


def report(file: Path, out: Path | None) -> None:
    """Write the page of a chain file; UserError for ensembles, files without draws, and a place that is none."""
    if is_ensemble(file):
        raise UserError(f"{file} is an ensemble, and a report is of one chain file: `nmcmc analyze {file}` has its "
                        "averages, `nmcmc plot` draws the crossings of ensembles of several sizes")  # fmt: skip
    drawn = Drawn.of(file)
    refuse_mean_field(file, drawn.chain.mode)
    if not drawn.n_draws and not drawn.chain.training:
        raise UserError(f"{file} holds no draws yet, so there is nothing to report; let the run go on")
    require_matplotlib()
    out = checked_place(file, Path(f"{drawn.name}.html") if out is None else out)
    _ = drawn.results  # what cannot be judged is refused before anything is said
    print(f"report of {file} into {out}", flush=True)
    write_whole(out, written(drawn).encode("utf-8", "backslashreplace"))
    print(f"{out} written ({out.stat().st_size / 1024:.0f} kB): open it in any browser")


def checked_place(file: Path, out: Path) -> Path:
    """Where the page goes; UserError for a folder, one that is not there, and any file but an earlier report."""
    if os.path.isdir(out):  # of a name that is too long `Path.is_dir` raises
        raise UserError(f"--out {out} is a folder; give the page a name, such as {out / 'report.html'}")
    if not os.path.isdir(out.parent):
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it, or choose another --out")
    if os.path.exists(out) and out.samefile(file):
        raise UserError(f"--out {out} is the chain file itself; choose another name, such as {file.stem}.html")
    require_free(out, is_report, "report")
    return out


def written(drawn: Drawn) -> str:
    """The page as text."""
    chain, results = drawn.chain, drawn.results
    several, short, every = len(drawn.betas) > 1, main_observables(drawn, results), all_observables(drawn, results)
    sections = [
        ("run", "What was run", _run(drawn)),
        ("observables", "Observables", short if several else every),
        ("diagnostics", "Diagnostics", diagnostics(results)),
        ("figures", "Figures", "".join(figures(drawn))),
        ("cost", "Cost", _cost(chain, results)),
        ("repeat", "How to repeat it", _repeat(chain)),
        ("configuration", "Configuration", _configuration(chain)),
        ("references", "References", _references(chain)),
        ("every", "All observables", every if several else ""),
    ]
    title = f"{chain.config.get('model', drawn.hamiltonian.name)}, {chain.mode}: {chain.path.name}"
    foot = (
        f"nmcmc {chain.attributes.get('nmcmc_version', '')}. E = - sum J s s - sum h s, each bond once; energies are "
        "totals. tau_int = 0.5 means uncorrelated. Errors are one standard error."
    )
    return page(title, describe(chain), judged(chain, results), [s for s in sections if s[2]], foot)


def judged(chain: Chain, results: Results) -> str:
    """The verdict: how far the results can be trusted, in the words of `nmcmc analyze`."""
    lines = tables.verdict(results)
    if not lines:
        return verdict(
            "warn", "A training, without draws", ["sample from it: nmcmc run --mode nmcmc MODEL --checkpoint FILE"]
        )
    if not chain.complete:
        so_far = f"{counted(chain.n_draws, 'draw')} a chain so far"
        lines = [f"unfinished: {so_far}; the same command again goes on", *lines]
    if any(line.startswith(GRAVE) for line in lines):
        return verdict("bad", "Not to be trusted as it is", lines)
    fine = all(line == tables.GOOD or line.startswith(f"equilibrated: {YES}") for line in lines)
    return verdict("good", "Nothing to object", lines) if fine else verdict("warn", "With reservations", lines)


def _run(drawn: Drawn) -> str:
    chain, hamiltonian = drawn.chain, drawn.hamiltonian
    lattice = hamiltonian.lattice
    shape = "x".join(map(str, lattice.shape)) if lattice else "a graph"
    parameters = chain.config.get("parameters", hamiltonian.parameters or {})
    betas = ", ".join(f"{beta:.6g}" for beta in drawn.betas)
    kelvins = ", ".join(f"{T:.6g}" for T in kelvin(drawn.betas, hamiltonian.k_B))
    found = models.MODELS[hamiltonian.name].found if hamiltonian.name in models.MODELS else ()
    rows = [
        ("model", f"{chain.config.get('model', hamiltonian.name)} on {shape}, {chain.n_spins} spins"),
        ("parameters", ", ".join(f"{key}={value}" for key, value in parameters.items() if key not in found)),
        ("mode", chain.mode),
        ("beta", f"{betas} (in 1/{hamiltonian.energy_unit})"),
        *((("T", f"{kelvins} (in K)"),) if hamiltonian.k_B != 1.0 else ()),
        ("chains", str(chain.n_chains)),
        ("draws a chain", f"{chain.n_draws}" + (f" of {chain.asked_draws}" if chain.asked_draws >= 0 else "")),
        ("sweeps between draws", str(chain.config.get("thin", MISSING))),
        ("warm-up", str(chain.config.get("warmup", MISSING))),
        ("complete", "yes" if chain.complete else "no"),
    ]
    return Table("The run", ("what", "value"), rows, (False, False)).html()


def figures(drawn: Drawn) -> Iterator[str]:
    """Every figure that the file allows, as a picture in the page."""
    from cli.figures import style

    with style.paper():
        for name in FIGURES:
            if not drawn.n_draws and name != "training":
                continue
            with contextlib.suppress(NotDrawn):
                figure = draw(name, drawn)
                image = io.BytesIO()
                figure.savefig(image, format="png", dpi=DPI)
                size = tuple(round(inches * PIXELS_AN_INCH) for inches in figure.get_size_inches())
                yield picture(image.getvalue(), size, _alternative(name, drawn), CAPTIONS[name])


def _alternative(name: str, drawn: Drawn) -> str:
    """What a figure shows, in words, for those who do not see it; the numbers stand in the tables."""
    betas = drawn.betas
    at = (
        f"beta = {betas[0]:.4g}"
        if len(betas) == 1
        else f"{len(betas)} betas from {betas.min():.4g} to {betas.max():.4g}"
    )
    size = f"{counted(drawn.chain.n_chains, 'chain')} of {counted(drawn.n_draws, 'draw')}"
    what = {
        "energy": f"Trace and histogram of the energy per spin, {size}",
        "autocorrelation": "Curves of the autocorrelation function against the lag",
        "magnetization": "Curve of the distribution P(m) of the magnetization",
        "overlap": "Curve of the distribution P(q) of the overlap",
        "configurations": "Images of spin configurations",
        "swaps": "Acceptance of swaps along the ladder, and numbers of round trips",
        "ladder": "Curves of observables against beta",
        "training": "Curves over training steps",
        "weights": "Histogram of log weights",
    }[name]
    return f"{what}; {at}."


def _cost(chain: Chain, results: Results) -> str:
    names = {"build": "building the sampler", "train": "training", "sample": "sampling"}
    known = {part: s for part, s in chain.seconds.items() if math.isfinite(s)}
    if not known:
        return paragraph("The file does not say what it cost.")
    total = sum(known.values())
    rows = [(names.get(part, part), number(s, ".4g")) for part, s in known.items()]
    rows.append(("all", number(total, ".4g")))
    energy = results.observables.get("energy", [])
    effective = [one.n_eff for one in energy if math.isfinite(one.n_eff)]
    if effective and total > 0:
        rows.append(("per effective draw of the energy, at the worst beta", number(total / min(effective), ".3g")))
    return Table("CPU seconds of all threads", ("part", "seconds"), rows, (False, True)).html()


def _repeat(chain: Chain) -> str:
    try:
        versions = json.loads(chain.attributes.get("versions", "{}"))
    except ValueError:
        versions = {}
    rows = [
        ("nmcmc", str(chain.attributes.get("nmcmc_version", MISSING))),
        *((name, str(version)) for name, version in versions.items()),
        ("seed of all random numbers", str(chain.rng_seed)),
        ("fingerprint of the Hamiltonian", str(chain.config.get("fingerprint", MISSING))),
        ("run", str(chain.attributes.get("run_id", MISSING))),
    ]
    table = Table("Versions and seeds", ("what", "value"), rows, (False, False)).html()
    again = f"nmcmc rerun {shlex.quote(str(chain.path.name))}"
    return (
        paragraph("The command that made the file:") + code(chain.command)
        + paragraph("The same run again, from the configuration in the file:") + code(again) + table
    )  # fmt: skip


def _configuration(chain: Chain) -> str:
    rows = [(key, value) for key, value in flat(chain.config) if key not in ("fingerprint", "mode", "model")]
    return Table("The resolved configuration", ("key", "value"), rows, (False, False)).html() if rows else ""


def flat(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value as text) of nested settings."""
    for key, entry in value.items():
        if isinstance(entry, dict) and entry:
            yield from flat(entry, f"{before}{key}.")
        else:
            yield f"{before}{key}", entry if isinstance(entry, str) else json.dumps(entry)


def _references(chain: Chain) -> str:
    from cli.cite import references

    found = references(chain)
    return items(found, ordered=True) if found else ""
