#!/bin/sh
# Usage: sh tools/setup.sh VENV
# Finds a Python and lets setup_env.py make the environment. PYTHON in the environment names one.

venv=${1:-.venv}
# The environment's own first: what it was made with stays, whatever else appears on PATH.
set -- "$venv/bin/python" python3 python3.13 python3.12 python3.11 python3.10 python python3.14
[ -z "$PYTHON" ] || set -- "$PYTHON"
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

# A name proves little, version managers leave shims that do not run: so each is asked. 3.14 is not tested yet.
for newest in 13 14; do
    for python do
        "$python" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $newest))" \
            >/dev/null 2>&1 && exec "$python" "${0%/*}/setup_env.py" "$venv"
    done
done
echo "set-up: ${PYTHON:+PYTHON=$PYTHON is }no usable Python: install Python 3.10 to 3.13," \
    "or name one: make PYTHON=/path/to/python3 ..." >&2
exit 1
