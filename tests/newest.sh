#!/usr/bin/env bash
# The newest versions that there are: a new environment without constraints.txt, what in it differs from that file, and
# the checks that break there.
#
#   bash tests/newest.sh [PYTHON]        PYTHON: python3 by default; some GB are downloaded, and removed
#
# When all is well, `bash tests/lock.sh --upgrade` makes these versions the ones that everybody gets.
set -euo pipefail
cd "$(dirname "$0")/.."

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MPLBACKEND=Agg NO_MKDOCS_2_WARNING=1
export HYPOTHESIS_PROFILE=default # and examples that no run has tried

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bin=$scratch/venv/bin
export PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$scratch/compiled # once, not by each process
broken=()

# check NAME COMMAND...: runs it; its name is kept if it fails
check() {
  printf '\n== %s (%d s)\n' "$1" "$SECONDS"
  "${@:2}" || broken+=("$1")
}

"${1:-python3}" -m venv "$scratch/venv"
"$bin/pip" install --quiet --no-compile -e ".[dev]"
printf '\n== versions that differ from constraints.txt\n'
differ=$("$bin/python" -m tests.versions --lock)
printf '%s\n' "$differ"
if (($(wc -l <<<"$differ") == 2)); then # the head of the table alone
  printf '\nnone: the newest versions are those that .ci/run tries\n'
  exit 0
fi

check "ruff check" "$bin/ruff" check --no-cache .
check "ruff format" "$bin/ruff" format --no-cache --check .
check "mypy" "$bin/mypy" --cache-dir "$scratch/mypy"
check "mkdocs" "$bin/mkdocs" build --strict --site-dir "$scratch/site"
check "pytest, see its summary" "$bin/python" -m pytest -q -n 2 -p no:cacheprovider -m "not slow"
check "every family" "$bin/python" -m pytest -q -n 2 -p no:cacheprovider tests/captum_vit/models tests/captum_vit/description
check "the code of README and docs" "$bin/python" -m pytest -q -p no:cacheprovider tests/test_readme.py tests/test_docs.py

if ((${#broken[@]})); then
  printf '\nbroken by the newest versions:\n'
  printf '  %s\n' "${broken[@]}"
  exit 1
fi
printf '\nnothing is broken by the newest versions\n'
