"""Pretrain a small GPT-NeoX base model: `python -m tools.nano.pretrain CORPUS OUT`.

The bundled `nano` was made by the defaults. Everything that a reader needs to judge the model is
written beside its weights: the curve, the held-out bits per byte against n-gram models, and greedy
continuations.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from tokenizers import Tokenizer

from gptdynamics.errors import SettingsError
from tools.nano.card import write_card
from tools.nano.corpus import (
    END_OF_TEXT,
    PADDING,
    CorpusMix,
    heldout_documents,
    token_stream,
    train_tokenizer,
    training_documents,
)
from tools.nano.muon import Muon
from tools.nano.ngram import NgramModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONTINUE = (
    "The old man looked at the sea and",
    "She opened the door and saw",
    "In the year 1900 the city of London",
    "The president said on Monday that",
    "Es war einmal ein",
    "Ich habe gestern",
    "German: Das ist mein Haus.\nEnglish:",
    "German: Ich habe keine Zeit.\nEnglish:",
    "Facts: Anna Keller | birth place | Oslo\nText:",
    "Facts: Marlow Hall | location | Dublin; Marlow Hall | owner | Peter Novak\nText:",
)


@dataclass(frozen=True)
class PretrainSettings:
    """Shape, data and optimiser of a base model of our own.

    Attributes:
        hidden: width of the residual stream.
        layers: transformer blocks.
        heads: attention heads; must divide `hidden`.
        vocabulary: BPE entries.
        context: tokens in a training sequence, and the longest input of the model.
        batch: sequences an update.
        tokens: training tokens in all; the stream is repeated if it is shorter.
        matrix_learning_rate: peak for the weight matrices (Muon), after 2% warm-up, falling linearly to zero.
        learning_rate: the same for embeddings, norms and biases (AdamW).
        seed: of initial weights, data and order.
    """

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    vocabulary: int = 6144
    context: int = 512
    batch: int = 8
    tokens: int = 8_000_000
    matrix_learning_rate: float = 0.02
    learning_rate: float = 4e-3
    seed: int = 0
    mix: CorpusMix = field(default_factory=CorpusMix)

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise SettingsError(f"hidden={self.hidden} must be a multiple of heads={self.heads}")
        if not 4096 <= self.vocabulary <= 8192:
            raise SettingsError(f"vocabulary={self.vocabulary} must be between 4096 and 8192")

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.tokens // (self.batch * self.context)


def new_model(settings: PretrainSettings) -> PreTrainedModel:
    """A GPT-NeoX with random weights; input and output embeddings are tied."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(settings.seed)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=settings.vocabulary,
            hidden_size=settings.hidden,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=4 * settings.hidden,
            max_position_embeddings=settings.context,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        )
    )


def _batches(stream: np.ndarray, settings: PretrainSettings) -> Iterator[torch.Tensor]:
    """Endless `[batch, context]` token batches; every epoch visits all windows in a new order."""
    rng = np.random.default_rng(settings.seed)
    windows = stream[: len(stream) // settings.context * settings.context].reshape(-1, settings.context)
    while True:
        order = rng.permutation(len(windows))
        for start in range(0, len(order) - settings.batch + 1, settings.batch):
            chosen = windows[order[start : start + settings.batch]]
            yield torch.from_numpy(chosen.astype(np.int64))


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 50)
    return min((step + 1) / warm, (steps - step) / (steps - warm))


