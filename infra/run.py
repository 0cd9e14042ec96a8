#!/usr/bin/env python3
"""Set Millstream up beside its checkout and run it; needs Python 3.11 to 3.13 and nothing else.

    python3 infra/run.py demo            the main job, on servers it starts by itself
    python3 infra/run.py test [ARGS]     every check; ARGS go to pytest
    python3 infra/run.py setup           only install packages
    python3 infra/run.py docs            write the Python API's reference to .millstream/docs
    python3 infra/run.py wheel           build the wheel into dist/
    python3 infra/run.py lock            resolve the pinned packages again (after a change of pyproject.toml)
    python3 infra/run.py ANYTHING ...    .venv/bin/millstream ANYTHING ...

Packages come from the hash-pinned locks in infra/ into .venv. While lock and pyproject.toml stay as they are, nothing
is installed again and no network is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
INFRA = ROOT / "infra"
VENV = ROOT / ".venv"
BIN = VENV / "bin"
STAMP = VENV / "millstream-setup.json"
SUPPORTED = ((3, 11), (3, 12), (3, 13))
LOCKS = {"run": INFRA / "requirements.lock", "dev": INFRA / "requirements-dev.lock"}
CHECKS = (
    ("format", ["ruff", "format", "--check", "."]),
    ("lint", ["ruff", "check", "."]),
    ("types", ["mypy"]),
    ("layers", ["lint-imports"]),
    ("tests", ["pytest"]),
)
COMPILE = [
    *("pip", "compile", "pyproject.toml", "infra/build.in", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--quiet", "--upgrade"),
]

VENV_ADVICE = (
    "On Debian and Ubuntu, this Python's venv and pip come as a package of their own: "
    f"apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv"
)

NETWORK_ADVICE = (
    "the packages could not be installed (see above). The first run needs the network to fetch them; behind a mirror "
    "or proxy, set PIP_INDEX_URL and UV_DEFAULT_INDEX, or HTTPS_PROXY. Nothing is lost: run the same command again."
)


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"millstream: {text}", flush=True)


def fail(text: str) -> NoReturn:
    """Exit with a message about what to do."""
    sys.exit(f"millstream: {text}")


def sha256(*files: Path) -> str:
    """Return one hash over the contents of files."""
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def use_supported_python() -> None:
    """Go on under a supported Python: this one, or one found on the PATH."""
    if os.name != "posix":
        fail("Linux and macOS are supported; on Windows, use WSL.")
    if sys.version_info[:2] in SUPPORTED:
        return
    for major, minor in reversed(SUPPORTED):
        found = shutil.which(f"python{major}.{minor}")
        if found:
            os.execv(found, [found, *sys.argv])
    fail(
        f"needs Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]} ({sys.executable}), and none of those is "
        "on the PATH. Install one, then run this file with it: python3.12 infra/run.py ..."
    )


def venv_version() -> str | None:
    """Return the Python version of .venv as "3.12", None if there is no working one."""
    python = BIN / "python"
    if not python.exists():
        return None
    asked = subprocess.run(
        [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else None


def make_venv() -> None:
    """Create .venv unless a usable one is there."""
    wanted = f"{sys.version_info[0]}.{sys.version_info[1]}"
    present = venv_version()
    if present in {f"{major}.{minor}" for major, minor in SUPPORTED}:
        if present != wanted:
            say(f".venv has Python {present} and is kept; to change to {wanted}, delete .venv first")
        return
    say(f"creating .venv with Python {wanted}")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode:
        fail(f"cannot create {VENV}:\n{made.stdout}{VENV_ADVICE}")


def succeeds(*command: str) -> bool:
    """Run a command for its exit code alone."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def install_uv() -> None:
    """Install the pinned uv into .venv, by whichever pip there is."""
    if (BIN / "uv").exists() and read_stamp().get("bootstrap") == sha256(INFRA / "bootstrap.lock"):
        return
    say("installing uv, the package installer")
    python = str(BIN / "python")
    if succeeds(python, "-m", "pip", "--version") or succeeds(python, "-m", "ensurepip"):
        pip = [python, "-m", "pip"]
    elif succeeds(sys.executable, "-m", "pip", "--version"):
        pip = [sys.executable, "-m", "pip", "--python", python]
    else:
        fail(f"this Python has no pip to install anything with.\n{VENV_ADVICE}")
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(INFRA / "bootstrap.lock")]
    if subprocess.run([*pip, "install", *options], check=False).returncode:
        fail(NETWORK_ADVICE)
    write_stamp(bootstrap=sha256(INFRA / "bootstrap.lock"))


