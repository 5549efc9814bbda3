"""One forward and backward pass of a batch that yields the factors of every example's gradient.

The functions that a model calls on its parameters (`linear`, `embedding`, `layer_norm`, a product with a vector) are
intercepted as it runs. Their inputs are stored, and the gradients at their outputs arrive during the backward pass. The
gradients of the weights themselves are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from gptdynamics.errors import SettingsError
from gptdynamics.gradients.uses import MatrixUse, Use, VectorUse
from gptdynamics.measurement.logits import target_logits
from gptdynamics.measurement.loss import example_losses
from gptdynamics.models.tokens import TargetBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Called with the name of a parameter and all of its uses in a batch.
Receive = Callable[[str, list[Use]], None]
# A matrix that is taller than wide by this factor is a vocabulary: few of its tokens have a gradient.
TALL = 4


class _UnplacedError(Exception):
    """The row that each token belongs to cannot be determined."""


def capture(
    model: PreTrainedModel, batch: TargetBatch, names: Collection[str], receive: Receive, strict: bool = True
) -> None:
    """Pass the uses of parameters in a batch to `receive`, as soon as those of a parameter are complete.

    Args:
        model: in evaluation mode, with `requires_grad` false for the named parameters. The gradients of parameters that
            still require one are passed on as vectors, at the cost of a backward pass for each row.
        batch: on the model's device.
        names: of the parameters.
        receive: called with a name and its uses, in no fixed order.
        strict: whether to raise an error for uses whose tokens cannot be assigned to rows; else they are left out.

    Raises:
        SettingsError: `strict`, and there is such a use.
    """
    parameters = dict(model.named_parameters())
    per_row = {name: value for name, value in parameters.items() if value.requires_grad}
    watch = _Watch({id(parameters[name]): name for name in names}, batch, receive)
    with torch.enable_grad():
        with watch:
            losses = example_losses(target_logits(model, batch), batch)
        for row in range(len(batch.rows)) if per_row else ():
            watch.row = row
            result = torch.autograd.grad(losses[row], list(per_row.values()), retain_graph=True, allow_unused=True)
            for (name, value), gradient in zip(per_row.items(), result, strict=True):
                row_gradient = torch.zeros_like(value) if gradient is None else gradient
                watch.add_row(name, row_gradient.flatten().float())
        watch.row = None
        if watch.start.requires_grad and losses.requires_grad:
            torch.autograd.grad(losses.sum(), [watch.start, *per_row.values()], allow_unused=True)
    watch.finish()
    if strict and watch.unplaced:
        raise SettingsError(
            f"gradient products: tokens cannot be assigned to examples within {min(watch.unplaced)}. "
            "Leave kernels out for this model"
        )


class _Watch(TorchFunctionMode):
    """Intercepts the functions that are called on parameters.

    Attributes:
        start: a zero that is added to the first results, so that gradients reach them.
        row: the row of the backward pass that runs, None for the pass of all rows; only in that are uses collected.
    """

    def __init__(self, names: dict[int, str], batch: TargetBatch, receive: Receive) -> None:
        super().__init__()
        self.names = names
        self.batch = batch
        self.receive = receive
        self.start = torch.zeros((), device=batch.input_ids.device, requires_grad=True)
        self.row: int | None = None
        self.expected: dict[str, int] = {}
        self.uses: dict[str, list[Use]] = {}
        self.per_row: dict[str, list[torch.Tensor]] = {}
        # Views of parameters by id: the view (held so that its id is not reused), the parameter's name, the block.
        self.views: dict[int, tuple[torch.Tensor, str, int]] = {}
        self.gathered: torch.Tensor | None = None
        self.unplaced: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        handler = _HANDLERS.get(getattr(func, "__name__", ""))
        return result if handler is None else handler(self, result, *args, **kwargs)

    def add_row(self, name: str, gradient: torch.Tensor) -> None:
        self.per_row.setdefault(name, []).append(gradient)

    def finish(self) -> None:
        """Pass on the uses that are still incomplete, as no further gradient will arrive."""
        for name, uses in self.uses.items():
            if name not in self.unplaced:
                self.receive(name, uses)
        for name, rows in self.per_row.items():
            self.receive(name, [VectorUse(torch.stack(rows))])
        self.uses, self.per_row = {}, {}
        self.views.clear()

    def _find(self, value: Any) -> tuple[str | None, int]:
        """The name of the parameter that a tensor is, or is a block of, and the block's number."""
        if isinstance(value, torch.nn.Parameter):
            return self.names.get(id(value)), 0
        _, name, block = self.views.get(id(value), (None, None, 0))
        return name, block

    def _follow(self, result: torch.Tensor, makers: dict[str, Callable[[torch.Tensor], Use]]) -> torch.Tensor:
        """Make a use of each named parameter from the gradient at a result, once it arrives."""
        if not makers:
            return result
        if not result.requires_grad:
            result = result + self.start
        for name in makers:
            self.expected[name] = self.expected.get(name, 0) + 1

        def take(gradient: torch.Tensor) -> None:
            if self.row is not None:
                return
            with torch.no_grad():
                for name, make in makers.items():
                    uses = self.uses.setdefault(name, [])
                    try:
                        uses.append(make(gradient.detach()))
                    except _UnplacedError:
                        self.unplaced.add(name)
                    self.expected[name] -= 1
                    if not self.expected[name]:
                        complete = self.uses.pop(name)
                        if name not in self.unplaced:
                            self.receive(name, complete)

        result.register_hook(take)
        return result

    def _linear(self, result: Any, inputs: Any, weight: Any, bias: Any = None, transposed: bool = False) -> Any:
        makers: dict[str, Callable[[torch.Tensor], Use]] = {}
        name, block = self._find(weight)
        bias_name, bias_block = self._find(bias)
        place = self._place(result, block_of_stack=id(weight) in self.views)
        if name and weight.dim() == 2:
            inputs = inputs.detach()

            def matrix(gradient: torch.Tensor) -> Use:
                tokens = inputs
                if gradient.size(-1) > TALL * tokens.size(-1):
                    tokens, gradient, rows = _without_zeros(tokens, gradient, place, self._shape)
                    left, right = self._by_row(gradient, rows), self._by_row(tokens, rows)
                else:
                    left, right = self._by_row(gradient, place), self._by_row(tokens, place)
                return MatrixUse(right, left, block) if transposed else MatrixUse(left, right, block)

            makers[name] = matrix
        if bias_name and not bias_block:
            makers[bias_name] = lambda gradient: VectorUse(self._by_row(gradient, place).sum(1))
        return self._follow(result, makers)

    def _addmm(self, result: Any, bias: Any, inputs: Any, weight: Any, **options: Any) -> Any:
        return result if options else self._linear(result, inputs, weight, bias, transposed=True)

    def _embedding(
        self, result: Any, ids: Any, weight: Any, padding_idx: int | None = None, *args: Any, **_: Any
    ) -> Any:
        name, block = self._find(weight)
        if not name or block:
            return result
        rows = len(self.batch.rows)
        if ids.dim() == 1:
            ids, result = ids.unsqueeze(0), result.unsqueeze(0)
        if ids.size(0) == 1 and rows > 1:
            # Position embeddings are looked up once for all rows.
            ids, result = ids.expand(rows, -1), result.expand(rows, -1, -1)

        def looked_up(gradient: torch.Tensor) -> Use:
            right = self._by_row(gradient, None)
            if padding_idx is not None:
                right = right * (ids != padding_idx).unsqueeze(-1)
            return MatrixUse(ids, right)

        return self._follow(result, {name: looked_up})

    def _layer_norm(
        self, result: Any, inputs: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Any:
        normalised = None
        if self._find(weight)[0]:
            normalised = torch.nn.functional.layer_norm(inputs.detach(), shape, None, None, eps)
        return self._elementwise(result, normalised, weight, bias)

    def _rms_norm(self, result: Any, inputs: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
        normalised = None
        if self._find(weight)[0]:
            normalised = torch.nn.functional.rms_norm(inputs.detach(), shape, None, eps)
        return self._elementwise(result, normalised, weight, None)

    def _mul(self, result: Any, first: Any, second: Any, **_: Any) -> Any:
        for value, other in ((first, second), (second, first)):
            if isinstance(other, torch.Tensor) and self._find(value)[0] and other.dim() > 1:
                return self._elementwise(result, other.detach(), value, None)
        return result

    def _add(self, result: Any, first: Any, second: Any, **options: Any) -> Any:
        for value, other in ((first, second), (second, first)):
            name, block = self._find(value)
            if not name or options:
                continue
            if not isinstance(other, torch.Tensor):
                # Norms like Gemma's multiply by one plus their weight.
                self.views[id(result)] = (result, name, block)
            elif other.dim() > 1:
                return self._elementwise(result, None, None, value)
        return result

    def _elementwise(self, result: Any, inputs: torch.Tensor | None, weight: Any, bias: Any) -> Any:
        """`given * weight + bias`, where `given` has the shape of the result."""
        makers: dict[str, Callable[[torch.Tensor], Use]] = {}
        place = self._place(result, block_of_stack=False)
        width = result.size(-1)
        name, _ = self._find(weight)
        if name and inputs is not None and inputs.shape == result.shape and weight.shape == (width,):
            factor = inputs
            makers[name] = lambda gradient: VectorUse(self._by_row(gradient * factor, place).sum(1))
        name, _ = self._find(bias)
        if name and bias.shape == (width,):
            makers[name] = lambda gradient: VectorUse(self._by_row(gradient, place).sum(1))
        return self._follow(result, makers)

    def _item(self, result: Any, value: Any, index: Any, **_: Any) -> Any:
        name, _block = self._find(value)
        single = isinstance(index, int) or (isinstance(index, torch.Tensor) and index.dim() == 0)
        if name and single and value.dim() == 3:
            self.views[id(result)] = (result, name, int(index))
        elif isinstance(index, torch.Tensor) and index.dim() == 1 and index.dtype == torch.long:
            rows, tokens = self._shape
            if isinstance(value, torch.Tensor) and value.dim() == 2 and value.size(0) == rows * tokens:
                # The tokens of an expert.
                self.gathered = index.detach() // tokens
        return result

    @property
    def _shape(self) -> tuple[int, int]:
        return self.batch.input_ids.size(0), self.batch.input_ids.size(1)

    def _place(self, value: Any, block_of_stack: bool) -> torch.Tensor | None:
        """The row of each token of a result `[tokens, width]`; None if the tokens are in the batch's order."""
        rows, tokens = self._shape
        if not isinstance(value, torch.Tensor) or value.dim() != 2:
            return None
        if block_of_stack and self.gathered is not None and len(self.gathered) == value.size(0):
            return self.gathered
        if value.size(0) != rows * tokens and value.size(0) == len(self.batch.row):
            return self.batch.row
        return None

    def _by_row(self, value: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
        """The values by row: `[rows, tokens, width]` float32, padded with zeros."""
        rows = self._shape[0]
        value = value.float()
        if place is None:
            # Without `place`, the leading dimensions must be the rows, or all tokens in order.
            leading = value.shape[:-1]
            if rows > 1 and leading[0] != rows and leading.numel() not in (rows, rows * self._shape[1]):
                raise _UnplacedError
            return value.reshape(rows, -1, value.size(-1))
        order = torch.argsort(place, stable=True)
        counts = torch.bincount(place, minlength=rows)
        sorted_rows = place[order]
        within = torch.arange(len(order), device=order.device) - (torch.cumsum(counts, 0) - counts)[sorted_rows]
        padded = value.new_zeros(rows, max(1, int(counts.max())), value.size(-1))
        padded[sorted_rows, within] = value[order]
        return padded


def _without_zeros(
    inputs: torch.Tensor, gradient: torch.Tensor, place: torch.Tensor | None, shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs and gradients of the tokens whose gradient is not zero, and the row of each token."""
    gradient, inputs = gradient.flatten(0, -2), inputs.flatten(0, -2)
    if place is None:
        rows = torch.arange(shape[0], device=gradient.device)
        place = rows.repeat_interleave(gradient.size(0) // shape[0])
    nonzero = gradient.any(-1)
    return inputs[nonzero], gradient[nonzero], place[nonzero]


_HANDLERS: dict[str, Any] = {
    "linear": _Watch._linear,
    "addmm": _Watch._addmm,
    "embedding": _Watch._embedding,
    "layer_norm": _Watch._layer_norm,
    "rms_norm": _Watch._rms_norm,
    "__getitem__": _Watch._item,
    **dict.fromkeys(("mul", "__mul__", "__rmul__"), _Watch._mul),
    **dict.fromkeys(("add", "__add__", "__radd__"), _Watch._add),
}
