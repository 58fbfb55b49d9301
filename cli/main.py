"""The command line. Commands import what they need when they need it: --help and classical modes never load torch."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

import cli.reading
from cli.errors import UserError
from cli.options import Options
from cli.settings import MODES

# Small matrices lose by more threads, and their rounding would depend on the number of cores; see cli.threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Monte Carlo and neural samplers of spin systems behind one energy function.",
)

Words = Annotated[list[str], typer.Argument(metavar="MODEL [key=value ...]", help="see: nmcmc models")]
Mode = Annotated[str | None, typer.Option("--mode", help=" ".join(MODES))]
Out = Annotated[Path | None, typer.Option("--out", help="chain file [default: ./MODEL-KEYS-MODE.h5]")]
Draws = Annotated[int, typer.Option("--draws", help="stored draws a chain (and temperature)")]
Chains = Annotated[int, typer.Option("--chains", help="independent chains")]
Warmup = Annotated[
    int | None,
    typer.Option("--warmup", help="sweeps before the first draw [100 draws, at least 1000; neural 100]"),
]
Thin = Annotated[
    int | None,
    typer.Option("--thin", help="sweeps between draws (classical) [10 to 150 by the kernel; clusters, kinetic 1]"),
]
RngSeed = Annotated[int, typer.Option("--rng-seed", help="seed of all random numbers of the run")]
Weights = Annotated[Path | None, typer.Option("--checkpoint", help="a trained sampler (train: where it goes)")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
TimeLimit = Annotated[float | None, typer.Option("--time-limit", help="wall seconds of the whole run")]
Restart = Annotated[bool, typer.Option("--restart", help="begin anew (train: the checkpoint too)")]
Check = Annotated[bool, typer.Option("--check", help="judge log q on states of a cluster or tempering chain")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no output but errors (and --json)")]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="hand instances= to a Dask cluster: its address, or local")
]
Ground = Annotated[bool, typer.Option("--ground", help="ground state by matching (planar, no field; needs no beta=)")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object as the last line")]


def _run(command: str, words: list[str], mode: str | None, options: Options) -> None:
    began = time.monotonic()  # the time limit counts the imports, too
    try:
        from cli.arguments import parse, parse_mode
        from cli.ensemble import run_ensemble
        from cli.instances import wanted
        from cli.run import run
        from cli.torchrun import in_a_team

        with in_a_team(mode, words, options):
            mode = parse_mode(mode)
            options.check_values()
            if wanted(words, options):
                code = run_ensemble(command, words, mode, options, began)
            else:
                target, settings = parse(words, mode)
                code = run(command, target, mode, settings, options, began)
    except KeyboardInterrupt:
        text = "interrupted; what was committed is kept, the same command again goes on"
        raise UserError(text, code=130) from None
    raise typer.Exit(code)


@app.command("run")
def run_command(
    words: Words,
    mode: Mode = None,
    out: Out = None,
    draws: Draws = 10_000,
    chains: Chains = 4,
    warmup: Warmup = None,
    thin: Thin = None,
    rng_seed: RngSeed = 0,
    checkpoint: Weights = None,
    device: Device = "auto",
    time_limit: TimeLimit = None,
    restart: Restart = False,
    check: Check = False,
    quiet: Quiet = False,
    as_json: Json = False,
    scheduler: Scheduler = None,
):
    """Sample a model and leave a chain file; the same command again goes on where it stopped."""
    _run("run", words, mode, Options(out, draws, chains, warmup, thin, rng_seed, checkpoint, device, time_limit,
                                     restart, check, quiet, as_json, scheduler))  # fmt: skip


@app.command("train")
def train_command(
    words: Words,
    out: Out = None,
    rng_seed: RngSeed = 0,
    checkpoint: Weights = None,
    device: Device = "auto",
    time_limit: TimeLimit = None,
    restart: Restart = False,
    check: Check = False,
    quiet: Quiet = False,
    as_json: Json = False,
):
    """Train a sampler and keep its checkpoint (the same as: nmcmc run --mode train)."""
    options = Options(out=out, rng_seed=rng_seed, checkpoint=checkpoint, device=device, time_limit=time_limit,
                      restart=restart, check=check, quiet=quiet, json=as_json)  # fmt: skip
    _run("train", words, "train", options)


@app.command("phase-diagram")
def phase_diagram_command(
    words: Words,
    out: Annotated[Path | None, typer.Option("--out", help="folder [default: ./vector-KEYS-phase-diagram]")] = None,
    draws: Annotated[int, typer.Option("--draws", help="stored draws a temperature and field")] = 200,
    warmup: Annotated[int, typer.Option("--warmup", help="sweeps before the first draw")] = 1000,
    thin: Annotated[int, typer.Option("--thin", help="sweeps between draws")] = 5,
    rng_seed: RngSeed = 0,
    time_limit: TimeLimit = None,
    restart: Annotated[bool, typer.Option("--restart", help="begin anew")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
):
    """Overlap matrices of replicas of a vector-spin glass over T= and h= (several of each), with a picture.

    One run of parallel tempering a field, replicas= (5) from random starts; the same command again goes on.
    """
    try:
        from cli.output import Screen
        from cli.phase_diagram import phase_diagram

        options = Options(out, draws, 1, warmup, thin, rng_seed, time_limit=time_limit, restart=restart, json=as_json)
        options.check_values()
        code = phase_diagram(words, options, Screen(quiet))
    except KeyboardInterrupt:
        text = "interrupted; what was committed is kept, the same command again goes on"
        raise UserError(text, code=130) from None
    raise typer.Exit(code)


@app.command("exact")
def exact_command(words: Words, ground: Ground = False, as_json: Json = False):
    """Exact ln Z, energy and heat capacity, where some method reaches the model; or the ground state alone."""
    import json

    from cli.arguments import TEMPERATURE, parse
    from cli.settings import VECTOR
    from mc.analysis import kelvin
    from mc.exact import ExactRefused, exact, ground_state

    only_ground = ground and not any(word.partition("=")[0] in TEMPERATURE for word in words)
    target, _ = parse([*words, "beta=1"] if only_ground else words)
    found = {}
    if ground:
        if target.model == VECTOR:
            raise UserError("--ground: no method finds ground states of vector spins; leave it out, or use --mode pt")
        try:
            energy, _ = ground_state(target.hamiltonian)
        except ExactRefused as error:
            raise UserError(str(error)) from None
        print(f"E0 {energy:.15g}  per spin {energy / target.hamiltonian.n_spins:.15g}  [matching]", flush=True)
        found["ground_energy"] = energy
    rows, k_B = [], target.hamiltonian.k_B
    for beta in () if only_ground else target.betas:
        try:
            result = exact(target.hamiltonian, beta)
        except ExactRefused as error:
            raise UserError(str(error)) from None
        energy = result.ground_energy
        times = "" if result.degeneracy is None else f" (x{result.degeneracy:.0f})"
        lowest = "" if energy is None else f"  E0 {energy:.12g}{times}"
        lost = "" if result.lost_digits is None else f", {result.lost_digits:.1f} digits cancelled"
        T = float(kelvin(beta, k_B)) if k_B != 1.0 else None
        at = "" if T is None else f"T {T:.10g} K  "
        print(f"{at}beta {beta:.10g}  ln Z {result.log_z:.15g}  F {result.free_energy:.15g}  "
              f"<E> {result.energy:.15g}  C {result.heat_capacity:.12g}{lowest}  [{result.method}{lost}]",
              flush=True)  # fmt: skip
        row = {"beta": beta} if T is None else {"beta": beta, "T": T if beta else None}
        rows.append({**row, "log_z": result.log_z, "energy": result.energy,
                     "heat_capacity": result.heat_capacity, "ground_energy": energy,
                     "degeneracy": result.degeneracy, "method": result.method,
                     "lost_digits": result.lost_digits})  # fmt: skip
    if as_json:
        print(json.dumps({"command": "exact", "model": target.model, "results": rows} | found))


@app.command("bench")
def bench_command(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="mc: the Monte Carlo kernels")],
    only: Annotated[str | None, typer.Option("--only", help="run what has this word in its name")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="CPU time of each contender")] = 0.4,
    as_json: Json = False,
):
    """Time our kernels beside peapods and openjij, where these are installed."""
    from cli.bench import bench

    bench(suite, only, seconds, as_json)


@app.command("models")
def models_command():
    """The models, their keys, and the settings of a run."""
    from cli.instances import ABOUT, KEY
    from cli.settings import SETTINGS
    from mc.models import MODELS

    print("models (every model takes beta= or T=: a number, a,b,c or low:high:count):")
    for model in MODELS.values():
        print(f"  {model.name:<8} {model.about}")
        print(f"           {' '.join(key + '=' for key in model.keys)}")
    print(f"  {KEY + '=':<8} {ABOUT}")
    print("settings:")
    for name, setting in SETTINGS.items():
        default = "" if setting.default is None else f" [{setting.default}]"
        print(f"  {name + '=':<18} {setting.about}{default}")


cli.reading.add_commands(app)


def main() -> None:
    """Entry point: errors of the user become one line on standard error and exit code 2."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="nmcmc", standalone_mode=False)
    except UserError as error:
        code = _say(str(error), error.code)
    except typer.TyperException as error:
        text = error.format_message()
        used = [mode for mode in MODES if f"'{mode}'" in text]
        hint = f" A mode is given so: nmcmc run --mode {used[0]} MODEL key=value ..." if used else ""
        code = _say(text + hint, 2)
    except MemoryError as error:
        code = _say(f"not enough memory ({error}); use a smaller system, fewer chains or fewer temperatures", 1)
    sys.exit(code or 0)


def _say(text: str, code: int) -> int:
    print(f"nmcmc: {' '.join(text.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
