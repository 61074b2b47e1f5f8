#!/usr/bin/env bash
# Train a new flagship and measure all that hangs on it: bash tools/flagship.sh [MINUTES], on a machine with one GPU,
# in a *copy* of the repository, whose models it replaces. Needs Python with what minidiff needs, and peft; nothing is
# fetched. `python tools/adopt.py COPY` carries what it made into the repository. The mini-CLIP stays the one that
# ships, so the prior and all that is said of CLIP stay true. MORE=1 does it without a GPU, on two cores with bf16: it
# trains the one that ships further, and draws in half precision. STEPS="--steps 20" rehearses it in minutes; RESUME=1
# goes on with a training that was cut off, or behind one that is over. What decides comes first; a part that fails is
# named in runs/failed, and the others still run. runs/done says that all is over.
set -euo pipefail
trap 'exit 130' INT TERM # or Ctrl-C would start what comes next
cd "$(dirname "$0")/.."
export NVIDIA_TF32_OVERRIDE=0 # what is measured here is compared with a CPU's single precision
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" # the tools, too, find minidiff where it is not installed

"${PYTHON:-python3}" -c "import peft"
[ -n "${RESUME:-}" ] || [ ! -e runs/emoji-64 ] || { echo "runs/emoji-64 holds another run or a rehearsal: begin in a fresh copy, or say RESUME=1." >&2; exit 1; }
models=minidiff/assets/models
run() { "${PYTHON:-python3}" -m minidiff "$@"; }
tool() { "${PYTHON:-python3}" "tools/$1.py" runs/evaluation ${MORE:+--bf16} ${REPEATS:+--repeats $REPEATS}; }
measure() { run evaluate emoji-64 --repeats "${REPEATS:-4}" --out runs/evaluation ${MORE:+--precision bf16} "$@"; }
adopt() { cp "runs/$1"/{card.json,config.json,model.safetensors} "$models/$1/"; }
try() { "$@" || echo "$*" | tee -a runs/failed; }

train=(train emoji-64 --clip emoji-64 ${1:+--minutes "$1"})
[ -z "${MORE:-}" ] || train=(train emoji-64-more --start emoji-64 --out runs/emoji-64 ${1:+--minutes "$1"})
[ -e runs/emoji-64/card.json ] || run "${train[@]}" ${STEPS:---compile} || # where it cannot be compiled, as it is
  { [ -z "$(ls -A runs/emoji-64/run/step-* 2>/dev/null)" ] && run "${train[@]}" ${STEPS:-}; }
adopt emoji-64
try measure --size "${SIZE:-300}"
try tool told
try run train midjourney --clip emoji-64 ${STEPS:-}
try adopt midjourney
try run train midjourney-full --clip emoji-64 ${STEPS:-}
try "${PYTHON:-python3}" -m minidiff.factors runs/midjourney-full
try measure --sweep
try tool steps
touch runs/done
