#!/usr/bin/env bash
# The round trip of the release, between two users and over a Hub on this machine: `make round-trip`.
#
#   tools/round_trip.sh [FOLDER]     everything it makes goes there; default: a new temporary folder
#
# Run it in the root of a clone, where `tests/hub` is, with the environment's commands on PATH. Large files go as clients
# send them by default (Xet), or whole with HF_HUB_DISABLE_XET=1. STEPS, TESTS, WORKERS and ENCODER make it longer or
# shorter.
set -euo pipefail

STEPS=${STEPS:-24}
TESTS=${TESTS:-20}
FOLDER=${1:-$(mktemp -d)}
mkdir -p "$FOLDER"
FOLDER=$(cd "$FOLDER" && pwd)
ENCODER=${ENCODER:-gradient}
SETTINGS="--steps $STEPS --test-examples $TESTS"
WORKERS=${WORKERS:+--workers $WORKERS}

say() { printf '\n== %s\n' "$*"; }

# A user's clients: their token, a cache of their own, an empty folder to work in.
as() {
  export HF_TOKEN HF_HOME="$FOLDER/home-$1" GPTDYNAMICS_CACHE="$FOLDER/home-$1/gptdynamics"
  HF_TOKEN=$(sed -n "s/^export HF_TOKEN=\(.*\)  # ${1%%-*}$/\1/p" "$FOLDER/hub.log")
  mkdir -p "$FOLDER/$1" && cd "$FOLDER/$1"
}

say "A Hub on this machine, with the users gptdynamics and ben"
python -m tests.hub --port 0 --users gptdynamics ben > "$FOLDER/hub.log" &
trap 'kill $!' EXIT
until grep -qs "# ben" "$FOLDER/hub.log"; do sleep 0.2; done
export HF_ENDPOINT HF_UPDATE_DOWNLOAD_COUNTS=0
HF_ENDPOINT=$(sed -n 's/^export HF_ENDPOINT=\([^ ]*\).*/\1/p' "$FOLDER/hub.log")

say "Before: the Hub holds a config rte_410m. It is a stand-in and says so: a small GPT-NeoX, random weights, made-up rows"
as gptdynamics-before
python -m gptdynamics.models.random_base 14m stand-in
printf '# A GPT-NeoX of 14 M parameters with random weights\n\nIt stands in for Pythia-410m.\n' > stand-in/README.md
python - <<'PY'
import json
from pathlib import Path

Path("rows/rte").mkdir(parents=True, exist_ok=True)
for split, count in (("train", 200), ("eval", 20)):
    rows = [
        {"premise": f"Box {at} is red.", "hypothesis": f"Box {at + at % 2} is red.", "label": label}
        for at, label in enumerate(["entailment", "not_entailment"] * (count // 2))
    ]
    Path(f"rows/rte/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
PY
gptdynamics push-base gptdynamics/random-14m --folder stand-in
gptdynamics collect rte_410m --base-model gptdynamics/random-14m --data rows --output release \
  --runs 1 --steps 4 --test-examples 4 $WORKERS --push-to gptdynamics/gptdynamics

say "Use: the dataset by its short name, then runs of one's own, pushed as they end"
as gptdynamics
python - <<'PY'
import gptdynamics
from datasets import load_dataset

ds = load_dataset("gptdynamics", "rte_410m")
print(ds["train"][0]["run"], ds["train"][0]["step"], ds["train"][0]["loss"])
PY
gptdynamics collect mini_sentiment_nano --runs 6 $SETTINGS $WORKERS --output dynamics --push-to gptdynamics/gptdynamics
gptdynamics push dynamics gptdynamics/gptdynamics --tag v1

say "Somebody else loads them: another folder, an empty cache, no import of gptdynamics"
as ben
python - <<'PY'
from datasets import load_dataset

ds = load_dataset("gptdynamics/gptdynamics", "mini_sentiment_nano", revision="v1")
runs = sorted({run for split in ds.values() for run in split["run"]})
print(runs)
assert runs == ["0000", "0001", "0002", "0003", "0004", "0005"]
PY

say "A simulator, trained and evaluated from the Hub: the figures are those of the local folder, to the last digit"
as gptdynamics
gptfluence train gptdynamics/gptdynamics --config mini_sentiment_nano --encoder $ENCODER --output model
gptfluence evaluate gptdynamics/gptdynamics --config mini_sentiment_nano --models model --baselines mean_curve --json hub.json
gptfluence evaluate dynamics --config mini_sentiment_nano --models model --baselines mean_curve --json local.json
cmp hub.json local.json
gptfluence push model gptdynamics/mini-sentiment --evaluation hub.json

say "The simulator where this package is not: a Python that has its libraries alone"
as ben
python -m venv --without-pip bare
python -c 'import torch; print(torch.__path__[0].removesuffix("torch"))' > "$(echo bare/lib/python3*/site-packages)/libraries.pth"
env -u PYTHONPATH bare/bin/python - <<'PY'
import importlib.util

from transformers import AutoModel

assert not any(map(importlib.util.find_spec, ("gptdynamics", "simulator")))
simulator = AutoModel.from_pretrained("gptdynamics/mini-sentiment", trust_remote_code=True)
print(simulator.simulate([[0, 1, 2, 3]] * simulator.config.steps).shape)
PY
gptfluence evaluate gptdynamics/gptdynamics --config mini_sentiment_nano --models gptdynamics/mini-sentiment --baselines mean_curve --json hub.json
python - <<'PY'
import json

mine, theirs = (json.load(open(path)) for path in ("hub.json", "../gptdynamics/hub.json"))
for rows in (mine, theirs):
    for row in rows:
        del row["model"], row["method"]  # which may name the folder that the simulator came from
assert mine == theirs
PY

say "Ben adds two runs: by a pull request, which is merged, and to a copy of his own"
hf download gptdynamics/gptdynamics --type dataset --local-dir copy
gptdynamics collect mini_sentiment_nano --runs 8 $SETTINGS $WORKERS --output copy
gptdynamics verify copy
gptdynamics push copy gptdynamics/gptdynamics --create-pr
gptdynamics push copy ben/dynamics
as gptdynamics
hf discussions merge gptdynamics/gptdynamics 1 --type dataset --yes

say "All runs are there"
as ben
python - <<'PY'
from datasets import load_dataset

for repository in ("gptdynamics/gptdynamics", "ben/dynamics"):
    ds = load_dataset(repository, "mini_sentiment_nano")
    runs = sorted({run for split in ds.values() for run in split["run"]})
    print(repository, runs, load_dataset(repository, "rte_410m")["train"].num_rows)
    assert runs == [f"{at:04}" for at in range(8)]
PY
say "Done, in $SECONDS seconds; everything is in $FOLDER"
