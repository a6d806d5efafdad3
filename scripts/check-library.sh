#!/bin/sh
# Checks what a user of the library sees: the shared library exports ca_ names only, every public header compiles by itself, and the
# attention core builds without models and then needs libc, libm and OpenMP only.
#   scripts/check-library.sh SOURCE LIBRARY WORK
set -eu
source=$1
library=$2
work=$3

exported=$(nm -D --defined-only "$library" | awk '{ print $3 }')
[ -n "$exported" ] || { echo "$library exports nothing"; exit 1; }
if echo "$exported" | grep -v '^ca_'; then
    echo "$library exports the names above, which do not start with ca_"
    exit 1
fi

for header in "$source"/include/compactattn/*.h; do
    echo "#include <compactattn/$(basename "$header")>" | cc -std=c11 -Wall -Wextra -Werror -fsyntax-only -I"$source/include" -xc -
done

mkdir -p "$work"
{ cmake -S "$source" -B "$work" -DCA_MODELS=OFF -DCA_TOOL=OFF && cmake --build "$work" --parallel "$(nproc)"; } >"$work/log" 2>&1 ||
    { tail -n 40 "$work/log"; echo "the core does not build with CA_MODELS=OFF"; exit 1; }
if readelf -d "$work/libcompactattn.so" | grep NEEDED | grep -vE '\[(libc|libm|libgomp|libomp|ld-linux-.*)\.so'; then
    echo "the core needs the libraries above; libc, libm and OpenMP are allowed"
    exit 1
fi
cc -xc - -o "$work/core" -I"$source/include" -DCA_NO_MODELS -L"$work" -lcompactattn -Wl,-rpath,"$work" -Wl,-z,defs <<'END'
#include <compactattn/compactattn.h>
int main(void)
{
    const ca_kern *kern;
    return ca_kern_choose("scalar", &kern) == CA_OK ? 0 : 1;
}
END
"$work/core"
