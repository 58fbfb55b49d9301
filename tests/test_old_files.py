"""Chain files that older code wrote (tests/data/chains) are read, analysed, and gone on with or refused."""

import gzip
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

import mc
from mc.chain_layout import SCHEMA_VERSION
from mc.chain_tree import ENSEMBLE_VERSION
from tests.archives import arrays_of

FOLDER = Path(__file__).parent / "data" / "chains"
FILES = sorted(path.name.removesuffix(".h5.gz") for path in FOLDER.glob("*.h5.gz"))
CHAINS = [name for name in FILES if "ensemble" not in name]
ENSEMBLES = [name for name in FILES if "ensemble" in name]
# Why a run cannot go on: the same command would draw other random numbers today, so it would not be the same run.
REFUSED = {
    "23fe939-metropolis": "kernels of an older version",
    "23fe939-pt": "kernels of an older version",
    "ba8e0a1-metropolis": "kernels of an older version",
    "ba8e0a1-pt": "kernels of an older version",
    "23fe939-nmcmc": "begun with other weights",
    "ba8e0a1-nmcmc": "begun with other weights",
    "0cc155b-nmcmc": "begun with other weights",
}
GO_ON = [name for name in CHAINS if name.rsplit("-", 1)[0] not in REFUSED]
REMEDY = "use --restart to replace it, or another --out"


@pytest.fixture
def unpacked(tmp_path):
    """unpacked(name): the file under the name it was written with, in a folder of its own, and its sampler if any."""

    def write(name):
        commit, file = name.split("-", 1)
        for sampler in FOLDER.glob(f"{commit}-*.pt.gz"):
            (tmp_path / sampler.name.split("-", 1)[1].removesuffix(".gz")).write_bytes(
                gzip.decompress(sampler.read_bytes())
            )
        path = tmp_path / f"{file}.h5"
        path.write_bytes(gzip.decompress((FOLDER / f"{name}.h5.gz").read_bytes()))
        return path

    return write


def command_of(path, draws=None):
    """The command a file was made by, with another number of draws if given."""
    with h5py.File(path) as file:
        words = shlex.split(file.attrs["command"])[1:]
    if draws is not None:
        words[words.index("--draws") + 1] = str(draws)
    return words


def test_every_version_of_a_schema_has_a_file():
    """Also a version that is to come: whoever raises the number puts files of the one before here."""
    versions = {"nmcmc-chain": set(), "nmcmc-ensemble": set()}
    for name in FILES:
        with h5py.File(gzip.open(FOLDER / f"{name}.h5.gz")) as file:
            versions[file.attrs["schema"]].add(int(file.attrs["schema_version"]))
    assert versions["nmcmc-chain"] == set(range(1, SCHEMA_VERSION + 1))
    assert versions["nmcmc-ensemble"] == set(range(1, ENSEMBLE_VERSION + 1))


@pytest.mark.parametrize("name", CHAINS)
def test_stored_values_are_those_of_the_stored_spins(unpacked, name):
    """Energy and magnetization of every draw, from the spins and the Hamiltonian in the file; couplings are +-1."""
    chain = mc.open_chain(unpacked(name))
    assert chain.complete == name.endswith("complete")
    assert chain.n_draws == (20 if chain.complete else 7)
    assert chain.spin_draws.tolist() == list(range(chain.n_draws))
    spins = chain.spins
    energy = chain.hamiltonian().energy(spins.reshape(-1, chain.n_spins)).reshape(spins.shape[:-1])
    assert np.array_equal(chain.posterior["energy"], energy)
    assert np.array_equal(chain.posterior["magnetization"], spins.mean(axis=-1))
    if "log_weight" in chain.sample_stats:
        log_weight = -chain.betas * energy - chain.sample_stats["log_q"]
        assert np.allclose(chain.sample_stats["log_weight"], log_weight, rtol=0, atol=1e-9)
    assert chain.seconds.keys() == {"build", "train", "sample"}
    assert chain.asked_draws == -1  # nobody wrote it then


