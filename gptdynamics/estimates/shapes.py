"""The sizes of a causal language model that determine its operations and memory."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdynamics.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Architectures whose MLP multiplies two projections of its input, by how their `model_type` begins.
_GATED = ("llama", "mistral", "mixtral", "qwen", "gemma", "phi3", "olmo", "smollm", "granite", "cohere")
_SIZES = ("layers", "hidden", "heads", "vocabulary", "context")
# The names of each size in transformers configs of different model families.
_CONFIG_NAMES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions"),
    "intermediate": ("intermediate_size", "n_inner"),
    "tied": ("tie_word_embeddings",),
    "key_value_heads": ("num_key_value_heads",),
    "family": ("model_type",),
}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder-only transformer.

    Attributes:
        intermediate: width of the MLP.
        vocabulary, context: rows of the output matrix, and the longest input in tokens.
        tied: whether input and output embeddings are one matrix.
        key_value_heads: heads of keys and values. None: as many as `heads`.
        mlp_matrices: matrices of an MLP: 3 if it is gated, else 2.
    """

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    context: int
    tied: bool = False
    key_value_heads: int | None = None
    mlp_matrices: int = 2

    def __post_init__(self) -> None:
        for name in (*_SIZES, "intermediate", "mlp_matrices"):
            if getattr(self, name) < 1:
                raise SettingsError(f"a model with {name}={getattr(self, name)}: it must be at least 1")

    @property
    def block_weights(self) -> int:
        """Weights of all blocks' matrices: 2 h^2 + 2 h q + m h i each, with q = h * key_value_heads / heads."""
        narrow = self.hidden * (self.key_value_heads or self.heads) // self.heads
        return self.layers * self.hidden * (2 * self.hidden + 2 * narrow + self.mlp_matrices * self.intermediate)

    @property
    def head_weights(self) -> int:
        """Weights of the output matrix."""
        return self.hidden * self.vocabulary

    @property
    def weights(self) -> int:
        """Weights of all matrices, embeddings too; biases and norms, under one percent, are left out."""
        return self.block_weights + self.head_weights * (1 if self.tied else 2)

    @property
    def matrix_sides(self) -> list[tuple[tuple[int, int], int]]:
        """Rows and columns of the matrices, and how many there are of each; query, key and value count as three."""
        narrow = self.hidden * (self.key_value_heads or self.heads) // self.heads
        return [
            ((self.hidden, self.hidden), 2 * self.layers),
            ((narrow, self.hidden), 2 * self.layers),
            ((self.intermediate, self.hidden), self.mlp_matrices * self.layers),
            ((self.vocabulary, self.hidden), 1 if self.tied else 2),
        ]

    def adapter_sides(self, rank: int) -> list[tuple[tuple[int, int], int]]:
        """The same for adapters of a rank on query, key and value, as if these were one matrix of the hidden width."""
        return [((rank, self.hidden), self.layers), ((3 * self.hidden, rank), self.layers)]

    def projected_numbers(self, columns: int, rank: int = 0) -> tuple[int, int]:
        """The sizes of the random matrices that project gradients, and of one example's projected gradients.

        Args:
            columns: of the random matrices.
            rank: of adapters on query, key and value, if only these have gradients; 0: all weights have.
        """
        sides = self.adapter_sides(rank) if rank else self.matrix_sides
        matrices = columns * sum(count * side for dimensions, count in sides for side in dimensions if side > columns)
        return matrices, sum(count * min(rows, columns) * min(width, columns) for (rows, width), count in sides)

    def adapter_weights(self, rank: int) -> int:
        """Weights of adapters of a rank on query, key and value."""
        return sum(rows * columns * count for (rows, columns), count in self.adapter_sides(rank))


PYTHIA_SHAPES = {
    size: ModelShape(**shape, vocabulary=50304, context=2048)
    for size, shape in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}
KNOWN_SHAPES = PYTHIA_SHAPES | {
    "smollm2": ModelShape(30, 576, 9, 1536, 49152, 8192, tied=True, key_value_heads=3, mlp_matrices=3)
}


def shape_of(config: PretrainedConfig | dict[str, Any]) -> ModelShape:
    """The shape of a model from its transformers config, or from the content of its `config.json`.

    Raises:
        SettingsError: a size is missing.
    """
    read = config.get if isinstance(config, dict) else lambda name: getattr(config, name, None)
    values: dict[str, Any] = {
        key: next((value for name in names if (value := read(name)) is not None), None)
        for key, names in _CONFIG_NAMES.items()
    }
    for name in _SIZES:
        if not isinstance(values[name], int):
            raise SettingsError(f"a {values['family'] or 'model'} config does not say its {name}")
    return ModelShape(
        **{name: values[name] for name in _SIZES},
        # GPT-2's config leaves out the default width of the MLP.
        intermediate=values["intermediate"] or 4 * values["hidden"],
        tied=bool(values["tied"]),
        key_value_heads=values["key_value_heads"],
        mlp_matrices=3 if str(values["family"]).startswith(_GATED) else 2,
    )


def base_shape(name: str) -> ModelShape:
    """The shape of a base model by its name; known sizes and folders need no network.

    Raises:
        SettingsError: its config cannot be read.
    """
    from gptdynamics.models.base_model import base_model_source

    if name in KNOWN_SHAPES:
        return KNOWN_SHAPES[name]
    source, revision = base_model_source(name)
    path = Path(source) / "config.json"
    try:
        if path.exists():
            return shape_of(json.loads(path.read_text(encoding="utf-8")))
        from transformers import AutoConfig

        return shape_of(AutoConfig.from_pretrained(source, revision=revision))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(f"cannot read the config of base model {name!r}: {reason}") from error
