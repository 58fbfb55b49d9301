"""Bad input: one line on standard error that names the key, exit code 2, and the folder as it was."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import cli.main
from mc.chain import resume_chain

RUN = ("run", "--mode", "metropolis")
NMCMC = ("run", "--mode", "nmcmc")


def call(words, monkeypatch, capsys):
    """(exit code, standard output, standard error) of `nmcmc words...`."""
    monkeypatch.setattr(sys, "argv", ["nmcmc", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main.main()
    return ended.value.code, *capsys.readouterr()


def contents(folder: Path) -> dict[str, tuple]:
    """Everything below a folder: names, sizes, times of the last change."""
    found = {}
    for path in folder.rglob("*"):
        about = path.stat()
        found[str(path.relative_to(folder))] = (about.st_size, about.st_mtime_ns, about.st_ino)
    return found


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with chains, checkpoints and couplings, good and bad."""
    folder = tmp_path_factory.mktemp("workshop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)

        def done(*words):
            patch.setattr(sys, "argv", ["nmcmc", *words, "--quiet"])
            with pytest.raises(SystemExit) as ended:
                cli.main.main()
            assert ended.value.code == 0

        done("train", "ising", "L=4", "train.steps=1", "train.batch=8", "--checkpoint", "ising4.pt", "--out", "t.h5")
        done(*RUN, "ising", "L=4", "--draws", "5", "--warmup", "5", "--out", "chain.h5")
        done("run", "--mode", "prior", "ising", "L=4", "--draws", "5", "--out", "prior.h5")
    (folder / "junk.h5").write_text("no chain")
    (folder / "junk.pt").write_text("no checkpoint")
    (folder / "truncated.h5").write_bytes((folder / "chain.h5").read_bytes()[:9000])
    (folder / "truncated.pt").write_bytes((folder / "ising4.pt").read_bytes()[:5000])
    pairs = {"i": np.array([0, 1, 2]), "j": np.array([1, 2, 3]), "J": np.array([1.0, -1.0, 0.5])}
    np.savez(folder / "good.npz", **pairs)
    np.savez(folder / "nan.npz", **pairs | {"J": np.array([1.0, np.nan, 0.5])})
    np.savez(folder / "infinite.npz", **pairs | {"J": np.array([1.0, np.inf, 0.5])})
    np.savez(folder / "loop.npz", **pairs | {"j": np.array([1, 1, 3])})
    np.savez(folder / "far.npz", **pairs | {"h": np.zeros(3)})
    np.savez(folder / "negative.npz", **pairs | {"i": np.array([-1, 1, 2])})
    np.savez(folder / "other_arrays.npz", x=np.zeros(3))
    (folder / "truncated.npz").write_bytes((folder / "good.npz").read_bytes()[:300])
    return folder


# What is written, and what the line must say.
REFUSED = [
    # model, mode, keys
    ((*RUN, "isng", "L=8"), ("unknown model isng, did you mean ising?",)),
    ((*RUN, "L=8"), ("no model", "ising")),
    ((*RUN,), ("MODEL",)),
    (("run", "--mode", "metropols", "ising", "L=8"), ("unknown mode metropols, did you mean metropolis?",)),
    (("run", "ising", "L=8"), ("no mode", "--mode", "nmcmc")),
    (("metropolis", "ising", "L=8"), ("No such command 'metropolis'", "nmcmc run --mode metropolis")),
    (("anlyze", "chain.h5"), ("No such command 'anlyze'",)),
    ((*RUN, "ising", "L=8", "bta=0.4"), ("unknown key bta, did you mean beta?",)),
    ((*RUN, "ising", "l=8"), ("unknown key l, did you mean L?",)),
    ((*RUN, "ising", "L=8", "draws=100"), ("unknown key draws, did you mean the option --draws?",)),
    ((*NMCMC, "ising", "L=8", "train.stps=5"), ("unknown key train.stps, did you mean train.steps?",)),
    (("exact", "ising", "L=8", "train.steps=5"), ("unknown key train.steps",)),
    ((*RUN, "sk", "N=8", "beta=1", "L=8"), ("unknown key L", "sk takes N, J, h, seed, beta or T")),
    ((*RUN, "ising", "L=8", "L=9"), ("L is given twice (L=8 and L=9)",)),
    ((*RUN, "ising", "L=8", "L=8"), ("L is given twice",)),
    ((*RUN, "ising", "L=8", "beta=1", "T=1"), ("beta= and T=", "twice")),
    ((*RUN, "ising", "8"), ("8: key=value is needed",)),
    ((*RUN, "ising", "L", "8"), ("L: key=value is needed",)),
    ((*RUN, "ising", "L=8", "=3"), ("=3: key=value is needed",)),
    # sizes
    ((*RUN, "ising", "L=0"), ("L=0: an integer of at least 1 is needed",)),
    ((*RUN, "ising", "L=-4"), ("L=-4: an integer",)),
    ((*RUN, "ising", "L=1.5"), ("L=1.5: an integer of at least 1 is needed",)),
    ((*RUN, "ising", "L="), ("L=: an integer",)),
    ((*RUN, "ising", "L=eight"), ("L=eight: an integer",)),
    ((*RUN, "ising", "L=99999999999999999999"), ("L=99999999999999999999: an integer of at most",)),
    ((*RUN, "ising", "L=2"), ("periodic axis of 2 sites", "boundary=open")),
    ((*RUN, "ea3d", "Lx=4", "Ly=4", "Lz=2", "beta=1"), ("periodic axis of 2 sites",)),
    ((*RUN, "ising"), ("no size", "L=")),
    ((*RUN, "ising", "Lx=8"), ("no size", "Ly=")),
    ((*RUN, "sk", "beta=1"), ("no size", "N=")),
    ((*RUN, "ising", "L=8", "Lx=8"), ("L=8 and Lx say the size twice",)),
    ((*RUN, "ising", "L=8", "boundary=opn"), ("boundary=opn: periodic or open is needed",)),
    ((*RUN, "ising", "L=8", "J=bimodel"), ("J=bimodel", "did you mean bimodal?")),
    ((*RUN, "ising", "L=8", "J=nan"), ("J=nan: a finite number is needed",)),
    ((*RUN, "ising", "L=8", "h=inf"), ("h=inf: a finite number is needed",)),
    ((*RUN, "ising", "L=8", "h=gaus:1"), ("h=gaus:1: a number or gauss:SIGMA is needed",)),
    ((*RUN, "ea2d", "L=4", "beta=1", "seed=-1"), ("seed=-1: an integer of at least 0",)),
    ((*RUN, "rrg", "N=7", "degree=3", "beta=1"), ("degree=3",)),
    # temperatures
    ((*RUN, "ising", "L=8", "beta=-1"), ("beta=-1: finite numbers of at least 0 are needed",)),
    ((*RUN, "ising", "L=8", "beta=nan"), ("beta=nan: a finite number",)),
    ((*RUN, "ising", "L=8", "beta=inf"), ("beta=inf: a finite number",)),
    ((*RUN, "ising", "L=8", "beta="), ("beta=: a finite number",)),
    ((*RUN, "ising", "L=8", "beta=0.4,"), ("beta=0.4,: a finite number",)),
    ((*RUN, "ising", "L=8", "beta=0.1:0.5"), ("beta=0.1:0.5", "low:high:count")),
    ((*RUN, "ising", "L=8", "beta=0.1:0.5:1"), ("beta=0.1:0.5:1", "count at least 2")),
    ((*RUN, "ising", "L=8", "beta=0.4,0.4"), ("beta=0.4,0.4: a temperature is given twice",)),
    ((*RUN, "ising", "L=8", "T=0"), ("T=0: numbers above 0 are needed",)),
    ((*RUN, "ising", "L=8", "T=1e-320"), ("T=1e-320: finite numbers",)),
    ((*RUN, "ea2d", "L=4"), ("no temperature; give beta= or T=",)),
    # options
    ((*RUN, "ising", "L=8", "--draws", "0"), ("--draws 0: an integer of at least 1 is needed",)),
    ((*RUN, "ising", "L=8", "--draws", "-5"), ("--draws -5",)),
    ((*RUN, "ising", "L=8", "--draws", "many"), ("--draws",)),
    ((*RUN, "ising", "L=8", "--chains", "0"), ("--chains 0",)),
    ((*RUN, "ising", "L=8", "--thin", "0"), ("--thin 0",)),
    ((*RUN, "ising", "L=8", "--warmup", "-1"), ("--warmup -1: an integer of at least 0 is needed",)),
    ((*RUN, "ising", "L=8", "--rng-seed", "-1"), ("--rng-seed -1",)),
    ((*RUN, "ising", "L=8", "--rng-seed", "99999999999999999999"), ("--rng-seed 99999999999999999999",)),
    ((*RUN, "ising", "L=8", "--time-limit", "0"), ("--time-limit 0: a number of seconds above 0 is needed",)),
    ((*RUN, "ising", "L=8", "--time-limit", "nan"), ("--time-limit nan",)),
    ((*RUN, "ising", "L=8", "--device", "gpu"), ("--device gpu: auto or cpu or cuda is needed",)),
    ((*RUN, "ising", "L=8", "--device", "cuda"), ("--device cuda: mode metropolis runs on the CPU",)),
    ((*NMCMC, "ising", "L=8", "--device", "cuda"), ("--device cuda: no CUDA device is available",)),
    (("train", "ising", "L=8", "--device", "cuda"), ("--device cuda: no CUDA device is available",)),
    ((*RUN, "ising", "L=8", "--drws", "5"), ("--drws", "--draws")),
    ((*RUN, "ising", "L=8", "--draws"), ("--draws", "requires an argument")),
    (("run", "--mode"), ("--mode", "requires an argument")),
    # what does not go together
    (("run", "--mode", "wolff", "ea2d", "L=4", "beta=1"), ("mode wolff: a ferromagnet is needed",)),
    (("run", "--mode", "wolff", "ising", "L=4", "h=0.1"), ("mode wolff: a ferromagnet is needed", "no field")),
    (("run", "--mode", "wolff", "ising", "L=4", "J=-1"), ("mode wolff: a ferromagnet is needed",)),
    (("run", "--mode", "pt", "ea2d", "L=4", "beta=1"), ("mode pt: at least two temperatures",)),
    (("run", "--mode", "pt", "ea2d", "L=4", "beta=0.5,0.1,0.9"), ("beta=", "a ladder rises or falls")),
    (
        ("run", "--mode", "pt", "ea2d", "L=4", "beta=0.1,0.9", "ladder=tune"),
        ("ladder=tune: fixed or tuned is needed",),
    ),
    (("run", "--mode", "pt", "ea2d", "L=4", "beta=0.1,0.9", "kernel=packed"), ("kernel=packed: ",)),
    (("run", "--mode", "pt", "ea2d", "L=4", "beta=0.1,0.9", "replicas=0"), ("replicas=0", "at least 1")),
    (("run", "--mode", "population", "ea2d", "L=4", "beta=0.1,0.9"), ("rises from 0",)),
    (("run", "--mode", "population", "ea2d", "L=4", "beta=0,0.9", "--draws", "1"), ("--draws", "at least 2")),
    (("run", "--mode", "pt", "ea2d", "L=4", "beta=0,0.9", "ladder=tuned", "--warmup", "9"), ("--warmup 100",)),
    (("run", "--mode", "heatbath", "ea2d", "L=4", "beta=0.9", "kernel=packed"), ("by metropolis only",)),
    ((*RUN, "ising", "L=4", "--thin", "9" * 20), ("--thin 9", "at most 1000000000000")),
    ((*RUN, "ising", "L=4", "spins.every=" + "9" * 20), ("spins.every=9", "at most")),
    (("run", "--mode", "swendsen-wang", "ea2d", "L=4", "beta=0.1"), ("a ferromagnet is needed",)),
    ((*RUN, "ising", "L=4", "init=down"), ("init=down: random, up or a chain file is needed",)),
    ((*RUN, "ising", "L=6", "init=chain.h5"), ("init=chain.h5 has no stored spins of 36 sites",)),
    ((*RUN, "ising", "L=4", "--chains", "2", "init=chain.h5"), ("init=chain.h5 has 4 chains at 1 betas",)),
    ((*NMCMC, "ising", "L=8", "patch=3x4"), ("patch=3x4 does not divide the 8x8 lattice",)),
    ((*NMCMC, "ising", "L=8", "patch=4x4"), ("16 spins a token", "patch=")),
    ((*NMCMC, "ising", "L=8", "patch=2.5"), ("patch=2.5: sizes joined by x are needed",)),
    ((*NMCMC, "sk", "N=16", "beta=1", "patch=2x2"), ("patch=2x2: a graph takes one number",)),
    ((*NMCMC, "sk", "N=16", "beta=1", "patch=5"), ("patch=5 does not divide the 16 spins",)),
    ((*NMCMC, "ea3d", "L=3", "beta=1", "prior=lookahead"), ("prior=lookahead",)),
    ((*NMCMC, "ising", "L=8", "prior=lokahead"), ("prior=lokahead", "did you mean lookahead?")),
    ((*NMCMC, "ising", "L=8", "net=transformr"), ("net=transformr", "did you mean transformer?")),
    ((*NMCMC, "ising", "L=8", "net.heads=5"), ("net.heads=5 does not divide net.width=64",)),
    ((*NMCMC, "ising", "L=8", "train.lr=0"), ("train.lr=0: a number above 0 is needed",)),
    ((*NMCMC, "ising", "L=8", "train.batch=1"), ("train.batch=1",)),
    ((*NMCMC, "ising", "L=8", "local=-1"), ("local=-1",)),
    (
        (*NMCMC, "ising", "L=4", "train.objective=rtgs", "train.data=chain.h5"),
        ("train.data=chain.h5 goes with train.objective=likelihood",),
    ),
    (
        (*NMCMC, "ising", "L=4", "train.objective=likelihood", "train.data=missing.h5"),
        ("train.data: missing.h5: no such file",),
    ),
    (
        (*NMCMC, "ising", "L=4", "beta=1", "train.objective=likelihood", "train.data=chain.h5"),
        ("train.data=chain.h5 has no equilibrium states at beta=1",),
    ),
    (
        (*NMCMC, "ising", "L=5", "train.objective=likelihood", "train.data=chain.h5"),
        ("train.data=chain.h5 holds states of another Hamiltonian",),
    ),
    (
        (*NMCMC, "ising", "L=4", "train.objective=soft-likelihood", "train.data=prior.h5"),
        ("train.data=prior.h5 has no equilibrium states",),
    ),
    (("train", "ising", "L=4", "net=none"), ("net=none: a prior alone has nothing to train",)),
    # couplings from a file
    ((*RUN, "file", "beta=1"), ("no path", "path=FILE.npz")),
    ((*RUN, "file", "path=", "beta=1"), ("path=: a value is needed",)),
    ((*RUN, "file", "path=missing.npz", "beta=1"), ("path=missing.npz: no such file",)),
    ((*RUN, "file", "path=truncated.npz", "beta=1"), ("path=truncated.npz is not a readable .npz file",)),
    ((*RUN, "file", "path=junk.h5", "beta=1"), ("path=junk.h5 is not a readable .npz file",)),
    ((*RUN, "file", "path=nan.npz", "beta=1"), ("nan.npz", "finite")),
    ((*RUN, "file", "path=infinite.npz", "beta=1"), ("infinite.npz", "finite")),
    ((*RUN, "file", "path=far.npz", "beta=1"), ("far.npz", "a site index is outside 0..2")),
    ((*RUN, "file", "path=negative.npz", "beta=1"), ("negative.npz", "a site index is outside")),
    ((*RUN, "file", "path=loop.npz", "beta=1"), ("loop.npz", "a bond joins a site with itself")),
    ((*RUN, "file", "path=other_arrays.npz", "beta=1"), ("other_arrays.npz", "i, j, J")),
    ((*RUN, "file", "path=good.npz", "shape=3x3", "beta=1"), ("shape=3x3 has 9 sites",)),
    # priors, residuals and moves
    ((*NMCMC, "ising", "L=4", "prior.chi=0"), ("prior.chi=0", "at least 1")),
    ((*NMCMC, "ising", "L=4", "prior=boundary-mps", "patch=2x2"), ("patch=2x2 is taller", "patch=1x4")),
    ((*NMCMC, "sk", "N=8", "beta=1", "prior=boundary-mps"), ("two-dimensional lattice", "prior=belief")),
    ((*NMCMC, "ea3d", "L=4", "beta=1", "prior=boundary-mps"), ("two-dimensional lattice", "prior=belief")),
    ((*NMCMC, "pspin", "N=8", "beta=1", "prior=belief"), ("belief",)),
    ((*NMCMC, "ising", "L=4", "prior.form=three-leg"), ("prior.form=three-leg", "two-leg")),
    ((*NMCMC, "ising", "L=4", "target_ess=1.5"), ("target_ess=1.5", "at most 1")),
    ((*NMCMC, "ising", "L=4", "net=linear", "net.head=softmax"), ("net.head=softmax", "net.head=tree")),
    ((*NMCMC, "ising", "L=4", "net=linear", "train.data=missing.h5"), ("missing.h5: no such file",)),
    ((*NMCMC, "ising", "L=4", "move=block", "boundary=open"), ("move=block", "y axis is open")),
    ((*NMCMC, "sk", "N=8", "beta=1", "move=block"), ("move=block", "two-dimensional lattice")),
    ((*NMCMC, "ising", "L=4", "move=block", "prior=local"), ("prior=local", "move=block")),
    ((*NMCMC, "ising", "L=4", "move=block", "train.steps=5"), ("train.steps=", "move=block")),
    ((*NMCMC, "ising", "L=4", "move=block", "--checkpoint", "ising4.pt"), ("move=block has no checkpoint",)),
    # checkpoints
    ((*NMCMC, "ising", "L=4", "--checkpoint", "missing.pt"), ("checkpoint missing.pt: no such file",)),
    ((*NMCMC, "ising", "L=4", "--checkpoint", "junk.pt"), ("checkpoint junk.pt is no nmcmc checkpoint",)),
    ((*NMCMC, "ising", "L=4", "--checkpoint", "truncated.pt"), ("truncated.pt is no nmcmc checkpoint",)),
    ((*NMCMC, "ising", "L=4", "--checkpoint", "chain.h5"), ("checkpoint chain.h5 is no nmcmc checkpoint",)),
    ((*NMCMC, "ising", "L=6", "--checkpoint", "ising4.pt"), ("ising4.pt is for another Hamiltonian",)),
    ((*NMCMC, "ising", "L=4", "J=-1", "beta=0.4", "--checkpoint", "ising4.pt"), ("for another Hamiltonian",)),
    ((*NMCMC, "ising", "L=4", "beta=0.3", "--checkpoint", "ising4.pt"), ("ising4.pt is for beta=", "beta=0.3")),
    ((*NMCMC, "ising", "L=4", "beta=0.3,0.4", "--checkpoint", "ising4.pt"), ("--checkpoint", "one beta")),
    ((*NMCMC, "ising", "L=4", "net.width=32", "--checkpoint", "ising4.pt"), ("net.width=", "ising4.pt")),
    (("train", "ising", "L=6", "--checkpoint", "ising4.pt"), ("ising4.pt is for another Hamiltonian",)),
    (("train", "ising", "L=4", "--checkpoint", "junk.pt"), ("junk.pt is no nmcmc checkpoint",)),
    (("train", "ising", "L=4", "--checkpoint", "junk.pt", "--restart"), ("junk.pt is no nmcmc checkpoint",)),
    (("train", "ising", "L=4", "--checkpoint", "nowhere/w.pt"), ("nowhere/w.pt cannot be written", "--checkpoint")),
    (("train", "ising", "L=4", "beta=0.3,0.4", "--checkpoint", "w.pt"), ("--checkpoint goes with one beta",)),
    (
        ("train", "ising", "L=4", "train.steps=2", "train.batch=8", "--checkpoint", "ising4.pt", "--out", "new.h5"),
        ("ising4.pt holds another training (train.steps is 1, not 2)",),
    ),
    # chain files
    ((*RUN, "ising", "L=4", "--out", "junk.h5"), ("junk.h5 is no nmcmc chain file",)),
    ((*RUN, "ising", "L=4", "--out", "junk.h5", "--restart"), ("junk.h5 is no nmcmc chain file", "remove it")),
    ((*RUN, "ising", "L=4", "--out", "truncated.h5"), ("truncated.h5 is no nmcmc chain file",)),
    ((*RUN, "ising", "L=4", "--out", "."), (". is a folder",)),
    ((*RUN, "ising", "L=4", "--out", "nowhere/x.h5"), ("nowhere/x.h5 cannot be written", "there is no folder")),
    ((*RUN, "ising", "L=4", "--out", "junk.h5/x.h5"), ("junk.h5/x.h5 cannot be written", "is not a folder")),
    ((*RUN, "ising", "L=4", "--out", "/proc/x.h5"), ("/proc/x.h5 cannot be written", "choose another --out")),
    ((*NMCMC, "ising", "L=4", "--out", "/proc/x.h5"), ("/proc/x.h5 cannot be written",)),
    ((*RUN, "ising", "L=4", "--out", "x" * 300 + ".h5"), ("cannot be written",)),
    (("analyze", "missing.h5"), ("missing.h5: no such file",)),
    (("analyze", "junk.h5"), ("junk.h5 is no nmcmc chain file",)),
    (("analyze", "chain.h5", "missing.h5"), ("missing.h5: no such file",)),
    (("analyze",), ("FILE",)),
    (("run",), ("MODEL",)),
    (("status", "missing.h5"), ("missing.h5: no such file",)),
    (("exact", "ising", "L=40", "h=0.1", "beta=1"), ("1600 spins",)),
    # the chain file that is there holds another run: which key is named
    ((*RUN, "ising", "L=6", "--out", "chain.h5"), ("chain.h5 holds another run", "L is 4, not 6", "--restart")),
    ((*RUN, "ising", "L=4", "--warmup", "6", "--out", "chain.h5"), ("--warmup is 5, not 6",)),
    ((*RUN, "ising", "L=4", "beta=0.4", "--warmup", "5", "--out", "chain.h5"), ("beta is 0.4406867935, not 0.4",)),
    ((*RUN, "ising", "L=4", "--warmup", "5", "--chains", "3", "--out", "chain.h5"), ("--chains is 4, not 3",)),
    ((*RUN, "ising", "L=4", "--warmup", "5", "--rng-seed", "3", "--out", "chain.h5"), ("--rng-seed is 0, not 3",)),
    ((*RUN, "ising", "L=4", "--warmup", "5", "--thin", "3", "--out", "chain.h5"), ("--thin is 50, not 3",)),
    ((*RUN, "ising", "L=4", "--warmup", "5", "init=up", "--out", "chain.h5"), ("init is random, not up",)),
    ((*RUN, "ising", "L=4", "--warmup", "5", "spins.every=2", "--out", "chain.h5"), ("spins.every is 1, not 2",)),
    (("run", "--mode", "wolff", "ising", "L=4", "--warmup", "5", "--out", "chain.h5"), ("--mode is metropolis",)),
    (("run", "--mode", "prior", "ising", "L=4", "prior=local", "--out", "prior.h5"), ("prior is boundary-mps, not",)),
    (("train", "ising", "L=4", "train.lr=0.1", "train.steps=1", "train.batch=8", "--out", "t.h5"), ("train.lr is",)),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[" ".join(words)[-60:] for words, _ in REFUSED])
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(words, said, workshop, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = contents(workshop)
    code, out, err = call(words, monkeypatch, capsys)
    assert code == 2, err
    assert err.startswith("nmcmc: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert len(err) < 1000
    for text in said:
        assert text in err
    # A pilot may have come before what is refused about a file that is there.
    assert all(line.startswith(("out: ", "pilot of ", "sampler: prior=")) for line in out.splitlines())
    assert contents(workshop) == before


def test_a_chain_file_that_is_being_written_is_refused(workshop, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    with resume_chain("chain.h5"):
        before = contents(workshop)
        for more in ((), ("--restart",)):
            words = (*RUN, "ising", "L=4", "--warmup", "5", "--out", "chain.h5", *more)
            code, out, err = call(words, monkeypatch, capsys)
            assert (code, out) == (2, "")
            assert f"chain.h5 is being written by process {os.getpid()} on " in err
            assert err.count("\n") == 1
        assert contents(workshop) == before


def test_refusals_in_processes_of_their_own(workshop):
    """The same as users see it: no traceback, no warning, nothing but the line."""
    before = contents(workshop)
    for words, said in (
        ((*RUN, "isng", "L=8"), "nmcmc: unknown model isng, did you mean ising?"),
        (("analyze", "missing.h5"), "nmcmc: missing.h5: no such file"),
        ((*NMCMC, "ising", "L=6", "--checkpoint", "ising4.pt"), "nmcmc: checkpoint ising4.pt is for another"),
    ):
        command = [sys.executable, "-m", "cli.main", *words]
        environment = os.environ | {"PYTHONPATH": str(Path(cli.main.__file__).parents[1])}
        ended = subprocess.run(command, cwd=workshop, env=environment, capture_output=True, text=True, timeout=120)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(said)
        assert ended.stderr.count("\n") == 1
    assert contents(workshop) == before


def test_no_command_shows_the_help(monkeypatch, capsys):
    code, out, err = call((), monkeypatch, capsys)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: nmcmc")


def test_draws_that_are_not_finite_are_named(nmcmc):
    """In one line by every command that judges, before anything is printed or written."""
    run = ("run", "--mode", "nis", "ising", "L=4", "net=none", "--draws", 30)
    nmcmc(*run, "--out", "good.h5")
    nmcmc(*run, "--rng-seed", 1, "--out", "nan.h5")
    nmcmc(*run, "--rng-seed", 2, "--out", "zero.h5")
    with h5py.File("nan.h5", "r+") as file:
        file["posterior/energy"][0, 5, 0] = np.nan
    with h5py.File("zero.h5", "r+") as file:
        file["sample_stats/log_weight"][:] = -np.inf
    for name, why in (("nan.h5", "values with a weight are nan or inf"), ("zero.h5", "every weight is zero")):
        for words in (("analyze", name), ("analyze", "--csv", "good.h5", name)):
            refused = nmcmc(*words, code=2)
            assert refused.err.startswith(f"nmcmc: {name} cannot be judged: ")
            assert why in refused.err
            assert refused.err.count("\n") == 1
            assert refused.out == ""
    refused = nmcmc("merge", "good.h5", "nan.h5", "--out", "all.h5", code=2)
    assert refused.err.startswith("nmcmc: the merged chain cannot be judged: energy: 1 of 240 values")
    assert not Path("all.h5").exists()
    nmcmc("merge", "good.h5", "zero.h5", "--out", "all.h5")  # draws without weight beside others that have some
