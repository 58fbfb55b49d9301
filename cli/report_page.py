"""HTML of a report: a page that needs nothing but itself. All text is escaped here, and nowhere else.

No script, no font, no file from elsewhere; a content security policy makes browsers hold the page to that.
"""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MARK = '<meta name="generator" content="nmcmc report">'
HEAD = 1024  # bytes within which a page of ours has the mark
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --faint: #595959; --line: #c9c9c9;
  --shade: #f4f4f2; --link: #0b5394; --good: #1d6b3a; --warn: #8a4b00; --bad: #a32020; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --paper: #16181a; --faint: #a9a9a6; --line: #45484b;
  --shade: #202326; --link: #8ab8ea; --good: #7cc796; --warn: #e0a458; --bad: #f08a8a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 "Source Serif 4", Charter, Georgia, "Times New Roman", serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid var(--line); }
p, ul, ol { margin: .5rem 0; } li { margin: .15rem 0; overflow-wrap: anywhere; }
a { color: var(--link); }
.about { color: var(--faint); margin-bottom: 1rem; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .92rem; }
.verdict { border-left: 4px solid var(--faint); background: var(--shade); padding: .6rem .9rem; margin: 1rem 0; }
.verdict ul { padding-left: 1.2rem; } .verdict strong { font-size: 1.05rem; }
.good { border-color: var(--good); } .good strong { color: var(--good); }
.warn { border-color: var(--warn); } .warn strong { color: var(--warn); }
.bad { border-color: var(--bad); } .bad strong { color: var(--bad); }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.35; font-variant-numeric: tabular-nums;
  border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink); }
caption { text-align: left; padding: 0 0 .35rem; font-size: .92rem; caption-side: top; }
th, td { padding: .18rem .7rem .18rem 0; text-align: left; vertical-align: baseline; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; }
tbody th { font-weight: 400; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
tbody tr.new > * { border-top: 1px solid var(--line); }
.long { overflow-wrap: anywhere; }
figure { margin: 1.2rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff; padding: 6px;
  border: 1px solid var(--line); }
figcaption { font-size: .9rem; margin-top: .35rem; max-width: 44rem; }
pre { background: var(--shade); border: 1px solid var(--line); padding: .55rem .7rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font: .86rem/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
footer { margin-top: 3rem; color: var(--faint); font-size: .85rem; }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --faint: #444; --line: #bbb; --shade: #fff;
    --link: #000; --good: #000; --warn: #000; --bad: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; } .wide { overflow: visible; }
  h2 { break-after: avoid; } figure, tr, .verdict, pre { break-inside: avoid; } thead { display: table-header-group; }
  table { font-size: 7.5pt; } td.n, th.n { white-space: normal; } th, td { padding-right: .4rem; }
  @page { size: A4; margin: 18mm 16mm; } }
"""


@dataclass(frozen=True)
class Table:
    """A caption, heads of the columns, and rows of texts whose first entry names the row.

    numeric: whether each column is aligned to the right. breaks: numbers of rows with a rule above them.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    breaks: frozenset[int] = field(default_factory=frozenset)

    def html(self) -> str:
        heads = "".join(f'<th scope="col"{_right(n)}>{text(h)}</th>' for h, n in self._columns(self.heads))
        lines = []
        for number, row in enumerate(self.rows):
            first, *rest = (
                f'<th scope="row"{_right(n)}>{text(cell)}</th>' if place == 0 else f"<td{_cell(n)}>{text(cell)}</td>"
                for place, (cell, n) in enumerate(self._columns(row))
            )
            mark = ' class="new"' if number in self.breaks else ""
            lines.append(f"<tr{mark}>{first}{''.join(rest)}</tr>")
        body = "\n".join(lines)
        # A region that can be scrolled must be reached by the keyboard, and have a name.
        return (
            f'<div class="wide" role="region" tabindex="0" aria-label="{text(self.caption)}"><table>'
            f"<caption>{text(self.caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>"
            "</table></div>\n"
        )

    def _columns(self, cells: Sequence[str]) -> Iterable[tuple[str, bool]]:
        return zip(cells, self.numeric, strict=True)


def text(words: object) -> str:
    """Anything as text of a page: escaped, without characters that no page may hold."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(words))
    return html.escape(shown, quote=True)


def _right(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def _cell(numeric: bool) -> str:
    return ' class="n"' if numeric else ' class="long"'


def section(name: str, title: str, *parts: str) -> str:
    return f'<section id="{text(name)}">\n<h2>{text(title)}</h2>\n{"".join(parts)}</section>\n'


def paragraph(words: str) -> str:
    return f"<p>{text(words)}</p>\n"


def code(words: str) -> str:
    return f"<pre><code>{text(words)}</code></pre>\n"


def items(lines: Iterable[str], ordered: bool = False) -> str:
    kind = "ol" if ordered else "ul"
    return f"<{kind}>\n" + "".join(f"<li>{text(line)}</li>\n" for line in lines) + f"</{kind}>\n"


def verdict(kind: str, headline: str, lines: Iterable[str]) -> str:
    """A box; kind: good, warn or bad, which the headline must say, too."""
    return f'<div class="verdict {text(kind)}"><strong>{text(headline)}</strong>\n{items(lines)}</div>\n'


def picture(png: bytes, size: tuple[int, int], alternative: str, caption: str) -> str:
    """A figure; size: (width, height) on the page in CSS pixels."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{size[0]}" height="{size[1]}" '
        f'alt="{text(alternative)}">\n<figcaption>{text(caption)}</figcaption></figure>\n'
    )


def is_report(path: str | os.PathLike) -> bool:
    """Whether a file is such a page, by its mark; never raises."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return head.startswith(b"<!DOCTYPE html>") and MARK.encode() in head


def page(title: str, about: str, top: str, sections: Sequence[tuple[str, str, str]], foot: str) -> str:
    """The whole page. top: HTML before the first section; sections: (name, title, HTML)."""
    links = "".join(f'<li><a href="#{text(name)}">{text(heading)}</a></li>' for name, heading, _ in sections)
    body = "".join(section(name, heading, content) for name, heading, content in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{MARK}\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f'<header>\n<h1>{text(title)}</h1>\n<p class="about">{text(about)}</p>\n</header>\n<main>\n{top}'
        f'<nav aria-label="contents"><ul>{links}</ul></nav>\n{body}</main>\n'
        f"<footer>{text(foot)}</footer>\n</body>\n</html>\n"
    )
