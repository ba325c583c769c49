#!/bin/sh
# Usage: check-arm64.sh CLANG SOURCES INCLUDES
#
# The kernels at the baseline level, and what calls them, compile for arm64.
# Exits with 77 (skipped) where Debian's headers for it are not installed.
clang=$1
sources=$2
includes=$3
compile="$clang --target=aarch64-linux-gnu -std=c++20 -ffp-contract=off"
if ! echo '#include <atomic>' | $compile -fsyntax-only -x c++ -; then
  echo "skipped: no C++ headers for arm64, scripts/setup installs them"
  exit 77
fi
compiled=0
for name in cpu/LevelBaseline cpu/Attention cpu/Parallel cpu/Target \
  cpu/WriteKV cpu/Linear cpu/LinearBlocks Weights; do
  $compile -Wall -Wextra -Werror -I "$includes" -c "$sources/$name.cpp" \
    -o /dev/null || exit 1
  compiled=$((compiled + 1))
done
echo "$compiled files compile for arm64"
