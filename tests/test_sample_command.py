"""`nmcmc sample`: completions against enumeration, files of every form, and refusals before any work."""

import errno
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mc
from cli import sample_result
from mc.weighted import effective_sample_size, weighted_estimate
from nmcmc import NetSettings, build_sampler
from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.checkpoint import Checkpoint, save_checkpoint
from nmcmc.recipe import resolved
from nmcmc.training import Training
from tests.archives import arrays_of
from tests.enumerated import all_states

SIGMAS = 4.0  # 1 in 16,000 a number
SMALL = dict(width=8, layers=1, heads=2)
KNOWN = np.array([[1, 0, 0, 0, -1, 0, 0, 0, 1], [0] * 9, [-1, -1, -1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1, 1]])


def keep(path, hamiltonian, beta, settings):
    """A checkpoint of a sampler whose weights are rough, so that its law is not that of its prior."""
    settings = resolved(hamiltonian, settings)
    sampler = build_sampler(hamiltonian, beta, settings, seed=1)
    weights = {}
    if sampler.network is not None:
        generator = torch.Generator().manual_seed(5)
        weights = {name: w + 0.05 * torch.randn(w.shape, generator=generator)
                   for name, w in sampler.network.state_dict().items()}  # fmt: skip
    save_checkpoint(path, Checkpoint(hamiltonian, beta, settings, {}, Training(best_weights=weights, finished=True)))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with samplers: any-order ones of one target, of several, of other sizes, of a graph; and a prior."""
    folder = tmp_path_factory.mktemp("kept")
    small = mc.models.ising(L=3, h=0.2, J="bimodal", seed=2)
    any_order = NetSettings(net="anyorder", **SMALL)
    keep(folder / "any.pt", small, 0.4, any_order)
    shared = replace(any_order, betas=(0.3, 0.5), fields=(0.0, 0.4))
    keep(folder / "shared.pt", mc.models.ising(L=3, h=0.2), 0.4, shared)
    keep(folder / "grows.pt", mc.models.ising(L=4), 0.3, replace(any_order, window=1))
    keep(folder / "graph.pt", mc.models.sk(N=6, seed=1), 0.5, NetSettings(net="mlp", width=8, layers=1))
    keep(folder / "prior.pt", small, 0.4, NetSettings(net="none"))
    np.save(folder / "known.npy", KNOWN)
    return folder


@pytest.fixture
def here(kept, nmcmc, monkeypatch):
    """The command, in a folder of its own with links to what is kept."""
    for path in kept.iterdir():
        Path(path.name).symlink_to(path)
    return nmcmc


def completions(hamiltonian, row):
    """All whole states that agree with the known spins of a row, and their energies."""
    states = all_states(hamiltonian.n_spins)
    states = states[((row == 0) | (states == row)).all(axis=1)]
    return states, hamiltonian.energy(states)


def test_weighted_completions_have_the_conditional_law(here):
    """False alarm below 0.3 %: some 40 numbers beyond 4 sigma; the seed is fixed."""
    hamiltonian, beta = mc.models.ising(L=3, h=0.2, J="bimodal", seed=2), 0.4
    told = here("sample", "any.pt", "given=known.npy", "--draws", 3000, "--out", "x.npz", "--json").json
    found = arrays_of("x.npz")
    assert found["spins"].shape == (4, 3000, 9)
    assert found["spins"].dtype == np.int8
    assert found["fingerprint"] == hamiltonian.fingerprint
    assert found["beta"] == beta
    assert (found["known"] == (KNOWN != 0)).all()
    assert np.allclose(found["energy"], hamiltonian.energy(found["spins"].reshape(-1, 9)).reshape(4, 3000))
    assert np.allclose(found["log_weight"], -beta * found["energy"] - found["log_q"])
    for row, known in enumerate(KNOWN):
        spins, log_weight = found["spins"][row], found["log_weight"][row]
        assert (spins[:, known != 0] == known[known != 0]).all()
        states, energies = completions(hamiltonian, known)
        log_z = np.logaddexp.reduce(-beta * energies)
        law = np.exp(-beta * energies - log_z)
        said = told["results"][row]
        assert said["known"] == (known != 0).sum()
        assert said["ess"] == effective_sample_size(log_weight)
        assert abs(said["log_z"] - log_z) < SIGMAS * said["log_z_error"] + 1e-9
        assert abs(said["energy"] - law @ energies) < SIGMAS * said["energy_error"] + 1e-9
        for site in np.flatnonzero(known == 0):
            mean = weighted_estimate(spins[:, site].astype(float), log_weight)
            assert abs(mean.mean - law @ states[:, site]) < SIGMAS * mean.error


def test_log_q_and_the_numbers_by_row_are_those_of_the_sampler(here):
    import nmcmc

    here("sample", "any.pt", "given=known.npy", "--draws", 50, "--out", "x.npz")
    found, p = arrays_of("x.npz"), nmcmc.load("any.pt")
    assert np.allclose(found["log_known"], p.log_known(KNOWN))
    assert np.allclose(found["log_marginal"], p.log_marginal(KNOWN))
    first = 2  # its known sites are the first of the order, so that q(known) q(drawn | known) = q(all)
    whole = p.log_prob(found["spins"][first])
    assert np.allclose(found["log_q"][first] + found["log_known"][first], whole, atol=1e-4)
    assert found["ess"].shape == found["log_z"].shape == found["log_z_error"].shape == (4,)


@pytest.mark.parametrize("checkpoint", ["any.pt", "prior.pt"])
def test_without_known_spins_whole_states_of_any_sampler(here, checkpoint):
    """False alarm 1 in 16,000; the seed is fixed."""
    said = here("sample", checkpoint, "--draws", 2000, "--out", "x.npz", "--json").json
    found = arrays_of("x.npz")
    assert found["spins"].shape == (1, 2000, 9)
    assert not found["known"].any()
    _, energies = completions(mc.models.ising(L=3, h=0.2, J="bimodal", seed=2), np.zeros(9))
    (row,) = said["results"]
    assert abs(row["log_z"] - np.logaddexp.reduce(-0.4 * energies)) < SIGMAS * row["log_z_error"]
    assert row["log_marginal"] == (0.0 if checkpoint == "any.pt" else None)
    assert row["log_known"] == 0.0


def test_a_network_of_a_range_draws_at_the_target_that_is_named(here):
    """False alarm 1 in 16,000; the seed is fixed."""
    said = here("sample", "shared.pt", "T=2.5", "h=0.1", "--draws", 2000, "--out", "x.npz", "--json").json
    _, energies = completions(mc.models.ising(L=3, h=0.1), np.zeros(9))
    assert said["beta"] == 0.4
    row = said["results"][0]
    assert abs(row["log_z"] - np.logaddexp.reduce(-energies / 2.5)) < SIGMAS * row["log_z_error"]
    here("sample", "graph.pt", "--draws", 4, "--out", "graph.npz")
    assert arrays_of("graph.npz")["spins"].shape == (1, 4, 6)
    here("sample", "grows.pt", "L=8", "--draws", 3, "--out", "large.npz")
    large = arrays_of("large.npz")
    assert large["spins"].shape == (1, 3, 64)
    assert np.allclose(large["energy"][0], mc.models.ising(L=8).energy(large["spins"][0]))


def test_the_same_seed_draws_the_same_and_another_one_does_not(here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        here("sample", "any.pt", "given=known.npy", "--draws", 20, "--rng-seed", seed, "--out", f"{name}.npz")
    a, b, c = (arrays_of(f"{name}.npz") for name in "abc")
    assert all(np.array_equal(a[name], b[name], equal_nan=name == "log_z_error") for name in a if name != "about")
    assert not np.array_equal(a["spins"], c["spins"])


def test_every_form_of_file_says_the_same(here):
    nan = np.where(KNOWN == 0, np.nan, KNOWN)
    np.savez("rows.npz", spins=KNOWN, other=np.zeros(3))
    np.save("lattices.npy", nan.reshape(-1, 3, 3))
    np.savetxt("rows.txt", nan, header="spins")
    lines = [",".join("" if s == 0 else str(s) for s in row) for row in KNOWN]
    Path("rows.csv").write_text("\n".join(lines) + "\n\n")
    drawn = []
    for form in ("known.npy", "rows.npz", "lattices.npy", "rows.txt", "rows.csv"):
        here("sample", "any.pt", f"given={form}", "--draws", 5, "--out", "x.npz", "--restart", "--quiet")
        drawn.append(arrays_of("x.npz")["spins"])
    assert all(np.array_equal(spins, drawn[0]) for spins in drawn)
    np.save("one.npy", KNOWN[0].astype(np.float32))
    np.savetxt("lattice.txt", KNOWN[0].reshape(3, 3), fmt="%d")
    for form in ("one.npy", "lattice.txt"):
        here("sample", "any.pt", f"given={form}", "--draws", 5, "--out", "x.npz", "--restart")
        assert arrays_of("x.npz")["known"].tolist() == [(KNOWN[0] != 0).tolist()]


def test_the_end_says_how_to_look_at_it_and_names_weak_rows(here):
    for out in ("x.npz", "a 'file'.npz"):
        said = here("sample", "any.pt", "given=known.npy", "--draws", 10, "--out", out).out
        assert "4 rows, the first is row 0, with fewer than 20 effective draws" in said
        last = said.splitlines()[-1]
        assert last.startswith(f"result: {shlex.quote(out)} (4 rows x 10 draws); look at it with: python -c ")
        words = shlex.split(last.partition("look at it with: python ")[2])
        shown = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout
        assert "'spins': (4, 10, 9)" in shown
    many = np.tile(KNOWN, (5, 1))
    np.save("many.npy", many)
    told = here("sample", "any.pt", "given=many.npy", "--draws", 1, "--out", "y.npz", "--json")
    assert f"... and {20 - sample_result.ROWS_SHOWN} rows more" in told.out
    assert len(told.json["results"]) == 20
    assert told.json["results"][0]["log_z_error"] is None
    assert here("sample", "any.pt", "--draws", 1, "--quiet").out == ""
    assert Path("any-samples.npz").is_file()


def test_a_result_is_replaced_on_demand_only_and_nothing_else_ever(here):
    here("sample", "any.pt", "--draws", 2, "--out", "x.npz")
    before = Path("x.npz").read_bytes()
    assert "--restart" in here("sample", "any.pt", "--draws", 3, "--out", "x.npz", code=2).err
    assert Path("x.npz").read_bytes() == before
    here("sample", "any.pt", "--draws", 3, "--out", "x.npz", "--restart")
    assert arrays_of("x.npz")["spins"].shape == (1, 3, 9)
    for foreign in ("any.pt", "known.npy"):
        kept = Path(foreign).read_bytes()
        assert "no result of nmcmc sample" in here("sample", "any.pt", "--out", foreign, "--restart", code=2).err
        assert Path(foreign).read_bytes() == kept


def test_an_interrupt_or_a_full_disk_leaves_the_folder_as_it_was(here, monkeypatch):
    here("sample", "any.pt", "--draws", 2, "--out", "x.npz")
    before = Path("x.npz").read_bytes(), sorted(os.listdir())
    again = ("sample", "any.pt", "given=known.npy", "--draws", 2, "--out", "x.npz", "--restart")

    def stopped(*anything, **more):
        raise KeyboardInterrupt

    def full(*anything, **more):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(AnyOrderSampler, "fill", stopped)
        assert "interrupted; x.npz was not written" in here(*again, code=130).err
    with monkeypatch.context() as patch:
        patch.setattr(sample_result.np, "savez", full)
        assert os.strerror(errno.ENOSPC) in here(*again, code=1).err
    assert (Path("x.npz").read_bytes(), sorted(os.listdir())) == before


class Pickled:
    """Something that writes a file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))


