"""`nmcmc analyze`: everything a file says, with errors."""

from __future__ import annotations

from pathlib import Path

from cli.ensemble_results import is_ensemble, print_analysis
from cli.results import as_json as to_json
from cli.results import opened
from cli.status import describe
from cli.tables import diagnostics, table, verdict
from mc.analysis import analyse


def analyze(files: list[Path], as_json: bool, as_csv: bool, cite: bool) -> None:
    """Print the tables of chain and ensemble files; all are opened before the first is worked on."""
    for chain in [path if is_ensemble(path) else opened(path) for path in files]:
        if isinstance(chain, Path):
            print_analysis(chain, as_json)
            continue
        results = analyse(chain)
        print(f"{chain.path}: {describe(chain)}")
        for line in table(results) + verdict(results) + diagnostics(results):
            print(line)
        if as_json:
            print(to_json("analyze", chain, results, {}))
