#!/bin/sh
# windows.sh - the library on Windows: compiled by mingw-w64, also beside <windows.h>, and its tests run under wine.
# For CI or by hand:
#   apt install gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64 wine64
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0
cc=${WINDOWS_CC:-x86_64-w64-mingw32-gcc}
cxx=${WINDOWS_CXX:-x86_64-w64-mingw32-g++}
wine=${WINE:-$(command -v wine || command -v wine64 || echo /usr/lib/wine/wine64)}
for tool in "$cc" "$cxx" "$wine"; do
    command -v "$tool" >/dev/null 2>&1 && continue
    echo "SKIP windows: $tool is not installed"
    echo "windows: 0 passed, 0 failed, 1 skipped"
    exit 0
done
mkdir -p build/windows
export WINEDEBUG=-all CNN_TEST_SHORT=1 WINEPREFIX="${WINEPREFIX:-$PWD/build/windows/wine}"
strict='-Wall -Wextra -pedantic -Werror -O1'

compiles()                                  # WHAT COMMAND...
{
    what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        echo "FAIL windows: $what does not compile"
        failed=$((failed + 1))
    fi
}

for order in before after; do               # windows.h before and after cnn.h
    {
        [ $order = before ] && echo '#include <windows.h>'
        echo '#define CNN_IMPLEMENTATION'
        echo '#include "cnn.h"'
        [ $order = after ] && echo '#include <windows.h>'
        echo 'int main(void) { return (int)GetLastError() != 0 && cnn_num_threads(0) < 1; }'
    } >build/windows/$order.c
    cp build/windows/$order.c build/windows/$order.cpp
    # shellcheck disable=SC2086
    compiles "windows.h $order cnn.h, C" "$cc" -std=c99 $strict -I. build/windows/$order.c -o build/windows/$order.exe
    # shellcheck disable=SC2086
    compiles "windows.h $order cnn.h, C++" "$cxx" -std=c++11 $strict -I. build/windows/$order.cpp -o build/windows/$order.exe -static
done
programs=
for test in test_pool test_threads; do
    # shellcheck disable=SC2086
    compiles tests/$test.c "$cc" -std=c99 $strict tests/$test.c -o build/windows/$test.exe
    programs="$programs build/windows/$test.exe"
done
# shellcheck disable=SC2086
if [ "$failed" -eq 0 ]; then tests/run --under "$wine" $programs; fi | sed 's/^\([0-9]* passed, [0-9]* failed.*\)$/windows: \1/'
[ "$failed" -eq 0 ]
