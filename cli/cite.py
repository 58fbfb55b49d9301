"""References of the methods that a run used and that judged it: for `nmcmc analyze --cite` and the report."""

from __future__ import annotations

from typing import NamedTuple

from mc.chain import Chain
from mc.hamiltonian import Hamiltonian
from mc.vector.hamiltonian import VectorHamiltonian


class Reference(NamedTuple):
    """One published source; `what` says what a run took from it. journal "arXiv" has its number as pages."""

    what: str
    authors: str  # as BibTeX wants them: Surname, Initials and ...
    title: str
    journal: str
    volume: str
    pages: str
    year: int


REFERENCES = {
    "metropolis1953": Reference(
        "Metropolis updates",
        "Metropolis, N. and Rosenbluth, A. W. and Rosenbluth, M. N. and Teller, A. H. and Teller, E.",
        "Equation of State Calculations by Fast Computing Machines", "J. Chem. Phys.", "21", "1087", 1953),
    "glauber1963": Reference(
        "heat-bath updates", "Glauber, R. J.", "Time-Dependent Statistics of the Ising Model", "J. Math. Phys.", "4",
        "294", 1963),
    "wolff1989": Reference(
        "single-cluster updates", "Wolff, U.", "Collective Monte Carlo Updating for Spin Systems", "Phys. Rev. Lett.",
        "62", "361", 1989),
    "swendsen1987": Reference(
        "cluster updates", "Swendsen, R. H. and Wang, J.-S.",
        "Nonuniversal critical dynamics in Monte Carlo simulations", "Phys. Rev. Lett.", "58", "86", 1987),
    "hukushima1996": Reference(
        "parallel tempering", "Hukushima, K. and Nemoto, K.",
        "Exchange Monte Carlo Method and Application to Spin Glass Simulations", "J. Phys. Soc. Jpn.", "65", "1604",
        1996),
    "okabe2001": Reference(
        "swaps of even and odd pairs in turn", "Okabe, T. and Kawata, M. and Okamoto, Y. and Mikami, M.",
        "Replica-exchange Monte Carlo method for the isobaric-isothermal ensemble", "Chem. Phys. Lett.", "335", "435",
        2001),
    "houdayer2001": Reference(
        "cluster moves of pairs of replicas", "Houdayer, J.",
        "A cluster Monte Carlo algorithm for 2-dimensional spin glasses", "Eur. Phys. J. B", "22", "479", 2001),
    "hukushima2003": Reference(
        "population annealing", "Hukushima, K. and Iba, Y.",
        "Population Annealing and Its Application to a Spin Glass",
        "AIP Conf. Proc.", "690", "200", 2003),
    "machta2010": Reference(
        "population annealing and its free energy", "Machta, J.",
        "Population annealing with weighted averages: A Monte Carlo method for rough free-energy landscapes",
        "Phys. Rev. E", "82", "026704", 2010),
    "kirkpatrick1983": Reference(
        "simulated annealing", "Kirkpatrick, S. and Gelatt, C. D. and Vecchi, M. P.",
        "Optimization by Simulated Annealing", "Science", "220", "671", 1983),
    "wu2019": Reference(
        "autoregressive networks as variational laws", "Wu, D. and Wang, L. and Zhang, P.",
        "Solving Statistical Mechanics Using Variational Autoregressive Networks", "Phys. Rev. Lett.", "122",
        "080602", 2019),
    "nicoli2020": Reference(
        "neural importance sampling and neural Markov chains",
        "Nicoli, K. A. and Nakajima, S. and Strodthoff, N. and Samek, W. and M{\\\"u}ller, K.-R. and Kessel, P.",
        "Asymptotically unbiased estimation of physical observables with neural samplers", "Phys. Rev. E", "101",
        "023304", 2020),
    "bialas2026": Reference(
        "transformers over patches of spins",
        "Bialas, P. and Korcyl, P. and Stebel, T. and Stefanski, D. and Zapolski, D.",
        "Sampling two-dimensional spin systems with transformers", "arXiv", "", "2604.27738", 2026),
    "zhong2026": Reference(
        "windowed transformers for spin glasses; training on refined draws; annealing of a sampler",
        "Zhong and Duan and Liu and Zhang and Tang", "Scalable Physics-Inspired Transformers for Spin Glasses",
        "arXiv", "", "2606.22984", 2026),
    "mcnaughton2020": Reference(
        "global moves by a network mixed with local ones",
        "McNaughton, B. and Milosevic, M. V. and Perali, A. and Pilati, S.",
        "Boosting Monte Carlo simulations of spin glasses using autoregressive neural networks", "Phys. Rev. E",
        "101", "053312", 2020),
    "schollwoeck2011": Reference(
        "compression of boundary matrix-product states", "Schollw{\\\"o}ck, U.",
        "The density-matrix renormalization group in the age of matrix product states", "Ann. Phys.", "326", "96",
        2011),
    "thouless1977": Reference(
        "mean-field equations of dense glasses", "Thouless, D. J. and Anderson, P. W. and Palmer, R. G.",
        "Solution of `Solvable model of a spin glass'", "Philos. Mag.", "35", "593", 1977),
    "wolff2004": Reference(
        "errors and autocorrelation times", "Wolff, U.", "Monte Carlo errors with less errors",
        "Comput. Phys. Commun.", "156", "143", 2004),
    "vehtari2021": Reference(
        "split R-hat", "Vehtari, A. and Gelman, A. and Simpson, D. and Carpenter, B. and B{\\\"u}rkner, P.-C.",
        "Rank-Normalization, Folding, and Localization: An Improved R-hat for Assessing Convergence of MCMC",
        "Bayesian Anal.", "16", "667", 2021),
    "cooper1982": Reference(
        "second-moment correlation length", "Cooper, F. and Freedman, B. and Preston, D.",
        "Solving $\\phi^4_{1,2}$ field theory with Monte Carlo", "Nucl. Phys. B", "210", "210", 1982),
    "kaufman1949": Reference(
        "exact values on tori", "Kaufman, B.",
        "Crystal Statistics. II. Partition Function Evaluated by Spinor Analysis",
        "Phys. Rev.", "76", "1232", 1949),
    "wood1994": Reference(
        "exact draws of a vector spin in a field", "Wood, A. T. A.",
        "Simulation of the von Mises Fisher distribution", "Commun. Stat. Simul. Comput.", "23", "157", 1994),
    "honkoop2025": Reference(
        "the vector-spin glass behind a transformer block, and its mean field", "Honkoop, B.",
        "Statistical Physics of Transformers", "MSc thesis, Universiteit Leiden", "", "", 2025),
}  # fmt: skip

