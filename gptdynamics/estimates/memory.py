"""The memory that a worker needs to make runs, by arithmetic.

Numbers have four bytes. A worker holds the base model, the copy of it that a run trains, and for the trained weights
their gradients and AdamW's two moments. In addition it does one thing after another: updates, measurements, sampling,
gradient products; the largest of these counts. Activations of a pass are a rough estimate: a number of values for each
layer and token, and the logits of targets.
Measured with a kernel: nano 524 MiB where 534 are estimated, SmolLM2-135M 4,004 MiB where 4,397 are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptdynamics.configs import RunSettings
from gptdynamics.estimates.flops import (
    GPU_LOSS_BATCH_TOKENS,
    GPU_TEXT_BATCH_TOKENS,
    LOSS_BATCH_TOKENS,
    TEXT_BATCH_TOKENS,
)
from gptdynamics.estimates.lengths import TaskLengths
from gptdynamics.estimates.shapes import ModelShape
from gptdynamics.metrics import names_of

if TYPE_CHECKING:
    from gptdynamics.settings.kernels import KernelSettings

GIB = 2**30
# Python, torch, transformers and the tasks' rows, measured in a worker of nano.
LIBRARIES = 400 * 2**20
# The part of it that all processes of a machine share: the libraries' files.
SHARED = 170 * 2**20
# Copies of constants of `gradients.passes`, `gradients.kernels` and `gradients.products`, so that an estimate needs no
# torch: tokens of a batch, its activations as a multiple of the captured ones, examples of the second seed's sample,
# and the memory of exact products.
_KERNEL_TOKENS, _GPU_KERNEL_TOKENS, _ACTIVATIONS, _ERROR_SAMPLE, _EXACT_PRODUCTS = 1024, 4096, 3, 20, 2**31
_NUMBER = 4


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes that one worker needs.

    Attributes:
        libraries: of the process itself.
        weights: of the base model and of the copy that is trained.
        training: gradients and two moments of the trained weights.
        passes: activations and logits of the largest pass of an update, a measurement, or a batch of texts.
        products: of a kernel or of exact gradient products, in addition to the rest; 0 without them.
    """

    libraries: float
    weights: float
    training: float
    passes: float
    products: float

    @property
    def total(self) -> float:
        """Bytes in all; of passes and gradient products only the larger counts, as one follows the other."""
        return self.libraries + self.on_device

    @property
    def on_device(self) -> float:
        """Bytes on the GPU, if there is one."""
        return self.weights + self.training + max(self.passes, self.products)

    def __str__(self) -> str:
        largest = ("gradient products", self.products) if self.products > self.passes else ("passes", self.passes)
        parts = [("weights", self.weights), ("gradients and moments", self.training), largest]
        return ", ".join(f"{name} {size / GIB:.1f}" for name, size in [*parts, ("libraries", self.libraries)])


def worker_memory(
    shape: ModelShape,
    settings: RunSettings,
    lengths: Mapping[str, TaskLengths],
    kernel: KernelSettings | None = None,
    exact_products: bool = False,
    on_gpu: bool = False,
) -> WorkerMemory:
    """The memory that a worker needs to make runs of a config.

    Args:
        shape: of the base model.
        settings: of the runs.
        lengths: of the tasks of pool and test set.
        kernel: how kernels are computed; None: none are.
        exact_products: whether runs record exact gradient products.
        on_gpu: whether it uses a GPU, where batches are larger.
    """
    trained = shape.adapter_weights(settings.lora_rank) if settings.lora_rank else shape.weights
    weights = 2 * shape.weights + (trained if settings.lora_rank else 0)
    products = 0.0
    if kernel is not None:
        products = kernel_bytes(shape, settings, lengths, kernel, on_gpu)
    if exact_products:
        examples = settings.pool_size * settings.parts + _test_examples(settings)
        # A copy of the weights, their change, and as many whole gradients as fit.
        products = max(products, _NUMBER * trained * 2 + min(_EXACT_PRODUCTS, _NUMBER * trained * examples))
    return WorkerMemory(
        libraries=LIBRARIES,
        weights=_NUMBER * weights,
        training=_NUMBER * 3 * trained,
        passes=_pass_bytes(shape, settings, lengths, on_gpu),
        products=products,
    )