REFUSED = [
    (("any.pt", "given=none.npy"), ("given=none.npy", "no such file")),
    (("any.pt", "given=."), ("this is no file",)),
    (("any.pt", "given="), ("given=: a value is needed",)),
    (("any.pt", "given=garbled.npz"), ("garbled.npz cannot be read",)),
    (("any.pt", "given=cut.npy"), ("cut.npy cannot be read",)),
    (("any.pt", "given=binary.dat"), ("binary.dat cannot be read",)),
    (("any.pt", "given=words.txt"), ("words.txt cannot be read", "line 2")),
    (("any.pt", "given=ragged.txt"), ("line 2 has 2 numbers, the first one 9",)),
    (("any.pt", "given=empty.txt"), ("no values in it",)),
    (("any.pt", "given=pickled.npz"), ("pickled.npz cannot be read",)),
    (("any.pt", "given=pickled.npy"), ("pickled.npy cannot be read",)),
    (("any.pt", "given=unnamed.npz"), ("no array spins", "it holds other")),
    (("any.pt", "given=truth.npy"), ("true and false", "numbers are needed")),
    (("any.pt", "given=size.npy"), ("(2, 8)", "(9,) or (3, 3)")),
    (("any.pt", "given=values.npy"), ("row 1 holds 2 at site 3", "+1, -1, and 0 or NaN")),
    (("any.pt", "given=infinite.npy"), ("row 1 holds inf at site 3",)),
    (("any.pt", "given=full.npy"), ("row 1 has no unknown spin", "nothing to draw")),
    (("prior.pt", "given=known.npy"), ("net=none", "net=anyorder")),
    (("any.pt", "--draws", "0"), ("--draws 0", "at least 1")),
    (("any.pt", "--draws", "10000000000"), ("lies in memory", "--draws 260301048 at most")),
    (("any.pt", "--rng-seed", "-1"), ("--rng-seed -1",)),
    (("any.pt", "--out", "nowhere/x.npz"), ("no folder",)),
    (("any.pt", "--out", "."), ("is a folder",)),
    (("none.pt",), ("none.pt: no such file",)),
    (("known.npy",), ("is no nmcmc checkpoint",)),
    (("given=known.npy", "any.pt"), ("no checkpoint before given=known.npy",)),
    (("any.pt", "prior.pt"), ("prior.pt: key=value is needed",)),
    (("any.pt", "givn=known.npy"), ("unknown key givn, did you mean given?",)),
    (("any.pt", "given=known.npy", "given=full.npy"), ("given is given twice",)),
    (("any.pt", "beta=0.4", "T=2.5"), ("say the temperature twice",)),
    (("any.pt", "beta=0.5"), ("is for beta=0.4, not beta=0.5",)),
    (("any.pt", "h=0.5"), ("another Hamiltonian",)),
    (("any.pt", "h=x"), ("h=x",)),
    (("shared.pt",), ("serves beta=0.3 to 0.5", "beta= or T=")),
    (("shared.pt", "beta=0.3,0.4"), ("at one temperature",)),
    (("shared.pt", "beta=0.6"), ("beta=0.6 is outside 0.3 to 0.5",)),
    (("shared.pt", "T=0"), ("T=0: numbers above 0",)),
    (("shared.pt", "beta=0.4", "h=1"), ("h=1 is outside 0 to 0.4",)),
    (("grows.pt", "Lz=4"), ("ising: no size",)),
    (("shared.pt", "beta=0.4", "L=4"), ("a network of 3x3 grows to multiples of its sizes",)),
    (("graph.pt", "L=4"), ("L=4: sk of graph.pt has no such key",)),
    (("graph.pt", "given=known.npy"), ("(4, 9); (6,), or several",)),
    ((), ("CHECKPOINT",)),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[" ".join(words) or "nothing" for words, _ in REFUSED])
