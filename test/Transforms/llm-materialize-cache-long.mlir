// A long function takes neither much stack nor quadratic time.

// RUN: %python -c "for i in range(200000): print(f'%%c{i + 1} = llm.release_kv %%c{i}, %%ids : !kv, !ids -> !kv')" > %t.versions
// RUN: %python -c "for i in range(200000): print(f'%%l{i + 1} = llm.seq_lens %%d, %%l{i} : !kv, !ids -> !ids')" > %t.reads
// RUN: sed -e '/^ .*VERSIONS$/r %t.versions' -e '/^ .*READS$/r %t.reads' %s | %llm-opt --llm-materialize-cache | FileCheck %s

!kv = !llm.paged_kv_cache<1x1x64xf16>
!ids = tensor<4xi32>

// CHECK-LABEL: func @many_versions
// CHECK-NOT: llm.snapshot_kv
// CHECK: return
func.func @many_versions(%c0: !kv, %ids: !ids) -> !kv {
  // VERSIONS
  return %c200000 : !kv
}

// CHECK-LABEL: func @many_reads
// CHECK: llm.release_kv
// CHECK: return
func.func @many_reads(%d: !kv, %l0: !ids) -> (!kv, !ids) {
  // READS
  %next = llm.release_kv %d, %l200000 : !kv, !ids -> !kv
  return %next, %l200000 : !kv, !ids
}
