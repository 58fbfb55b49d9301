"""`nmcmc status`: how far runs are, also while they go on."""

from __future__ import annotations

import json
from pathlib import Path

from cli.ensemble_results import is_ensemble, print_status
from cli.results import opened
from mc.chain import Chain


def status(files: list[Path], as_json: bool) -> None:
    """One line a file."""
    for chain in [path if is_ensemble(path) else opened(path) for path in files]:
        if isinstance(chain, Path):
            print_status(chain, as_json)
            continue
        print(f"{chain.path}: {describe(chain)}")
        if as_json:
            print(json.dumps({"command": "status", "out": str(chain.path), "mode": chain.mode, "draws": chain.n_draws,
                              "chains": chain.n_chains, "complete": chain.complete}))  # fmt: skip


def describe(chain: Chain) -> str:
    """A chain in one line: its mode, its size, its training."""
    size = f"mode {chain.mode}, {chain.n_chains} chains x {chain.n_draws} draws x {len(chain.betas)} temperatures"
    steps = chain.training.get("step")
    trained = f", {int(steps[-1])} training steps" if steps is not None and len(steps) else ""
    return f"{size}{trained}, {'complete' if chain.complete else 'incomplete'}"
