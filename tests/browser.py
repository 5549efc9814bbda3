"""What a page must be in a real Chromium, in each window and theme: needs the extra `browser` and Chromium itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WINDOWS = ((390, 844), (1280, 800))
THEMES = ("light", "dark")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
# What can be reached by the keyboard, and is there to be seen.
CONTROLS = """() =>
  [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((each) => !each.disabled && each.tabIndex >= 0 && each.checkVisibility({ visibilityProperty: true }))
  .length"""
FOCUSED = """() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  // Of a control that is drawn by the label after it, the label shows it.
  const after = at.nextElementSibling, drawn = after?.tagName === "LABEL" ? [at, after] : [at];
  const styles = drawn.map((each) => getComputedStyle(each));
  const visible = styles.some((each) => each.outlineStyle !== "none" || each.boxShadow !== "none");
  return { name: at.outerHTML.slice(0, 80), visible: visible };
}"""
# The most keys that are pressed on a page.
MOST_KEYS = 40


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright (the browser extra) is not installed")
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python (the browser extra) is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def browser_faults(browser: Any, address: str, origin: str = "file:") -> list[str]:
    """What is wrong with a page in some window and theme: a line for each fault.

    Args:
        browser: of `chromium`.
        address: of the page.
        origin: what the addresses of all that it loads begin with.
    """
    faults = []
    for width, height in WINDOWS:
        for theme in THEMES:
            # axe is put into the page, which a page's own policy forbids.
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme, bypass_csp=True
            )
            page, found = context.new_page(), []
            _listen(page, origin, found)
            page.goto(address, wait_until="load")
            page.wait_for_timeout(500)
            found += [*_too_wide(page), *_violations(page)]
            if (width, theme) == (WINDOWS[0][0], THEMES[0]):
                found += _lost_by_keyboard(page)
            faults += [f"{width} {theme}: {fault}" for fault in found]
            context.close()
    return faults


def _listen(page: Any, origin: str, found: list[str]) -> None:
    """Note errors, and what is asked of elsewhere."""
    own = (origin, "data:", "blob:")
    page.on("console", lambda each: found.append(f"console: {each.text}") if each.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("request", lambda each: None if each.url.startswith(own) else found.append(f"asks {each.url}"))


def _too_wide(page: Any) -> list[str]:
    more = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return [f"scrolled sideways by {more} pixels"] if more > 0 else []


def _violations(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    response = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]}).response
    return [
        f"axe {each['id']}: {each['help']}: {node['html'][:120]}"
        for each in response["violations"]
        for node in each["nodes"]
    ]


def _lost_by_keyboard(page: Any) -> list[str]:
    """Press Tab through the page: each key reaches a control, and the focus can be seen."""
    reached: list[str] = []
    wanted = min(page.evaluate(CONTROLS), MOST_KEYS)
    for _ in range(wanted):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUSED)
        if at is None:
            return [f"Tab reaches {len(reached)} of {wanted} controls"]
        reached.append(at["name"])
        if not at["visible"]:
            return [f"no visible focus: {at['name']}"]
    return []
