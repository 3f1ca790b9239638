"""The wheel holds the package and nothing else, and runs from wherever it is installed."""

import email
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DATA = {
    "p2pnode/py.typed",
    "p2pnode/interfaces/tui/top.tcss",
    "p2pnode/engine/calibration_text.txt",
    "p2pnode/node/calibrations/dbf071d2.pcal",
}
"""What is no code, and would be missed late."""


@pytest.fixture(scope="module", name="wheel")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling", reason="no hatchling here: make test installs it")
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "P2PNODE_COMPILE": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    assert path.name == f"p2pnode-{PROJECT['version']}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "p2pnode").rglob("*")
        if path.is_file() and not {"__pycache__", "_compiled"} & set(path.parts)
    }
    about = f"p2pnode-{PROJECT['version']}.dist-info"
    names = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert set(wheel.namelist()) == package | {f"{about}/{name}" for name in names}
    assert set(wheel.namelist()) >= DATA


def test_what_it_says_of_itself_is_what_the_project_says(wheel: zipfile.ZipFile) -> None:
    about = f"p2pnode-{PROJECT['version']}.dist-info"
    metadata = email.message_from_bytes(wheel.read(f"{about}/METADATA"))
    assert (metadata["Name"], metadata["Requires-Python"]) == ("p2pnode", ">=3.11")
    needed = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert len(needed) == len(PROJECT["dependencies"])
    entries = wheel.read(f"{about}/entry_points.txt").decode()
    assert entries.split() == [
        *("[console_scripts]", "p2pnode", "=", "p2pnode.interfaces.cli.main:main")
    ]


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_it_runs_where_nobody_can_write_and_no_checkout_is_near(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    """As in a container: unpacked, read-only, with a state and a cache of its own."""
    installed, home = tmp_path / "installed", tmp_path / "home"
    wheel.extractall(installed)
    home.mkdir()
    for path in (installed, *installed.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "P2PNODE_HOME": str(home / "state"),
        "P2PNODE_CACHE": str(home / "cache"),
    }
    where = "import p2pnode; print(p2pnode.__file__)"
    for words, said in (
        (("-c", where), str(installed)),
        (("-m", "p2pnode", "--version"), PROJECT["version"]),
        (("-m", "p2pnode", "demo", "--help"), "--kill"),
        (("-m", "p2pnode", "doctor", "--model", "none"), "python"),
        (("-m", "p2pnode", "service", "install", "--print"), "ExecStart="),
    ):
        done = subprocess.run(
            [sys.executable, "-P", *words],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert said in done.stdout, done.stderr
        assert "Traceback" not in done.stderr
