"""What is shipped: the wheel holds memover alone and typed, works where nothing else is, and imports light."""

from __future__ import annotations

import email
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import memover

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).resolve().parents[1]

# What a program pays for only if it uses it.
HEAVY = (
    "redis",
    "sqlite3",
    "django",
    "attrs",
    "click",
    "msgspec",
    "numpy",
    "pandas",
    "pydantic",
    "zstandard",
    "pytest",
    "rich",
)


def python(*args: str, interpreter: str | Path = sys.executable, cwd: Path = ROOT) -> str:
    ended = subprocess.run([interpreter, *args], cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as an index would have it, so the sdist is known to be complete too."""
    out = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_memover_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"memover", f"memover-{memover.__version__}.dist-info"}
    shipped = {name for name in names if name.startswith("memover/")}
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "memover").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == source
    assert "memover/py.typed" in shipped


def test_the_wheel_is_for_any_python_three(wheel: Path) -> None:
    assert wheel.name == f"memover-{memover.__version__}-py3-none-any.whl"


def test_the_metadata_says_what_it_is_and_needs(metadata: Message) -> None:
    assert metadata["Name"] == "memover"
    assert metadata["Version"] == memover.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    needed = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert sorted(text.split(">=")[0] for text in needed) == ["msgpack", "redis", "wrapt"]
    assert {"hiredis", "zstd"} <= set(metadata.get_all("Provides-Extra", []))


def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    python("-m", "venv", "--without-pip", str(venv))
    inside = venv / "bin" / "python"
    python("-m", "pip", "--python", str(inside), "install", "--quiet", str(wheel))
    program = tmp_path / "program.py"
    program.write_text(
        "import memover\n"
        "runs = []\n"
        "@memover.versioned_cache(namespace='squares', version=1, ttl=60)\n"
        "def square(n):\n"
        "    runs.append(n)\n"
        "    return n * n\n"
        "assert [square(7), square(n=7), square(8)] == [49, 49, 64]\n"
        "assert runs == [7, 8]\n"
        "square.invalidate_all()\n"
        "assert square(7) == 49\n"
        "assert runs == [7, 8, 7]\n"
        "print(memover.__version__, memover.__file__)\n"
    )
    # -W error: a new user's first impression should hold no warning. -I: nothing of ours through PYTHONPATH.
    version, path = python("-I", "-W", "error", str(program), interpreter=inside, cwd=tmp_path).split()
    assert version == memover.__version__
    assert Path(path).is_relative_to(venv)


def test_importing_memover_loads_nothing_heavy() -> None:
    code = "import json, sys, memover; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(python("-W", "error", "-c", code)))
    assert loaded.isdisjoint(HEAVY)


def test_the_heavy_modules_are_found_out_if_something_loads_them() -> None:
    code = "import json, sys, redis; print(json.dumps(sorted(sys.modules)))"
    assert not set(json.loads(python("-c", code))).isdisjoint(HEAVY)
