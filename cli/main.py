"""The command line. Commands import what they need when they need it: --help and classical modes never load torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="Monte Carlo and neural samplers of spin systems behind one energy function.")  # fmt: skip

Words = Annotated[
    list[str], typer.Argument(metavar="MODEL [key=value ...]", help="a model and its keys; see: nmcmc models")
]
Out = Annotated[Path | None, typer.Option("--out", help="chain file [default: ./MODEL-KEYS-MODE.h5]")]
Draws = Annotated[int, typer.Option("--draws", help="stored draws a chain (and temperature)")]
Chains = Annotated[int, typer.Option("--chains", help="independent chains")]
Warmup = Annotated[
    int | None, typer.Option("--warmup", help="sweeps before the first draw [default: 1000, neural 100]")
]
Thin = Annotated[int, typer.Option("--thin", help="sweeps between draws (classical modes)")]
RngSeed = Annotated[int, typer.Option("--rng-seed", help="seed of all random numbers of the run")]
CheckpointFile = Annotated[
    Path | None, typer.Option("--checkpoint", help="a trained sampler (train: where it goes)")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
TimeLimit = Annotated[float | None, typer.Option("--time-limit", help="wall seconds of the whole run")]
Restart = Annotated[bool, typer.Option("--restart", help="replace the chain file that is there")]
Check = Annotated[bool, typer.Option("--check", help="judge log q on states of a cluster or tempering chain")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no output but errors (and --json)")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object as the last line")]


def _run(words, mode, out, draws, chains, warmup, thin, rng_seed, checkpoint, device, time_limit, restart, check, quiet,
         as_json):  # fmt: skip
    from cli.arguments import parse, parse_mode
    from cli.run import Options, run

    mode = parse_mode(mode)
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: auto, cpu or cuda is needed")
    target, settings = parse(words, mode)
    options = Options(out, draws, chains, warmup, thin, rng_seed, checkpoint, device, time_limit, restart, check, quiet,
                      as_json)  # fmt: skip
    raise typer.Exit(run(target, mode, settings, options))


@app.command("run")
def run_command(
    words: Words,
    mode: Annotated[
        str | None, typer.Option("--mode", help="metropolis heatbath wolff pt train nmcmc nis prior")
    ] = None,
    out: Out = None,
    draws: Draws = 10_000,
    chains: Chains = 4,
    warmup: Warmup = None,
    thin: Thin = 1,
    rng_seed: RngSeed = 0,
    checkpoint: CheckpointFile = None,
    device: Device = "auto",
    time_limit: TimeLimit = None,
    restart: Restart = False,
    check: Check = False,
    quiet: Quiet = False,
    as_json: Json = False,
):
    """Sample a model and leave a chain file; the same command again goes on where it stopped."""
    _run(words, mode, out, draws, chains, warmup, thin, rng_seed, checkpoint, device, time_limit, restart, check, quiet,
         as_json)  # fmt: skip


@app.command("train")
def train_command(
    words: Words,
    out: Out = None,
    rng_seed: RngSeed = 0,
    checkpoint: CheckpointFile = None,
    device: Device = "auto",
    time_limit: TimeLimit = None,
    restart: Restart = False,
    quiet: Quiet = False,
    as_json: Json = False,
):
    """Train a sampler and keep its checkpoint (the same as: nmcmc run --mode train)."""
    _run(words, "train", out, 1, 1, None, 1, rng_seed, checkpoint, device, time_limit, restart, False, quiet, as_json)


@app.command("analyze")
def analyze_command(files: Annotated[list[Path], typer.Argument(metavar="FILE...")], as_json: Json = False):
    """Observables of chain files with errors, autocorrelation times and R-hat."""
    from cli.results import analyse, table
    from cli.results import as_json as to_json
    from mc.chain import open_chain

    for path in files:
        chain = open_chain(path)
        results = analyse(chain)
        print(chain)
        for line in table(results):
            print(line)
        if as_json:
            print(to_json("analyze", chain, results, {}))


@app.command("status")
def status_command(files: Annotated[list[Path], typer.Argument(metavar="FILE...")], as_json: Json = False):
    """How far runs are, also while they go on."""
    import json

    from mc.chain import open_chain

    for path in files:
        chain = open_chain(path)
        steps = chain.training.get("step")
        trained = f", {int(steps[-1])} training steps" if steps is not None and len(steps) else ""
        print(f"{path}: mode {chain.mode}, {chain.n_chains} chains x {chain.n_draws} draws x {len(chain.betas)} temperatures"
              f"{trained}, {'complete' if chain.complete else 'incomplete'}")  # fmt: skip
        if as_json:
            print(json.dumps({"command": "status", "out": str(path), "mode": chain.mode, "draws": chain.n_draws,
                              "chains": chain.n_chains, "complete": chain.complete}))  # fmt: skip


@app.command("exact")
def exact_command(words: Words, as_json: Json = False):
    """Exact ln Z, energy and heat capacity, where some method reaches the model."""
    import json

    from cli.arguments import parse
    from mc.exact import exact

    target, _ = parse(words)
    rows = []
    for beta in target.betas:
        result = exact(target.hamiltonian, beta)
        rows.append(result)
        ground = (
            "" if result.ground_energy is None else f"  E0 {result.ground_energy:.12g} (x{result.degeneracy:.0f})"
        )
        print(f"beta {beta:.10g}  ln Z {result.log_z:.15g}  F {result.free_energy:.15g}  <E> {result.energy:.15g}  "
              f"C {result.heat_capacity:.12g}{ground}  [{result.method}]")  # fmt: skip
    if as_json:
        entries = [{"beta": r.beta, "log_z": r.log_z, "energy": r.energy, "heat_capacity": r.heat_capacity,
                    "ground_energy": r.ground_energy, "degeneracy": r.degeneracy, "method": r.method} for r in rows]  # fmt: skip
        print(json.dumps({"command": "exact", "model": target.model, "results": entries}))


@app.command("models")
def models_command():
    """The models, their keys, and the settings of a run."""
    from cli.settings import SETTINGS
    from mc.models import MODELS

    print("models (every model takes beta= or T=: a number, a,b,c or low:high:count):")
    for model in MODELS.values():
        print(f"  {model.name:<8} {model.about}")
        print(f"           {' '.join(key + '=' for key in model.keys)}")
    print("settings:")
    for name, setting in SETTINGS.items():
        default = "" if setting.default is None else f" [{setting.default}]"
        print(f"  {name + '=':<18} {setting.about}{default}")


def main() -> None:
    """Entry point: errors of the user become one line on standard error and exit code 2."""
    from mc.chain_lock import ChainError
    from mc.exact.result import ExactRefused

    try:
        code = app(standalone_mode=False)
    except (UserError, ChainError, ExactRefused) as error:
        print(f"nmcmc: {error}", file=sys.stderr)
        code = 2
    except typer.TyperException as error:
        print(f"nmcmc: {error.format_message()}", file=sys.stderr)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        print("nmcmc: interrupted; what was committed is kept, the same command again goes on", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
