// RUN: %llm-opt %s --llm-to-spec | FileCheck %s

// No size is known before the run.

// CHECK-LABEL: llvm.func @attend
// CHECK-NOT: {{tensor|memref|unrealized}}
func.func @attend(%q: tensor<?x?x?x?xf32>, %c: !llm.paged_kv_cache)
    -> (tensor<?x?x?x?xf32>, tensor<?x?x?xf32>) {
  %o, %lse = llm.paged_attention %q, %c
      : tensor<?x?x?x?xf32>, !llm.paged_kv_cache
     -> tensor<?x?x?x?xf32>, tensor<?x?x?xf32>
  return %o, %lse : tensor<?x?x?x?xf32>, tensor<?x?x?xf32>
}
