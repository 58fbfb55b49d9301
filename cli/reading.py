"""The commands that use what a run left: analyze, plot, report, compare, status, merge, export, rerun, sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.errors import UserError

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="chain or ensemble files")]
Chains = Annotated[list[Path], typer.Argument(metavar="FILE...", help="chain files")]
One = Annotated[Path, typer.Argument(metavar="FILE", help="a chain file")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no output but errors (and --json)")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object as the last line")]
Csv = Annotated[bool, typer.Option("--csv", help="the table as comma-separated values, and nothing else")]


def add_commands(app: typer.Typer) -> None:
    """Make the commands known to the command line; each imports what it needs when it is called."""
    for command in (analyze, plot, report, compare, status, merge, export, rerun, sample):
        app.command(command.__name__)(command)


def analyze(
    files: Files,
    as_json: Json = False,
    as_csv: Csv = False,
    cite: Annotated[bool, typer.Option("--cite", help="references of the methods used, as BibTeX")] = False,
):
    """Observables of chain files with errors, autocorrelation times and R-hat, and what to think of them."""
    from cli.analyze import analyze

    analyze(files, as_json, as_csv, cite)


def plot(
    files: Files,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the figures [default: ./NAME-figures]")] = None,
    page: Annotated[bool, typer.Option("--page", help="all figures in one PDF instead")] = False,
    form: Annotated[str, typer.Option("--format", help="png or pdf")] = "png",
    only: Annotated[
        str | None, typer.Option("--only", help="figures by name, such as energy,autocorrelation")
    ] = None,
):
    """Figures of chain files: one for each that the files allow (needs matplotlib: the extra `plot`)."""
    from cli.plot import plot

    plot(files, out, page, form, only)


def report(
    file: One,
    out: Annotated[Path | None, typer.Option("--out", help="page to write [default: ./NAME.html]")] = None,
):
    """One self-contained HTML page of a run: tables, figures, configuration, how to repeat it (extra `plot`)."""
    from cli.report import report

    report(file, out)


def compare(files: Chains, as_json: Json = False):
    """Do runs of one model agree, and what does an independent sample cost in each?"""
    from cli.compare import compare

    compare(files, as_json)


def status(files: Files, as_json: Json = False):
    """How far runs are, also while they go on."""
    from cli.status import status

    status(files, as_json)


def merge(
    files: Files,
    out: Annotated[Path, typer.Option("--out", help="chain or ensemble file to make")],
    quiet: Quiet = False,
    as_json: Json = False,
):
    """Join files of several machines: chains of one target side by side, different targets into an ensemble."""
    from cli.merge import merge
    from cli.output import Screen

    merge(files, out, Screen(quiet), as_json)


def export(
    file: One,
    to: Annotated[str, typer.Option("--to", help="csv, netcdf, alps or npz")],
    out: Annotated[
        Path | None, typer.Option("--out", help="file to write [default: NAME with the ending of --to]")
    ] = None,
):
    """The draws of a chain file in another format."""
    from cli.export import export

    export(file, to, out)


def rerun(
    file: One,
    out: Annotated[Path | None, typer.Option("--out", help="chain file to write [default: NAME-rerun.h5]")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
):
    """Do the run of a chain file again, from the configuration stored in it."""
    from cli.rerun import rerun

    raise typer.Exit(rerun(file, out, quiet, as_json))


def sample(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="a trained sampler (.pt)")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[given=FILE] [beta=|T=] [h=] [L=]", help="see above")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="configurations, or completions of each row")] = 1000,
    out: Annotated[Path | None, typer.Option("--out", help="file to write [default: ./NAME-samples.npz]")] = None,
    rng_seed: Annotated[int, typer.Option("--rng-seed", help="seed of all random numbers")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="replace an earlier result")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
):
    """Weighted configurations of a trained sampler; with given=FILE completions of partly known ones.

    given: n rows of spins, +1, -1, and 0 or NaN for unknown: .npz with an array `spins`, .npy, or a text of numbers.
    It needs a network trained with net=anyorder. beta=, T=, h= or L= where the network serves several.

    The result, read with numpy.load: spins (n, draws, sites); log_q, ln q of what was drawn given what is known;
    energy; log_weight = -beta E - log_q, weights for p(unknown | known) within a row; known (n, sites); by row
    log_marginal, ln p(known) by the marginal head, log_known, the same by conditionals, ess, and log_z, the ln of the
    sum of exp(-beta E) over completions, with log_z_error; beta, fingerprint, and about, a JSON text.
    """
    try:
        from cli.options import Options
        from cli.output import Screen
        from cli.sample import sample

        options = Options(draws=draws, rng_seed=rng_seed, restart=restart, quiet=quiet, json=as_json)
        sample(checkpoint, words or [], out, options, Screen(quiet))
    except KeyboardInterrupt:
        raise UserError("interrupted; the same command begins anew", code=130) from None
