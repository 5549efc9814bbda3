"""The simulator as a `transformers` model: saving, loading anywhere, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers.utils import ModelOutput

from gptdynamics.curriculum import Curriculum
from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from gptdynamics.tasks import get_task, load_examples
from simulator import GPTfluenceConfig, GPTfluenceSimulator
from simulator.model.curricula import measured_steps, shares_between, visit_shares
from simulator.model.example_encoding import GivenExample, content_key, places_of

POOL, TESTS, STEPS = 7, 4, 6
MakeConfig = Callable[..., GPTfluenceConfig]
MakeModel = Callable[..., GPTfluenceSimulator]
CURRICULUM = [[0, 1], [2, 3], [4, 5], [6, 0], [1, 2], [3, 4]]
INITIAL = [1.0, 1.5, 2.0, 0.5]
KINDS = {
    "markov": {"dynamics": "markov", "order": 1},
    "markov mlp of order 2": {"dynamics": "markov", "order": 2, "projection": "mlp"},
    "memory": {"dynamics": "memory", "metric": "loss"},
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def model_of(make_config: MakeConfig, make_model: MakeModel) -> Callable[[str], GPTfluenceSimulator]:
    return lambda kind: make_model(make_config(**KINDS[kind]))


@pytest.fixture
def memory(model_of: Callable[[str], GPTfluenceSimulator]) -> GPTfluenceSimulator:
    return model_of("memory")


@pytest.fixture
def markov(model_of: Callable[[str], GPTfluenceSimulator]) -> GPTfluenceSimulator:
    return model_of("markov")


def initial_of(model: GPTfluenceSimulator) -> list[list[float]]:
    return [[value] * model.config.order for value in INITIAL]


def examples(part: str, count: int) -> list[Example]:
    return load_examples(get_task("mini_sentiment"), part, count)


@EACH_KIND
def test_a_saved_model_predicts_the_same_bits(
    kind: str, model_of: Callable[[str], GPTfluenceSimulator], tmp_path: Path
) -> None:
    model = model_of(kind)
    model.save_pretrained(tmp_path)
    loaded, info = GPTfluenceSimulator.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded is not model
    assert {name: value.shape for name, value in loaded.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    before, after = (one.simulate(CURRICULUM, initial=initial_of(model)) for one in (model, loaded))
    assert torch.isfinite(before).all()
    assert torch.equal(before, after)


@EACH_KIND
def test_a_saved_folder_has_safetensors_code_and_no_encoder(
    kind: str, model_of: Callable[[str], GPTfluenceSimulator], tmp_path: Path
) -> None:
    model_of(kind).save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "configuration_gptfluence.py",
        "modeling_gptfluence.py",
        "display.py",
        "dynamics.py",
        "example_encoding.py",
        "kinds.py",
        "markov_dynamics.py",
        "memory_dynamics.py",
        "mean_curve_dynamics.py",
        "latent.py",
        "model_files.py",
        "output.py",
        "part_state.py",
        "recurrence.py",
        "curricula.py",
        "intervals.py",
        "trajectories.py",
        "table_dynamics.py",
        "tangent_dynamics.py",
        "what_if.py",
    }
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        stored = set(weights.keys())
    bands = {"band_scale", "band_scores", "unseen_band_scale", "unseen_band_scores"}
    assert {name.split(".")[0] for name in stored} == {"pool_vectors", "test_vectors", "dynamics", *bands}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_gptfluence.GPTfluenceConfig",
        "AutoModel": "modeling_gptfluence.GPTfluenceSimulator",
    }


ELSEWHERE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("simulator", "gptdynamics"):
            raise ModuleNotFoundError(f"{name} is not here")
        return None

sys.meta_path.insert(0, Refuse())

import json
from types import SimpleNamespace
from transformers import AutoConfig, AutoModel

curriculum, initial, folders, mixture = json.loads(sys.argv[1])
for folder in folders:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert type(config).__name__ == "GPTfluenceConfig", type(config)
    values = model.simulate(curriculum, initial=[[value] * config.order for value in initial])
    print(json.dumps([value.hex() for value in values.flatten().tolist()]))
    unknown = SimpleNamespace(id=0, prompt="never seen", target=" positive")
    try:
        model.simulate(curriculum, test=[unknown], initial=[[1.0] * config.order])
    except ImportError as error:
        print(error)
try:
    AutoModel.from_pretrained(mixture, trust_remote_code=True)
except ValueError as error:
    print(error)
assert not {"simulator", "gptdynamics"} & {name.split(".")[0] for name in sys.modules}
"""


