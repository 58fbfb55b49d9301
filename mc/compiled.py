"""Where Numba keeps compiled kernels: a folder of the user's cache, one for each version of the source.

Numba looks for changes in the file of a function, not in those of the functions it calls, and keeps its cache beside
the source. After an update old machine code would be run without a word, or its index could not be read. So the name
of the folder is a digest of all source files that compiled code can depend on. `NUMBA_CACHE_DIR` in the environment
overrules it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

from numba import config
from numba.core.caching import IndexDataCacheFile

UNUSED_DAYS = 30  # after which folders of other versions are removed


PACKAGES = ("mc", "nmcmc")  # that have compiled functions


COMPILES = re.compile(r"\b(?:n?jit|overload|intrinsic|vectorize)\b")
IMPORTS = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import\s+(\([^)]*\)|[^\n]*)|import\s+([\w.]+))", re.MULTILINE)


def sources(root: Path) -> list[Path]:
    """The files below `root` that compile functions (by Numba), and all of these packages that they import."""
    texts = {path: path.read_text("utf-8") for package in PACKAGES for path in (root / package).rglob("*.py")}
    todo, found = [path for path, text in texts.items() if COMPILES.search(text)], set()
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for module, names, plain in IMPORTS.findall(texts[path]):
            module = module or plain
            modules = [module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))]
            places = [root.joinpath(*one.split(".")) for one in modules]
            todo += [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")
                     if file in texts]  # fmt: skip
    return sorted(found)


def digest() -> str:
    """16 hexadecimal digits that change with any source file that compiled code can depend on."""
    root, found = Path(__file__).parent.parent, hashlib.sha256()
    for path in sources(root):
        found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def use_own_cache(base: Path | None = None) -> Path | None:
    """Have Numba use the folder of this version, made under `base`, and clear away old ones; None where it cannot be.

    base: by default nmcmc in $XDG_CACHE_HOME or ~/.cache.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return None
    try:
        base = base or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nmcmc"
        folder = base / digest()
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        if not os.access(folder, os.W_OK):
            return None
        for other in base.iterdir():
            if other != folder and time.time() - other.stat().st_mtime > 86400 * UNUSED_DAYS:
                shutil.rmtree(other, ignore_errors=True)
    except (OSError, RuntimeError):  # no home, a full or a read-only disk: beside the source, as Numba does
        return None
    config.CACHE_DIR = str(folder)
    return folder


def forgive_foreign_types() -> None:
    """Have Numba compile anew where its index of a function names types of a module that is not at hand.

    A script with a batch type of its own leaves it in the index of our kernels, and every program that cannot import
    the script would fail on reading that index, whatever it wants to run.
    """
    load = IndexDataCacheFile._load_index

    def load_or_forget(self):
        try:
            return load(self)
        except (ImportError, AttributeError):
            return {}

    if not hasattr(load, "forgiving"):
        load_or_forget.forgiving = True
        IndexDataCacheFile._load_index = load_or_forget
