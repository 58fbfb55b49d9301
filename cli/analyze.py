"""`nmcmc analyze`: everything a file says, with errors, and what to think of it."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

from cli.cite import bibtex
from cli.ensemble_results import is_ensemble, print_analysis, results_of
from cli.ensemble_results import opened as opened_ensemble
from cli.errors import UserError
from cli.results import as_json as to_json
from cli.results import judged, opened
from cli.status import describe
from cli.tables import diagnostics, names_of, table, verdict
from mc.analysis import Results

CSV_COLUMNS = ("mean", "error", "tau_int", "tau_int_error", "n_eff", "r_hat", "status")


def analyze(files: list[Path], as_json: bool, as_csv: bool, cite: bool) -> None:
    """Print the tables of chain and ensemble files; all are opened before the first is worked on."""
    if as_json and as_csv:
        raise UserError("--json and --csv are two formats; give one of them")
    if cite and as_csv:
        raise UserError("--cite prints BibTeX, and --csv a table alone; give one of them")
    chains = [path if is_ensemble(path) else opened(path) for path in files]
    if cite and any(isinstance(chain, Path) for chain in chains):
        raise UserError("--cite reads chain files; mc.ensemble.extract makes one of an instance of an ensemble")
    if as_csv:
        found = [results_of(opened_ensemble(chain).summary) if isinstance(chain, Path) else judged(chain)
                 for chain in chains]  # fmt: skip
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(("file", "beta", "observable", *CSV_COLUMNS, "exact"))
        for path, results in zip(files, found, strict=True):
            rows.writerows(csv_rows(str(path), results))
        return
    for chain in chains:
        if isinstance(chain, Path):
            print_analysis(chain, as_json)
            continue
        results = judged(chain)
        print(f"{chain.path}: {describe(chain)}")
        for line in table(results) + verdict(results) + diagnostics(results):
            print(line)
        for entry in bibtex(chain) if cite else ():
            print(entry)
        if as_json:
            print(to_json("analyze", chain, results, {}))


def csv_rows(name: str, results: Results) -> list[tuple]:
    """One row a beta and observable, numbers in full; empty where there is none."""
    rows = []
    for b, beta in enumerate(results.betas):
        for observable in names_of(results):
            one = results.observables[observable][b]
            exact = results.diagnostics.get(f"{observable}_exact", [math.nan] * len(results.betas))[b]
            rows.append((name, _known(beta), observable, *(_known(getattr(one, column)) for column in CSV_COLUMNS),
                         _known(exact)))  # fmt: skip
    return rows


def _known(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else repr(float(value))