# What a mode uses, before what its settings add.
OF_MODES = {
    "metropolis": ("metropolis1953",),
    "heatbath": ("glauber1963",),
    "wolff": ("wolff1989",),
    "swendsen-wang": ("swendsen1987",),
    "pt": ("hukushima1996", "okabe2001"),
    "population": ("hukushima2003", "machta2010"),
    "anneal": ("kirkpatrick1983",),
    "nmcmc": ("wu2019", "nicoli2020"),
    "nis": ("wu2019", "nicoli2020"),
    "prior": ("nicoli2020",),
    "train": ("wu2019",),
    "distill": ("wu2019", "mcnaughton2020"),
    "neural-anneal": ("wu2019", "zhong2026"),
    "sequential": ("wu2019", "machta2010", "mcnaughton2020"),
}
MARKOV = ("metropolis", "heatbath", "wolff", "swendsen-wang", "pt", "kinetic", "nmcmc")


def references(chain: Chain) -> list[str]:
    """The references of a run as lines of text: what was taken from it, authors, where."""
    return [as_line(REFERENCES[key]) for key in keys(chain, chain.hamiltonian())]


def bibtex(chain: Chain) -> list[str]:
    """The same as BibTeX entries."""
    return [as_bibtex(key, REFERENCES[key]) for key in keys(chain, chain.hamiltonian())]


def keys(chain: Chain, hamiltonian: Hamiltonian) -> list[str]:
    """Names of the references of a run: of its moves, its sampler, and the statistics that judge it."""
    settings = chain.config.get("settings", {})
    net = chain.config.get("net", {})
    found = [*OF_MODES.get(chain.mode, ())]
    if isinstance(hamiltonian, VectorHamiltonian):
        kernel = chain.config.get("kernel", "")
        found = [key for key in found if key != "glauber1963"]
        found += ["wood1994"] * (kernel in ("vector-heatbath", "vector-kinetic"))
        found += ["metropolis1953"] * (kernel == "vector-metropolis") + ["honkoop2025"]
    if chain.mode == "pt":
        found += ["houdayer2001"] * (settings.get("replicas", 1) > 1 and settings.get("houdayer") == "auto")
        found += ["mcnaughton2020"] * (settings.get("neural", "off") != "off")
    if net.get("net") == "transformer":
        found += ["bialas2026"] + ["zhong2026"] * (net.get("mask", "full") != "full" or net.get("head") == "spin")
    if net.get("prior") == "boundary-mps":
        found += ["schollwoeck2011"]
    if net.get("prior") == "belief":
        found += ["thouless1977"]
    if settings.get("local"):
        found += ["mcnaughton2020"]
    if chain.mode in MARKOV:
        found += ["wolff2004", "vehtari2021"]
    if any(name.endswith("_k2") for name in chain.posterior):
        found += ["cooper1982"]
    lattice = hamiltonian.lattice
    if hamiltonian.is_ferromagnet and lattice is not None and len(lattice.shape) == 2 and all(lattice.periodic):
        found += ["kaufman1949"]
    return list(dict.fromkeys(found))


def as_line(reference: Reference) -> str:
    """One line of text."""
    authors = reference.authors.replace(" and ", "; ").replace('{\\"u}', "ü").replace('{\\"o}', "ö")
    where = f"{reference.journal} {reference.volume}, {reference.pages}".rstrip(", ")
    if reference.journal == "arXiv":
        where = f"arXiv:{reference.pages}"
    return f"{reference.what}: {authors}, {where} ({reference.year})"


def as_bibtex(key: str, reference: Reference) -> str:
    """One BibTeX entry; the comment before it says what it is cited for."""
    fields = {"author": reference.authors, "title": f"{{{reference.title}}}", "year": str(reference.year)}
    if reference.journal == "arXiv":
        fields |= {"eprint": reference.pages, "archivePrefix": "arXiv"}
    else:
        fields |= {"journal": reference.journal, "volume": reference.volume, "pages": reference.pages}
        fields = {name: value for name, value in fields.items() if value}
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"% {reference.what}\n@article{{{key},\n{lines}\n}}"
