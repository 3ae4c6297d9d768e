#!/bin/sh
# set-up.sh system|pipelines: make one of the two environments, as an ordinary user, from wheels pinned by hash.
# `make` calls it, with PYTHON for the interpreter, VENV and PIPELINES_ENV for the two folders.
set -eu

export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never

say() { printf 'set-up: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

no_packages() {
    fail "packages could not be installed (the reason is above). If the package index was not reached: is there a
  network? Behind a proxy set HTTPS_PROXY; with certificates of your own set PIP_CERT and SSL_CERT_FILE;
  with a mirror set PIP_INDEX_URL and UV_DEFAULT_INDEX. Then say the same again: it goes on where it stopped."
}

require_python() {
    command -v "$PYTHON" >/dev/null 2>&1 ||
        fail "there is no '$PYTHON' on PATH. Install Python 3.11 or newer (Debian, Ubuntu: apt install python3-venv), or name one: make PYTHON=/path/to/python3 ..."
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "'$PYTHON' is $("$PYTHON" -V 2>&1), and 3.11 or newer is needed. Name another one: make PYTHON=python3.11 ..."
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "'$PYTHON' cannot make virtual environments. Install its venv module (Debian, Ubuntu: apt install python3-venv)."
}

set_up_system() {
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        require_python
        say "making $VENV with $("$PYTHON" -V)"
        "$PYTHON" -m venv --clear "$VENV"
    fi
    say "installing what requirements/dev.txt pins into $VENV"
    "$VENV/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r requirements/uv.txt || no_packages
    "$VENV/bin/uv" pip sync --quiet --compile-bytecode --python "$VENV" --require-hashes --only-binary :all: requirements/dev.txt || no_packages
    "$VENV/bin/uv" pip install --quiet --python "$VENV" --no-deps --no-build-isolation --editable .
}

# The reductions are installed as a user would install them, from a wheel; what builds it stays in $VENV.
# Past the cache, which would hand out an older build of the same version.
set_up_pipelines() {
    wheels=build/wheels
    say "installing pipelines/ and what requirements/pipelines.txt pins into $PIPELINES_ENV"
    "$PIPELINES_ENV/bin/python" -c '' 2>/dev/null ||
        "$VENV/bin/uv" venv --quiet --clear --no-project --python "$VENV/bin/python" "$PIPELINES_ENV"
    "$VENV/bin/uv" pip sync --quiet --python "$PIPELINES_ENV" --require-hashes --only-binary :all: \
        requirements/pipelines.txt requirements/pipelines-test.txt || no_packages
    rm -rf "$wheels"
    "$VENV/bin/uv" build --quiet --wheel --no-build-isolation --python "$VENV/bin/python" --out-dir "$wheels" pipelines
    "$VENV/bin/uv" pip install --quiet --no-cache --python "$PIPELINES_ENV" \
        --no-deps --no-index --find-links "$wheels" ccat-pipelines
}

"set_up_$1"
