"""The shop in Django, served by a process of its own on a real Redis, does what its pages and its admin say."""

from __future__ import annotations

import http.cookiejar
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.servers import free_port, wait_until

pytest.importorskip("django")

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

SHOP = Path(__file__).resolve().parents[2] / "examples" / "django_shop"


class Browser:
    """Somebody with cookies who looks at the shop."""

    def __init__(self, port: int) -> None:
        self._where = f"http://127.0.0.1:{port}"
        self.jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def get(self, path: str, **fields: str) -> tuple[str, int]:
        """The page and how many queries it took; fields are posted."""
        data = urlencode(fields).encode() if fields else None
        request = urllib.request.Request(self._where + path, data, {"Referer": self._where + path})
        with self._opener.open(request, timeout=30) as answer:
            return answer.read().decode(), int(answer.headers["X-Queries"])

    def post(self, path: str, **fields: str) -> str:
        """Fill in the form on a page."""
        page, _ = self.get(path)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert token is not None
        return self.get(path, csrfmiddlewaretoken=token[1], **fields)[0]


@pytest.fixture
def environment(redis_url: str, prefix: str, tmp_path: Path) -> dict[str, str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith("MEMOVER_")}
    return {
        **known,
        "SHOP_CACHE": redis_url,
        "SHOP_PREFIX": prefix,
        "SHOP_DATABASE": str(tmp_path / "shop.sqlite3"),
        "PYTHONWARNINGS": "error",
    }


@pytest.fixture
def port(environment: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """Where `manage.py demo` serves."""
    port = free_port()
    command = [sys.executable, "manage.py", "demo", "--port", str(port)]
    # A file, and not a pipe that nobody reads: a server that has said more than fits into one stands still.
    log = tmp_path / "log"
    with (
        log.open("wb") as said,
        subprocess.Popen(command, cwd=SHOP, env=environment, stdout=said, stderr=said) as server,
    ):
        try:

            def up() -> bool:
                assert server.poll() is None, log.read_text()
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/imprint/", timeout=30) as answer:
                        return bool(answer.status == 200)
                except urllib.error.HTTPError as error:
                    error.close()
                    raise AssertionError(f"{error}:\n{log.read_text()}") from None

            wait_until(up, "the shop to open", passing=(urllib.error.URLError, ConnectionError), timeout=60)
            yield port
        finally:
            server.terminate()
            server.wait(30)


def manage(environment: dict[str, str], *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "manage.py", *words], cwd=SHOP, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_shop(port: int, environment: dict[str, str], prefix: str, redis_client: redis.Redis) -> None:
    """Pages without queries, a picture that came with a version, and an admin whose changes are seen at once."""
    visitor = Browser(port)

    # Visitors are counted, and none is lost.
    assert "visitor 1." in visitor.get("/")[0]
    assert "visitor 2." in Browser(port).get("/")[0]
    assert redis_client.exists(f"{prefix}:1:visits")

    # A list and a product: from the database once, then without a query.
    page, queries = visitor.get("/category/tea/")
    assert "Assam" in page and "Sencha" in page and queries == 1
    assert visitor.get("/category/tea/") == (page, 0)
    assert "Assam" in visitor.get("/product/1/")[0]
    page, queries = visitor.get("/product/2/")
    assert "Seen: Assam, Sencha" in page
    assert visitor.get("/product/2/")[1] == 0
    with pytest.raises(urllib.error.HTTPError, match="404"):
        visitor.get("/product/99/")

    # A whole page, and an async view.
    assert visitor.get("/imprint/")[0] == visitor.get("/imprint/")[0]
    assert '"Assam"' in visitor.get("/api/cheapest/tea/")[0]
    assert visitor.get("/api/cheapest/tea/")[1] == 0

    # Yesterday's release left profiles without a picture; today's does not see them, and leaves them where they are.
    told = manage(environment, "yesterday")
    old_key = told.split()[0]
    assert old_key.startswith(f"{prefix}:1:shop/profile:") and "avatar_url" not in told
    page, _ = visitor.get("/profile/1/")
    assert "/avatars/alice.png" in page and old_key in page
    assert redis_client.exists(old_key, old_key.replace(f"{prefix}:1:", f"{prefix}:2:")) == 2

    # The admin: saving is seen at once by everybody.
    admin = Browser(port)
    assert "Log out" in admin.post("/admin/login/?next=/admin/", username="admin", password="admin")
    admin.post("/admin/shop/product/1/change/", name="Assam", category="tea", price="4.90", _save="Save")
    assert "4.90" in visitor.get("/category/tea/")[0]
    assert "4.90" in visitor.get("/product/1/")[0]

    # What changed past Django is seen after the action.
    import sqlite3

    with sqlite3.connect(environment["SHOP_DATABASE"], timeout=30) as database:
        database.execute("UPDATE shop_product SET price = 5 WHERE id = 1")
    database.close()
    assert "4.90" in visitor.get("/product/1/")[0]
    told = admin.post("/admin/shop/product/", action="forget", _selected_action="1", index="0")
    assert "Forgotten, everywhere" in told
    assert "5" in visitor.get("/product/1/")[0] and "4.90" not in visitor.get("/product/1/")[0]
    assert "4.90" not in visitor.get("/category/tea/")[0]


def test_the_checks_of_the_shop_pass(environment: dict[str, str]) -> None:
    """`manage.py check`, and no migration is missing."""
    assert "no issues" in manage(environment, "check")
    assert "No changes" in manage(environment, "makemigrations", "--check", "--dry-run")


def test_make_demo_django_is_this_shop() -> None:
    """The target that the README names runs the command that is tested here."""
    makefile: Any = (SHOP.parents[1] / "Makefile").read_text()
    assert re.search(
        r"^demo-django: ##.*\n\t@scripts/bootstrap django\n\t@\$\(PY\) examples/django_shop/manage.py demo",
        makefile,
        re.MULTILINE,
    )


def test_the_command_line_runs_inside_the_project(environment: dict[str, str]) -> None:
    """`manage.py memover …` is memover's own command line: its help, its options and its exit codes."""
    pytest.importorskip("click")
    pytest.importorskip("rich")
    pytest.importorskip("tomli_w")
    assert "Usage: memover" in manage(environment, "memover", "--help")
    command = [sys.executable, "manage.py", "memover", "check", "--no-such-option"]
    ended = subprocess.run(command, cwd=SHOP, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "--no-such-option" in ended.stderr
