#!/usr/bin/env bash
# Makes a virtual environment for a peer: make_environment.sh kvpress FOLDER
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
pins="$here/$1.txt"
python3 -m venv "$2"
"$2/bin/pip" install --quiet --requirement "$pins"
echo "$2/bin/python"
