"""The page in a real Chromium: look, click, watch the state change, and nothing that its policy forbids."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from labctl.controller.answers import Change
from labctl.domain.sleep.lifecycle import Mode
from web_kit import ADMIN, Rack, served, until

DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(DRIVER is None, reason="chromium-driver is not installed; ./lab test does")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    options = ChromeOptions()
    home = tmp_path_factory.mktemp("browser")
    for flag in (
        "--headless=new",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium's own is not for root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
        f"--user-data-dir={home}",
        "--window-size=1280,1560",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = ChromeService(DRIVER, log_output=os.devnull)
    driver = Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def words(browser: WebDriver, css: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", css))


def shows(browser: WebDriver, css: str, text: str) -> Callable[[], bool]:
    return lambda: text in words(browser, css)


def focused(browser: WebDriver) -> str:
    return str(browser.execute_script("return document.activeElement.id || document.activeElement.name"))


def enter(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/session")
    browser.find_element(By.ID, "key").send_keys(ADMIN, Keys.ENTER)
    until(shows(browser, "header form", "key ann"))


def test_a_click_wakes_a_host_and_the_page_shows_how_it_comes(browser: WebDriver, tmp_path: Path) -> None:
    rack = Rack(changes=[Change("gpu-box", Mode.WAKING, "round 1 was sent")])
    with served(tmp_path, rack) as address:
        enter(browser, address)
        until(shows(browser, "#link", "live"))
        assert words(browser, "#host-gpu-box .mode").startswith("asleep")
        shot(browser, "web.png")
        browser.find_element(By.ID, "wake-gpu-box").send_keys(Keys.ENTER)
        until(shows(browser, "dialog[open]", "Wake gpu-box?"))
        until(lambda: focused(browser) == "sure")
        assert rack.called("wake") == []
        browser.find_element(By.ID, "why").send_keys("a demo")
        browser.find_element(By.CSS_SELECTOR, "dialog button[name=sure]").click()
        until(shows(browser, "#host-gpu-box .mode", "waking"))
        (called,) = rack.called("wake")
        assert (called["hosts"], called["why"]) == (("gpu-box",), "a demo")
        until(shows(browser, "dialog[open]", "gpu-box is waking"))
        browser.find_element(By.CSS_SELECTOR, "dialog [data-close]").click()
        browser.find_element(By.CSS_SELECTOR, "#log summary").click()
        for mode, shown in ((Mode.VERIFYING, "being checked"), (Mode.READY, "awake")):
            rack.become("gpu-box", mode, "it answers")
            until(shows(browser, "#host-gpu-box .mode", shown))
        # What a person opened stays open while the page changes around it.
        assert "waking -> verifying" in browser.find_element(By.CSS_SELECTOR, "#log[open]").text
        browser.get("about:blank")
    # What the policy forbids, and every fault of a script, is said there.
    assert [one for one in browser.get_log("browser") if one["level"] == "SEVERE"] == []


def test_a_person_without_a_key_sees_everything_and_no_button_that_acts(
    browser: WebDriver, tmp_path: Path
) -> None:
    browser.delete_all_cookies()
    with served(tmp_path, Rack()) as address:
        browser.get(address)
        until(shows(browser, "#link", "live"))
        assert "9 % or 42.0 GiB are left (models)" in words(browser, ".findings")
        assert browser.find_elements(By.ID, "wake-gpu-box") == []
        browser.find_element(By.ID, "why-gpu-box").click()
        until(shows(browser, "dialog[open]", "mounts cannot be read"))
        browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        until(lambda: not browser.find_elements(By.CSS_SELECTOR, "dialog[open]"))
        until(lambda: focused(browser) == "why-gpu-box")
        browser.get("about:blank")


def test_the_page_fits_a_telephone_by_night(browser: WebDriver, tmp_path: Path) -> None:
    with served(tmp_path, Rack()) as address:
        size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        try:
            browser.get(address)
            until(shows(browser, "#link", "live"))
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            small = browser.execute_script(
                "return [...document.querySelectorAll('.button, button')].filter((one) => "
                "one.checkVisibility() && one.getBoundingClientRect().height < 38).map((one) => one.id)"
            )
            shot(browser, "web-phone.png")
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
            browser.get("about:blank")
    assert wide <= 360
    assert paper == "rgb(21, 23, 26)"
    assert small == []


def shot(browser: WebDriver, name: str) -> None:
    """Keep a picture for the docs, where somebody asks for it: LABCTL_SHOTS names a folder."""
    if folder := os.environ.get("LABCTL_SHOTS"):
        Path(folder, name).write_bytes(browser.get_screenshot_as_png())