def test_auto_model_loads_it_where_this_package_is_not_installed(
    model_of: Callable[[str], GPTfluenceSimulator], tmp_path: Path
) -> None:
    models = [model_of(kind) for kind in KINDS]
    folders = [str(tmp_path / f"model-{number}") for number in range(len(models))]
    for model, folder in zip(models, folders, strict=True):
        model.save_pretrained(folder)
    mixture = shutil.copytree(folders[0], tmp_path / "mixture")
    shutil.copy(tmp_path / "model-1" / "model.safetensors", mixture)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps([CURRICULUM, INITIAL, folders, str(mixture)])],
        cwd=empty,
        env=os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *lines, mixed = done.stdout.splitlines()
    assert "config.json and model.safetensors are of different savings" in mixed
    for model, values, refusal in zip(models, lines[::2], lines[1::2], strict=True):
        here = model.simulate(CURRICULUM, initial=initial_of(model)).flatten().tolist()
        assert json.loads(values) == [value.hex() for value in here]
        assert "needs the gptdynamics package" in refusal


@EACH_KIND
def test_defaults_are_the_pool_the_test_examples_and_the_rates_trained_on(
    kind: str, model_of: Callable[[str], GPTfluenceSimulator]
) -> None:
    model = model_of(kind)
    found = model.simulate(
        CURRICULUM, examples("pool", POOL), examples("test", TESTS), initial_of(model), model.config.learning_rate
    )
    assert found.shape == (TESTS, STEPS + 1)
    assert torch.equal(found, model.simulate(CURRICULUM, initial=initial_of(model)))


@EACH_KIND
def test_test_examples_are_known_by_their_texts_not_by_their_ids_or_order(
    kind: str, model_of: Callable[[str], GPTfluenceSimulator]
) -> None:
    model = model_of(kind)
    test = examples("test", TESTS)
    chosen = [replace(test[at], id=900 + at) for at in (2, 0)]
    initial = [[INITIAL[at]] * model.config.order for at in (2, 0)]
    found = model.simulate(CURRICULUM, test=chosen, initial=initial)
    whole = model.simulate(CURRICULUM, initial=initial_of(model))
    torch.testing.assert_close(found, whole[[2, 0]])


@EACH_KIND
def test_pool_examples_may_have_other_ids_in_another_order(
    kind: str, model_of: Callable[[str], GPTfluenceSimulator]
) -> None:
    model = model_of(kind)
    pool = [replace(example, id=100 + example.id) for example in reversed(examples("pool", POOL))]
    curriculum = [[100 + at for at in batch] for batch in CURRICULUM]
    found = model.simulate(curriculum, pool, initial=initial_of(model))
    torch.testing.assert_close(found, model.simulate(CURRICULUM, initial=initial_of(model)))


