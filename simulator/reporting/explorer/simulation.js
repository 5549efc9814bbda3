"use strict";
// The simulator, as in simulator/model/{markov,memory,tangent}_dynamics.py: one curriculum, one test example.
//
// All dynamics begin alike. Each training example has a vector, one for all filters (memory) or one for each
// factor (markov); each test example has a vector for each of them. What a batch gives a filter is the product
// of the batch's mean vector and the test example's; of a table (Simfluence) the vector of a training example has the
// numbers of all test examples, and so it has with kernels (tangent), of which each filter weighs those of a test
// example. Then a loop over the steps.
//
// A batch without examples makes no update and its learning rate passes: nothing changes at its step.
//
// N training examples, M test examples, F filters or factors, K numbers in a vector, T updates. Batches are lists of
// places in the pool: [[3, 17], ...]. Arrays are flat; [F, T] means that the value of (f, t) is at f * T + t.

const SMALLEST_LOSS = 1e-3;

/** Mean training vector of each batch: [S, T, K], S being 1 or F. */
function batchMeans(model, batches) {
  const { sides, pool, size, train } = model;
  const means = new Float64Array(sides * batches.length * size);
  for (let side = 0; side < sides; side++) {
    batches.forEach((batch, step) => {
      const into = (side * batches.length + step) * size;
      for (const place of batch) {
        const from = (side * pool + place) * size;
        for (let k = 0; k < size; k++) means[into + k] += train[from + k] / batch.length;
      }
    });
  }
  return means;
}

/** What each batch gives each filter for one test example: [F, T]. */
function batchFactors(model, means, steps, test) {
  const factors = new Float64Array(model.filters * steps);
  for (let step = 0; step < steps; step++) stepFactors(model, means, steps, test, step, factors);
  return factors;
}

/** The same for one step, written into `factors`. */
function stepFactors(model, means, steps, test, step, factors) {
  const { sides, size, filters } = model;
  for (let filter = 0; filter < filters; filter++) {
    const from = ((sides === 1 ? 0 : filter) * steps + step) * size;
    const against = (test * filters + filter) * size;
    let sum = 0;
    if (model.table) sum = means[from + test];
    else if (model.weights) {
      for (let group = 0; group * model.tests < size; group++) {
        sum += means[from + group * model.tests + test] * model.weights[group * filters + filter];
      }
    }
    else for (let k = 0; k < size; k++) sum += means[from + k] * model.test[against + k];
    factors[filter * steps + step] = sum * model.factorScale;
  }
}

/** The kinds of dynamics that the page can simulate. */
const DYNAMICS_KINDS = {
  memory: { schedule: memorySchedule, trajectory: memoryTrajectory },
  tangent: { schedule: memorySchedule, trajectory: memoryTrajectory },
  markov: { schedule: (model, rates, made) => markovSchedule(model, made), trajectory: markovTrajectory },
};

/** Whether each batch makes an update: not one without examples. */
function updatesMade(batches) {
  return batches.map((batch) => batch.length > 0);
}

/** What depends on the learning rates and on which batches make an update, so that it is computed once for a run. */
function scheduleOf(model, rates, batches) {
  const made = updatesMade(batches);
  return { rates: rates, made: made, ...DYNAMICS_KINDS[model.dynamics].schedule(model, rates, made) };
}

/** A run's schedule for changed batches: the same, unless other ones make an update. */
function scheduleFor(model, schedule, batches) {
  const made = updatesMade(batches);
  const same = made.length === schedule.made.length && made.every((update, step) => update === schedule.made[step]);
  return same ? schedule : scheduleOf(model, schedule.rates, batches);
}

/** The trajectory of one test example from what its batches give: [T + 1]. `initial` are its first values. */
function trajectoryOf(model, schedule, factors, test, initial) {
  return DYNAMICS_KINDS[model.dynamics].trajectory(model, schedule, factors, test, initial);
}

/** The trajectory of one test example in a run of these batches. */
function simulate(model, schedule, batches, test, initial) {
  const factors = batchFactors(model, batchMeans(model, batches), batches.length, test);
  return trajectoryOf(model, scheduleFor(model, schedule, batches), factors, test, initial);
}

/**
 * The last value if one visit of a step (from 1) were not there, for each of its visits; `factors` are those of the
 * whole run. Without its only example a batch makes no update.
 */
function finalsWithout(model, schedule, batches, factors, step, test, initial) {
  const steps = batches.length, batch = batches[step - 1], one = new Float64Array(model.filters);
  const changed = Float64Array.from(factors);
  return batch.map((_, at) => {
    const kept = batch.filter((_, other) => other !== at);
    const without = scheduleFor(model, schedule, kept.length ? batches : dropVisit(batches, step, at));
    stepFactors(model, batchMeans(model, [kept]), 1, test, 0, one);
    for (let filter = 0; filter < model.filters; filter++) changed[filter * steps + step - 1] = one[filter];
    return trajectoryOf(model, without, changed, test, initial)[steps];
  });
}

/**
 * The effect of each visit of each step on the last value, as `simulator.influence.leave_out` has it: with the visit
 * minus without it. One step at a time, so that a page can answer meanwhile.
 */
