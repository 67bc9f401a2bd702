#!/usr/bin/env bash
# Writes constraints.txt: one version of everything in the development environment, for each Python from 3.10 and each
# system.
#
#   bash tests/lock.sh             what pyproject.toml asks for now; versions that still fit stay as they are
#   bash tests/lock.sh --upgrade   the newest of everything
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install --quiet uv
"$scratch/tools/bin/uv" --quiet --cache-dir "$scratch/cache" pip compile pyproject.toml --extra dev \
  --universal --python-version 3.10 --no-emit-index-url --no-annotate \
  --custom-compile-command "bash tests/lock.sh" --output-file constraints.txt "$@"
