// Beam search: one snapshot to begin with, and one on each of the two paths
// where both beams go on from the same version.

// RUN: %llm-opt %S/../../examples/beam_search.mlir --llm-materialize-cache 2>/dev/null | FileCheck %s --check-prefix=BEAM
// RUN: %llm-opt %S/../../examples/beam_search.mlir --canonicalize --cse --llm-materialize-cache 2>/dev/null | FileCheck %s --check-prefix=BEAM

// BEAM-LABEL: func private @extend
// BEAM-NOT: llm.snapshot_kv
// BEAM-LABEL: func @beam_search
// BEAM: llm.snapshot_kv
// BEAM-NEXT: scf.for
// BEAM: %[[A:.*]]:3 = func.call @extend
// BEAM: %[[B:.*]]:3 = func.call @extend
// BEAM-NOT: llm.snapshot_kv
// BEAM: scf.if
// BEAM-NEXT: scf.if
// BEAM-NEXT: llm.drop_kv %[[B]]#0
// BEAM-NEXT: llm.snapshot_kv %[[A]]#0
// BEAM: else
// BEAM-NEXT: scf.yield %[[A]]#0, %[[B]]#0
// BEAM: else
// BEAM-NEXT: scf.if
// BEAM-NEXT: scf.yield %[[B]]#0, %[[A]]#0
// BEAM-NEXT: else
// BEAM-NEXT: llm.drop_kv %[[A]]#0
// BEAM-NEXT: llm.snapshot_kv %[[B]]#0
// BEAM-NOT: llm.snapshot_kv
// BEAM: llm.drop_kv
// BEAM-NOT: llm.drop_kv
// BEAM: llm.replace_kv

// Speculation: strict finds nothing to refuse, and the private reader borrows.

// RUN: %llm-opt %S/../../examples/speculation.mlir --llm-materialize-cache=strict | FileCheck %s --check-prefix=SPECULATION

// SPECULATION-LABEL: func private @verify
// SPECULATION-SAME: !llm.kv_handle<1x2x4xf32> {llm.borrowed}
// SPECULATION-LABEL: func @speculate
// SPECULATION-NOT: llm.snapshot_kv
// SPECULATION-NOT: llm.drop_kv
// SPECULATION: return
