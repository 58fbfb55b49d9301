"""What a run says of itself while it draws: energy and acceptance of the last block, ESS of all so far."""

from __future__ import annotations

import numpy as np

from mc.simulate import Block

ACCEPTANCES = {"accepted": "acceptance", "neural_accepted": "neural moves", "swap_accepted": "swaps"}


class Live:
    """Notes for the progress line, at the coldest beta; a pass over numbers that are in memory, and no more.

    n_spins: N. betas: (B,). unit: of the energy. clusters: whether `accepted` is the share of sites that flip.
    """

    def __init__(self, n_spins: int, betas: np.ndarray, unit: str, clusters: bool = False):
        self._n_spins, self._unit = n_spins, unit
        self._coldest = int(np.argmax(betas))
        self._names = ACCEPTANCES | ({"accepted": "cluster size / N"} if clusters else {})
        # Of the weights so far, relative to the largest logarithm: their sum, that of their squares, their number.
        self._largest, self._sums = -np.inf, np.zeros(3)

    def note(self, block: Block) -> str:
        """E/N, acceptance and ESS as one text."""
        energy = np.take(block.posterior["energy"], self._coldest, axis=2)
        notes = [f"E/N {energy.mean() / self._n_spins:.4f} {self._unit}"]
        for name, words in self._names.items():
            if name in block.sample_stats:
                values = block.sample_stats[name]
                if name != "swap_accepted":
                    values = values[:, :, self._coldest]
                tried = np.isfinite(values)
                if tried.any():
                    notes.append(f"{words} {values[tried].mean():.3g}")
        name = "log_weight_proposed" if "log_weight_proposed" in block.sample_stats else "log_weight"
        if name in block.sample_stats:
            notes.append(f"ESS {self._ess(block.sample_stats[name][:, :, self._coldest]):.3g}")
        return ", ".join(notes)

    def _ess(self, log_weight: np.ndarray) -> float:
        """ESS of all weights so far, as `mc.weighted.effective_sample_size`; nan before there is one."""
        log_weight = log_weight[~np.isnan(log_weight)]  # NaN: a draw without a proposal; -inf counts, with weight 0
        self._sums[2] += log_weight.size
        if log_weight.size and log_weight.max() > -np.inf:
            largest = max(self._largest, float(log_weight.max()))
            shift = np.exp(self._largest - largest)  # 0 at first
            self._sums[:2] *= shift, shift**2
            weight = np.exp(log_weight - largest)
            self._sums[:2] += weight.sum(), weight @ weight
            self._largest = largest
        total, squares, count = self._sums
        return total**2 / (count * squares) if squares else np.nan
