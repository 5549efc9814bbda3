"""How many floating-point operations a run takes: a multiplication and an addition count as two.

One token through the blocks of a model takes 2 W operations, with W the weights of their matrices; the output matrix
takes 2 h v for each position whose logits are wanted; attention takes 4 h s^2 in each layer for an input of s tokens,
4 h s for one more token that attends to s. Norms, activations, softmax and the optimiser's arithmetic are left out, as
`torch.utils.flop_counter` leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from gptdynamics.configs import RunSettings
from gptdynamics.estimates.lengths import Lengths, TaskLengths
from gptdynamics.estimates.shapes import ModelShape

# Forward passes that two derivatives of every test loss cost: one, one backward to activations, and one for gradients
# that serve both.
DERIVATIVE_PASSES = 3
# A forward and a full backward pass.
GRADIENT_PASSES = 3
# Sampling token by token reaches this share of the rate of whole inputs: its matrices are narrow, and softmax and
# top-p go over the whole vocabulary. Measured on one CPU thread, Pythia-14m's shape, a hundred texts of WebNLG.
GENERATION_SHARE = 0.4
# Of `measurement.loss` and `measurement.generation`, written here again so that an estimate needs no torch.
LOSS_BATCH_TOKENS = 2048
TEXT_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class RunFlops:
    """Operations of a run, by what they are for.

    Attributes:
        update: forward and backward passes over training batches.
        loss: measurements of loss and accuracy.
        generation: measurements of sampled text.
        gradients: derivatives of test losses along each update.
        products: pool x test inner products of gradients.
    """

    update: float
    loss: float
    generation: float
    gradients: float = 0.0
    products: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def seconds(self, rate: float) -> float:
        """Time that they take at `rate` operations a second, generation at `GENERATION_SHARE` of it."""
        return (self.total - self.generation + self.generation / GENERATION_SHARE) / rate


def forward_flops(shape: ModelShape, tokens: float, squares: float, logits: float, lora_rank: int = 0) -> float:
    """Operations of a forward pass: 2 (W + A) tokens + 4 layers h squares + 2 h v logits.

    Args:
        shape: of the model.
        tokens: fed in, padding included.
        squares: sum over inputs of the square of their tokens.
        logits: positions whose logits are wanted.
        lora_rank: of adapters on query, key and value, which add A = 4 r h weights a layer.
    """
    adapters = 4 * lora_rank * shape.hidden * shape.layers
    return (
        2 * (shape.block_weights + adapters) * tokens
        + 4 * shape.layers * shape.hidden * squares
        + 2 * shape.head_weights * logits
    )


def update_flops(shape: ModelShape, batch: int, lengths: Lengths, lora_rank: int = 0) -> float:
    """Operations of one update, on average: a forward pass over a padded batch and its backward pass.

    The backward pass takes twice the forward pass, of adapters alone about once: their weights' gradients are small,
    and only attention, whose both factors change, takes twice. That the first block needs less of it is not counted.

    Args:
        shape: of the model.
        batch: examples, drawn at random and padded to the longest.
        lengths: of the examples that they are drawn from.
        lora_rank: 0 if all weights are trained.
    """
    longest, square = lengths.longest_of(batch)
    tokens, squares, targets = batch * longest, batch * square, batch * lengths.target
    if not lora_rank:
        return 3 * forward_flops(shape, tokens, squares, targets)
    frozen = forward_flops(shape, tokens, 0, targets)
    trained = forward_flops(shape, tokens, squares, targets, lora_rank) - frozen
    return 2 * frozen + 3 * trained


def loss_flops(shape: ModelShape, examples: int, lengths: Lengths, lora_rank: int = 0) -> float:
    """Operations of one measurement of the loss of `examples` test examples, in padded batches of like lengths.

    A label of several tokens costs one more such pass for each label; that is not counted.
    """
    batches = lengths.batches(examples, LOSS_BATCH_TOKENS)
    tokens = sum(rows * longest for rows, _, longest in batches)
    squares = sum(rows * longest**2 for rows, _, longest in batches)
    return forward_flops(shape, tokens, squares, examples * lengths.target, lora_rank)


def generation_flops(
    shape: ModelShape, examples: int, lengths: Lengths, new_tokens: int, context: int, lora_rank: int = 0
) -> float:
    """Operations of one generation step in which every text becomes as long as it may; ends of text make it cheaper.

    With p tokens of the longest prompt of a batch and n new ones, for each of its rows: a forward pass over p tokens,
    n - 1 over single tokens that attend to p + 1 ... p + n - 1, and the logits of n positions.

    Args:
        shape: of the model.
        examples: texts.
        lengths: of the test examples.
        new_tokens: of each text.
        context: longest input in tokens.
        lora_rank: of adapters, or 0.
    """
    cut = Lengths(tuple((min(prompt, max(1, context - new_tokens)), target) for prompt, target in lengths.pairs))
    tokens = squares = 0.0
    for rows, prompt, _ in cut.batches(examples, TEXT_BATCH_TOKENS, new_tokens):
        tokens += rows * (prompt + new_tokens - 1)
        squares += rows * (prompt**2 + (new_tokens - 1) * prompt + new_tokens * (new_tokens - 1) / 2)
    return forward_flops(shape, tokens, squares, examples * new_tokens, lora_rank)


def product_flops(shape: ModelShape, pool: int, test: int, passes: float, lora_rank: int = 0) -> float:
    """Operations of all pool x test products at one step: 3 forward passes over both, and 2 pool test weights.

    Args:
        shape: of the model.
        pool: examples whose gradients are taken.
        test: examples whose gradients are taken.
        passes: operations of a forward pass over the pool and the test set.
        lora_rank: 0 if all weights are trained.
    """
    weights = 4 * lora_rank * shape.hidden * shape.layers if lora_rank else shape.weights
    return GRADIENT_PASSES * passes + 2 * pool * test * weights


def measurements(steps: int, every: int) -> int:
    """How often something is measured: at step 0, after each `every` updates, and after the last."""
    return 1 + -(-steps // every)


def run_flops(
    shape: ModelShape,
    settings: RunSettings,
    lengths: Mapping[str, TaskLengths],
    follows_gradients: bool = False,
) -> RunFlops:
    """Operations of one run.

    Args:
        shape: of its base model.
        settings: of its config.
        lengths: of the tasks that it trains on and is measured by.
        follows_gradients: whether it records gradient products.
    """
    from gptdynamics.tasks import get_task

    task = get_task(settings.task)
    context = min(shape.context, settings.max_length)
    each, rank, steps = settings.test_examples, settings.lora_rank, settings.run_steps
    cut = {
        name: TaskLengths(value.pool.cut(context), value.test.cut(context), value.new_tokens)
        for name, value in lengths.items()
    }
    pool = _mixed([cut[part.name].pool for part in task.parts])
    losses = sum(loss_flops(shape, each, cut[part.name].test, rank) for part in task.test_parts)
    texts = sum(
        generation_flops(shape, each, lengths[part.name].test, lengths[part.name].new_tokens, context, rank)
        for part in task.test_parts
        if part.generates
    )
    gradients = products = 0.0
    if follows_gradients:
        from gptdynamics.runs.gradient_record import product_steps

        gradients = steps * DERIVATIVE_PASSES * losses
        rows = settings.pool_size * settings.parts
        passes = rows * _unpadded(shape, pool, rank)
        passes += sum(each * _unpadded(shape, cut[part.name].test, rank) for part in task.test_parts)
        at_each = product_flops(shape, rows, each * len(task.test_parts), passes, rank)
        products = len(product_steps(steps)) * at_each
    return RunFlops(
        update=steps * update_flops(shape, settings.batch_size, pool, rank),
        loss=measurements(steps, settings.eval_every) * losses,
        generation=measurements(steps, settings.generate_every) * texts,
        gradients=gradients,
        products=products,
    )


def _unpadded(shape: ModelShape, lengths: Lengths, lora_rank: int) -> float:
    """Operations of a forward pass over one example alone, on average."""
    return forward_flops(shape, lengths.fed, lengths.square, lengths.target, lora_rank)


def _mixed(parts: list[Lengths]) -> Lengths:
    """Lengths of a mixture in which every part has as many examples."""
    # Each part's pairs count the same in all, however many there are.
    most = max(len(part.pairs) for part in parts)
    if all(len(part.pairs) == most for part in parts):
        return Lengths(tuple(pair for part in parts for pair in part.pairs))
    return Lengths(tuple(pair for part in parts for pair in _spread(part, most)))


def _spread(part: Lengths, count: int) -> list[tuple[float, float]]:
    """`count` pairs that stand for a part: its own, in order of length, repeated as evenly as can be."""
    ordered = sorted(part.pairs, key=sum)
    return [ordered[at * len(ordered) // count] for at in range(count)]
