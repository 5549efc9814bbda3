"""The number of floating-point operations of a run: a multiplication and an addition count as two.

One token through the blocks of a model takes 2 W operations, with W the weights of their matrices; the output matrix
takes 2 h v for each position whose logits are needed; attention takes 4 h s^2 in each layer for an input of s tokens,
4 h s for one more token that attends to s. Norms, activations, softmax and the optimiser's arithmetic are not counted,
as in `torch.utils.flop_counter`.

`shape` is that of the model, `lengths` those of the examples; `lora_rank` is that of adapters on query, key and value,
which add 4 r h weights per layer, and 0 if all weights are trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from gptdynamics.configs import RunSettings
from gptdynamics.estimates.lengths import Lengths, TaskLengths
from gptdynamics.estimates.shapes import ModelShape
from gptdynamics.metrics import names_of
from gptdynamics.settings.kernels import KernelSettings

# Cost of two derivatives of every test loss, in forward passes: a forward pass, a backward pass to activations, and
# gradients that serve both derivatives.
DERIVATIVE_PASSES = 3
# A forward pass and a backward pass to activations only.
KERNEL_PASSES = 2
# A forward and a full backward pass.
GRADIENT_PASSES = 3
# Sampling token by token reaches this share of the rate of whole inputs: its matrices are narrow, and softmax and
# top-p go over the whole vocabulary. Measured on one CPU thread, Pythia-14m's shape, a hundred texts of WebNLG.
GENERATION_SHARE = 0.4
# Share of a kernel's memory for random matrices and projected test gradients.
KERNEL_TESTS_SHARE = 0.7
# Copies of the constants of `measurement.loss` and `measurement.generation`, so that an estimate needs no torch.
LOSS_BATCH_TOKENS, GPU_LOSS_BATCH_TOKENS = 2048, 16384
TEXT_BATCH_TOKENS, GPU_TEXT_BATCH_TOKENS = 8192, 65536


@dataclass(frozen=True)
class RunFlops:
    """Operations of a run: of updates, measurements, derivatives along updates, and pool x test gradient products."""

    update: float
    loss: float
    generation: float
    gradients: float = 0.0
    products: float = 0.0

    @property
    def total(self) -> float:
        """All operations."""
        return float(sum(astuple(self)))

    def seconds(self, rate: float) -> float:
        """Seconds at `rate` operations per second; generation reaches `GENERATION_SHARE` of the rate."""
        return (self.total - self.generation + self.generation / GENERATION_SHARE) / rate


def forward_flops(shape: ModelShape, tokens: float, squares: float, logits: float, lora_rank: int = 0) -> float:
    """Operations of a forward pass: 2 (W + A) tokens + 4 layers h squares + 2 h v logits, with A = 4 r h layers.

    `squares` is the sum over inputs of the squared number of tokens, `logits` the number of positions with logits.
    """
    width = shape.layers * shape.hidden
    weights = shape.block_weights + 4 * lora_rank * width
    return 2 * weights * tokens + 4 * width * squares + 2 * shape.head_weights * logits


def update_flops(shape: ModelShape, batch: int, lengths: Lengths, lora_rank: int = 0) -> float:
    """Operations of one update, on average: a forward and a backward pass over `batch` padded random examples.

    The backward pass takes twice the operations of the forward pass. With adapters it takes about the same number: the
    gradients of their weights are small, and only attention takes twice. Savings in the first block are not counted.
    """
    longest, square = lengths.longest_of(batch)
    tokens, squares, targets = batch * longest, batch * square, batch * lengths.target
    if not lora_rank:
        return 3 * forward_flops(shape, tokens, squares, targets)
    frozen = forward_flops(shape, tokens, 0, targets)
    return 3 * forward_flops(shape, tokens, squares, targets, lora_rank) - frozen


def loss_flops(shape: ModelShape, examples: int, lengths: Lengths, lora_rank: int = 0) -> float:
    """Operations of one measurement of loss; further passes for labels of several tokens are not counted."""
    batches = lengths.batches(examples, LOSS_BATCH_TOKENS)
    tokens = sum(rows * longest for rows, _, longest in batches)
    squares = sum(rows * longest**2 for rows, _, longest in batches)
    return forward_flops(shape, tokens, squares, examples * lengths.target, lora_rank)


def generation_flops(
    shape: ModelShape, examples: int, lengths: Lengths, new_tokens: int, context: int, lora_rank: int = 0
) -> float:
    """Operations of sampling `new_tokens` for each of `examples` texts; texts that end earlier need fewer.

    With p tokens of the longest prompt of a batch and n new ones, for each of its rows: a forward pass over p tokens,
    n - 1 passes over single tokens that attend to p + 1 ... p + n - 1 tokens, and the logits of n positions. Prompts
    are cut so that an input has at most `context` tokens.
    """
    # Unlike the last token of a target, that of a generated text is fed in, too.
    cut = Lengths(tuple((prompt, new_tokens + 1) for prompt, _ in lengths.pairs)).cut(context + 1)
    tokens = squares = 0.0
    for rows, prompt, _ in cut.batches(examples, TEXT_BATCH_TOKENS):
        tokens += rows * (prompt + new_tokens - 1)
        squares += rows * (prompt**2 + (new_tokens - 1) * prompt + new_tokens * (new_tokens - 1) / 2)
    return forward_flops(shape, tokens, squares, examples * new_tokens, lora_rank)


def product_flops(shape: ModelShape, pool: int, test: int, passes: float, lora_rank: int = 0) -> float:
    """Operations of all products of `pool` and `test` gradients at one step: 3 forward passes, and 2 pool test weights.

    `passes` is the number of operations of a forward pass over the pool and the test set.
    """
    weights = 4 * lora_rank * shape.hidden * shape.layers if lora_rank else shape.weights
    return GRADIENT_PASSES * passes + 2 * pool * test * weights


def kernel_flops(
    shape: ModelShape,
    pool: int,
    tests: int,
    tokens: tuple[float, float],
    passes: tuple[float, float],
    kernel: KernelSettings,
    lora_rank: int = 0,
) -> float:
    """Operations of a kernel at one step: 2 forward passes of each example, its projection, and pool x test products.

    If the projected gradients of the test examples do not fit in the memory, they are split into parts, and the pool is
    passed through the model for each part.

    Args:
        shape: of the model.
        pool, tests: numbers of examples.
        tokens: mean tokens of a pool and of a test example.
        passes: operations of a forward pass over the pool and over the test examples.
        kernel: how it is computed.
        lora_rank: of adapters.
    """
    matrices, feature = shape.projected_numbers(kernel.columns, lora_rank)
    at_once = max(1.0, (KERNEL_TESTS_SHARE * kernel.memory * 2**30 / 4 - matrices) // feature)
    parts = -(-tests // at_once)
    # A token's input and its gradient, multiplied by a random matrix each, then their outer product.
    projected = 2 * (matrices + feature) * (parts * pool * tokens[0] + tests * tokens[1])
    return KERNEL_PASSES * (parts * passes[0] + passes[1]) + projected + 2 * pool * tests * feature


def measurements(steps: int, interval: int) -> int:
    """The number of measurements: at step 0, after each `interval` updates, and after the last update."""
    return 1 + -(-steps // interval)


def run_flops(
    shape: ModelShape,
    settings: RunSettings,
    lengths: Mapping[str, TaskLengths],
    follows_gradients: bool = False,
    kernel: KernelSettings | None = None,
) -> RunFlops:
    """Operations of one run.

    Args:
        shape: of the model.
        settings: of the run.
        lengths: of the tasks of its pool and its test set.
        follows_gradients: whether it records exact gradient products.
        kernel: how its kernel is computed; None: it has none.
    """
    from gptdynamics.tasks import get_task

    task = get_task(settings.task)
    context = min(shape.context, settings.max_length)
    examples, rank, steps = settings.test_examples, settings.lora_rank, settings.run_steps
    cut_lengths = {name: value.cut(context) for name, value in lengths.items()}
    pool, tests = (
        _mixed([cut_lengths[part.name].pool for part in task.parts]),
        [cut_lengths[part.name].test for part in task.test_parts],
    )
    losses = sum(loss_flops(shape, examples, test, rank) for test in tests)
    texts = sum(
        generation_flops(shape, examples, lengths[part.name].test, lengths[part.name].new_tokens, context, rank)
        for part in task.test_parts
        if names_of(part.followed_metrics, needs_text=True)
    )
    gradients = products = 0.0
    rows = settings.pool_size * settings.parts
    pool_pass = rows * forward_flops(shape, pool.fed, pool.square, pool.target, rank)
    test_pass = sum(examples * forward_flops(shape, test.fed, test.square, test.target, rank) for test in tests)
    if follows_gradients:
        from gptdynamics.runs.gradient_record import product_steps

        gradients = steps * DERIVATIVE_PASSES * losses
        products = len(product_steps(steps)) * product_flops(
            shape, rows, examples * len(tests), pool_pass + test_pass, rank
        )
    elif kernel is not None:
        tokens = pool.fed, sum(test.fed for test in tests) / len(tests)
        kernel_cost = kernel_flops(shape, rows, examples * len(tests), tokens, (pool_pass, test_pass), kernel, rank)
        products = len(kernel.steps(steps)) * kernel_cost
    return RunFlops(
        update=steps * update_flops(shape, settings.batch_size, pool, rank),
        loss=measurements(steps, settings.eval_every) * losses,
        generation=measurements(steps, settings.generate_every) * texts,
        gradients=gradients,
        products=products,
    )


def layer_calls(shape: ModelShape, settings: RunSettings, lengths: Mapping[str, TaskLengths]) -> float:
    """How often a run on a GPU calls a layer: three times in an update, once for each batch of a measurement.

    An update passes each layer forwards, backwards and through the optimiser. A generated text passes all layers for
    each token. Kernels and gradient products are not counted: their work on a layer takes longer than its call.
    """
    from gptdynamics.tasks import get_task

    task = get_task(settings.task)
    context = min(shape.context, settings.max_length)
    losses = texts = 0
    for part in task.test_parts:
        test = lengths[part.name].cut(context).test
        losses += len(test.batches(settings.test_examples, GPU_LOSS_BATCH_TOKENS))
        if names_of(part.followed_metrics, needs_text=True):
            batches = test.batches(settings.test_examples, GPU_TEXT_BATCH_TOKENS)
            texts += len(batches) * lengths[part.name].new_tokens
    steps = settings.run_steps
    passes = 3 * steps + measurements(steps, settings.eval_every) * losses
    return shape.layers * (passes + measurements(steps, settings.generate_every) * texts)


def _mixed(parts: Sequence[Lengths]) -> Lengths:
    """Lengths of a mixture in which every part has the same number of examples, whatever the number of its pairs."""
    longest = max(len(part.pairs) for part in parts)
    ordered = [sorted(part.pairs, key=sum) for part in parts]
    return Lengths(tuple(pairs[index * len(pairs) // longest] for pairs in ordered for index in range(longest)))
