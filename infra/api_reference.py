"""Write the reference of the public Python API as HTML, from docstrings, with pdoc: api_reference.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc
import pdoc.render

import millstream

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = ("millstream", "millstream.errors", "millstream.settings", "millstream.testing")


def write(folder: Path) -> None:
    """Write a page per public module into a folder."""
    for name in millstream.__all__:
        vars(millstream)[name] = getattr(millstream, name)  # imported when used; pdoc looks at what is there
    pdoc.render.configure(docformat="numpy", search=False)
    pdoc.pdoc(*PUBLIC, output_directory=folder)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".millstream" / "docs"
    write(target)
    print(target / "index.html")
