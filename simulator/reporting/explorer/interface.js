"use strict";
// What is chosen, what was changed, and what follows from it.

(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const views = data.views.map(decodedView);
  const chosen = { view: 0, model: 0, run: 0, test: 0, step: 1 };
  // Changes belong to a run, whichever simulator is asked: view and run -> [{ label, batches }].
  const histories = new Map();
  // What has been computed for the chosen model and run.
  let known = {}, waiting = null, place = { left: 0, width: 0 };
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const view = () => views[chosen.view];
  const model = () => view().model(chosen.model);
  const run = () => view().runs[chosen.run];
  const initial = (test) => view().initial(chosen.run, test);
  const pool = (at) => data.examples[view().pool[at]];
  const test = (at) => data.examples[view().test[at]];
  const metric = () => view().metric;
  const history = () => {
    const key = `${chosen.view} ${chosen.run}`;
    if (!histories.has(key)) histories.set(key, []);
    return histories.get(key);
  };
  const batches = () => (history().length ? history()[history().length - 1].batches : run().batches);
  const visitsOf = (at) => batches().reduce((sum, batch) => sum + batch.filter((other) => other === at).length, 0);
  const schedule = () => (known.schedule ||= scheduleOf(model(), view().rates[run().rates], run().batches));

  const chart = new TrajectoryChart(byId("chart"), {
    chosen: () => chosen.step,
    onChoose: (step) => chooseStep(Math.max(1, step)),
    onHover: (step) => showLegend(step),
    onLayout: (left, width) => {
      const moved = left !== place.left || width !== place.width;
      place = { left: left, width: width };
      byId("step").style.setProperty("--from", `${left}px`);
      byId("step").style.setProperty("--wide", `${width}px`);
      if (moved) showStrip();
    },
  });

  // What is computed at once: one trajectory, and what the page shows of it.

  function compute() {
    const values = (of) => Array.from(simulate(model(), schedule(), of, chosen.test, initial(chosen.test)));
    const asRun = values(run().batches), changed = history().length ? values(batches()) : null;
    const measured = new Array(asRun.length).fill(null);
    view().measured(chosen.run, chosen.test).forEach((value, at) => { measured[view().step[at]] = value; });
    const band = model().width ? bandAround(model(), changed || asRun, chosen.test) : null;
    known.lines = { measured: measured, asRun: asRun, changed: changed, low: band && Array.from(band.low), high: band && Array.from(band.high) };
  }

  function showChart() {
    const { lines } = known, whole = byId("whole").checked;
    chart.show({
      ...lines, colour: dark.matches ? model().dark : model().colour, axis: view().axis, range: frameOf(Object.values(lines), whole),
    });
    byId("chart").setAttribute("aria-label", chartText());
    showLegend(null);
    if (byId("values").open) showTable();
  }

  function chartText() {
    const { asRun, changed, measured } = known.lines, last = asRun.length - 1;
    const parts = [`${metric()} of test example ${test(chosen.test)[1]} over ${last} steps:`];
    if (measured[last] !== null) parts.push(`measured ${numberText(measured[last])} at the end,`);
    parts.push(`predicted ${numberText(asRun[last])}`);
    if (changed) parts.push(`and ${numberText(changed[last])} with your changes`);
    return parts.join(" ") + ". The values are in the table below.";
  }

  function showLegend(step) {
    const { lines } = known, at = step === null ? chosen.step : step;
    byId("legend-step").textContent = `Step ${at}`;
    const texts = { measured: lines.measured[at], "as-run": lines.asRun[at], changed: lines.changed && lines.changed[at] };
    Object.entries(texts).forEach(([name, value]) => {
      byId(`legend-${name}`).textContent = value === null || value === undefined ? "\u2013" : numberText(value);
    });
    byId("legend-band").textContent = lines.low ? `${numberText(lines.low[at])} to ${numberText(lines.high[at])}` : "none";
  }

  function showFigures() {
    const { asRun, changed, measured, low, high } = known.lines, last = asRun.length - 1;
    const band = low ? `90% interval ${numberText(low[last])} to ${numberText(high[last])}` : "no interval: too few runs to make one";
    byId("measured-note").textContent = `${metric()}, step ${last}`;
    byId("measured").textContent = measured[last] === null ? "\u2013" : numberText(measured[last]);
    byId("predicted").textContent = numberText(asRun[last]);
    byId("predicted-note").textContent = changed ? "of the run as it was" : band;
    byId("changed").textContent = changed ? numberText(changed[last]) : "\u2013";
    byId("changed-note").textContent = changed ? `${signedText(changed[last] - asRun[last])}; ${band}` : "drop, repeat or move an example";
    byId("bar").textContent = changed
      ? `Final ${metric()} of #${test(chosen.test)[1]}: ${numberText(asRun[last])} \u2192 ${numberText(changed[last])} (${signedText(changed[last] - asRun[last])})` : "";
    document.body.classList.toggle("is-changed", changed !== null);
  }

  function showBatch() {
    const batch = batches()[chosen.step - 1], steps = batches().length;
    byId("step").value = String(chosen.step);
    byId("step").setAttribute("aria-valuetext", `step ${chosen.step} of ${steps}, ${batch.length} training examples`);
    byId("step-number").textContent = `${chosen.step} of ${steps}`;
    byId("batch-title").textContent = `Batch of step ${chosen.step}`;
    fillBatch(byId("batch"), {
      step: chosen.step, steps: steps, batch: batch, pool: pool, visits: visitsOf, metric: metric(), act: act,
      effects: known.effects && known.effects[chosen.step - 1],
    });
  }

  function showChanges() {
    const labels = history().map((change) => change.label);
    fillChanges(byId("changes"), labels);
    byId("no-changes").hidden = labels.length > 0;
    for (const id of ["undo", "reset"]) byId(id).disabled = labels.length === 0;
    const sizes = [...new Set(batches().map((batch) => batch.length))].filter((size) => size && size !== view().batchSize);
    byId("beyond").textContent = labels.length && sizes.length
      ? `Batches of ${sizes.sort((a, b) => a - b).join(", ")}; the simulator was trained on batches of ${view().batchSize}.` : "";
  }

  function showTable() {
    const { asRun, measured, low, high, changed } = known.lines;
    const columns = { step: asRun.map((_, step) => step), measured: measured, predicted: asRun };
    if (changed) columns["with changes"] = changed;
    if (low) Object.assign(columns, { "interval from": low, "interval to": high });
    fillTable(byId("table"), columns);
  }

  // What is computed when the page has answered: each visit left out, each example left out, all test examples. In
  // slices, so that the next answer does not wait for it.

  function later() {
    clearTimeout(waiting);
    delete known.effects;
    const work = details();
    const slice = () => {
      const until = performance.now() + 10;
      while (!work.next().done) {
        if (performance.now() > until) {
          waiting = setTimeout(slice, 0);
          return;
        }
      }
    };
    waiting = setTimeout(slice, 30);
  }

  function* details() {
    const effects = [];
    for (const each of visitEffects(model(), schedule(), batches(), chosen.test, initial(chosen.test))) {
      effects.push(each);
      yield;
    }
    known.effects = effects;
    showStrip();
    updateEffects();
    yield* showRanking();
    yield* showWhole();
  }

  function updateEffects() {
    byId("batch").querySelectorAll(".effect").forEach((mark, visit) => {
      mark.replaceWith(effectMark(known.effects[chosen.step - 1][visit], metric()));
    });
  }

  function showStrip() {
    if (!known.effects) return;
    const changedSteps = new Set(batches().flatMap((batch, at) =>
      (batch.join() === run().batches[at].join() ? [] : [at + 1])));
    drawStrip(byId("strip"), { effects: known.effects, changedSteps: changedSteps, chosen: chosen.step, ...place });
  }

  function* showRanking() {
    const found = [];
    for (const each of exampleEffects(model(), schedule(), batches(), chosen.test, initial(chosen.test))) {
      found.push(each);
      yield;
    }
    found.sort((a, b) => a[1] - b[1]);
    const most = found.length > 10 ? [...found.slice(0, 5), ...found.slice(-5)] : found;
    fillRanking(byId("ranking"), { rows: most, pool: pool, metric: metric(), visits: visitsOf, act: act });
  }

  function* finals(of) {
    const means = batchMeans(model(), of), steps = of.length, values = [], own = scheduleFor(model(), schedule(), of);
    for (let at = 0; at < view().test.length; at++) {
      const factors = batchFactors(model(), means, steps, at);
      values.push(trajectoryOf(model(), own, factors, at, initial(at))[steps]);
      yield;
    }
    return values;
  }

  function* showWhole() {
    const count = view().test.length, { asRun, changed } = known.lines, last = asRun.length - 1;
    if (!changed) {
      byId("whole-set").textContent = "\u2013";
      byId("whole-note").textContent = `mean change of ${count} test examples`;
      byId("answer").textContent = "";
      return;
    }
    known.finals ||= yield* finals(run().batches);
    const moved = (yield* finals(batches())).map((value, at) => value - known.finals[at]);
    const mean = moved.reduce((sum, value) => sum + value, 0) / count;
    const falls = moved.filter((value) => value < -5e-5).length, rises = moved.filter((value) => value > 5e-5).length;
    byId("whole-set").textContent = signedText(mean, 4);
    byId("whole-note").textContent = `mean change of ${count} test examples: ${falls} fall, ${rises} rise`;
    byId("answer").textContent = `Predicted final ${metric()} is ${numberText(changed[last])} instead of ${numberText(asRun[last])}. `
      + `Over all ${count} test examples it changes by ${signedText(mean, 4)} on average.`;
  }

  // Changing.

  function change(label, changed) {
    history().push({ label: label, batches: changed(batches()) });
    say("");
    answer();
  }

  function say(message) {
    byId("trouble").textContent = message;
  }

  const named = (at) => `#${pool(at)[1]}`;
  const focusBatch = (visit) => {
    const buttons = byId("batch").querySelectorAll(".actions button:first-child");
    (buttons[Math.min(visit, buttons.length - 1)] || byId("batch-title")).focus({ preventScroll: true });
  };

  const act = {
    drop(visit) {
      const { step } = chosen, at = batches()[step - 1][visit];
      change(`Step ${step}: without ${named(at)}`, (now) => dropVisit(now, step, visit));
      focusBatch(visit);
    },
    dropAll(at) {
      const times = visitsOf(at);
      change(`Everywhere (${times} occurrences): without ${named(at)}`, (now) => dropExample(now, at));
      byId("changes-title").focus({ preventScroll: true });
    },
    repeat(visit) {
      const { step } = chosen, at = batches()[step - 1][visit];
      change(`Step ${step}: ${named(at)} once more`, (now) => repeatVisit(now, step, visit));
      focusBatch(visit + 1);
    },
    move(visit, to) {
      const { step } = chosen, at = batches()[step - 1][visit], steps = batches().length;
      if (!Number.isInteger(to) || to < 1 || to > steps || to === step) {
        say(`There is no other step ${to}: give one from 1 to ${steps} but ${step}.`);
        return;
      }
      change(`${named(at)} from step ${step} to step ${to}`, (now) => moveVisit(now, step, visit, to));
      focusBatch(visit);
    },
  };

  function answer() {
    compute();
    showChart();
    showFigures();
    showBatch();
    showChanges();
    later();
  }

  // Choosing.

  function chooseStep(step) {
    chosen.step = step;
    showBatch();
    showStrip();
    showLegend(null);
    chart.redraw();
  }

  function options(select, texts, value) {
    select.replaceChildren(...texts.map((text, at) => new Option(text, String(at))));
    select.value = String(value);
  }

  function fillRuns() {
    const groups = [["Held out from training the simulator", "test"], ["The simulator was trained on these", "train", "validation"]];
    byId("run").replaceChildren(...groups.map(([label, ...splits]) => {
      const group = made("optgroup", { label: label });
      view().runs.forEach((each, at) => {
        if (splits.includes(each.split)) group.append(new Option(each.name, String(at)));
      });
      return group;
    }).filter((group) => group.children.length));
    chosen.run = Math.max(0, view().runs.findIndex((each) => each.split === "test"));
    byId("run").value = String(chosen.run);
  }

  function showView() {
    chosen.model = 0;
    chosen.test = Math.min(chosen.test, view().test.length - 1);
    options(byId("model"), view().models.map((each) => each.name), 0);
    options(byId("test"), view().test.map((_, at) => exampleTitle(test(at), 70)), chosen.test);
    options(byId("pool"), view().pool.map((_, at) => exampleTitle(pool(at), 60)), 0);
    byId("base-model").textContent = view().baseModel;
    fillRuns();
    showRun();
  }

  function showRun() {
    known = {};
    const steps = batches().length;
    chosen.step = Math.min(chosen.step, steps);
    byId("step").max = String(steps);
    byId("run-note").textContent = run().split === "test" ? "Not seen by the simulator" : "Seen by the simulator";
    document.documentElement.style.setProperty("--method", `light-dark(${model().colour}, ${model().dark})`);
    say("");
    showTest();
  }

  function showTest() {
    byId("test").value = String(chosen.test);
    byId("test-title").textContent = `Test example #${test(chosen.test)[1]}`;
    byId("test-text").replaceChildren(...exampleTexts(test(chosen.test)));
    byId("previous").disabled = chosen.test === 0;
    byId("next").disabled = chosen.test === view().test.length - 1;
    answer();
  }

  function onChange(id, act) {
    byId(id).addEventListener("change", () => act(Number(byId(id).value)));
  }

  onChange("view", (at) => { chosen.view = at; showView(); });
  onChange("model", (at) => { chosen.model = at; showRun(); });
  onChange("run", (at) => { chosen.run = at; showRun(); });
  onChange("test", (at) => { chosen.test = at; showTest(); });
  byId("previous").addEventListener("click", () => { chosen.test -= 1; showTest(); });
  byId("next").addEventListener("click", () => { chosen.test += 1; showTest(); });
  byId("step").addEventListener("input", () => chooseStep(Number(byId("step").value)));
  byId("whole").addEventListener("change", showChart);
  byId("values").addEventListener("toggle", () => { if (byId("values").open) showTable(); });
  byId("undo").addEventListener("click", () => { history().pop(); say(""); answer(); });
  byId("reset").addEventListener("click", () => { history().length = 0; say(""); answer(); });
  byId("add").addEventListener("submit", (event) => {
    event.preventDefault();
    const at = Number(byId("pool").value), { step } = chosen;
    change(`Step ${step}: ${named(at)} besides`, (now) => addExample(now, step, at));
  });
  byId("strip").addEventListener("click", (event) => {
    const share = (event.offsetX - place.left) / place.width, steps = batches().length;
    chooseStep(Math.min(steps, Math.max(1, Math.floor(share * steps) + 1)));
  });
  dark.addEventListener("change", () => { showChart(); showStrip(); });

  options(byId("view"), views.map((each) => `${each.config}, ${each.metric}`), 0);
  byId("explorer").hidden = false;
  showView();
  performance.mark("explorer drawn");
})();