def _test_examples(settings: RunSettings) -> int:
    from gptdynamics.tasks import get_task

    return settings.test_examples * len(get_task(settings.task).test_parts)


def _pass_bytes(shape: ModelShape, settings: RunSettings, lengths: Mapping[str, TaskLengths], on_gpu: bool) -> float:
    """Bytes of the largest batch of training, measurement or sampling."""
    from gptdynamics.tasks import get_task

    loss_tokens = GPU_LOSS_BATCH_TOKENS if on_gpu else LOSS_BATCH_TOKENS
    text_tokens = GPU_TEXT_BATCH_TOKENS if on_gpu else TEXT_BATCH_TOKENS
    context = min(shape.context, settings.max_length)
    training_numbers = shape.layers * (16 * shape.hidden + (shape.mlp_matrices + 1) * shape.intermediate)
    inference_numbers = 6 * shape.hidden + shape.mlp_matrices * shape.intermediate
    cache_numbers = 2 * shape.layers * shape.hidden * (shape.key_value_heads or shape.heads) // shape.heads
    largest = 0.0
    for part in get_task(settings.task).test_parts:
        cut_lengths = lengths[part.name].cut(context)
        longest = cut_lengths.pool.longest_of(settings.batch_size)[0]
        # Logits, their softmax and its gradient.
        update = settings.batch_size * (longest * training_numbers + cut_lengths.pool.target * 3 * shape.vocabulary)
        rows = min(settings.test_examples, loss_tokens / cut_lengths.test.fed)
        measurement = rows * (cut_lengths.test.fed * inference_numbers + cut_lengths.test.target * 2 * shape.vocabulary)
        largest = max(largest, update, measurement)
        if names_of(part.followed_metrics, needs_text=True):
            length = min(context, cut_lengths.test.prompt + cut_lengths.new_tokens)
            rows = min(settings.test_examples, text_tokens / length)
            largest = max(largest, rows * (length * (cache_numbers + inference_numbers) + 3 * shape.vocabulary))
    return _NUMBER * largest


def kernel_bytes(
    shape: ModelShape,
    settings: RunSettings,
    lengths: Mapping[str, TaskLengths],
    kernel: KernelSettings,
    on_gpu: bool = False,
) -> float:
    """The memory that a kernel needs: one whole gradient, to determine the coverage, or the projected gradients."""
    limit = kernel.memory * GIB
    trained = shape.adapter_weights(settings.lora_rank) if settings.lora_rank else shape.weights
    matrices, feature = (_NUMBER * numbers for numbers in shape.projected_numbers(kernel.columns, settings.lora_rank))
    narrow = shape.hidden * (shape.key_value_heads or shape.heads) // shape.heads
    captured = shape.layers * (8 * shape.hidden + 2 * narrow + shape.mlp_matrices * shape.intermediate)
    longest = max(numbers.pool.fed for numbers in lengths.values())
    tokens = min(_GPU_KERNEL_TOKENS if on_gpu else _KERNEL_TOKENS, settings.pool_size * settings.parts * longest)
    batch = min(limit / 4, _ACTIVATIONS * _NUMBER * captured * tokens)
    test_bytes = min(_test_examples(settings) * feature, max(feature, 0.7 * limit - matrices))
    second_seed = matrices + _ERROR_SAMPLE * feature
    return max(_NUMBER * trained, matrices + max(test_bytes, second_seed) + batch)


def smallest_kernel_memory(shape: ModelShape, settings: RunSettings, kernel: KernelSettings) -> float:
    """The least memory of a kernel, in GiB: its random matrices and one example's projected gradients."""
    return _NUMBER * sum(shape.projected_numbers(kernel.columns, settings.lora_rank)) / 0.7 / GIB
