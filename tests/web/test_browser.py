"""The page in a real browser: it lives, it obeys its own policy, and it can be used in the dark, on a phone and by keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import wait_until
from tests.servers.chromium import INSTALLED, start_chromium

from .test_pages import EVIL, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

selenium = pytest.importorskip("selenium", reason="selenium drives the browser")
pytestmark = [
    pytest.mark.skipif(
        not INSTALLED,
        reason="no chromium with chromedriver here: apt-get install chromium chromium-driver",
    ),
    pytest.mark.slow,
]
WAIT_SECONDS = 20


class Browser:
    """A chromium of this test's own."""

    def __init__(self, profile: Path) -> None:
        self.driver = start_chromium(profile, 1300, 900)
        self.driver.set_page_load_timeout(WAIT_SECONDS)

    def until(self, script: str, what: str) -> Any:
        """The truth that a script comes to give."""
        try:
            return wait_until(
                lambda: self.driver.execute_script(f"return {script}"), what, timeout=WAIT_SECONDS, interval=0.05
            )
        except TimeoutError as error:
            raise AssertionError(f"{what}; there is\n{self.driver.page_source[:3000]}") from error

    def text(self) -> str:
        text: str = self.driver.execute_script("return document.body.innerText")
        return text

    def emulate(self, **features: str) -> None:
        chosen = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": chosen})

    def phone(self) -> None:
        size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def type(self, text: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(text).perform()

    def complaints(self) -> list[str]:
        """What the browser logged: violations of the policy, errors of the script, requests that failed."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "profile")
    yield made
    made.driver.quit()


def test_the_table_lives(browser: Browser, serve: Callable[..., str], redis_client: redis.Redis, prefix: str) -> None:
    """Figures come by themselves, change, and leave with the process; curves and sparklines are drawn; nothing is complained of."""
    report(redis_client, prefix)
    browser.driver.get(serve())
    browser.until(
        "document.querySelector('#functions tbody td.num:nth-of-type(3)')?.textContent === '100'", "the first figures"
    )
    assert "● live" in browser.text()
    browser.until("document.querySelectorAll('.chart svg path.curve').length === 2", "two curves")
    browser.until("document.querySelectorAll('td.spark svg path').length === 1", "a sparkline")
    report(redis_client, prefix, window={"hits": 300, "misses": 100})
    browser.until(
        "document.querySelector('#functions tbody td.num:nth-of-type(3)')?.textContent === '400'", "new figures"
    )
    assert browser.driver.execute_script("return document.getElementById('f-ratio').textContent") == "75.0 %"
    redis_client.unlink(f"{prefix}:report:p1")
    browser.until("!document.getElementById('empty').hidden", "a word on why nothing is there")
    assert browser.complaints() == []


def test_markup_in_names_does_nothing(
    browser: Browser, serve: Callable[..., str], filled: list[str], redis_client: redis.Redis, prefix: str
) -> None:
    """No element is made of it, no script runs, on any page."""
    report(redis_client, prefix, namespace=EVIL)
    address = serve("--allow-invalidate")
    for path in (
        "/",
        "/contents",
        "/doctor",
        "/namespace/~kv",
        f"/entry?key={prefix}:1:%3Cscript%3Ealert(1)%3C/script%3E",
    ):
        browser.driver.get(f"{address}{path}")
        if path == "/":
            browser.until(
                "document.querySelector('#functions tbody th')?.textContent.includes('onerror')", "its name as text"
            )
        assert browser.driver.execute_script("return document.querySelectorAll('img, main script, iframe').length") == 0
    assert browser.complaints() == []


def test_the_policy_stops_what_gets_in(browser: Browser, serve: Callable[..., str]) -> None:
    """Were something escaped badly one day: inline scripts, handlers and requests elsewhere are refused by the browser."""
    browser.driver.get(serve())
    browser.driver.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:x\" onerror=\"window.ran = 1\">');"
        "const script = document.createElement('script'); script.textContent = 'window.ran = 1'; document.body.append(script);"
        "fetch('http://127.0.0.1:9/').catch(() => { window.refused = 1; });"
    )
    browser.until("window.refused === 1", "the request to be refused")
    assert browser.driver.execute_script("return window.ran") is None
    assert any("Content Security Policy" in each for each in browser.complaints())


def test_keyboard(browser: Browser, serve: Callable[..., str], redis_client: redis.Redis, prefix: str) -> None:
    """/ filters, Esc ends it, j goes to the rows, Enter opens one; heads are buttons that sort."""
    from selenium.webdriver.common.keys import Keys

    functions = [{"namespace": f"f{n}", "version": 1, "totals": {}, "window": {"hits": n + 1}} for n in range(4)]
    report(redis_client, prefix)
    import json

    facts = json.loads(redis_client.get(f"{prefix}:report:p1") or b"")
    redis_client.set(f"{prefix}:report:p1", json.dumps({**facts, "functions": functions}), px=60_000)
    browser.driver.get(serve())
    names = "[...document.querySelectorAll('#functions tbody th')].map((each) => each.textContent).join()"
    browser.until(f"{names} === 'f3,f2,f1,f0'", "rows, the busiest first")
    browser.type("/f1")
    browser.until(f"{names} === 'f1'", "the filtered row")
    browser.type(Keys.ESCAPE)
    browser.until(f"{names} === 'f3,f2,f1,f0'", "all rows again")
    browser.driver.find_element("css selector", "button[data-sort=name]").send_keys(Keys.ENTER)
    browser.until(f"{names} === 'f0,f1,f2,f3'", "rows by name")
    assert (
        browser.driver.execute_script("return document.querySelector('th[aria-sort]').getAttribute('aria-sort')")
        == "ascending"
    )
    browser.driver.execute_script("document.activeElement.blur()")
    browser.type("jj")
    assert browser.driver.execute_script("return document.activeElement.textContent") == "f1"
    browser.type(Keys.ENTER)
    browser.until("location.pathname === '/namespace/f1'", "its page")


def test_light_and_dark(browser: Browser, serve: Callable[..., str]) -> None:
    """As the system has it, with text that stands out in both (WCAG 2.2, 1.4.3: at least 4.5 to 1)."""
    address = serve()
    contrast = """(() => {
        const light = (name) => {
            const [r, g, b] = getComputedStyle(document.body)[name].match(/\\d+/g).map((each) => {
                const x = each / 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const [a, b] = [light('color'), light('backgroundColor')].sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), light('backgroundColor')];
    })()"""
    backs = []
    for scheme in ("light", "dark"):
        browser.emulate(prefers_color_scheme=scheme)
        browser.driver.get(address)
        ratio, back = browser.driver.execute_script(f"return {contrast}")
        assert ratio >= 4.5
        backs.append(back)
    assert backs[0] > 0.8 and backs[1] < 0.1


def test_on_a_phone(
    browser: Browser, serve: Callable[..., str], filled: list[str], redis_client: redis.Redis, prefix: str
) -> None:
    """Nothing is wider than the screen, on any page."""
    report(redis_client, prefix)
    browser.phone()
    address = serve("--allow-invalidate")
    for path in ("/", "/contents", "/doctor", "/namespace/shop%2Fprofiles", f"/entry?key={filled[0]}"):
        browser.driver.get(f"{address}{path}")
        if path == "/":
            browser.until("document.querySelector('#functions tbody td')", "a row")
        wide, screen = browser.driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= screen == 390, path


def test_the_button(
    browser: Browser, serve: Callable[..., str], filled: list[str], redis_client: redis.Redis, prefix: str
) -> None:
    """It asks; a no changes nothing, a yes moves the namespace and says so."""
    from selenium.webdriver.support.expected_conditions import alert_is_present
    from selenium.webdriver.support.wait import WebDriverWait

    before = redis_client.get(f"{prefix}:gen:shop/profiles")
    browser.driver.get(f"{serve('--allow-invalidate')}/namespace/shop%2Fprofiles")
    for answer in ("dismiss", "accept"):
        browser.driver.find_element("css selector", "form.invalidate button").click()
        alert = WebDriverWait(browser.driver, WAIT_SECONDS).until(alert_is_present())
        assert "shop/profiles" in alert.text
        getattr(alert, answer)()
        if answer == "dismiss":
            assert redis_client.get(f"{prefix}:gen:shop/profiles") == before
    browser.until(
        "document.querySelector('.note')?.textContent.includes('has moved to generation')", "the word that it is done"
    )
    assert redis_client.get(f"{prefix}:gen:shop/profiles") != before


def test_the_token_leaves_the_address(browser: Browser, serve: Callable[..., str]) -> None:
    """Given once, then the cookie does, the stream included; scripts cannot read it."""
    token = "a-token-of-more-than-16-characters"
    address = serve("--token", token)
    browser.driver.get(f"{address}/?token={token}")
    browser.until("location.search === ''", "an address without the token")
    browser.until("document.getElementById('live').textContent.includes('live')", "the stream")
    browser.driver.get(f"{address}/doctor")
    assert "reachable" in browser.text()
    assert browser.driver.execute_script("return document.cookie") == ""