@EACH_KIND
def test_examples_it_never_saw_are_encoded_and_predicted(
    kind: str, make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model(make_config(**KINDS[kind], encoder_width=64))
    new = [Example(0, "Review: It rained.\nSentiment:", " negative", task="mini_sentiment")]
    assert model.places([*examples("test", TESTS), *new]).tolist() == [0, 1, 2, 3, -1]
    found = model.simulate(CURRICULUM, test=new, initial=[[1.0] * model.config.order])
    assert found.shape == (1, STEPS + 1)
    assert torch.isfinite(found).all()
    if kind == "memory":
        assert found[0, 0] == 1


def test_an_encoder_that_is_not_the_one_trained_with_is_refused(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model(make_config("memory", encoder={"encoder": "label", "width": 32}))
    with pytest.raises(SettingsError, match=r"32.*64"):
        model.simulate(CURRICULUM, test=[Example(0, "new", " text")], initial=[1.0])


def test_memory_takes_more_first_values_than_it_needs(memory: GPTfluenceSimulator) -> None:
    found = memory.simulate(CURRICULUM, initial=[[value, 9.0] for value in INITIAL])
    assert torch.equal(found, memory.simulate(CURRICULUM, initial=INITIAL))


def test_a_longer_curriculum_needs_its_own_rates(memory: GPTfluenceSimulator) -> None:
    with pytest.raises(ValueError, match=r"12 steps, the learning rates 6"):
        memory.simulate(CURRICULUM * 2)
    assert memory.simulate(CURRICULUM * 2, learning_rate=[1e-4] * 12).shape == (TESTS, 13)


@pytest.mark.parametrize("count", [0, 5, 7])
def test_learning_rates_of_another_length_are_refused(memory: GPTfluenceSimulator, count: int) -> None:
    with pytest.raises(ValueError, match=rf"6 steps, the learning rates {count}"):
        memory.simulate(CURRICULUM, learning_rate=[1e-3] * count)


def test_an_id_outside_the_pool_is_named_with_its_place(memory: GPTfluenceSimulator) -> None:
    with pytest.raises(ValueError, match=r"step 3: example 77 is not in the pool"):
        memory.simulate([*CURRICULUM[:2], [5, 77], *CURRICULUM[3:]])


@pytest.mark.parametrize("count", [1, 3, 5])
def test_first_values_of_another_number_of_test_examples_are_refused(memory: GPTfluenceSimulator, count: int) -> None:
    with pytest.raises(ValueError, match=rf"\({count}, 1\).*need \(4, 1\)"):
        memory.simulate(CURRICULUM, initial=[1.0] * count)


def test_order_two_needs_two_first_values(model_of: Callable[[str], GPTfluenceSimulator]) -> None:
    model = model_of("markov mlp of order 2")
    with pytest.raises(ValueError, match=r"\(4, 1\).*order 2.*need \(4, 2\)"):
        model.simulate(CURRICULUM, initial=INITIAL)


def test_markov_needs_first_values(markov: GPTfluenceSimulator) -> None:
    with pytest.raises(ValueError, match="initial is needed"):
        markov.simulate(CURRICULUM)


def test_memory_needs_first_values_of_unseen_examples(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model(make_config("memory", encoder_width=64))
    with pytest.raises(ValueError, match="initial is needed"):
        model.simulate(CURRICULUM, test=[Example(0, "new", " positive")])


@pytest.mark.parametrize("wrong", [{"dynamics": "lstm"}, {"projection": "cubic"}, {"metric": "f1"}, {"order": 0}])
def test_a_configuration_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=rf"{name}={value!r}"):
        GPTfluenceConfig(**wrong)


def test_content_keys_tell_prompt_from_target() -> None:
    keys = {content_key(Example(0, *texts)) for texts in (("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"))}
    assert len(keys) == 4
    assert content_key(Example(0, "ab", "c")) == content_key(Example(9, "ab", "c", ("r",), "rte", {"row": "1"}))


def test_texts_without_a_prompt_are_known_by_their_words_and_withheld_ones_by_their_source() -> None:
    row = {"dataset": "notes", "split": "pool", "row": "0"}
    first, second = (Example(0, "", text, (text,), "notes", row) for text in ("one text", "another"))
    assert content_key(first) != content_key(second)
    withheld = [Example(0, "", label, (), "notes", row) for label in ("", " positive")]
    assert content_key(withheld[0]) == content_key(withheld[1])
    given = [GivenExample(0, "", text) for text in ("one text", "another")]
    assert content_key(given[0]) == content_key(first)
    assert content_key(given[0]) != content_key(given[1])


def test_examples_of_the_same_words_stand_each_for_its_own() -> None:
    same, other = Example(0, "a", "b"), Example(1, "c", "d")
    keys = [content_key(each) for each in (same, other, same)]
    assert places_of([same, same, other, same, Example(2, "e", "f")], keys).tolist() == [0, 2, 1, 2, -1]


@given(
    runs=st.integers(1, 3),
    steps=st.integers(1, 4),
    batch=st.integers(1, 5),
    ids=st.lists(st.integers(0, 1000), min_size=1, max_size=6, unique=True),
    seed=st.integers(0, 2**31 - 1),
)
def test_visit_shares_equal_a_loop(runs: int, steps: int, batch: int, ids: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    curricula: list[Curriculum] = [[rng.choice(ids, size=batch).tolist() for _ in range(steps)] for _ in range(runs)]
    found = visit_shares(curricula, ids)
    assert found.shape == (runs, steps, len(ids))
    for run in range(runs):
        for step in range(steps):
            for at, key in enumerate(ids):
                wanted = curricula[run][step].count(key) / batch
                assert found[run, step, at].item() == pytest.approx(wanted, abs=1e-6)


@given(
    runs=st.integers(1, 3),
    gaps=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    pool=st.integers(1, 5),
    seed=st.integers(0, 2**31 - 1),
)
def test_shares_between_measurements_equal_a_loop(runs: int, gaps: list[int], pool: int, seed: int) -> None:
    step = np.concatenate([[0], np.cumsum(gaps)])
    shares = np.random.default_rng(seed).uniform(size=(runs, int(step[-1]), pool)).astype(np.float32)
    found = shares_between(torch.from_numpy(shares), step.tolist()).numpy()
    assert found.shape == (runs, len(gaps), pool)
    for run in range(runs):
        for at in range(len(gaps)):
            wanted = shares[run, step[at] : step[at + 1]].mean(0)
            np.testing.assert_allclose(found[run, at], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "stride", "measured"),
    [(3, 1, [0, 1, 2, 3]), (8, 4, [0, 4, 8]), (10, 4, [0, 4, 8, 10]), (3, 5, [0, 3]), (0, 2, [0])],
)
def test_a_metric_is_measured_first_last_and_every_so_many_updates(
    steps: int, stride: int, measured: list[int]
) -> None:
    assert measured_steps(steps, stride) == measured


def test_a_curriculum_may_be_shorter_than_the_history(model_of: Callable[[str], GPTfluenceSimulator]) -> None:
    model = model_of("markov mlp of order 2")
    for steps in (0, 1, 2):
        found = model.simulate(CURRICULUM[:steps], initial=initial_of(model), learning_rate=[1e-3] * steps)
        assert found.shape == (TESTS, steps + 1)


@EACH_KIND
def test_forward_gives_an_output_with_gradients_and_a_loss(kind: str, model_of: Callable[..., Any]) -> None:
    model = model_of(kind)
    visits = visit_shares([CURRICULUM, CURRICULUM[::-1]], model.config.pool_ids).requires_grad_()
    first = torch.tensor(initial_of(model)).unsqueeze(0)
    output = model(visits, initial=first)
    assert isinstance(output, ModelOutput) and output.loss is None
    runs = [model.simulate(each, initial=initial_of(model)) for each in (CURRICULUM, CURRICULUM[::-1])]
    torch.testing.assert_close(output.trajectories, torch.stack([torch.as_tensor(run) for run in runs]))
    labels = torch.rand(output.trajectories.shape, generator=torch.Generator().manual_seed(0)) + 1
    labels[0, 2, 1] = torch.nan
    output = model(visits, initial=first, labels=labels)
    squares = (output.trajectories - labels).detach().square()
    torch.testing.assert_close(output.loss.detach(), squares[~squares.isnan()].mean())
    loss, trajectories = model(visits, initial=first, labels=labels, return_dict=False)
    assert torch.equal(loss, output.loss) and torch.equal(trajectories, output.trajectories)
    (slope,) = torch.autograd.grad(output.loss, visits)
    step = 1e-2 * torch.randn(visits.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        there, back = (model(visits + sign * step, initial=first, labels=labels).loss for sign in (1, -1))
    torch.testing.assert_close((slope * step).sum(), (there - back) / 2, rtol=0.02, atol=1e-4)
    assert not model.trajectories(visits, *_stored(model), first).requires_grad
    with pytest.raises(ValueError, match="test is given without seen"):
        model(visits, test=model.test_vectors, initial=first)


def _stored(model: GPTfluenceSimulator) -> tuple[torch.Tensor, ...]:
    rates = torch.tensor([model.config.learning_rate])
    return rates, model.pool_vectors, model.test_vectors, torch.arange(len(model.test_vectors))
