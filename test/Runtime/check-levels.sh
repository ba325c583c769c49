#!/bin/sh
# Usage: check-levels.sh NM LEVELS OBJECT...
#
# LEVELS objects named Level*.o are compiled for different CPUs. Each must export
# exactly one symbol, its table, and no weak one: the linker would keep a single
# copy of a weak function, and an old CPU could get the one with new
# instructions.
nm=$1
levels=$2
shift 2
checked=0
for object in "$@"; do
  case $(basename "$object") in
  Level*) ;;
  *) continue ;;
  esac
  exported=$("$nm" --extern-only --defined-only "$object") || exit 1
  count=$(echo "$exported" | wc -l)
  if [ "$count" -ne 1 ] || ! echo "$exported" | grep -q ' [DRB] .*Kernels'; then
    echo "error: $object must export its table only, but exports:"
    echo "$exported"
    exit 1
  fi
  if "$nm" "$object" | grep -E ' [WVuv] '; then
    echo "error: $object has the weak symbols above"
    exit 1
  fi
  checked=$((checked + 1))
done
if [ "$checked" -ne "$levels" ]; then
  echo "error: expected $levels levels among the objects, got $checked"
  exit 1
fi
echo "$checked levels export one symbol each"
