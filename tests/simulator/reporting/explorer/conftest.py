"""The page's own scripts in a JavaScript engine, without a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import pytest
from py_mini_racer import MiniRacer

from simulator.reporting.explorer.payload import View, explorer_payload

SCRIPTS = ("payload.js", "curriculum.js", "simulation.js")


class Scripts:
    """A view's data and the functions of the page, as the page has them."""

    def __init__(self, view: View) -> None:
        self.engine = MiniRacer()
        # Of a browser's functions the scripts use only this one.
        self.engine.eval(ATOB)
        for name in SCRIPTS:
            self.engine.eval(resources.files("simulator.reporting.explorer").joinpath(name).read_text(encoding="utf-8"))
        self.engine.eval(f"var view = decodedView({json.dumps(explorer_payload([view])['views'][0])});")

    def value(self, code: str) -> Any:
        return json.loads(self.engine.eval(f"JSON.stringify({code})"))

    def simulated(self, run: int, batches: str, model: int = 0) -> np.ndarray:
        """`[M, steps + 1]` of changed batches, given as code in which `batches` are those of the run."""
        code = f"""(() => {{
          const run = view.runs[{run}], model = view.model({model}), batches = run.batches;
          const schedule = scheduleOf(model, view.rates[run.rates], batches), changed = {batches};
          return view.test.map((_, test) => Array.from(
            simulate(model, schedule, changed, test, view.initial({run}, test))));
        }})()"""
        return np.array(self.value(code))


ATOB = """
var atob = (text) => {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let out = "", bits = 0, held = 0;
  for (const letter of text.replace(/=+$/, "")) {
    held = (held << 6) | letters.indexOf(letter);
    bits += 6;
    if (bits >= 8) out += String.fromCharCode((held >> (bits -= 8)) & 255);
  }
  return out;
};
"""


@pytest.fixture
def scripts() -> Callable[[View], Scripts]:
    return Scripts
