"""The report of a run: one page that needs nothing but itself, that a browser shows, and whose text is only text."""

import base64
import errno
import html.parser
import os
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest

from cli import report
from cli.figures.drawn import Drawn
from cli.report_page import HEAD, MARK
from mc.chain import create_chain, open_chain
from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = '</title><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\u0007'
VOID = {"meta", "link", "img", "br"}


class Page(html.parser.HTMLParser):
    """Tags with their attributes, the texts of cells, and whether every tag is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def evil_file(path, energy=None):
    """A file whose texts are all markup."""
    lattice = Lattice((4, 4), (True, True))
    model = Hamiltonian(16, [(lattice.bonds, np.ones(len(lattice.bonds)))], lattice=lattice, name="ising")
    rng = np.random.default_rng(1)
    config = {"model": EVIL, "parameters": {EVIL: EVIL}, "settings": {EVIL: EVIL}}
    with create_chain(
        path, mode="metropolis", command=EVIL, config=config, rng_seed=1, hamiltonian=model, betas=np.array([0.4]),
        n_chains=2, posterior={"energy": ({}, float), "magnetization": ({}, float)}, sample_stats={},
    ) as writer:  # fmt: skip
        m = 2 * rng.binomial(16, 0.5, (2, 100, 1)) / 16 - 1.0
        writer.append({"energy": -16 * m**2 if energy is None else energy(m), "magnetization": m}, {})
        writer.set_group("diagnostics", {"a<b>&c": np.array([1.0])})
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report of two chains of tempering, and of one temperature: (folder, {name: text})."""
    import contextlib
    import io
    import sys

    import cli.main

    folder = tmp_path_factory.mktemp("reports")
    runs = {
        "wolff": ("--mode", "wolff", "ising", "L=8", "--draws", "400"),
        "pt": ("--mode", "pt", "ea3d", "L=4", "beta=0.2:0.8:3", "replicas=2", "--draws", "100"),
    }
    for name, words in runs.items():
        for command in (
            ["run", *words, "--chains", "2", "--out", str(folder / f"{name}.h5")],
            ["report", str(folder / f"{name}.h5"), "--out", str(folder / f"{name}.html")],
        ):
            before, sys.argv = sys.argv, ["nmcmc", *command]
            with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as ended:
                cli.main.main()
            sys.argv = before
            assert ended.value.code == 0
    return folder, {name: (folder / f"{name}.html").read_text() for name in runs}


def test_the_page_says_where_it_is_and_how_to_look_at_it(nmcmc, tmp_path):
    evil_file(tmp_path / "a.h5")
    out = nmcmc("report", "a.h5").out.splitlines()
    assert out[0] == "report of a.h5 into a.html"
    assert re.fullmatch(r"a\.html written \(\d+ kB\): open it in any browser", out[1])
    assert (tmp_path / "a.html").stat().st_size > 50_000


