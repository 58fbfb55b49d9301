"""What `nmcmc compare` holds of each file, and of each pair of files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mc.analysis import Results
from mc.chain import Chain
from mc.comparison import LEVEL, Difference, Side, combined_p_value, off_exact
from mc.efficiency import USABLE


@dataclass
class Run:
    """A file, with what was found in it at the betas that all files have."""

    letter: str
    chain: Chain
    results: Results
    places: list[int]
    sides: list[Side]

    def exact(self, name: str, k: int) -> float:
        """The exact energy or ln Z at the k-th common beta, NaN where it is not at hand."""
        values = self.results.diagnostics.get(f"{name}_exact", [])
        return values[self.places[k]] if len(values) == len(self.results.betas) else math.nan

    def off(self, name: str, k: int) -> float:
        """How many errors it is off the exact value."""
        one = self.sides[k].estimates.get(name)
        return math.nan if one is None else off_exact(one, self.exact(name, k))


@dataclass
class Pair:
    """Two files compared at every common beta; p_value: of all tests of the pair together."""

    a: Run
    b: Run
    found: list[list[Difference]]
    p_value: float = field(init=False)

    def __post_init__(self):
        self.p_value = combined_p_value(one.p_value for row in self.found for one in row)

    @property
    def differ(self) -> bool:
        return self.p_value < LEVEL

    @property
    def agree(self) -> bool | None:
        """None where they do not differ and no test of them has numbers to be believed."""
        believed = any(one.status in USABLE and not math.isnan(one.p_value) for row in self.found for one in row)
        return False if self.differ else True if believed else None

    @property
    def worst(self) -> tuple[int, Difference | None]:
        """Place of the beta and the test with the smallest p-value; of a mean, where p-values vanish, the largest."""
        known = [(one.p_value, -abs(one.sigma) if math.isfinite(one.sigma) else 0.0, k, j)
                 for k, row in enumerate(self.found) for j, one in enumerate(row)
                 if not math.isnan(one.p_value)]  # fmt: skip
        if not known:
            return 0, None
        *_, k, j = min(known)
        return k, self.found[k][j]
