"use strict";
// Changes of a curriculum, as in simulator/model/what_if.py. Each gives a new one and leaves the old as it is. Batches are
// lists of places in the pool; steps are numbered from 1, visits within a batch from 0.

/** Raised where a change would leave a batch with nothing to train on. */
class EmptyBatchError extends Error {
  constructor(step) {
    super(`Step ${step} would have nothing left to train on. Repeat or move something into it first.`);
  }
}

/** Without one visit. */
function dropVisit(batches, step, visit) {
  return changedAt(batches, step, (batch) => batch.filter((_, at) => at !== visit));
}

/** Without an example, in all steps. */
function dropExample(batches, place) {
  return batches.map((batch, at) => checked(at + 1, batch.filter((other) => other !== place)));
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
  return batches.map((batch, at) => (at + 1 === step ? checked(step, change(batch)) : batch));
}

function checked(step, batch) {
  if (batch.length === 0) throw new EmptyBatchError(step);
  return batch;
}