@pytest.mark.parametrize("name", ["wolff", "pt"])
def test_the_page_is_sound_and_asks_for_nothing_from_elsewhere(pages, name):
    text = pages[1][name]
    page = Page(text)
    assert not page.open
    assert not {"script", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href"):
                assert value.startswith(("data:", "#")), value
    assert "url(" not in text
    assert "@import" not in text
    names = [attributes["href"][1:] for attributes in page.all("a")]
    assert names == [attributes["id"] for attributes in page.all("section")]


@pytest.mark.parametrize("name", ["wolff", "pt"])
def test_tables_have_captions_and_heads_and_pictures_have_words(pages, name):
    page = Page(pages[1][name])
    assert len(page.all("caption")) == len(page.all("table")) >= 5
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    pictures = page.all("img")
    assert len(pictures) == (4 if name == "wolff" else 7)
    assert len({attributes["alt"] for attributes in pictures}) == len(pictures)
    for attributes in pictures:
        assert len(attributes["alt"]) > 20
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        assert data.startswith(b"\x89PNG")


def test_the_page_holds_the_numbers_of_the_analysis_and_the_verdict_before_them(pages):
    folder, texts = pages
    text, chain = texts["wolff"], open_chain(folder / "wolff.h5")
    results = Drawn(chain).results
    energy = results.observables["energy"][0]
    cells = Page(text).texts["td"]
    assert f"{energy.mean:.7g}".replace("-", "\N{MINUS SIGN}") in cells
    assert f"{results.diagnostics['energy_exact'][0]:.7g}".replace("-", "\N{MINUS SIGN}") in cells
    off = (energy.mean - results.diagnostics["energy_exact"][0]) / energy.error
    assert f"{off:+.1f}".replace("-", "\N{MINUS SIGN}") in cells
    assert text.index('class="verdict') < text.index("<table")
    for words in (chain.command, "nmcmc rerun wolff.h5", chain.attributes["run_id"], chain.config["fingerprint"]):
        assert words in text
    assert "Wolff, U." in text


def test_text_of_a_file_stays_text(tmp_path):
    page = Page(report.written(Drawn.of(evil_file(tmp_path / "a.h5"))))
    assert not page.open
    assert "script" not in page.texts
    shown = EVIL.replace("\u0007", "\N{REPLACEMENT CHARACTER}")
    assert shown in page.texts["h1"][0]
    assert shown in page.texts["code"][0]
    assert "a<b>&c" in page.texts["th"]


def test_chains_that_disagree_are_not_called_good(tmp_path):
    """Two chains around -8 and 8 with a spread of about 1."""
    apart = evil_file(tmp_path / "a.h5", lambda m: m + np.array([-8.0, 8.0])[:, None, None])
    text = report.written(Drawn.of(apart))
    assert "Not to be trusted as it is" in text
    assert "not converged" in text
    assert "unfinished" in text


def test_what_has_no_report_is_refused_in_one_line(nmcmc, tmp_path):
    path = evil_file(tmp_path / "a.h5")
    for words, told in (
        (("a.h5", "--out", "a.h5"), "is the chain file itself"),
        (("a.h5", "--out", "."), "is a folder"),
        (("a.h5", "--out", "nowhere/a.html"), "there is no folder nowhere"),
        (("none.h5",), "no such file"),
    ):
        err = nmcmc("report", *words, code=2).err
        assert told in err
        assert err.count("\n") == 1
    assert open_chain(path).n_draws == 100
    bad = evil_file(tmp_path / "b.h5", lambda m: np.where(m > 0.4, np.nan, m))
    told = nmcmc("report", bad, code=2)
    assert "cannot be judged" in told.err
    assert not told.out
    assert not (tmp_path / "b.html").exists()


def test_a_report_replaces_an_earlier_one_and_nothing_else(nmcmc, tmp_path):
    evil_file(tmp_path / "a.h5")
    other = evil_file(tmp_path / "other.h5").read_bytes()
    nmcmc("report", "a.h5")
    first = (tmp_path / "a.html").read_bytes()
    nmcmc("report", "a.h5")
    assert (tmp_path / "a.html").read_bytes() == first
    page = b"<!DOCTYPE html><title>mine</title>"
    (tmp_path / "mine.html").write_bytes(page)
    (tmp_path / "later.html").write_bytes(page + b" " * 1024 + MARK.encode())  # it speaks of us, but is not ours
    for name in ("other.h5", "mine.html", "later.html"):
        told = nmcmc("report", "a.h5", "--out", name, code=2)
        assert told.err.startswith(f"nmcmc: {name} is there already and is no earlier report; remove it, or choose")
        assert not told.out
    assert (tmp_path / "other.h5").read_bytes() == other
    assert (tmp_path / "mine.html").read_bytes() == page
    (tmp_path / "link.html").symlink_to("a.html")
    nmcmc("report", "a.h5", "--out", "link.html")
    assert (tmp_path / "link.html").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    assert "is there already" in nmcmc("report", "a.h5", "--out", "pipe", code=2).err


def test_the_mark_is_in_the_first_kilobyte_whatever_the_texts_are(pages, tmp_path):
    texts = [*pages[1].values(), report.written(Drawn.of(evil_file(tmp_path / "a.h5")))]
    assert all(MARK in text[:HEAD] for text in texts)


def test_a_disk_that_fills_up_leaves_the_earlier_page_as_it_was(nmcmc, tmp_path, monkeypatch):
    evil_file(tmp_path / "a.h5")
    nmcmc("report", "a.h5")
    before = (tmp_path / "a.html").read_bytes()

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", lambda path, content: full(path, content) if content else 0)
    err = nmcmc("report", "a.h5", code=1).err
    assert err == "nmcmc: a.html cannot be written (No space left on device); choose another --out\n"
    assert (tmp_path / "a.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.html"]


def test_a_page_that_no_folder_takes_is_refused_before_anything_is_said(nmcmc, tmp_path):
    evil_file(tmp_path / "a.h5")
    told = nmcmc("report", "a.h5", "--out", "x" * 300 + ".html", code=2)
    assert "cannot be written (File name too long)" in told.err
    assert not told.out


def test_one_draw_is_not_called_draws(tmp_path):
    path = evil_file(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["committed_draws"] = 1
    text = report.written(Drawn.of(path))
    assert "2 chains of 1 draw; beta = 0.4" in text
    assert "1 draw a chain so far" in text


def test_an_ensemble_is_sent_to_the_commands_that_know_it(nmcmc):
    nmcmc("run", "--mode", "pt", "ea3d", "L=3", "beta=0.3,0.5", "replicas=2", "instances=0:2", "--draws", 40,
          "--chains", 2, "--out", "e.h5")  # fmt: skip
    assert "nmcmc analyze e.h5" in nmcmc("report", "e.h5", code=2).err
    assert "give ensembles of several sizes" in nmcmc("plot", "e.h5", code=2).err


# A copy of the page that counts. It may run scripts; all else stays forbidden, and what is tried is noted.
SCRIPT = """<script>
const blocked = [];
document.addEventListener("securitypolicyviolation", e => blocked.push(e.blockedURI));
window.addEventListener("load", () => {
  const found = [...document.images];
  document.body.dataset.images = found.length;
  document.body.dataset.shown = found.filter(i => i.naturalWidth > 100 && i.complete).length;
  const asked = performance.getEntriesByType("resource");
  document.body.dataset.requests = asked.filter(e => !e.name.startsWith("data:")).length;
  document.body.dataset.blocked = blocked.length;
  document.body.dataset.wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser here")
@pytest.mark.parametrize("name", ["wolff", "pt"])
def test_a_browser_shows_every_table_and_picture_and_loads_nothing(pages, name, tmp_path):
    text = pages[1][name].replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("<style>", SCRIPT + "<style>"))
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=420,900",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    (body,) = Page(re.sub(r"<script>.*?</script>", "", dom, flags=re.S)).all("body")
    pictures = len(Page(text).all("img"))
    assert body["data-images"] == body["data-shown"] == str(pictures)
    assert body["data-requests"] == body["data-blocked"] == "0"
    assert body["data-wider"] == "0"  # a narrow screen scrolls tables, not the page
    assert dom.count("<table>") == text.count("<table>")
