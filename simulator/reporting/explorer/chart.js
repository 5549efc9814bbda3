"use strict";
// The chart of one trajectory (uPlot), and below it a strip with a cell for each visit, along the same steps.

const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * A chart in `element`. `chosen()` is the step to mark, `onChoose(step)` is called where a step is clicked,
 * `onHover(step)` while one is pointed at (null: none), `onLayout(left, width)` with the place of the plot in pixels.
 */
class TrajectoryChart {
  constructor(element, { chosen, onChoose, onHover, onLayout }) {
    this.element = element;
    this.plot = null;
    this.hooks = { chosen: chosen, onChoose: onChoose, onHover: onHover, onLayout: onLayout };
    new ResizeObserver(() => this.resize()).observe(element);
  }

  /** Draw series of one length: measured, as run, changed, low and high; of what is null nothing is drawn. */
  show({ measured, asRun, changed, low, high, colour, axis, range }) {
    const empty = new Array(asRun.length).fill(null);
    const steps = asRun.map((_, step) => step);
    this.range = range;
    const before = changed ? [empty, asRun] : [asRun, empty];
    const data = [steps, high || empty, low || empty, ...before, changed || empty, measured];
    // The look depends on these alone; a new plot takes longer than new values.
    const look = [colour, axis, styleOf("--ink")].join();
    if (this.plot !== null && this.look === look) this.plot.setData(data, true);
    else this.build(data, colour, axis);
    this.look = look;
  }

  build(data, colour, axis) {
    if (this.plot !== null) this.plot.destroy();
    const quiet = { stroke: "transparent", points: { show: false } };
    const line = (width, more) => ({ stroke: colour, width: width, points: { show: false }, ...more });
    const soft = styleOf("--soft"), rule = styleOf("--rule"), font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const shared = { stroke: soft, font: font, labelFont: font, ticks: { stroke: rule, size: 4 } };
    this.plot = new uPlot({
      ...this.size(),
      legend: { show: false },
      padding: [8, 8, 0, 0],
      scales: { x: { time: false }, y: { range: () => this.range } },
      axes: [
        { ...shared, grid: { show: false }, label: "training step", labelSize: 20, size: 32 },
        { ...shared, grid: { stroke: rule, width: 1 }, label: axis, labelSize: 22, size: 46 },
      ],
      series: [
        {}, quiet, quiet,
        line(2.5), line(1.5, { dash: [5, 4] }), line(3),
        { stroke: styleOf("--ink"), width: 1.5, spanGaps: true, points: { show: false } },
      ],
      bands: [{ series: [1, 2], fill: colour + "2e" }],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 }, bind: { mouseup: (plot, _, handle) => (event) => {
        handle(event);
        if (plot.cursor.idx !== null) this.hooks.onChoose(plot.cursor.idx);
      } } },
      hooks: {
        setCursor: [(plot) => this.hooks.onHover(plot.cursor.left < 0 ? null : plot.cursor.idx)],
        drawAxes: [(plot) => this.mark(plot)],
        draw: [(plot) => this.hooks.onLayout(plot.bbox.left / devicePixelRatio, plot.bbox.width / devicePixelRatio)],
      },
    }, data, this.element);
  }

  mark(plot) {
    const at = Math.round(plot.valToPos(this.hooks.chosen(), "x", true)), { top, height } = plot.bbox;
    plot.ctx.save();
    plot.ctx.strokeStyle = styleOf("--focus");
    plot.ctx.lineWidth = devicePixelRatio;
    plot.ctx.beginPath();
    plot.ctx.moveTo(at, top);
    plot.ctx.lineTo(at, top + height);
    plot.ctx.stroke();
    plot.ctx.restore();
  }

  size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight };
  }

  resize() {
    if (this.plot !== null && this.element.clientWidth > 0) this.plot.setSize(this.size());
  }

  redraw() {
    if (this.plot !== null) this.plot.redraw(false);
  }
}

/**
 * The range of the vertical axis: what all lines need after their first eighth, which is mostly a steep fall that
 * would leave the rest flat; `whole` for everything.
 */
function frameOf(lines, whole) {
  const shown = lines.filter((values) => values !== null).flatMap((values) => {
    const from = whole ? 0 : Math.floor(values.length / 8);
    return Array.from(values).slice(from).filter((value) => value !== null && Number.isFinite(value));
  });
  const low = Math.min(...shown), high = Math.max(...shown), margin = 0.06 * (high - low) || 0.05;
  return [low - margin, high + margin];
}

/** Colour each visit by what it does to the end of the trajectory; `effects` and `marks` in the shape of the batches. */
function drawStrip(canvas, { effects, changedSteps, chosen, left, width }) {
  const rows = Math.max(...effects.map((batch) => batch.length)), cell = 10, ratio = devicePixelRatio;
  const height = rows * cell + 8;
  canvas.style.height = height + "px";
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const most = Math.max(...effects.flat().map((effect) => Math.abs(effect))) || 1;
  const slot = width / effects.length, colours = { down: styleOf("--down"), up: styleOf("--up") };
  effects.forEach((batch, at) => {
    // The batch of step t leads from t - 1 to t.
    const x = left + at * slot, gap = slot > 4 ? 1 : 0;
    batch.forEach((effect, row) => {
      pen.globalAlpha = 0.12 + 0.88 * Math.sqrt(Math.abs(effect) / most);
      pen.fillStyle = effect < 0 ? colours.down : colours.up;
      pen.fillRect(x, 4 + row * cell, slot - gap, cell - 1);
    });
    pen.globalAlpha = 1;
    pen.fillStyle = styleOf("--focus");
    if (changedSteps.has(at + 1)) pen.fillRect(x, 0, slot - gap, 2);
    if (chosen === at + 1) {
      pen.strokeStyle = styleOf("--focus");
      pen.lineWidth = 1.5;
      pen.strokeRect(x - 1, 3, slot - gap + 2, batch.length * cell + 1);
    }
  });
}
