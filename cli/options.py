"""The options of a run: their values, and the refusal of those that make no sense."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cli.errors import UserError
from cli.settings import CLASSICAL, NEURAL

# Options that somebody may write as draws=100.
NAMES = ("mode", "out", "draws", "chains", "warmup", "thin", "rng-seed", "checkpoint", "device", "time-limit")
DEVICES = ("auto", "cpu", "cuda")
WARMUP_CLASSICAL, WARMUP_NEURAL, WARMUP_BLOCK = 1000, 100, 10  # sweeps, independence steps, block moves


@dataclass(frozen=True)
class Options:
    """Options of the command line, as given; `resolved` fills in what depends on the mode."""

    out: Path | None = None
    draws: int = 10_000
    chains: int = 4
    warmup: int | None = None
    thin: int = 1
    rng_seed: int = 0
    checkpoint: Path | None = None
    device: str = "auto"
    time_limit: float | None = None
    restart: bool = False
    check: bool = False
    quiet: bool = False
    json: bool = False

    def check_values(self) -> None:
        """UserError naming the option whose value cannot be."""
        for option, value in (("--draws", self.draws), ("--chains", self.chains), ("--thin", self.thin)):
            if value < 1:
                raise UserError(f"{option} {value}: an integer of at least 1 is needed")
        if self.warmup is not None and self.warmup < 0:
            raise UserError(f"--warmup {self.warmup}: an integer of at least 0 is needed")
        if not 0 <= self.rng_seed < 2**63:
            raise UserError(f"--rng-seed {self.rng_seed}: an integer from 0 to 2^63 - 1 is needed")
        if self.time_limit is not None and not self.time_limit > 0:
            raise UserError(f"--time-limit {self.time_limit:g}: a number of seconds above 0 is needed")
        if self.device not in DEVICES:
            raise UserError(f"--device {self.device}: {' or '.join(DEVICES)} is needed")

    def idle(self, mode: str) -> list[str]:
        """Options that were given and have no effect in this mode."""
        warmup_idle = self.warmup is not None and mode in ("train", "nis", "prior")
        checkpoint_idle = self.checkpoint is not None and mode in (*CLASSICAL, "prior")
        found = {
            "--thin": self.thin != 1 and mode in NEURAL,
            "--warmup": warmup_idle,
            "--checkpoint": checkpoint_idle,
            "--check": self.check and mode in CLASSICAL,
        }
        return [name for name, idle in found.items() if idle]

    def resolved(self, mode: str, move: str | None = None) -> Options:
        """The same with all that has no effect in this mode at one fixed value, so that it makes no other run."""
        default = WARMUP_BLOCK if move == "block" else WARMUP_NEURAL if mode in NEURAL else WARMUP_CLASSICAL
        warmup = self.warmup if self.warmup is not None else default
        if mode == "train":
            return replace(self, draws=0, chains=1, thin=1, warmup=0)
        if mode in ("nis", "prior"):
            warmup = 0
        thin = 1 if mode in NEURAL else self.thin
        checkpoint = self.checkpoint if mode in ("nmcmc", "nis") else None
        return replace(self, warmup=warmup, thin=thin, checkpoint=checkpoint)
