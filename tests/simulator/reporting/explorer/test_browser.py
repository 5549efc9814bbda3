"""The page in a real Chromium: it draws, answers, is quick, and can be used without a mouse.

Needs Chromium with its driver (Debian: chromium, chromium-driver) and selenium; run with `-m slow`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptdynamics.dataset import read_dynamics
from simulator.evaluation.simulated import Simulated, load_simulator
from simulator.model.example_encoding import content_key
from simulator.reporting.explorer import View, write_explorer

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
NASTY = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"> \u202eabc"


def open_browser(folder: Path) -> Any:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={folder}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


@pytest.fixture
def view(dataset: Path, trained: dict[str, str]) -> View:
    runs = read_dynamics(dataset, "mini_sentiment_nano", "loss")
    simulators = [load_simulator(trained[name]) for name in ("memory", "markov")]
    first = replace(runs.test[0], prompt=NASTY)
    for simulator in simulators:
        simulator.config.test_keys[0] = content_key(first)
    return View(replace(runs, test=[first, *runs.test[1:]]), tuple(Simulated(each) for each in simulators))


@pytest.fixture
def browser(view: View, tmp_path: Path) -> Iterator[Any]:
    write_explorer(tmp_path / "page.html", [view])
    found = open_browser(tmp_path / "profile")
    try:
        found.get((tmp_path / "page.html").as_uri())
        yield found
    finally:
        found.quit()


def text(browser: Any, element: str) -> str:
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", element)


def choose(browser: Any, element: str, value: int) -> None:
    script = """const element = document.getElementById(arguments[0]);
    element.value = arguments[1]; element.dispatchEvent(new Event(arguments[2]));"""
    browser.execute_script(script, element, str(value), "input" if element == "step" else "change")


def shown(browser: Any, element: str) -> float:
    return float(text(browser, element).replace("\u2212", "-"))


def wait(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10).until(lambda each: each.execute_script(f"return {condition}"))


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def test_choosing_and_changing_gives_the_numbers_of_python(browser: Any, view: View) -> None:
    order = view.runs.runs
    held_out = [name for name in order if name in view.runs.split("test").runs]
    run, at = order.index(held_out[0]), 3
    for place, simulated in enumerate(view.simulators):
        choose(browser, "model", place)
        choose(browser, "run", run)
        choose(browser, "test", at)
        choose(browser, "step", 4)
        before = simulated.simulator.what_if(view.runs.take([run]))
        assert shown(browser, "predicted") == pytest.approx(float(before.simulate()[at, -1]), abs=6e-4)
        assert shown(browser, "measured") == pytest.approx(view.runs.values[run, at, -1], abs=6e-4)
        browser.find_element("css selector", "#batch button[aria-label^='Drop training']").click()
        changed = before.drop([before.curriculum[3][0]], [4])
        assert shown(browser, "changed") == pytest.approx(float(changed.simulate()[at, -1]), abs=6e-4)
        browser.find_element("css selector", "#batch button[aria-label^='Repeat']").click()
        changed = changed.add([changed.curriculum[3][0]], [4])
        field = browser.find_element("css selector", "#batch input")
        field.clear()
        field.send_keys("9")
        browser.find_element("css selector", "#batch .move button").click()
        moved = changed.curriculum[3][0]
        changed = before.drop([before.curriculum[3][0]], [4]).add([moved], [9])
        wanted = changed.simulate()
        assert shown(browser, "changed") == pytest.approx(float(wanted[at, -1]), abs=6e-4)
        wait(browser, "document.getElementById('answer').textContent !== ''")
        mean = float((wanted - before.simulate())[:, -1].mean())
        whole = "parseFloat(document.getElementById('whole-set').textContent.replace('\u2212', '-'))"
        wait(browser, f"Math.abs({whole} - {mean}) < 1e-4")
        assert len(browser.find_elements("css selector", "#changes li")) == 3
        browser.find_element("id", "values").find_element("tag name", "summary").click()
        rows = browser.execute_script(
            "return [...document.querySelectorAll('#table tbody tr')].map((row) => row.children[3].textContent)"
        )
        np.testing.assert_allclose([float(row) for row in rows], wanted[at].numpy(), atol=2e-4)
        browser.find_element("id", "values").find_element("tag name", "summary").click()
        browser.find_element("id", "undo").click()
        assert len(browser.find_elements("css selector", "#changes li")) == 2
        browser.find_element("id", "reset").click()
        assert text(browser, "changed") == "\u2013"
        assert shown(browser, "predicted") == pytest.approx(float(before.simulate()[at, -1]), abs=6e-4)
    assert errors(browser) == []


def test_an_emptied_batch_makes_no_update(browser: Any) -> None:
    drop = "#batch button[aria-label^='Drop training']"
    browser.find_element("css selector", drop).click()
    browser.find_element("css selector", drop).click()
    (line,) = browser.find_elements("css selector", "#batch li")
    assert line.text.startswith("No examples: no update is made at this step")
    assert text(browser, "trouble") == "" and text(browser, "changed") != "\u2013"
    assert errors(browser) == []


def test_texts_stay_texts(browser: Any, view: View) -> None:
    prompt = text(browser, "test-text")
    assert prompt.startswith(NASTY[:-5]) and "\u2039U+202E\u203aabc" in prompt
    assert "broken" not in browser.title
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert errors(browser) == []


def test_it_is_used_by_keyboard_alone(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    visited = []
    for _ in range(40):
        press(browser, Keys.TAB)
        active = browser.switch_to.active_element
        visited.append(active.get_attribute("id") or active.get_attribute("aria-label") or active.tag_name)
        outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", visited[-1]
        if visited[-1] == "step":
            break
    assert [name for name in ("view", "model", "run", "test", "next", "step") if name not in visited] == []
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert text(browser, "batch-title") == "Batch of step 3"
    while not visited[-1].startswith("Drop training"):
        press(browser, Keys.TAB)
        active = browser.switch_to.active_element
        visited.append(active.get_attribute("aria-label") or active.tag_name)
        assert len(visited) < 80
    press(browser, Keys.ENTER)
    wait(browser, "document.getElementById('answer').textContent.startsWith('Predicted final loss is')")
    assert browser.switch_to.active_element.get_attribute("aria-label").startswith("Drop training")
    assert text(browser, "changed") != "\u2013"


def test_it_fits_a_phone_and_is_dark_where_that_is_wanted(browser: Any) -> None:
    emulate = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulate)
    browser.find_element("css selector", "#batch button[aria-label^='Drop training']").click()
    wait(browser, "document.documentElement.scrollWidth <= 360")
    assert browser.execute_script("return document.querySelector('#chart canvas').clientWidth") <= 360
    light = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    found = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert found != light and found == "rgb(17, 20, 23)"
    assert errors(browser) == []


def test_it_draws_within_two_seconds(browser: Any) -> None:
    assert browser.execute_script("return performance.getEntriesByName('explorer drawn')[0].startTime") < 2000


def test_it_answers_a_drop_within_50_ms(browser: Any) -> None:
    script = """
    const times = [];
    for (let turn = 0; turn < 20; turn++) {
      const begin = performance.now();
      document.querySelector("#batch button[aria-label^='Drop training']").click();
      document.body.getBoundingClientRect();
      times.push(performance.now() - begin);
      document.getElementById("undo").click();
    }
    return times;"""
    assert np.median(browser.execute_script(script)) < 50


def test_every_control_has_a_role_and_a_name(browser: Any) -> None:
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = {"button", "combobox", "slider", "spinbutton", "checkbox", "img", "region", "DisclosureTriangle"}
    found = [node for node in tree if not node["ignored"] and node["role"]["value"] in controls]
    assert {"button", "combobox", "slider", "spinbutton", "checkbox"} <= {node["role"]["value"] for node in found}
    assert [node["role"]["value"] for node in found if not node.get("name", {}).get("value")] == []
