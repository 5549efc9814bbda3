"use strict";
// Changes of a curriculum, as in simulator/model/what_if.py. Each gives a new one and leaves the old as it is. Batches are
// lists of places in the pool; steps are numbered from 1, visits within a batch from 0. A batch may become empty: it
// makes no update.

/** Without one visit. */
function dropVisit(batches, step, visit) {
  return changedAt(batches, step, (batch) => batch.filter((_, at) => at !== visit));
}

/** Without an example, in all steps. */
function dropExample(batches, place) {
  return batches.map((batch) => batch.filter((other) => other !== place));
}

/** A visit once more in its batch: it counts twice in the batch's mean. */
function repeatVisit(batches, step, visit) {
  return changedAt(batches, step, (batch) => [...batch.slice(0, visit + 1), ...batch.slice(visit)]);
}

/** A visit at another step instead. */
function moveVisit(batches, step, visit, to) {
  const place = batches[step - 1][visit];
  return addExample(dropVisit(batches, step, visit), to, place);
}

/** An example of the pool besides what is in a batch. */
function addExample(batches, step, place) {
  return changedAt(batches, step, (batch) => [...batch, place]);
}

function changedAt(batches, step, change) {
  return batches.map((batch, at) => (at + 1 === step ? change(batch) : batch));
}