@pytest.mark.parametrize("name", CHAINS)
def test_analyze_and_status_understand_them(unpacked, nmcmc, name):
    path = unpacked(name).name
    chain = mc.open_chain(path)
    found = nmcmc("analyze", path, "--json").json
    assert len(found["results"]) == len(chain.betas)
    mean = chain.posterior["energy"].mean(axis=tuple(i for i in range(chain.posterior["energy"].ndim) if i != 2))
    assert [row["energy"]["mean"] for row in found["results"]] == pytest.approx(mean.tolist(), rel=1e-12)
    said = nmcmc("status", path, "--json")
    assert f"2 chains x {chain.n_draws} draws x {len(chain.betas)} temperature" in said.out
    assert ("incomplete" in said.out) == (not chain.complete)
    assert (said.json["asked"], said.json["seconds"], said.json["running"]) == (None, None, False)
    nmcmc("export", path, "--to", "npz")
    assert arrays_of(Path(path).with_suffix(".npz"))["posterior/energy"].shape[1] == chain.n_draws


@pytest.mark.parametrize("name", [name for name in GO_ON if name.endswith("cut")])
def test_an_interrupted_run_ends_as_the_older_code_ended_it(unpacked, nmcmc, name):
    """The same command again; energies and decisions of all 20 draws are those that the older code drew in one go."""
    path = unpacked(name)
    cut = mc.open_chain(path)
    committed = {name: cut.posterior[name] for name in cut.posterior}
    nmcmc(*command_of(path))
    chain, whole = mc.open_chain(path), mc.open_chain(unpacked(name.replace("cut", "complete")))
    assert chain.complete
    assert chain.n_draws == 20
    for variable, before in committed.items():
        assert chain.posterior[variable][:, :7].tobytes() == before.tobytes()
        assert np.array_equal(chain.posterior[variable], whole.posterior[variable])
    assert np.array_equal(chain.sample_stats["accepted"], whole.sample_stats["accepted"])
    for variable in {"log_q", "log_weight", "swap_accepted"} & whole.sample_stats.keys():
        stored, drawn = whole.sample_stats[variable], chain.sample_stats[variable]
        assert np.allclose(stored, drawn, rtol=0, atol=1e-4, equal_nan=True)  # single precision of the network


@pytest.mark.parametrize("name", [name for name in GO_ON if name.endswith("complete")])
def test_a_complete_run_is_extended_by_more_draws(unpacked, nmcmc, name):
    path = unpacked(name)
    old = mc.open_chain(path)
    before = {group: dict(getattr(old, group).items()) for group in ("posterior", "sample_stats")}
    nmcmc(*command_of(path, draws=26))
    chain = mc.open_chain(path)
    assert chain.complete
    assert (chain.n_draws, chain.asked_draws) == (26, 26)
    for group, variables in before.items():
        for variable, values in variables.items():
            assert getattr(chain, group)[variable][:, :20].tobytes() == values.tobytes(), variable
    energy = chain.hamiltonian().energy(chain.spins.reshape(-1, chain.n_spins))
    assert np.array_equal(chain.posterior["energy"].ravel(), energy)


@pytest.mark.parametrize("name", [name for name in CHAINS if name.rsplit("-", 1)[0] in REFUSED])
def test_what_would_not_be_the_same_run_is_refused_with_the_reason(unpacked, nmcmc, name):
    path = unpacked(name)
    before = path.read_bytes()
    refused = nmcmc(*command_of(path, draws=26), code=2).err
    assert REFUSED[name.rsplit("-", 1)[0]] in refused
    assert REMEDY in refused
    assert refused.count("\n") == 1
    assert mc.open_chain(path).n_draws == (20 if name.endswith("complete") else 7)
    if "kernels" in refused:
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_are_read_analysed_and_extended(unpacked, nmcmc, name):
    path = unpacked(name)
    with h5py.File(path) as file:
        before = {key: group["posterior/energy"][()] for key, group in file["instances"].items()}
    summary = mc.open_ensemble(path).summary
    for i, energy in enumerate(before.values()):
        assert np.allclose(summary.observables["energy"]["mean"][i], energy.mean(axis=(0, 1)), rtol=1e-12)
    assert "2 instances (0:2), 2 chains x 20 draws x 2 temperatures, complete" in nmcmc("status", path.name).out
    assert len(nmcmc("analyze", path.name, "--json").json["results"]) == 2
    nmcmc(*command_of(path, draws=26))
    with h5py.File(path) as file:
        for key, energy in before.items():
            now = file["instances"][key]["posterior/energy"][()]
            assert now.shape == (2, 26, 2)
            assert now[:, :20].tobytes() == energy.tobytes()
