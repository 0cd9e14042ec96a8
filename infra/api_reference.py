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
        vars(millstream)[name] = public = getattr(millstream, name)  # imported on use; pdoc looks at what is there
        if isinstance(public, type):
            _adopt(public)
    pdoc.render.configure(docformat="numpy", search=False)
    pdoc.pdoc(*PUBLIC, output_directory=folder)


def _adopt(public: type) -> None:
    """Document a class with the members that it inherits from the engine's internal classes."""
    for base in public.__mro__[1:]:
        if base.__module__.startswith("millstream."):
            for name, member in vars(base).items():
                if not name.startswith("_") and name not in vars(public):
                    setattr(public, name, member)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".millstream" / "docs"
    write(target)
    print(target / "index.html")
