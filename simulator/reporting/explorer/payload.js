"use strict";
// The page's data as typed arrays. Numbers are base64 of little-endian float32 or uint16; see payload.py.

function bytesOf(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes.buffer;
}

const floatsOf = (text) => new Float32Array(bytesOf(text));

/** A model with its arrays; what is not base64 stays as it is. */
function decodedModel(packed) {
  const arrays = Object.entries(packed.arrays).map(([name, text]) => [name, floatsOf(text)]);
  return { ...packed, ...Object.fromEntries(arrays) };
}

/**
 * One config and metric: measured values and first values unpacked, the models when they are asked for.
 * `measured(run, test)` are the values at the measured steps, `initial(run, test)` the first of them, unrounded.
 */
function decodedView(packed) {
  const levels = new Uint16Array(bytesOf(packed.levels)), low = floatsOf(packed.low), high = floatsOf(packed.high);
  const first = floatsOf(packed.initial), tests = packed.test.length, count = packed.step.length;
  const given = first.length / (packed.runs.length * tests), models = new Map();
  return {
    ...packed,
    rates: packed.rates.map(floatsOf),
    measured: (run, test) => Array.from({ length: count }, (_, at) => {
      const level = levels[(run * tests + test) * count + at] / 65535;
      return low[test] + level * (high[test] - low[test]);
    }),
    initial: (run, test) => Array.from({ length: given }, (_, at) => first[(run * tests + test) * given + at]),
    model(which) {
      if (!models.has(which)) models.set(which, decodedModel(packed.models[which]));
      return models.get(which);
    },
  };
}
