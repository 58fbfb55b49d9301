"""The options of a run: their values, and the refusal of those that make no sense."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cli.errors import UserError
from cli.settings import CLASSICAL, CLUSTER, COOLED, KINETIC, LEARNING, MEAN_FIELD, NEURAL, SCHEDULED

# Options that somebody may write as draws=100.
MOST_COUNT, MOST_CHAINS = 10**12, 10**6
NAMES = ("mode", "out", "draws", "chains", "warmup", "thin", "rng-seed", "checkpoint", "device", "time-limit",
         "scheduler")  # fmt: skip
DEVICES = ("auto", "cpu", "cuda")
WARMUP_NEURAL, WARMUP_BLOCK = 100, 10  # independence steps, block moves
# Sweeps from one draw to the next, so many that measuring costs less than a tenth of the time: more of them for
# kernels that move many spins at once. And sweeps before the first draw.
THIN, THIN_OF = 10, {"packed": 150, "bit-planes": 50, "lanes": 20}
WARMUP_CLASSICAL, WARMUP_DRAWS = 1000, 100  # of clusters; else this many draws


def default_thin(kernel: str) -> int:
    """Sweeps between draws of a Markov chain moved by a kernel of `mc.engine`."""
    return THIN_OF.get(kernel, THIN)


@dataclass(frozen=True)
class Options:
    """Options of the command line, as given; `resolved` fills in what depends on the mode."""

    out: Path | None = None
    draws: int = 10_000
    chains: int = 4
    warmup: int | None = None
    thin: int | None = None
    rng_seed: int = 0
    checkpoint: Path | None = None
    device: str = "auto"
    time_limit: float | None = None
    restart: bool = False
    check: bool = False
    quiet: bool = False
    json: bool = False
    scheduler: str | None = None

    def check_values(self) -> None:
        """UserError naming the option whose value cannot be."""
        counts = (("--draws", self.draws, 1), ("--chains", self.chains, 1), ("--thin", self.thin, 1),
                  ("--warmup", self.warmup, 0))  # fmt: skip
        for option, value, least in counts:
            if value is not None and value < least:
                raise UserError(f"{option} {value}: an integer of at least {least} is needed")
            most = MOST_CHAINS if option == "--chains" else MOST_COUNT
            if value is not None and value > most:
                raise UserError(f"{option} {value}: an integer of at most {most} is needed")
        if not 0 <= self.rng_seed < 2**63:
            raise UserError(f"--rng-seed {self.rng_seed}: an integer from 0 to 2^63 - 1 is needed")
        if self.time_limit is not None and not self.time_limit > 0:
            raise UserError(f"--time-limit {self.time_limit:g}: a number of seconds above 0 is needed")
        if self.device not in DEVICES:
            raise UserError(f"--device {self.device}: {' or '.join(DEVICES)} is needed")

    def idle(self, mode: str, offers: bool = False) -> list[str]:
        """Options that were given and have no effect in this mode. offers: whether tempering has neural moves."""
        warmup_idle = self.warmup is not None and mode in (*LEARNING, COOLED, "nis", "prior", *SCHEDULED, MEAN_FIELD)
        checkpoint_idle = self.checkpoint is not None and mode in (*CLASSICAL, "prior", COOLED) and not offers
        found = {
            "--thin": self.thin not in (None, 1) and mode in (*NEURAL, MEAN_FIELD),
            "--draws": mode == MEAN_FIELD and self.draws != Options.draws,
            "--chains": mode == MEAN_FIELD and self.chains != Options.chains,
            "--warmup": warmup_idle,
            "--checkpoint": checkpoint_idle,
            "--check": self.check and mode in CLASSICAL,
        }
        return [name for name, idle in found.items() if idle]

    def resolved(self, mode: str, move: str | None = None, offers: bool = False) -> Options:
        """The same with all that has no effect in this mode at one fixed value, so that it makes no other run.

        What depends on the kernel of a classical mode stays open until `settled`.
        """
        if mode in (*LEARNING, MEAN_FIELD):
            return replace(self, draws=0, chains=1, thin=1, warmup=0)
        if mode in CLASSICAL:
            checkpoint = self.checkpoint if offers else None
            return replace(self, checkpoint=checkpoint, warmup=0 if mode in SCHEDULED else self.warmup)
        default = WARMUP_BLOCK if move == "block" else WARMUP_NEURAL
        warmup = 0 if mode in ("nis", "prior", COOLED) else default if self.warmup is None else self.warmup
        return replace(self, warmup=warmup, thin=1, checkpoint=self.checkpoint if mode in ("nmcmc", "nis") else None)

    def settled(self, mode: str, kernel: str) -> Options:
        """The same with the sweeps of a classical mode that suit its kernel, where none were asked for."""
        scheduled, clusters = mode in SCHEDULED, mode in CLUSTER
        thin = self.thin or (1 if clusters or mode == KINETIC else THIN if scheduled else default_thin(kernel))
        warmup = WARMUP_CLASSICAL if clusters else max(WARMUP_CLASSICAL, WARMUP_DRAWS * thin)
        return replace(self, thin=thin, warmup=warmup if self.warmup is None else self.warmup)
