#!/bin/sh
# Usage: check-exports.sh NM LIBRARY CAPI_HEADER
#
# The library exports every function that the header declares, and besides them
# only the classes of include/llm/Runtime.
exported=$("$1" -D --defined-only "$2" | awk '{ print $NF }' | sort -u)
declared=$(sed -n 's/^LLM_API .*\(llm_[a-z0-9_]*\)(.*/\1/p' "$3" | sort -u)

missing=0
for symbol in $declared; do
  if ! echo "$exported" | grep -qx "$symbol"; then
    echo "error: $symbol is declared but not exported"
    missing=1
  fi
done
strangers=$(echo "$exported" |
  grep -vE '^llm_|^_ZNK?3llm(6Status|14BlockAllocator|12PagedKVCache)')
if [ -n "$strangers" ]; then
  echo "error: exported, but no part of the interface:"
  echo "$strangers"
  missing=1
fi
count=$(echo "$declared" | wc -l)
if [ "$count" -lt 50 ]; then
  echo "error: found only $count functions in $3"
  missing=1
fi
exit $missing
