#!/bin/sh
# Formatting, cppcheck and clang-tidy over our C files; silent when clean.
#   scripts/lint.sh BUILD      a configured build folder (for compile_commands.json)
set -eu
build=$1
jobs=$(nproc)
rooms=
for room in include src cli report eval tests bench; do
    [ ! -d "$room" ] || rooms="$rooms $room"
done

# The tools' verdicts are those of Debian 12's versions (clang 14): a newer one may format or warn differently.
version=$(clang-format --version | sed 's/.*version \([0-9]*\).*/\1/')
verdict=1
[ "$version" -eq 14 ] || { verdict=0; echo "lint: clang-format $version is not 14: findings are shown but do not fail"; }

status=0
finding() {
    echo "lint: $1 has findings"
    status=$verdict
}

unformatted=$(find $rooms -name '*.[ch]' -exec sh -c 'clang-format "$1" | cmp -s "$1" - || echo "$1"' sh {} \;)
if [ -n "$unformatted" ]; then
    echo "$unformatted"
    finding "clang-format (these files are not formatted: make format repairs them)"
fi
cppcheck --quiet -j "$jobs" --std=c11 --enable=warning,style,performance,portability --inline-suppr --error-exitcode=1 \
    --library=scripts/cppcheck.cfg --suppressions-list=scripts/cppcheck.suppressions \
    --project="$build/compile_commands.json" || finding cppcheck
sed -n 's/^ *"file": "\(.*\)",*$/\1/p' "$build/compile_commands.json" | sort -u |
    xargs -P "$jobs" -n 1 clang-tidy -p "$build" --quiet --warnings-as-errors='*' 2>"$build/clang-tidy.log" || finding clang-tidy
[ "$status" -ne 0 ] || echo "lint: clean"
exit "$status"
