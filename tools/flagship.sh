#!/usr/bin/env bash
# Train a new flagship and measure all that hangs on it: bash tools/flagship.sh [MINUTES], on a machine with one GPU,
# in a *copy* of the repository, whose models it replaces. Needs Python with what minidiff needs, and peft; nothing is
# fetched. `python tools/adopt.py COPY` carries what it made into the repository. The mini-CLIP stays the one that
# ships, so the prior and all that is said of CLIP stay true. STEPS="--steps 20" rehearses it in minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
export NVIDIA_TF32_OVERRIDE=0 # what is measured here is compared with a CPU's single precision

"${PYTHON:-python3}" -c "import peft"
[ ! -e runs/emoji-64 ] || { echo "runs/emoji-64 holds another run or a rehearsal: begin in a fresh copy." >&2; exit 1; }
models=minidiff/assets/models
run() { "${PYTHON:-python3}" -m minidiff "$@"; }
adopt() { cp "runs/$1"/{card.json,config.json,model.safetensors} "$models/$1/"; }

run train emoji-64 --clip emoji-64 --minutes "${1:-15}" ${STEPS:---compile}
adopt emoji-64
for question in steps told; do
  "${PYTHON:-python3}" "tools/$question.py" runs/evaluation ${REPEATS:+--repeats $REPEATS}
done
run evaluate emoji-64 --repeats "${REPEATS:-4}" --size "${SIZE:-300}" --out runs/evaluation
run train midjourney --clip emoji-64 ${STEPS:-}
adopt midjourney
run train midjourney-full --clip emoji-64 ${STEPS:-}
"${PYTHON:-python3}" -m minidiff.factors runs/midjourney-full
run evaluate emoji-64 --repeats "${REPEATS:-4}" --sweep --out runs/evaluation
