#!/bin/sh
# Usage: check-no-mlir.sh COMPILER STANDARD INCLUDE_DIRECTORY...
#
# With the include directories of the runtime, a header of the runtime compiles
# and headers of MLIR and LLVM are not found.
compiler=$1
standard=$2
shift 2
flags=
for directory in "$@"; do
  flags="$flags -I$directory"
done

compiles() {
  printf '#include "%s"\n' "$1" |
    "$compiler" "$standard" $flags -fsyntax-only -x c++ - 2>/dev/null
}

if ! compiles llm/Runtime/PagedKVCache.h; then
  echo "error: a header of the runtime does not compile: the test is broken"
  exit 1
fi
for header in mlir/IR/Value.h mlir-c/IR.h llvm/ADT/SmallVector.h; do
  if compiles "$header"; then
    echo "error: the runtime can include $header"
    exit 1
  fi
done
