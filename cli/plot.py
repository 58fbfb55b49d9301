"""`nmcmc plot`: one figure for each that the files allow."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cli.ensemble_results import is_ensemble
from cli.errors import UserError, closest
from cli.figures import (
    FIGURES,
    OF_SEVERAL,
    WITHOUT_DRAWS,
    NotDrawn,
    draw,
    draw_together,
    require_matplotlib,
)
from cli.figures.drawn import Drawn
from cli.figures.files import about, as_bytes, is_figure, require_free, write_whole
from cli.output import counted
from cli.results import refuse_mean_field

if TYPE_CHECKING:
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf")


@dataclass(frozen=True)
class Job:
    """A file's figures: the name they begin with, the folder they go to, and how each is made."""

    name: str
    folder: Path
    made: dict[str, Callable[[], Figure]]

    def place(self, name: str, form: str) -> Path:
        """Where a figure goes."""
        return self.folder / f"{self.name}-{name}.{form}"

    @property
    def document(self) -> Path:
        """Where all go with --page."""
        return self.folder / f"{self.name}.pdf"

    def places(self, page: bool, form: str) -> list[Path]:
        return [self.document] if page else [self.place(name, form) for name in self.made]


def plot(files: list[Path], out: Path | None, page: bool, form: str, only: str | None) -> None:
    """Write the figures of chain files, and those of several files together; UserError before any work."""
    wanted = checked_names(only)
    if form not in FORMATS:
        raise UserError(f"--format {form}: png or pdf is needed{closest(form, FORMATS)}")
    require_matplotlib()
    chains = [Drawn.of(path) for path in files if not is_ensemble(path)]
    jobs = list(planned(files, chains, out, wanted))
    require_places([place for job in jobs for place in job.places(page, form)])
    written: list[Path] = []
    why_not: list[str] = []
    for job in jobs:
        new, refused = _run(job, page, form, named=only is not None)
        written += new
        why_not += refused
    if not written:
        raise UserError(f"no figure to draw: {'; '.join(why_not) or 'these files hold nothing to plot'}")
    for line in noted(chains, wanted):
        print(f"note: {line}")
    for line in why_not:
        print(f"not drawn: {line}")
    print(f"{counted(len(written), 'file')} written, to be opened with any viewer:")
    for path in written:
        print(f"  {path}")


def checked_names(only: str | None) -> list[str]:
    """The figures asked for, in their usual order; UserError for a name that is none."""
    known = [*FIGURES, *OF_SEVERAL]
    if only is None:
        return known
    asked = [name.strip() for name in only.split(",") if name.strip()]
    for name in asked:
        if name not in known:
            raise UserError(f"--only {name}: no such figure{closest(name, known)} (there are {', '.join(known)})")
    if not asked:
        raise UserError(f"--only: a figure is needed, one or more of {', '.join(known)}")
    return [name for name in known if name in asked]


def planned(files: Sequence[Path], chains: Sequence[Drawn], out: Path | None, wanted: Sequence[str]) -> Iterator[Job]:
    """The work on every file, and on all together. chains: those of the files that are no ensembles."""
    single = [name for name in wanted if name in FIGURES]
    together = len(files) > 1 and any(name in OF_SEVERAL for name in wanted)
    if len(files) == 1 and not single:
        raise UserError(
            f"--only {', '.join(wanted)}: drawn from several files of one model at different L; give them all"
        )
    if len(chains) < len(files) and not together:
        path = next(path for path in files if is_ensemble(path))
        raise UserError(f"{path} is an ensemble: give ensembles of several sizes for crossings, or plot one of its "
                        "instances, run alone with its seed=; `nmcmc analyze` has its averages")  # fmt: skip
    for drawn in chains:
        refuse_mean_field(drawn.path, drawn.chain.mode)
        if not drawn.n_draws and not drawn.chain.training:
            raise UserError(f"{drawn.path} holds no draws yet, so there is nothing to plot; let the run go on")
    _require_different_names(chains)
    for drawn in chains:
        names = [name for name in single if drawn.n_draws or name in WITHOUT_DRAWS]
        made = {name: (lambda name=name, drawn=drawn: draw(name, drawn)) for name in names}
        if made:
            yield Job(drawn.name, out or Path(f"{drawn.name}-figures"), made)
    if together:
        from cli.figures.sizes import Sized, common_name

        sized = [Sized.of(path) for path in files]
        name = common_name(sized)
        made = {one: (lambda one=one: draw_together(one, sized)) for one in wanted if one in OF_SEVERAL}
        yield Job(name, out or Path(f"{name}-figures"), made)


def _require_different_names(chains: Sequence[Drawn]) -> None:
    for name, count in Counter(drawn.name for drawn in chains).items():
        if count > 1:
            raise UserError(f"{count} files are called {name}, and so would their figures; plot them one by one, "
                            "each with its own --out")  # fmt: skip


def require_places(places: Sequence[Path]) -> None:
    """UserError where a figure cannot be written, or would replace what is no figure of ours or one of this call."""
    for place, count in Counter(places).items():
        if count > 1:
            raise UserError(
                f"{place} would be written {count} times; plot the files one by one, each with its own --out"
            )
        require_free(place, is_figure, "figure")


def noted(chains: Sequence[Drawn], wanted: Sequence[str]) -> list[str]:
    """What the figures leave out: draws that are not finite."""
    if set(wanted) <= set(WITHOUT_DRAWS):
        return []
    return [f"{drawn.name}: {line}" for drawn in chains for line in drawn.not_finite()]


def _run(job: Job, page: bool, form: str, named: bool) -> tuple[list[Path], list[str]]:
    """(files written, why others were not drawn); of figures not asked for by name only what is wanting is said."""
    from cli.figures import style

    written, refused = [], []
    with style.paper(), contextlib.ExitStack() as stack:
        pages, content = None, io.BytesIO()
        for name, make in job.made.items():
            try:
                figure = make()
            except NotDrawn as why:
                if why.wanting or named:
                    refused.append(f"{job.name}: {name} ({why})")
                continue
            if page:
                pages = pages or stack.enter_context(_pages(content, job.name))
                figure.suptitle(f"{job.name}: {name}", x=0.01, ha="left", color=style.FAINT)
                pages.savefig(figure)
                continue
            write_whole(job.place(name, form), as_bytes(figure, form, f"{job.name}: {name}", style.DPI))
            written.append(job.place(name, form))
    if pages:
        write_whole(job.document, content.getvalue())
        written.append(job.document)
    return written, refused


def _pages(content: BinaryIO, title: str) -> PdfPages:
    from matplotlib.backends.backend_pdf import PdfPages

    return PdfPages(content, metadata=about("pdf", title))