def uv(*arguments: str) -> int:
    """Run uv on .venv, its list of packages shown as one line of progress; return its exit code."""
    # As pip does: the system's certificates, which behind a proxy that inspects TLS are the only ones that fit.
    defaults = {"UV_HTTP_TIMEOUT": "180", "UV_SYSTEM_CERTS": "true"}
    environ = {**defaults, **os.environ, "VIRTUAL_ENV": str(VENV), "UV_PYTHON_DOWNLOADS": "never"}
    if "PIP_INDEX_URL" in environ:
        environ.setdefault("UV_DEFAULT_INDEX", environ["PIP_INDEX_URL"])
    begun = ended = 0
    live = sys.stderr.isatty()
    with subprocess.Popen(
        [str(BIN / "uv"), *arguments], cwd=str(ROOT), env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr or ():
            word = line.split(maxsplit=1)[0] if line.strip() else ""
            if word in {"Downloading", "Downloaded", "Building", "Built"}:
                begun += word in {"Downloading", "Building"}
                ended += word in {"Downloaded", "Built"}
                if live:
                    sys.stderr.write(f"\r\033[Kmillstream: fetching, {begun - ended} downloads under way, {ended} done")
            elif word not in {"+", "-", "~"}:
                sys.stderr.write(("\r\033[K" if live else "") + line)
            sys.stderr.flush()
    return process.returncode


def read_stamp() -> dict[str, str]:
    """Return what .venv was set up from."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def write_stamp(**parts: str) -> None:
    """Remember what .venv was set up from."""
    STAMP.write_text(json.dumps({**read_stamp(), **parts}))


def setup(kind: str) -> None:
    """Bring .venv to what the locks say; ``kind`` is "run" or "dev" (which includes "run")."""
    import fcntl

    with Path(__file__).open() as this_file:
        fcntl.flock(this_file, fcntl.LOCK_EX)
        began = time.monotonic()
        make_venv()
        project = sha256(ROOT / "pyproject.toml")
        present = read_stamp()
        # The dev lock holds everything of the other one, at the same versions.
        installed = any(present.get(other) == sha256(LOCKS[other]) for other in {kind, "dev"})
        if installed and present.get("project") == project:
            return
        install_uv()
        if not installed:
            say(f"installing packages from {LOCKS[kind].relative_to(ROOT)} (the first time takes a minute or two)")
            command = ("pip", "install", "--require-hashes", "-r", str(LOCKS[kind]))
            if uv(*command) and uv(*command, "--offline"):
                fail(NETWORK_ADVICE)
            write_stamp(**{"run": "", "dev": "", kind: sha256(LOCKS[kind])})
        editable = ("pip", "install", "--quiet", "--offline", "--no-deps", "--no-build-isolation", "-e", ".")
        if uv(*editable):
            fail("the checkout itself could not be installed (see above)")
        write_stamp(project=project)
        say(f"ready after {time.monotonic() - began:.0f} s")


def python(*arguments: str) -> int:
    """Run .venv's Python in the checkout; return its exit code."""
    return subprocess.run([str(BIN / "python"), *arguments], cwd=str(ROOT), check=False).returncode


def test(arguments: list[str]) -> int:
    """Run every check, even after one has failed; return 1 if any did."""
    failed = []
    for name, command in CHECKS:
        say(f"{name}: {' '.join(command)}")
        more = arguments if name == "tests" else []
        if subprocess.run([str(BIN / command[0]), *command[1:], *more], cwd=str(ROOT), check=False).returncode:
            failed.append(name)
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def lock() -> int:
    """Resolve both locks and the installer's again, for every platform and supported Python."""
    base = ["-o", str(LOCKS["run"].relative_to(ROOT))]
    dev = ["--group", "dev", "-c", str(LOCKS["run"].relative_to(ROOT)), "-o", str(LOCKS["dev"].relative_to(ROOT))]
    own = [word for word in COMPILE if word not in {"pyproject.toml", "infra/build.in"}]
    return uv(*COMPILE, *base) or uv(*COMPILE, *dev) or uv(*own, "infra/bootstrap.in", "-o", "infra/bootstrap.lock")


def main(arguments: list[str]) -> int:
    """Run the command that the first argument names."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(__doc__)
        return 0 if arguments else 2
    use_supported_python()
    # Where it is set, each of the many processes would compile the same thousands of modules again, for seconds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    command, rest = arguments[0], arguments[1:]
    setup("dev" if command in {"test", "lock", "docs"} else "run")
    own = {
        "setup": lambda: 0,
        "test": lambda: test(rest),
        "lock": lock,
        "docs": lambda: python(str(INFRA / "api_reference.py"), *rest),
        "wheel": lambda: python("-m", "hatchling", "build", "-t", "wheel", *rest),
    }
    if command in own:
        return own[command]()
    return os.execv(str(BIN / "millstream"), [str(BIN / "millstream"), *arguments])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