function* visitEffects(model, schedule, batches, test, initial) {
  const factors = batchFactors(model, batchMeans(model, batches), batches.length, test);
  const own = scheduleFor(model, schedule, batches);
  const final = trajectoryOf(model, own, factors, test, initial)[batches.length];
  for (let step = 1; step <= batches.length; step++) {
    const without = finalsWithout(model, own, batches, factors, step, test, initial);
    yield without.map((value) => final - value);
  }
}

/** The effect of each example on the last value, with all of its visits minus without them: [place, effect] each. */
function* exampleEffects(model, schedule, batches, test, initial) {
  const final = simulate(model, schedule, batches, test, initial)[batches.length];
  for (const place of new Set(batches.flat())) {
    const without = simulate(model, schedule, dropExample(batches, place), test, initial);
    yield [place, final - without[without.length - 1]];
  }
}

/** The end of the band below and above a prediction, as `GPTfluenceSimulator.band`. */
function bandAround(model, predicted, test) {
  const low = new Float64Array(predicted.length), high = new Float64Array(predicted.length);
  predicted.forEach((value, step) => {
    const width = model.width[test * (model.widthSteps + 1) + Math.min(step, model.widthSteps)];
    low[step] = withinRange(model, value - width);
    high[step] = withinRange(model, value + width);
  });
  return { low: low, high: high };
}

function withinRange(model, value) {
  const [least, greatest] = model.range;
  return Math.max(least ?? -Infinity, Math.min(greatest ?? Infinity, value));
}

// markov: phi_t = sum_j alpha_j phi_{t-j} + beta, a step for each interval between two measurements.

function markovSchedule(model, made) {
  const steps = made.length, measured = [];
  for (let step = model.firstStep; step < steps; step += model.stride) measured.push(step);
  measured.push(steps);
  // How many updates were made in each interval; without one its value stays.
  const counts = measured.slice(1).map((end, at) => made.slice(measured[at], end).filter((update) => update).length);
  return { measured: measured, counts: counts };
}

function markovTrajectory(model, schedule, factors, test, initial) {
  const { measured, counts } = schedule, order = model.filters - 1, steps = factors.length / model.filters;
  const between = (filter, interval) => {
    let sum = 0;
    for (let step = measured[interval]; step < measured[interval + 1]; step++) sum += factors[filter * steps + step];
    return sum / counts[interval];
  };
  const values = initial.slice(0, order);
  for (let interval = order - 1; interval < measured.length - 1; interval++) {
    if (counts[interval] === 0) {
      values.push(values[values.length - 1]);
      continue;
    }
    let value = between(order, interval);
    for (let lag = 1; lag <= order; lag++) value += between(lag - 1, interval) * values[values.length - lag];
    values.push(value);
  }
  return Float64Array.from({ length: steps + 1 }, (_, step) => along(values, 1, 0, placeOf(measured, step)));
}

// memory and tangent: a mean curve along tau, plus what the recent batches left behind.
const FOREIGN = 0.25, ROUNDING = 1e-4;

// Share of effects that holds before the first and after each update: 1 under the schedule trained on.
function scheduleMatch(model, relative) {
  const match = [1];
  let differ = 0, sum = 0;
  relative.forEach((rate, step) => {
    const trained = step + 1 < model.tau.length ? model.tau[step + 1] - model.tau[step] : 0;
    differ += Math.abs(rate - trained);
    sum += trained;
    const share = (differ / Math.max(sum, 1.2e-38) - ROUNDING) / FOREIGN;
    match.push(1 - Math.min(Math.max(share, 0), 1));
  });
  return match;
}

function memorySchedule(model, rates, made) {
  const { fadeRates, momenta, curvatures, referenceRate } = model, steps = rates.length, last = model.tau[model.tau.length - 1];
  // Where no update is made nothing moves along the mean curve, but the run's schedule is no other one.
  const spent = rates.map((rate, step) => (made[step] ? rate : 0));
  const tau = [0];
  // Rounded as torch does it, so that a run's own schedule meets the grid of the mean curve.
  let sum = 0;
  spent.forEach((rate) => tau.push(Math.fround((sum += Math.fround(rate / referenceRate)))));
  const relative = Float64Array.from(spent, (rate) => rate / referenceRate);
  const strengths = new Float64Array(fadeRates.length * steps), pull = new Float64Array(momenta.length * curvatures.length * steps);
  for (let step = 0; step < steps; step++) {
    fadeRates.forEach((fadeRate, at) => {
      strengths[at * steps + step] = relative[step] * Math.exp(-fadeRate * Math.min(tau[step], last));
    });
    momenta.forEach((momentum, of) => {
      curvatures.forEach((curvature, at) => {
        pull[(of * curvatures.length + at) * steps + step] = pullOf(momentum, curvature, relative[step]);
      });
    });
  }
  const places = tau.map((at) => placeOf(model.tau, at));
  const match = scheduleMatch(model, Float64Array.from(rates, (rate) => rate / referenceRate));
  const shrinkage = places.map((at, step) => along(model.shrinkage, 1, 0, at) * match[step]);
  // Before the first update there is nothing but the first value.
  const begun = made.includes(true) ? made.indexOf(true) + 1 : Infinity;
  return { relative: relative, strengths: strengths, pull: pull, places: places, shrinkage: shrinkage, begun: begun };
}