def test_bad_input_is_one_line_and_no_work(here, words, said):
    changed = KNOWN.astype(float)
    np.savez("unnamed.npz", other=KNOWN)
    np.savez("pickled.npz", spins=np.array([Pickled()], dtype=object))
    np.save("pickled.npy", np.array([Pickled()], dtype=object))
    Path("garbled.npz").write_bytes(Path("unnamed.npz").read_bytes()[:200])
    Path("cut.npy").write_bytes(Path("known.npy").read_bytes()[:140])
    Path("binary.dat").write_bytes(bytes(range(128, 256)))
    Path("words.txt").write_text("1 0 0 0 0 0 0 0 0\nup down 0 0 0 0 0 0 0\n")
    Path("ragged.txt").write_text("1 0 0 0 0 0 0 0 0\n0 1\n")
    Path("empty.txt").write_text("# nothing\n")
    np.save("truth.npy", KNOWN > 0)
    np.save("size.npy", KNOWN[:2, :8])
    for name, value in (("values", 2.0), ("infinite", np.inf)):
        changed[1, 3] = value
        np.save(f"{name}.npy", changed)
    np.save("full.npy", np.where(np.arange(4)[:, None] == 1, 1, KNOWN))
    before = sorted(os.listdir())
    refused = here("sample", *words, code=2)
    assert len(refused.err.strip().splitlines()) == 1
    assert not refused.out
    for word in said:
        assert word in refused.err
    assert sorted(os.listdir()) == before
