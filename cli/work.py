"""What the parts of a run hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cli.arguments import Target
from cli.options import Options
from cli.output import Screen
from mc.chain import Chain


@dataclass
class Run:
    """One run while it goes on: what was asked, where it writes, and what its parts cost.

    given: the settings of the command line; settings: these and the defaults of the others, where they act.
    there: the chain file that is there already. lowest_state: spins of the lowest energy of a classical run. plan,
    environments, samplers: of the neural modes. extra: diagnostics that are not in the chain.
    """

    command: str
    target: Target
    mode: str
    given: dict[str, Any]
    settings: dict[str, Any]
    options: Options
    screen: Screen
    out: Path
    spins_every: int
    began: float
    seconds: dict[str, float] = field(default_factory=lambda: {"build": 0.0, "train": 0.0, "sample": 0.0})
    extra: dict[str, Any] = field(default_factory=dict)
    there: Chain | None = None
    plan: Any = None
    environments: Any = None
    samplers: list[Any] = field(default_factory=list)
    lowest_state: np.ndarray | None = None
    out_said: bool = False

    def say_out(self) -> None:
        """Where it writes, once, before the first work."""
        if not self.out_said:
            self.screen.say(f"out: {self.out}")
        self.out_said = True
