"""The sizes of a causal language model that its arithmetic depends on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdynamics.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Architectures whose MLP multiplies two projections of its input, by how their `model_type` begins.
_GATED = ("llama", "mistral", "mixtral", "qwen", "gemma", "phi3", "olmo", "smollm", "granite", "cohere")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder-only transformer.

    Attributes:
        layers: blocks of attention and MLP.
        hidden: width of the residual stream.
        heads: of attention; together as wide as `hidden`.
        intermediate: width of the MLP.
        vocabulary: rows of the output matrix.
        context: longest input in tokens.
        tied: whether input and output embeddings are one matrix.
        key_value_heads: heads of keys and values, where fewer than `heads`. None: as many.
        mlp_matrices: 2, or 3 where the MLP is gated.
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
        for name in ("layers", "hidden", "heads", "intermediate", "vocabulary", "context", "mlp_matrices"):
            if getattr(self, name) < 1:
                raise SettingsError(f"a model with {name}={getattr(self, name)}: it must be at least 1")

    @property
    def block_weights(self) -> int:
        """Weights of the matrices of all blocks: each is multiplied and added once for a token.

        With h = hidden, q = h * key_value_heads / heads, i = intermediate and m = mlp_matrices, a block has
        2 h^2 + 2 h q + m h i; where keys have as many heads as queries that is 4 h^2 + m h i.
        """
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


def _pythia(layers: int, hidden: int, heads: int, intermediate: int) -> ModelShape:
    return ModelShape(layers, hidden, heads, intermediate, vocabulary=50304, context=2048)


PYTHIA_SHAPES = {
    "14m": _pythia(6, 128, 4, 512),
    "70m": _pythia(6, 512, 8, 2048),
    "160m": _pythia(12, 768, 12, 3072),
    "410m": _pythia(24, 1024, 16, 4096),
    "1b": _pythia(16, 2048, 8, 8192),
    "2.8b": _pythia(32, 2560, 32, 10240),
}


def shape_of(config: PretrainedConfig | dict[str, Any]) -> ModelShape:
    """The shape of a model from its transformers config, or from what its `config.json` holds.

    Raises:
        SettingsError: a size is missing.
    """
    # `to_dict` leaves out nothing that attributes give, apart from names that a model family maps to its own.
    values = config if isinstance(config, dict) else config.to_dict()

    def get(*names: str) -> Any:
        for name in names:
            found = values.get(name) if isinstance(config, dict) else getattr(config, name, values.get(name))
            if found is not None:
                return found
        return None

    sizes = {
        "layers": get("num_hidden_layers", "n_layer"),
        "hidden": get("hidden_size", "n_embd"),
        "heads": get("num_attention_heads", "n_head"),
        "vocabulary": get("vocab_size"),
        "context": get("max_position_embeddings", "n_positions"),
    }
    for name, value in sizes.items():
        if not isinstance(value, int):
            raise SettingsError(f"a {get('model_type') or 'model'} config says nothing of its {name}")
    # GPT-2 leaves the width of its MLP out where it is the usual one.
    intermediate = get("intermediate_size", "n_inner") or 4 * sizes["hidden"]
    gated = str(get("model_type") or "").startswith(_GATED)
    tied = get("tie_word_embeddings")
    return ModelShape(
        **sizes,
        intermediate=intermediate,
        tied=bool(tied),
        key_value_heads=get("num_key_value_heads"),
        mlp_matrices=3 if gated else 2,
    )


def base_shape(name: str) -> ModelShape:
    """The shape of a base model by its name: a Pythia size and a folder need no network.

    Raises:
        SettingsError: its config cannot be read.
    """
    from gptdynamics.base_model import base_model_source

    if name in PYTHIA_SHAPES:
        return PYTHIA_SHAPES[name]
    source, revision = base_model_source(name)
    path = Path(source) / "config.json"
    if path.exists():
        try:
            return shape_of(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise SettingsError(f"base model {name!r}: {path} cannot be read ({error})") from error
    from transformers import AutoConfig

    try:
        return shape_of(AutoConfig.from_pretrained(source, revision=revision))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(f"cannot read the config of base model {name!r}: {reason}") from error
