#!/usr/bin/env bash
# The lowest versions that pyproject.toml allows: a new environment that holds exactly these, and a part of the tests in
# it: each method on some models and each model under some methods, twins, identities, explanations, metrics.
#
#   bash tests/lowest.sh [PYTHON]        PYTHON: python3.10 by default; some GB are downloaded, and removed
#
# uv makes the environment, since pip always takes the newest version that is allowed.
set -euo pipefail
cd "$(dirname "$0")/.."

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MPLBACKEND=Agg

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python=${1:-python3.10}
lowest=$scratch/lowest/bin/python
export PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$scratch/compiled # once, not by each process

"$python" -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install --quiet uv
uv() { "$scratch/tools/bin/uv" --quiet --cache-dir "$scratch/cache" "$@"; }
uv venv --python "$python" "$scratch/lowest"
uv pip install --python "$lowest" --resolution lowest-direct --editable ".[all]" "pytest>=8" "hypothesis>=6.100"

"$lowest" -m tests.versions
"$lowest" -m pytest -q -p no:cacheprovider --full tests/captum_vit/models/test_families.py
"$lowest" -m pytest -q -p no:cacheprovider tests/captum_vit/attr/test_twins.py \
  tests/captum_vit/test_explain.py tests/captum_vit/test_explain_text.py tests/captum_vit/test_image_text.py \
  tests/quantus_metrics/metrics tests/contracts/test_batches.py tests/contracts/test_manners.py \
  tests/contracts/test_left_as_found.py tests/contracts/test_padding.py tests/contracts/test_targets.py tests/test_readme.py
