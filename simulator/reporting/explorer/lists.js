"use strict";
// The lists of the page: the batch of a step, what moves a test example most, the changes, the table of values.

// A text that is longer than its box can be scrolled by the keyboard, too.
const longTexts = new ResizeObserver((entries) => entries.forEach(({ target }) => {
  target.toggleAttribute("tabindex", target.scrollHeight > target.clientHeight);
  if (target.hasAttribute("tabindex")) target.tabIndex = 0;
}));

/** Prompt and target of an example, or a note that there are none. */
function exampleTexts(example) {
  const [, , prompt, target] = example;
  const parts = [];
  if (prompt !== null) {
    const text = made("p", { class: "text", dir: "auto", text: visible(prompt) });
    longTexts.observe(text);
    parts.push(text);
  }
  if (target !== null) {
    parts.push(made("p", { class: "target" }, made("span", { class: "soft", text: prompt === null ? "label " : "target " }),
      made("bdi", { class: target.length < 25 ? "label" : "", text: visible(target) })));
  }
  if (prompt === null) parts.push(made("p", { class: "soft", text: "The text of this example is not in the page." }));
  return parts;
}

function exampleTitle(example, length) {
  const [, id, prompt, target] = example;
  const text = prompt === null ? target : prompt;
  return text === null ? `#${id}` : `#${id} \u00b7 \u2068${shortened(text, length)}\u2069`;
}

/** What a visit or an example does to the end of the trajectory, as words. */
function effectText(effect, metric) {
  if (effect === undefined) return "";
  const size = numberText(Math.abs(effect), 4);
  return Number(size) === 0 ? `final ${metric} stays` : `${effect < 0 ? "lowers" : "raises"} final ${metric} by ${size}`;
}

function effectMark(effect, metric) {
  const none = effect === undefined || Math.abs(effect) < 5e-5;
  const kind = none ? "" : effect < 0 ? " down" : " up";
  return made("span", { class: "effect" + kind, text: effectText(effect, metric) });
}

function actionButton(text, label, action) {
  const button = made("button", { type: "button", "aria-label": label, text: text });
  button.addEventListener("click", action);
  return button;
}

/** Cards of the visits of one step; `act` has the changes: drop, dropAll, repeat, move. */
function fillBatch(list, { step, steps, batch, pool, visits, effects, metric, act }) {
  if (batch.length === 0) {
    list.replaceChildren(made("li", { class: "soft", text: "No examples: no update is made at this step, and its learning rate passes." }));
    return;
  }
  list.replaceChildren(...batch.map((place, visit) => {
    const example = pool(place), id = example[1], what = `training example ${id}`, times = visits(place);
    const target = made("input", {
      type: "number", min: 1, max: steps, value: step < steps ? step + 1 : step - 1, inputmode: "numeric",
      "aria-label": `Step to move ${what} to`,
    });
    const form = made("form", { class: "move" }, made("span", { text: "to step", class: "soft", "aria-hidden": "true" }), target,
      made("button", { type: "submit", "aria-label": `Move ${what} to that step`, text: "Move" }));
    form.noValidate = true;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      act.move(visit, Number(target.value));
    });
    const actions = [
      actionButton("Drop", `Drop ${what} from step ${step}`, () => act.drop(visit)),
      actionButton("Repeat", `Repeat ${what} in step ${step}`, () => act.repeat(visit)),
    ];
    if (times > 1) {
      actions.splice(1, 0, actionButton(`Drop all ${times}`, `Drop all ${times} occurrences of ${what}`, () => act.dropAll(place)));
    }
    return made("li", { class: "visit" },
      made("div", { class: "head" }, made("b", { text: `#${id}` }), effectMark(effects && effects[visit], metric)),
      ...exampleTexts(example), made("div", { class: "actions" }, ...actions, form));
  }));
}

/** The examples with the largest effects on the end of the trajectory. */
function fillRanking(list, { rows, pool, metric, visits, act }) {
  list.replaceChildren(...rows.map(([place, effect]) => {
    const example = pool(place), times = visits(place);
    return made("li", {},
      made("span", { class: "line", text: exampleTitle(example, 80) }), effectMark(effect, metric),
      actionButton("Drop all", `Drop all ${times} occurrences of training example ${example[1]}`, () => act.dropAll(place)));
  }));
}

function fillChanges(list, labels) {
  list.replaceChildren(...labels.map((label) => made("li", { text: label })));
}

/** Every value of the chart; the head names the columns. */
function fillTable(table, columns) {
  const names = Object.keys(columns), rows = columns[names[0]].length;
  const cell = (value) => (value === null ? "\u2013" : numberText(value, 4));
  table.tHead.replaceChildren(made("tr", {}, ...names.map((name) => made("th", { scope: "col", class: "number", text: name }))));
  table.tBodies[0].replaceChildren(...Array.from({ length: rows }, (_, at) => made("tr", {},
    made("th", { scope: "row", class: "number", text: String(columns[names[0]][at]) }),
    ...names.slice(1).map((name) => made("td", { class: "number", text: cell(columns[name][at]) })))));
}