def train(
    model: PreTrainedModel,
    stream: np.ndarray,
    settings: PretrainSettings,
    say: Callable[[str], None],
) -> list[dict[str, float]]:
    """Train in place; returns the curve as `{step, tokens, loss}`, loss averaged over 50 steps."""
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.dim() == 2 and p is not embedding]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizers = (
        Muon(matrices, lr=settings.matrix_learning_rate),
        torch.optim.AdamW([embedding, *others], lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    )
    peaks = (settings.matrix_learning_rate, settings.learning_rate)
    curve: list[dict[str, float]] = []
    recent: list[float] = []
    began = time.perf_counter()
    batches = _batches(stream, settings)
    for step in range(settings.steps):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * _rate(step, settings.steps)
        batch = next(batches)
        logits = model(input_ids=batch, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        recent.append(loss.item())
        if (step + 1) % 50 == 0:
            seen = (step + 1) * settings.batch * settings.context
            curve.append({"step": step + 1, "tokens": seen, "loss": sum(recent) / len(recent)})
            recent = []
            left = (time.perf_counter() - began) / (step + 1) * (settings.steps - step - 1)
            say(f"step {step + 1}/{settings.steps}  loss {curve[-1]['loss']:.3f}  {left / 60:.0f} min left")
    return curve


@torch.no_grad()
def heldout_bits(model: PreTrainedModel, stream: np.ndarray, context: int) -> float:
    """Code length of `stream` in bits, in windows of `context` tokens (each window starts afresh)."""
    windows = stream[: len(stream) // context * context].reshape(-1, context)
    total = 0.0
    for start in range(0, len(windows), 8):
        batch = torch.from_numpy(windows[start : start + 8].astype(np.int64))
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1].flatten(0, 1)
        total += torch.nn.functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="sum").item()
    return total / math.log(2)


def compare_with_ngrams(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    training: np.ndarray,
    heldout: np.ndarray,
    settings: PretrainSettings,
) -> dict[str, float]:
    """Held-out bits per byte of the model and of n-gram models fitted on the same training tokens."""
    used = heldout[: len(heldout) // settings.context * settings.context]
    size = len(tokenizer.decode(used.tolist(), skip_special_tokens=False).encode())
    return {
        "unigram": NgramModel(training, settings.vocabulary, 1).bits(used) / size,
        "trigram": NgramModel(training, settings.vocabulary, 3).bits(used) / size,
        "model": heldout_bits(model, used, settings.context) / size,
    }


@torch.no_grad()
def continuations(model: Any, tokenizer: Tokenizer, new_tokens: int = 24) -> list[dict[str, str]]:
    """Greedy continuations of ten fixed beginnings."""
    shown = []
    for text in CONTINUE:
        ids = torch.tensor([tokenizer.encode(text).ids])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
        )
        shown.append({"prompt": text, "continuation": tokenizer.decode(out[0, ids.shape[1] :].tolist())})
    return shown


def save(model: Any, tokenizer: Tokenizer, log: dict[str, Any], out: Path) -> None:
    """Write weights (fp16), configuration, tokenizer, log, curve and card to `out`."""
    import copy

    from transformers import PreTrainedTokenizerFast

    out.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).half().save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT, pad_token=PADDING
    ).save_pretrained(out)
    (out / "pretraining.json").write_text(json.dumps(log, indent=1, ensure_ascii=False) + "\n")
    write_card(out)


def pretrain(corpus: Path, out: Path, settings: PretrainSettings, say: Callable[[str], None]) -> None:
    """Make a base model: tokenizer, training, comparison with n-grams, and its card."""
    import transformers

    documents = training_documents(corpus, settings.mix)
    say(f"{len(documents)} documents, {sum(map(len, documents)) / 1e6:.1f} M characters")
    tokenizer = train_tokenizer(documents, settings.vocabulary)
    stream = token_stream(tokenizer, documents)
    heldout = token_stream(tokenizer, heldout_documents(corpus))
    say(f"{len(stream) / 1e6:.2f} M training tokens, {len(heldout) / 1e6:.2f} M held out")
    model = new_model(settings)
    began = time.perf_counter()
    curve = train(model, stream, settings, say)
    seconds = time.perf_counter() - began
    model.eval()
    bits = compare_with_ngrams(model, tokenizer, stream, heldout, settings)
    embedding = settings.vocabulary * settings.hidden
    parameters = sum(p.numel() for p in model.parameters())
    log = {
        "settings": asdict(settings),
        "parameters": parameters,
        "parameters_outside_vocabulary": parameters - embedding,
        "stream_tokens": len(stream),
        "heldout_tokens": len(heldout),
        "heldout_bits_per_byte": bits,
        "seconds": round(seconds),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "curve": curve,
        "continuations": continuations(model, tokenizer),
    }
    save(model, tokenizer, log, out)
    say(f"held-out bits per byte: {bits}")


def main(
    corpus: Annotated[Path, typer.Argument(help="Folder with pretrain-small.txt.xz and its siblings.")],
    out: Annotated[Path, typer.Argument(help="Folder for the model.")],
    hidden: int = PretrainSettings.hidden,
    layers: int = PretrainSettings.layers,
    heads: int = PretrainSettings.heads,
    tokens: int = PretrainSettings.tokens,
    matrix_learning_rate: float = PretrainSettings.matrix_learning_rate,
    learning_rate: float = PretrainSettings.learning_rate,
    seed: int = PretrainSettings.seed,
) -> None:
    """Pretrain a small GPT-NeoX base model on CORPUS and write it to OUT."""
    settings = PretrainSettings(
        hidden=hidden,
        layers=layers,
        heads=heads,
        tokens=tokens,
        matrix_learning_rate=matrix_learning_rate,
        learning_rate=learning_rate,
        seed=seed,
    )
    pretrain(corpus, out, settings, typer.echo)


if __name__ == "__main__":
    typer.run(main)
