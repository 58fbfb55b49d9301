"""For mkdocs: pictures of the examples lie beside the examples, where a page finds them in the repository too.

A page writes ../examples/figures/NAME.png. The site gets such files into figures/.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

FIGURES = Path(__file__).parents[1] / "examples" / "figures"
OUTSIDE = re.compile(r"\.\./examples/figures/([\w.-]+)")


def on_files(files, config):
    """Add the pictures that pages show to the files of the site."""
    shown = {name for page in files.documentation_pages() for name in OUTSIDE.findall(page.content_string)}
    for name in sorted(shown):
        if (FIGURES / name).is_file():
            files.append(File.generated(config, f"figures/{name}", abs_src_path=str(FIGURES / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point to them there; one that is missing stays a broken link, which a strict build refuses."""
    return OUTSIDE.sub(r"figures/\1", markdown)
