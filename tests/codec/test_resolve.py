"""The `codec=` option takes the default, a name, or an object with two methods, and explains everything else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from memover.codec.base import Codec, codec_name, resolve_codec
from memover.codec.mv1.codec import ValueCodec
from memover.codec.pickle import PickleCodec
from memover.errors import ConfigurationError


class Json:
    name = "json"

    def encode(self, value: Any) -> bytes:
        return b""

    def decode(self, data: bytes | memoryview) -> Any:
        return None


class Nameless(Json):
    name = ""


def test_the_default_is_the_value_codec() -> None:
    """None and "msgpack" mean memover's own codec."""
    for spec in (None, "msgpack"):
        codec = resolve_codec(spec, test_the_default_is_the_value_codec)
        assert isinstance(codec, ValueCodec)
        assert codec_name(codec) == "mv1"


def test_objects_are_taken_as_they_are() -> None:
    """A user's codec is used itself, and goes by its name or its class's."""
    for codec, name in (
        (Json(), "json"),
        (Nameless(), f"{__name__}.Nameless"),
        (PickleCodec(["k"]), PickleCodec.name),
    ):
        assert resolve_codec(codec, None) is codec
        assert isinstance(codec, Codec)
        assert codec_name(codec) == name


@pytest.mark.parametrize("spec", ["pickle", "json", "", 5, object(), Json, b"msgpack"])
def test_anything_else_is_a_mistake(spec: Any) -> None:
    """Other names, classes and objects without the two methods are refused with what to do."""
    with pytest.raises(ConfigurationError):
        resolve_codec(spec, None)


def test_pickle_is_refused_with_the_safe_way() -> None:
    """Asking for pickle by name is answered with how to ask for it signed."""
    with pytest.raises(ConfigurationError, match=r"PickleCodec\(keys="):
        resolve_codec("pickle", None)


def test_nothing_heavy_is_imported() -> None:
    """Importing the codec loads neither optional libraries nor the heavy parts of the standard library."""
    code = (
        "import sys, types, msgpack\n"
        "package = sys.modules['memover'] = types.ModuleType('memover')\n"
        "package.__path__ = ['memover']\n"  # the codec alone, without what the face of memover imports
        "before = set(sys.modules)\n"
        "import memover.codec.base, memover.codec.mv1.codec\n"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "numpy",
        "pandas",
        "polars",
        "pyarrow",
        "pydantic",
        "attr",
        "msgspec",
        "zstandard",
        "decimal",
        "uuid",
    }
    heavy |= {"fractions", "pathlib", "ipaddress", "zoneinfo", "pickle", "hmac", "array", "zlib"}
    assert "memover.codec.mv1.codec" in done.stdout
    assert set(done.stdout.split()) & heavy == set()
