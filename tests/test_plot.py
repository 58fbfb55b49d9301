"""Figures of chain files: what is drawn is what was sampled, in sizes that a journal takes, and nothing crashes."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import cli.main
from cli.figures import FIGURES, NotDrawn, draw, draw_together, series, style
from cli.figures.crossings import crossing_points, joined
from cli.figures.drawn import Column, Drawn
from cli.figures.files import MARK
from cli.figures.overlaps import bins_of_grid, density
from cli.figures.sizes import Sized
from mc.chain import create_chain
from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice

ROOT = Path(cli.main.__file__).parents[1]
SHORT = ("ising", "L=8", "--draws", 200, "--chains", 2)
MM = 300 / 25.4  # pixels


def chain_file(path, posterior, stats_=None, *, length=4, betas=(0.4,), mode="metropolis", training=None, **groups):
    """A chain file of an Ising model with given variables (chain, draw, beta, ...); no spins unless given."""
    lattice = Lattice((length, length), (True, True))
    model = Hamiltonian(length**2, [(lattice.bonds, np.ones(len(lattice.bonds)))], lattice=lattice, name="ising")
    stats_ = stats_ or {}
    chains = len(next(iter(posterior.values())))
    axes = [
        {name: ({f"own_{k}": n for k, n in enumerate(np.shape(x)[3:])}, np.float64) for name, x in group.items()}
        for group in (posterior, stats_)
    ]
    config = {"model": "ising", "parameters": {"L": length, "J": "ferro"}}
    with create_chain(
        path, mode=mode, command="nmcmc run", config=config, rng_seed=1, hamiltonian=model, betas=np.array(betas),
        n_chains=chains, posterior=axes[0], sample_stats=axes[1],
    ) as writer:  # fmt: skip
        writer.append(posterior, stats_)
        if training:
            writer.set_group("training", training)
        for name, arrays in groups.items():
            writer.set_group(name, arrays)
    return path


def coins(chains, draws, n_spins, seed, betas=1):
    """Magnetizations of free spins, (chain, draw, beta)."""
    up = np.random.default_rng(seed).binomial(n_spins, 0.5, (chains, draws, betas))
    return 2.0 * up / n_spins - 1.0


def two_variables(chains, draws, seed=0, betas=1):
    m = coins(chains, draws, 16, seed, betas)
    return {"energy": np.round(-16 * m**2 + np.random.default_rng(seed).integers(-4, 5, m.shape)), "magnetization": m}


def test_a_run_leaves_figures_as_wide_as_a_column_of_a_journal_or_two(nmcmc, tmp_path):
    nmcmc("run", "--mode", "wolff", *SHORT, "--out", "w.h5")
    out = nmcmc("plot", "w.h5").out
    names = {path.name for path in (tmp_path / "w-figures").iterdir()}
    assert names >= {f"w-{name}.png" for name in ("energy", "autocorrelation", "magnetization", "configurations")}
    assert {Path(line.strip()).name for line in out.splitlines()[1:]} == names
    for path in (tmp_path / "w-figures").iterdir():
        image = Image.open(path)
        assert min(abs(image.width - width * MM) for width in (style.SINGLE, style.DOUBLE)) < 2
        assert image.info["dpi"][0] == pytest.approx(300, abs=0.5)
        assert np.asarray(image.convert("L")).std() > 5  # no white sheet


def test_tempering_with_two_replicas_shows_overlaps_swaps_and_the_ladder(nmcmc, tmp_path):
    words = ("ea3d", "L=4", "beta=0.2:1.0:4", "replicas=2", "--draws", 100, "--chains", 2, "--out", "t.h5")
    nmcmc("run", "--mode", "pt", *words)
    nmcmc("plot", "t.h5", "--format", "pdf", "--out", "figures")
    names = {path.stem.removeprefix("t-") for path in (tmp_path / "figures").iterdir()}
    assert names == set(FIGURES) - {"training", "weights"}
    assert all(path.read_bytes().startswith(b"%PDF") for path in (tmp_path / "figures").iterdir())
    with style.paper():
        figure = draw("swaps", Drawn.of(tmp_path / "t.h5"))
    line = figure.axes[0].get_lines()[0]
    rates = Drawn.of(tmp_path / "t.h5").chain.sample_stats["swap_accepted"][:, :, :-1]
    assert np.allclose(line.get_ydata(), np.nanmean(rates, axis=1).mean(axis=0))
    assert np.allclose(line.get_xdata(), [0.2 + 0.8 / 3 * (k + 0.5) for k in range(3)])


def test_one_document_holds_a_page_for_each_figure(nmcmc, tmp_path):
    chain_file(tmp_path / "c.h5", two_variables(2, 50))
    out = nmcmc("plot", "c.h5", "--page").out
    assert "c-figures/c.pdf" in out
    pages = (tmp_path / "c-figures" / "c.pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", pages)) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--only", "energi"), "did you mean energy?"),
        (("--only", ","), "a figure is needed"),
        (("--format", "pgn"), "did you mean png?"),
        (("--only", "overlap"), "no overlaps in the file"),
        (("--only", "crossings"), "give them all"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line_and_nothing_is_written(nmcmc, tmp_path, words, told):
    chain_file(tmp_path / "c.h5", two_variables(2, 20))
    err = nmcmc("plot", "c.h5", *words, code=2).err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "c-figures").exists()


def test_files_without_draws_foreign_files_and_namesakes_are_refused(nmcmc, tmp_path):
    chain_file(tmp_path / "c.h5", {name: x[:, :0] for name, x in two_variables(2, 2).items()})
    assert "no draws yet" in nmcmc("plot", "c.h5", code=2).err
    (tmp_path / "text.h5").write_text("no HDF5")
    assert "text.h5" in nmcmc("plot", "text.h5", code=2).err
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        chain_file(tmp_path / folder / "x.h5", two_variables(2, 20))
    assert "2 files are called x" in nmcmc("plot", "a/x.h5", "b/x.h5", code=2).err
    (tmp_path / "taken").write_text("")
    assert "another --out" in nmcmc("plot", "a/x.h5", "--out", "taken", code=2).err


@pytest.mark.parametrize("words", [(), ("--format", "pdf"), ("--page",)])
def test_a_figure_replaces_an_earlier_one_and_nothing_else(nmcmc, tmp_path, words):
    """A figure of another program that used matplotlib, too, is not ours; refused before the first one is drawn."""
    chain_file(tmp_path / "c.h5", two_variables(2, 20))
    nmcmc("plot", "c.h5", *words)
    folder = tmp_path / "c-figures"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    nmcmc("plot", "c.h5", *words)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    name = max(first)
    with style.paper():
        style.sheet(30.0, 30.0).savefig(tmp_path / name)
    foreign = (tmp_path / name).read_bytes()
    for content in (foreign, b"my thesis"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(content)
        told = nmcmc("plot", "c.h5", "--out", "mine", *words, code=2)
        assert (
            f"mine/{name} is there already and is no earlier figure; remove it, or choose another --out" in told.err
        )
        assert [path.name for path in (tmp_path / "mine").iterdir()] == [name]
        assert (tmp_path / "mine" / name).read_bytes() == content
    if not words:
        assert Image.open(folder / name).text["Software"] == MARK


def test_files_of_one_call_do_not_overwrite_each_other(nmcmc, tmp_path):
    for name, length in (("ising", 4), ("other", 6)):
        chain_file(tmp_path / f"{name}.h5", two_variables(2, 20, betas=2), length=length, betas=(0.3, 0.4))
    err = nmcmc("plot", "ising.h5", "other.h5", "--page", "--out", "f", code=2).err
    assert "f/ising.pdf would be written 2 times" in err
    assert not (tmp_path / "f").exists()


def test_a_folder_that_cannot_be_made_is_refused_before_and_a_full_disk_on_the_way(nmcmc, tmp_path, monkeypatch):
    """Exit code 2 is for what is known before any work, 1 for what happens on the way."""
    chain_file(tmp_path / "c.h5", two_variables(2, 20))
    (tmp_path / "taken").write_text("")
    (tmp_path / "nowhere").symlink_to("gone")
    for out in ("taken", "taken/figures", "nowhere", "x" * 300, "new/" + "x" * 300):
        err = nmcmc("plot", "c.h5", "--out", out, code=2).err
        assert "cannot be written" in err
        assert err.count("\n") == 1

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", lambda path, content: full(path, content) if content else 0)
    for words in ((), ("--page",)):
        err = nmcmc("plot", "c.h5", *words, code=1).err
        assert "cannot be written (No space left on device); choose another --out" in err
        assert not list((tmp_path / "c-figures").iterdir())


@pytest.mark.parametrize("rows_at_once", [2**22, 8])
def test_draws_that_are_not_finite_are_counted_with_the_place_of_the_first(
    nmcmc, tmp_path, monkeypatch, rows_at_once
):
    monkeypatch.setattr("cli.figures.drawn.ROWS_AT_ONCE", rows_at_once)
    posterior = two_variables(2, 20, betas=2)
    posterior["energy"][1, 7, 1] = np.nan
    posterior["energy"][0, 9] = np.inf
    posterior["magnetization"][0, 19, 0] = np.nan
    chain_file(tmp_path / "c.h5", posterior, betas=(0.3, 0.4))
    notes = [line for line in nmcmc("plot", "c.h5").out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: c: 3 of 80 draws of energy are nan or inf, the first in chain 1 at draw 7",
        "note: c: 1 of 80 draws of magnetization is nan or inf, the first in chain 0 at draw 19",
    ]
    chain_file(tmp_path / "good.h5", two_variables(2, 20))
    assert "note:" not in nmcmc("plot", "good.h5").out


def test_without_matplotlib_the_extra_is_named(nmcmc, tmp_path, monkeypatch):
    chain_file(tmp_path / "c.h5", two_variables(2, 20))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'nmcmc[plot]'" in nmcmc("plot", "c.h5", code=2).err


def test_neither_pyplot_nor_a_setting_of_matplotlib_is_touched(tmp_path):
    chain_file(tmp_path / "c.h5", two_variables(2, 20))
    text = (
        "import sys, matplotlib; from pathlib import Path;"
        "from cli.figures.style import PAPER; from cli.plot import plot;"
        "before = [matplotlib.rcParams[name] for name in PAPER]; plot([Path('c.h5')], None, False, 'png', None);"
        "assert before == [matplotlib.rcParams[name] for name in PAPER];"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-W", "error", "-c", text]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c-figures" / "c-energy.png").is_file()


ODD = {
    "one draw": lambda x: x[:, :1],
    "three draws": lambda x: x[:, :3],
    "one chain": lambda x: x[:1],
    "one chain, one draw": lambda x: x[:1, :1],
    "constant": lambda x: np.zeros_like(x),
    "a nan": lambda x: np.where(np.arange(x.shape[1])[None, :, None] == 3, np.nan, x),
    "infinite": lambda x: np.where(np.arange(x.shape[1])[None, :, None] == 3, np.inf, x),
    "twelve chains": lambda x: np.concatenate([x] * 6),
    "long": lambda x: np.tile(x, (1, 60, 1)),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_series_are_drawn_or_skipped_with_a_word(nmcmc, tmp_path, odd):
    posterior = {name: ODD[odd](x) for name, x in two_variables(2, 40).items()}
    m = posterior["magnetization"]
    posterior["magnetization"] = np.where(np.isfinite(m), m, 0.0)  # a magnetization is finite whatever the energy is
    chain_file(tmp_path / "c.h5", posterior)
    out = nmcmc("plot", "c.h5").out
    assert "c-energy.png" in out
    assert "c-magnetization.png" in out
    if odd in ("one draw", "three draws", "one chain, one draw", "constant"):
        assert "not drawn: c: autocorrelation" in out
    else:
        assert "c-autocorrelation.png" in out


@pytest.mark.parametrize("n_spins", [3, 4, 16, 63, 64, 80, 81, 100, 255, 256, 1000, 4096, 4097])
def test_bins_share_the_grid_of_magnetizations_evenly_and_symmetrically(n_spins):
    step, edges, points = bins_of_grid(n_spins)
    grid = -1.0 + step * np.arange(n_spins + 1)
    assert points.sum() == n_spins + 1
    assert np.array_equal(points, points[::-1])
    assert len(set(points[1:-1])) <= 1
    assert np.abs(grid[:, None] - edges).min() > 0.4 * step
    assert len(points) <= 82


@pytest.mark.statistical
@pytest.mark.parametrize("n_spins", [16, 63, 1024])
def test_free_spins_have_a_binomial_magnetization_with_errors_of_the_right_size(n_spins):
    """chi^2 of bins with 50 counts or more, errors from 64 chains: two of a thousand false alarms a size at most."""
    values = coins(64, 500, n_spins, 11)
    found = density(values, n_spins)
    step, edges, points = bins_of_grid(n_spins)
    grid = -1.0 + step * np.arange(n_spins + 1)
    place = np.searchsorted(edges, grid + 1e-9, side="right") - 1
    law = np.bincount(place, stats.binom.pmf(np.arange(n_spins + 1), n_spins, 0.5), len(points))
    used = law * values.size > 50
    assert np.sum(found.value * points * step) == pytest.approx(1.0, abs=1e-12)
    pull = (found.value * points * step - law)[used] / (found.error * points * step)[used]
    # Errors from 64 chains have a spread of 9 %; for bins as good as independent the sum of t^2 is nearly chi^2.
    assert 1e-3 < stats.chi2.sf(np.sum(pull**2), used.sum()) < 1 - 1e-3


def test_weights_turn_the_law_of_the_draws_into_the_target():
    """Draws at +-1/2 equally often, weights 3 to 1."""
    values = np.tile([0.5, -0.5], 50).reshape(2, 50, 1)
    weight = np.where(values[:, :, 0] > 0, np.log(3.0), 0.0)
    found = density(values, 4, weight)
    mass = found.value * 0.5
    assert mass[np.argmin(abs(found.middle - 0.5))] == pytest.approx(0.75)
    assert mass[np.argmin(abs(found.middle + 0.5))] == pytest.approx(0.25)


@pytest.mark.statistical
def test_the_band_of_rho_is_its_scatter_between_runs():
    """AR(1), a = 0.6, 500 runs: their scatter is known to 3.2 %, asked to 16 %: false alarm 1e-5 for 6 lags."""
    rng, a, draws, lags = np.random.default_rng(5), 0.6, 2000, 6
    x = np.empty((500, draws))
    x[:, 0] = rng.normal(size=500)
    for t in range(1, draws):
        x[:, t] = a * x[:, t - 1] + np.sqrt(1 - a * a) * rng.normal(size=500)
    each = np.array([series.rho_of(run[None], lags) for run in x])
    told = series.error_of_rho(a ** np.arange(61), 10, draws)[1 : lags + 1]
    assert each.std(axis=0, ddof=1)[1:] == pytest.approx(told, rel=0.16)
    assert each.mean(axis=0) == pytest.approx(a ** np.arange(lags + 1), abs=0.01)


def test_envelopes_and_means_of_pieces_lose_no_extreme_and_no_draw():
    x = np.random.default_rng(2).normal(size=(3, 1003))
    _, low, high = series.envelope(x, 100)
    assert (low.min(), high.max()) == (x.min(), x.max())
    middle, mean = series.piece_means(x[0], 17)
    lengths = np.diff(np.arange(17) * 1003 // 17, append=1003)
    assert np.sum(mean * lengths) == pytest.approx(x[0].sum())
    assert (np.diff(middle) > 0).all()


def test_energy_bins_follow_the_levels_so_that_none_is_counted_twice():
    levels = np.array([-2.0, -1.5, -1.0, -0.5, 0.0])
    edges = series._edges(np.tile(levels, 100).reshape(1, -1, 1))
    assert np.histogram(levels, edges)[0].tolist() == [1] * len(levels)


def test_log_weights_and_training_are_drawn_with_the_exact_values_beside(tmp_path):
    rng = np.random.default_rng(3)
    log_weight = 11.0 + 0.1 * rng.normal(size=(2, 300, 1))
    log_weight[0, 0] = -np.inf  # a draw that the target forbids
    steps = np.array([0.0, 10.0, 20.0])
    training = {"step": steps, "loss": np.array([np.nan, 1.0, 0.5]), "ess": np.array([0.3, 0.8, 0.9]),
                "free_energy": np.array([-27.0, -27.4, -27.49]), "seconds": steps}  # fmt: skip
    posterior = two_variables(2, 300)
    path = chain_file(
        tmp_path / "c.h5", posterior, {"log_weight": log_weight}, mode="nis", training=training,
        diagnostics={"log_z_exact": np.array([11.0]), "energy_exact": np.array([-8.0])},
    )  # fmt: skip
    drawn = Drawn.of(path)
    with style.paper():
        figure = draw("weights", drawn)
        text = figure.axes[0].texts[0].get_text()
        histogram = figure.axes[0].patches[0].get_data()
        trained = draw("training", drawn)
    assert "ESS 0.99" in text
    assert histogram.values.sum() == pytest.approx(1.0)
    free_energy, gap = (axes.get_lines()[0].get_ydata() for axes in trained.axes[:2])
    assert free_energy == pytest.approx(training["free_energy"] / 16)
    assert gap == pytest.approx(0.4 * training["free_energy"] + 11.0)
    assert trained.axes[0].get_lines()[1].get_ydata()[0] == pytest.approx(-11.0 / 0.4 / 16)


def test_curves_of_several_sizes_join_files_of_one_size_and_refuse_other_models(tmp_path, nmcmc):
    betas = (0.3, 0.4, 0.5)
    for name, length, shift in (("a", 4, 0.0), ("b", 8, 0.0), ("c", 8, 0.3)):
        variables = two_variables(4, 200, seed=len(name) + length, betas=3)
        chain_file(tmp_path / f"{name}.h5", variables, length=length, betas=tuple(b + shift for b in betas))
    files = [Sized.of(tmp_path / f"{name}.h5") for name in "abc"]
    beta, _, error = joined(files[1:], "binder")
    assert beta == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert (error > 0).all()
    with style.paper():
        labels = [line.get_label() for line in draw_together("crossings", files).axes[0].containers]
    assert labels == ["$L = 4$", "$L = 8$"]
    out = nmcmc("plot", "a.h5", "b.h5", "--only", "crossings", "--out", "together").out
    assert "together/ising-crossings.png" in out
    with pytest.raises(NotDrawn, match="one model"):
        draw_together("crossings", [files[0], Sized(files[1].path, "ea2d", (), 8, "L", "J", files[1].betas, {})])
    with pytest.raises(NotDrawn, match="two sizes"):
        draw_together("crossings", files[1:])


def test_a_crossing_is_marked_where_the_curves_cross_and_only_there():
    """Straight lines of slope L that meet at 0.44; a third size that stays above meets none."""
    betas = np.linspace(0.40, 0.48, 9)
    lines = {8: 0.6 + 8 * (betas - 0.44), 16: 0.6 + 16 * (betas - 0.44), 32: 3.0 + 16 * (betas - 0.44)}
    files = [
        Sized(Path(f"{size}.h5"), "ising", (), size, "L", "J", betas, {"binder": Column(y, np.full(9, 1e-3))})
        for size, y in lines.items()
    ]
    ((found, words),) = crossing_points(files, [8, 16, 32], "binder")
    assert abs(found.x - 0.44) < 5 * found.x_error < 0.001
    assert re.fullmatch(r"8, 16 cross at 0\.44\d*", words) or re.fullmatch(r"8, 16 cross at 0\.43\d*", words)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_ladder_with_an_energy_that_is_not_finite_says_so(nmcmc, tmp_path, bad):
    posterior = two_variables(2, 40, betas=2)
    posterior["energy"][0, 3, 1] = bad
    for name, length in (("a", 4), ("b", 6)):
        chain_file(tmp_path / f"{name}.h5", posterior, length=length, betas=(0.3, 0.4))
    out = nmcmc("plot", "a.h5", "b.h5").out
    assert "a-energy.png" in out
    assert re.search(r"not drawn: a: ladder \(.*1 of .* (nan|inf)", out)
    assert "not drawn: ising: crossings" in out


def test_weights_that_are_all_zero_leave_no_weighted_law(tmp_path, nmcmc):
    nothing = {"log_weight": np.full((2, 20, 1), -np.inf)}
    chain_file(tmp_path / "c.h5", two_variables(2, 20), nothing, mode="nis")
    out = nmcmc("plot", "c.h5").out
    assert "not drawn: c: magnetization (no weight is above zero)" in out
    assert "not drawn: c: weights" in out


def test_configurations_show_the_states_of_the_file_row_by_row(nmcmc, tmp_path):
    nmcmc("run", "--mode", "metropolis", "ising", "Lx=4", "Ly=6", "beta=0.3", "--draws", 40, "--chains", 1,
          "--out", "m.h5")  # fmt: skip
    drawn = Drawn.of(tmp_path / "m.h5")
    with style.paper():
        figure = draw("configurations", drawn)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    stored = drawn.chain.spins[0, :, 0].reshape(-1, *drawn.hamiltonian.lattice.shape)
    assert len(shown) == 5
    assert np.array_equal(shown[0], stored[0])
    assert np.array_equal(shown[-1], stored[-1])
