#!/bin/sh
# Usage: sh tools/setup.sh VENV
# Finds a Python and lets setup_env.py make the environment. PYTHON in the environment names one.

tools=${0%/*}
venv=${1:-.venv}

# The usual case: nothing to do, said by the environment's own Python, without a search.
if [ -z "$PYTHON" ] && "$venv/bin/python" "$tools/setup_env.py" "$venv" --is-current 2>/dev/null; then
    exit 0
fi

# A name on PATH proves little: version managers leave shims that do not run. So each candidate is asked.
version_of() {
    "$1" -c 'import sys; print("%d%02d" % sys.version_info[:2])' 2>/dev/null
}

found='' newest='' wrong=''
if [ -n "$PYTHON" ]; then
    set -- "$PYTHON"
else
    set -- python3 python3.13 python3.12 python3.11 python3.10 python
fi
for candidate do
    version=$(version_of "$candidate")
    case $version in
        31[0-3]) found=$candidate; break ;;
        314) newest=${newest:-$candidate} ;;
        ?*) wrong="$wrong, $candidate is ${version%??}.${version#?}" ;;
    esac
done
found=${found:-$newest}

if [ -z "$found" ]; then
    if [ -n "$PYTHON" ] && [ -z "$wrong" ]; then
        echo "set-up: PYTHON=$PYTHON does not run; name a Python 3.10 to 3.13" >&2
    else
        echo "set-up: no usable Python: install Python 3.10 to 3.13${wrong:+ (here$wrong)}," \
            "or name one: make PYTHON=/path/to/python3 ..." >&2
    fi
    exit 1
fi
exec "$found" "$tools/setup_env.py" "$venv"