function memoryTrajectory(model, schedule, factors, test, initial) {
  const effects = effectsOf(model, schedule, factors);
  const first = toLatent(model, initial[0]), limit = model.limit[test];
  const latent = schedule.places.map(
    (at, step) => curveAt(model, test, first, at) + schedule.shrinkage[step] * limited(effects[step], limit)
  );
  const given = Math.min(model.firstStep, latent.length - 1);
  // The curve of an unseen example was predicted from its first value already.
  const offset = model.seen[test] ? first - latent[given] : 0;
  return Float64Array.from(latent, (value, step) =>
    step <= given || step < schedule.begun ? initial[0] : fromLatent(model, value + model.carry * offset));
}

/** <w, [m_t, n_t]>: what all filters hold after each step. */
function effectsOf(model, schedule, factors) {
  const steps = factors.length / model.filters, effects = new Float64Array(steps + 1);
  const { decays, fadeRates, momenta, curvatures } = model, { made } = schedule;
  let from = 0;
  for (const decay of decays) {
    for (let of = 0; of < fadeRates.length; of++, from += steps) {
      addMemory(effects, factors, from, decay, schedule.strengths, of * steps, made);
    }
  }
  let at = 0;
  for (const momentum of momenta) {
    for (let curvature = 0; curvature < curvatures.length; curvature++, from += steps, at += steps) {
      addOptimiser(effects, factors, from, momentum, schedule.relative, schedule.pull, at, made);
    }
  }
  return effects;
}

/** m: with each update a filter keeps the share `decay` of what it had and gets what the batch gives it. */
function addMemory(effects, factors, from, decay, strengths, at, made) {
  let state = 0;
  for (let step = 0; step < effects.length - 1; step++) {
    if (made[step]) state = decay * state + strengths[at + step] * factors[from + step];
    effects[step + 1] += state;
  }
}

/** How strongly an optimiser pulls back what it has added up, as `optimiser_pull` in simulator/model/recurrence.py. */
function pullOf(momentum, curvature, rate) {
  const most = (1 + momentum) / (1 - momentum), strength = curvature * rate / most;
  return curvature * (strength > 1e-15 ? -Math.expm1(-strength) / strength : 1);
}

/** n: what an optimiser with momentum adds up, and its gradients undo. */
function addOptimiser(effects, factors, from, momentum, relative, pull, at, made) {
  let speed = 0, state = 0;
  for (let step = 0; step < effects.length - 1; step++) {
    if (made[step]) {
      speed = momentum * speed + (1 - momentum) * (factors[from + step] - pull[at + step] * state);
      state += relative[step] * speed;
    }
    effects[step + 1] += state;
  }
}

/** mu: the mean curve of a seen test example; of an unseen one its first value plus a predicted change. */
function curveAt(model, test, first, at) {
  if (model.seen[test]) return along(model.baseline, model.tests, test, at);
  const curves = model.curveSlope.length;
  let value = first;
  for (let curve = 0; curve < curves; curve++) {
    const predicted = model.curveConstant[test * curves + curve] + model.curveSlope[curve] * first;
    const kept = Math.min(Math.max(predicted, model.curveRange[curve]), model.curveRange[curves + curve]);
    value += kept * along(model.curveBasis, curves, curve, at);
  }
  return value;
}

/** The effect itself up to `limit`; beyond that it grows ever more slowly, and never to twice the limit. */
function limited(effect, limit) {
  const size = Math.max(limit, 1.2e-38), beyond = Math.abs(effect) - size;
  return beyond <= 0 ? effect : Math.sign(effect) * size * (1 + Math.tanh(beyond / size));
}

function toLatent(model, value) {
  if (model.latent === "value") return value;
  const kept = Math.max(value, SMALLEST_LOSS);
  return kept + Math.log(-Math.expm1(-kept));
}

/** value(): the metric, within its range, from its latent. */
function fromLatent(model, latent) {
  if (model.latent === "value") return withinRange(model, latent);
  return latent > 20 ? latent : Math.log1p(Math.exp(latent));
}

/** Where `at` stands on an ascending grid: between `left` and `left + 1`, at `share` of the way; ends are kept. */
function placeOf(grid, at) {
  const last = grid.length - 1;
  if (last === 0) return { left: 0, share: 0 };
  const kept = Math.min(Math.max(at, grid[0]), grid[last]);
  let right = 1;
  while (right < last && grid[right] < kept) right += 1;
  const width = grid[right] - grid[right - 1];
  return { left: right - 1, share: width > 0 ? (kept - grid[right - 1]) / width : 0 };
}

/** A column of a table [G, width] at a place. */
function along(table, width, column, at) {
  const left = table[at.left * width + column];
  return at.share === 0 ? left : left * (1 - at.share) + table[(at.left + 1) * width + column] * at.share;
}
