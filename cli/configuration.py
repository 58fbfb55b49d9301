"""All that decides the draws of a run, as JSON types; and what differs between two of them, in the user's words."""

from __future__ import annotations

from typing import Any

# Entries whose name in the configuration is not the key or option that sets them. Of a recipe's own choices, which no
# key sets, the recipe is named.
WRITTEN_AS = {
    "mode": "--mode", "chains": "--chains", "warmup": "--warmup", "thin": "--thin", "rng_seed": "--rng-seed",
    "settings.population": "--draws",
    "fingerprint": "the Hamiltonian", "net.net": "net", "net.patch": "patch", "net.prior": "prior",
    "net.chi": "prior.chi", "net.form": "prior.form", "net.sweeps": "prior.sweeps",
    "net.zero_head": "train.recipe", "train.learning_rate": "train.lr", "train.schedule": "train.recipe",
    "train.warmup": "train.recipe", "train.betas": "train.recipe", "train.clip": "train.recipe",
}  # fmt: skip

# Entries that configurations of older files lack, and what a run without them did. The default of a new setting must
# be what was done before it, or older files go on as something else.
ABSENT = {
    "settings.move": "global", "settings.replicas": 1, "settings.houdayer": "auto",
    "net.chi": 16, "net.form": "two-leg", "net.sweeps": None, "net.window": None, "net.mask": "full",
    "net.position": "additive", "net.backend": "auto", "net.precision": "float32",
    "train.weight": 3.0, "train.optimizer": "adamw", "train.states": None,
}  # fmt: skip


def first_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """ "key is A, not B" for the first entry that differs, "" when there is none.

    Models and parameters that make the same Hamiltonian are no difference (L=8, or Lx=8 Ly=8).
    """
    skipped = {"asked"}  # what was asked of a pilot; what it found counts
    if old.get("fingerprint") is not None and old.get("fingerprint") == new.get("fingerprint"):
        skipped |= {"model", "parameters"}
    before, after = ({k: v for k, v in config.items() if k not in skipped} for config in (old, new))
    return _first_difference(before, after, "")


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str) -> str:
    for key in sorted(
        old.keys() | new.keys(),
        key=lambda k: (k == "fingerprint", k == "kernel", k in ("net", "train"), k != "prior", k),
    ):
        path = prefix + key
        a, b = old.get(key, ABSENT.get(path)), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found = _first_difference(a, b, f"{prefix}{key}.")
            if found:
                return found
        elif a != b:
            if path == "kernel" and key not in old:
                return "it was drawn by kernels of an older version"
            name = WRITTEN_AS.get(path, path.removeprefix("parameters.").removeprefix("settings."))
            if name == "train.recipe":
                return f"{name} is another one ({key} is {_said(a)}, not {_said(b)})"
            return f"{name} is {_said(a)}, not {_said(b)}"
    return ""


def _said(value: Any) -> str:
    """A value as one would write it on the command line."""
    if value is None:
        return "not given"
    if isinstance(value, list):
        shown = [_said(entry) for entry in value[:4]]
        return ",".join(shown) + (",..." if len(value) > 4 else "")
    if isinstance(value, dict):
        return "given"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
