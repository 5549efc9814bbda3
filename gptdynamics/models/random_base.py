"""A base model of a Pythia size with random weights, for measuring costs where the Hub cannot be reached.

`python -m gptdynamics.models.random_base 70m out/random/70m`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.estimates.shapes import PYTHIA_SHAPES, ModelShape
from gptdynamics.models.nano import MODEL_FOLDER

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM


def random_neox(shape: ModelShape, seed: int = 0) -> GPTNeoXForCausalLM:
    """A GPT-NeoX of a shape with the initial weights of `transformers`.

    Args:
        shape: of the model.
        seed: of its weights.
    """
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(config)


def save_random_base(shape: ModelShape, folder: Path) -> None:
    """Save such a model with nano's tokenizer, whose ids are among the first of its vocabulary.

    Args:
        shape: of the model.
        folder: to save to; then give it as `--base-model`.
    """
    from transformers import AutoTokenizer

    random_neox(shape).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL_FOLDER).save_pretrained(folder)


def main() -> None:
    """`python -m gptdynamics.models.random_base SIZE FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=PYTHIA_SHAPES, help="a Pythia size")
    parser.add_argument("folder", type=Path, help="where the model is saved")
    arguments = parser.parse_args()
    save_random_base(PYTHIA_SHAPES[arguments.size], arguments.folder)


if __name__ == "__main__":
    main()
