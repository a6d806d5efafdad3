#!/bin/sh
# Makes build-peers/venv with the libraries that bench/peers compares with, and runs the comparison.
#   scripts/bench-peers.sh [--quick] [--part attention|prefill|all]..   (see --help)
# Each package is installed by itself: one that fails is named in its rows, the others go on. What is there is kept.
set -eu
cd "$(dirname "$0")/.."

dir=build-peers
python=$dir/venv/bin/python
packages="numpy matplotlib onnx onnxruntime openvino openvino-genai torch llama-cpp-python"

export PYTHONDONTWRITEBYTECODE=1

scripts/setup.sh peers || echo "bench-peers: going on with what is there" >&2
[ -x "$python" ] || python3 -m venv "$dir/venv" || {
    rm -rf "$dir/venv"
    echo "bench-peers: python3 cannot make a virtual environment; install python3-venv" >&2
    exit 1
}

install() { # PACKAGE
    case $1 in
    llama-cpp-python) CMAKE_ARGS=-DGGML_NATIVE=ON "$python" -m pip install --no-binary "$1" "$1" ;; # compiled for this CPU
    *) "$python" -m pip install --no-cache-dir "$1" ;;
    esac
}

for package in $packages; do
    "$python" -m pip show --quiet "$package" 2>/dev/null && continue
    echo "bench-peers: installing $package" >&2
    rm -f "$dir/$package.failed"
    install "$package" >"$dir/$package.log" 2>&1 && continue
    { grep '^ERROR' "$dir/$package.log" || tail -n 1 "$dir/$package.log"; } | head -n 1 >"$dir/$package.failed"
    echo "bench-peers: $package cannot be installed: $(cat "$dir/$package.failed") (see $dir/$package.log)" >&2
done

exec "$python" bench/peers/compare.py "$@"
