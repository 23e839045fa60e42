"""Builds sdist and wheel, installs the wheel alone, and tries it elsewhere.

  python tests/build_the_wheel.py  # what `make wheel` runs

The wheel is built from the sdist, so the sdist is known to hold enough. It is
installed into a new environment together with what it declares to need and
nothing else, at the versions of `requirements.lock`; `try_the_wheel.py` then
runs there, in isolated mode and outside of the repository. So this fails if a
file is missing from the wheel or a dependency from `pyproject.toml`, which no
test in the development environment can notice. It needs an index of packages,
or a cache of them.
"""

import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv

ROOT = pathlib.Path(__file__).parents[1]
TRIAL = ROOT / "tests" / "try_the_wheel.py"
PACKAGES = ("gmixout_jax", "pallas_kernels")


def copied(folder: pathlib.Path) -> pathlib.Path:
  """Copies what the distributions are made of; no build's leftovers go in."""
  for name in PACKAGES:
    shutil.copytree(
      ROOT / name,
      folder / name,
      ignore=shutil.ignore_patterns("__pycache__"),
    )
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, folder)
  return folder


def built(what: str, source: pathlib.Path, dist: pathlib.Path) -> pathlib.Path:
  """Builds "sdist" or "wheel" of a source tree; returns its path."""
  call = (
    "import sys; from setuptools import build_meta; "
    "print(getattr(build_meta, f'build_{sys.argv[1]}')(sys.argv[2]))"
  )
  done = subprocess.run(
    [sys.executable, "-c", call, what, str(dist)],
    cwd=source,
    stdout=subprocess.PIPE,  # setuptools names every file
    text=True,
    check=True,
  )
  return dist / done.stdout.splitlines()[-1]


def both(dist: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """Builds sdist and, from it, wheel into a folder; returns their paths."""
  dist.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as folder:
    scratch = pathlib.Path(folder)
    (scratch / "source").mkdir()
    sdist = built("sdist", copied(scratch / "source"), dist)
    with tarfile.open(sdist) as archive:
      archive.extractall(scratch, filter="data")
    unpacked = scratch / sdist.name.removesuffix(".tar.gz")
    return sdist, built("wheel", unpacked, dist)


def main() -> None:
  """Exits with the status of whatever fails first."""
  sdist, wheel = both(ROOT / "dist")
  print(f"built {sdist.name} and {wheel.name}", flush=True)
  with tempfile.TemporaryDirectory() as folder:
    environment = pathlib.Path(folder, "env")
    venv.create(environment)
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python]
    lock = str(ROOT / "requirements.lock")
    for command in (
      [*pip, "install", "--quiet", "--constraint", lock, str(wheel)],
      [*pip, "check"],
      [
        *(python, "-I", shutil.copy(TRIAL, folder)),
        *(wheel.name, shutil.copy(ROOT / "README.md", folder)),
      ],
    ):
      done = subprocess.run(command, cwd=folder)
      if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
  main()
