"""Size of the explorer's page for 32 runs x 200 test examples, and its times in Chromium beside Python's.

Needs Chromium with its driver and selenium for the times. The runs and the simulators are random numbers of the
size of real ones: a memory of 93 filters x 8 components and a markov of width 64.

    python benchmarks/explorer.py [--page FILE]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptdynamics.curriculum import linear_decay
from gptdynamics.dataset import Dynamics
from gptdynamics.examples import Example
from simulator.evaluation.simulated import Simulated
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.example_encoding import content_key
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.reporting.explorer import View, write_explorer

RUNS, EXAMPLES, STEPS, BATCH, TURNS = 32, 200, 96, 4, 30
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
).split()
REACTION = """
const times = [];
for (let turn = 0; turn < arguments[0]; turn++) {
  const begin = performance.now();
  document.querySelector("#batch button[aria-label^='Drop training']").click();
  document.body.getBoundingClientRect();
  times.push(performance.now() - begin);
  document.getElementById("undo").click();
}
return times;"""


def made_up(examples: list[Example], dynamics: str) -> Simulated:
    keys, ids = [content_key(each) for each in examples], [each.id for each in examples]
    config = GPTfluenceConfig(
        dynamics=dynamics,
        dataset_config="rte_nano",
        encoder={"encoder": "sentence"},
        encoder_width=128,
        pool_ids=ids,
        pool_keys=keys,
        test_ids=ids,
        test_keys=keys,
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=linear_decay(1e-3, STEPS),
        components=8,
        decays=[0.1 * at for at in range(11)],
        fade_rates=[0.0, 2.0, 6.0],
        momenta=[0.1 * at for at in range(10)],
        curvatures=[0.1 * at for at in range(6)],
        calibration_runs=27,
    )
    model = GPTfluenceSimulator(config).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(torch.rand(tensor.shape, generator=random) * 0.1)
        if dynamics == "memory":
            rates = torch.tensor(config.learning_rate)
            model.dynamics.tau.copy_(torch.nn.functional.pad((rates / rates.max()).cumsum(0), (1, 0)))
            model.dynamics.reference_rate.copy_(rates.max())
            model.dynamics.state_scale.fill_(100.0)
            model.dynamics.baseline.add_(2)
    return Simulated(model)


def made_up_view() -> View:
    rng = np.random.default_rng(0)
    examples = [Example(at, f"{'some words of a prompt ' * 20}{at}", "yes", (), "rte", {}) for at in range(EXAMPLES)]
    runs = Dynamics(
        source="made up",
        config="rte_nano",
        metric="loss",
        runs=[f"{at:04d}" for at in range(RUNS)],
        curricula=[[rng.choice(EXAMPLES, BATCH, replace=False).tolist() for _ in range(STEPS)] for _ in range(RUNS)],
        learning_rate=np.array([linear_decay(1e-3, STEPS)] * RUNS),
        step=np.arange(STEPS + 1),
        values=(2 + rng.random((RUNS, EXAMPLES, STEPS + 1))).astype(np.float32),
        pool=examples,
        test=examples,
        base_model="",
        base_revision="",
        batch_size=BATCH,
    )
    return View(runs, (made_up(examples, "memory"), made_up(examples, "markov")))


def python_ms(view: View, place: int) -> float:
    """The median time of dropping one visit and simulating all test examples again."""
    run = view.simulators[place].simulator.what_if(view.runs.take([4]))
    times = []
    for _ in range(TURNS):
        begin = time.perf_counter()
        run.drop([run.curriculum[0][0]], [1]).simulate()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def open_page(page: Path, profile: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver") or ""))
    browser.get(page.resolve().as_uri())
    return browser


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="keep the page here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    view = made_up_view()
    with tempfile.TemporaryDirectory() as scratch:
        page = arguments.page or Path(scratch) / "page.html"
        size = write_explorer(page, [view])
        print(f"page: {size / 1e6:.2f} MB for {RUNS} runs x {EXAMPLES} test examples, memory and markov")
        drawn = []
        for turn in range(3):
            browser = open_page(page, f"{scratch}/profile{turn}")
            script = "return performance.getEntriesByName('explorer drawn')[0].startTime"
            drawn.append(browser.execute_script(script))
            if turn < 2:
                browser.quit()
        print(f"first drawing: {statistics.median(drawn):.0f} ms (of 3: {', '.join(f'{each:.0f}' for each in drawn)})")
        for place, simulated in enumerate(view.simulators):
            choose = "const model = document.getElementById('model'); model.value = arguments[0];"
            browser.execute_script(choose + "model.dispatchEvent(new Event('change'));", str(place))
            page_ms, ours = statistics.median(browser.execute_script(REACTION, TURNS)), python_ms(view, place)
            print(
                f"{simulated.name}: a drop takes {page_ms:.1f} ms in the page, {ours:.1f} ms in Python (all examples)"
            )
        browser.quit()


if __name__ == "__main__":
    main()
