// RUN: %llm-opt %s --llm-materialize-cache --verify-diagnostics | FileCheck %s
// RUN: %llm-opt %s --llm-materialize-cache --llm-materialize-cache 2>/dev/null | FileCheck %s

!kv = !llm.paged_kv_cache<1x1x64xf16>
!static = !llm.paged_kv_cache<1x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
!t = tensor<4x1x1x64xf32>

//===----------------------------------------------------------------------===//
// Private functions
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func private @external
// CHECK-SAME: (!llm.kv_handle<1x1x64xf16> {llm.borrowed}, !llm.kv_handle<1x1x64xf16>)
func.func private @external(!kv {llm.borrowed}, !kv)

// CHECK-LABEL: func private @moved
// CHECK-SAME: (%[[CACHE:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %{{.*}}) -> !llm.kv_handle<1x1x64xf16>
// CHECK-NEXT: llm.append_kv %[[CACHE]]
// CHECK-NEXT: return %[[CACHE]]
func.func private @moved(%c: !kv, %t: !t) -> !kv {
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  return %next : !kv
}

// CHECK-LABEL: func private @borrowed
// CHECK-SAME: (%{{.*}}: !llm.kv_handle<1x1x64xf16> {llm.borrowed},
// CHECK-NOT: llm.drop_kv
// CHECK: return
func.func private @borrowed(%c: !kv, %t: !t) -> !t {
  %o = llm.paged_attention %t, %c : !t, !kv -> !t
  return %o : !t
}

// What is moved and not returned is dropped.

// CHECK-LABEL: func private @drops
// CHECK-SAME: (%[[CACHE:[^:]*]]: !llm.kv_handle<1x1x64xf16>,
// CHECK: llm.paged_attention
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: return
func.func private @drops(%c: !kv, %t: !t) -> !t {
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  %o = llm.paged_attention %t, %next : !t, !kv -> !t
  return %o : !t
}

// CHECK-LABEL: func private @both
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16> {llm.borrowed},
func.func private @both(%c: !kv, %d: !kv, %t: !t) -> (!kv, !t) {
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  %o = llm.paged_attention %t, %d : !t, !kv -> !t
  return %next, %o : !kv, !t
}

// CHECK-LABEL: func private @swaps
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16>)
// CHECK-NEXT: return %[[D]], %[[C]]
func.func private @swaps(%c: !kv, %d: !kv) -> (!kv, !kv) {
  return %d, %c : !kv, !kv
}

// CHECK-LABEL: func private @twice
// CHECK-SAME: (%[[CACHE:[^:]*]]: !llm.kv_handle<1x1x64xf16>)
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: return
func.func private @twice(%c: !kv) -> (!kv, !kv) {
  // expected-remark @+2 {{takes a snapshot of its cache, which is still needed}}
  // expected-note @+1 {{the version is needed here}}
  return %c, %c : !kv, !kv
}

// CHECK-LABEL: func private @recursion_that_reads
// CHECK-SAME: {llm.borrowed}
// CHECK-NOT: llm.snapshot_kv
// CHECK-NOT: llm.drop_kv
// CHECK: return
func.func private @recursion_that_reads(%c: !kv, %t: !t, %p: i1) -> !t {
  %o = llm.paged_attention %t, %c : !t, !kv -> !t
  %r = scf.if %p -> !t {
    %x = func.call @recursion_that_reads(%c, %o, %p) : (!kv, !t, i1) -> !t
    scf.yield %x : !t
  } else {
    scf.yield %o : !t
  }
  return %r : !t
}

// CHECK-LABEL: func private @recursion_that_appends
// CHECK-NOT: llm.borrowed
// CHECK-NOT: llm.snapshot_kv
// CHECK-NOT: llm.drop_kv
// CHECK: return
func.func private @recursion_that_appends(%c: !kv, %t: !t, %p: i1) -> !kv {
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  %r = scf.if %p -> !kv {
    %x = func.call @recursion_that_appends(%next, %t, %p) : (!kv, !t, i1) -> !kv
    scf.yield %x : !kv
  } else {
    scf.yield %next : !kv
  }
  return %r : !kv
}

// One consumer moves the parameters of the whole cycle.

// CHECK-LABEL: func private @even
// CHECK-NOT: llm.borrowed
// CHECK: return
// CHECK-LABEL: func private @odd
// CHECK-NOT: llm.borrowed
// CHECK: return
func.func private @even(%c: !kv, %t: !t) {
  call @odd(%c, %t) : (!kv, !t) -> ()
  return
}
func.func private @odd(%c: !kv, %t: !t) {
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  call @even(%next, %t) : (!kv, !t) -> ()
  return
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @calls_in_a_row
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NEXT: %[[O:.*]] = call @borrowed(%[[CACHE]]
// CHECK-NEXT: %[[NEXT:.*]] = call @moved(%[[CACHE]], %[[O]])
// CHECK-NEXT: llm.replace_kv %[[CACHE]], %[[NEXT]]
// CHECK-NEXT: return
func.func @calls_in_a_row(%c: !kv, %t: !t) -> !kv {
  %o = call @borrowed(%c, %t) : (!kv, !t) -> !t
  %next = call @moved(%c, %o) : (!kv, !t) -> !kv
  return %next : !kv
}

// CHECK-LABEL: func @needed_after_a_call
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: %[[O:.*]] = call @drops(%[[COPY]]
// CHECK-NEXT: return %[[O]]
func.func @needed_after_a_call(%c: !kv, %t: !t) -> (!kv, !t) {
  // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
  %o = call @drops(%c, %t) : (!kv, !t) -> !t
  // expected-note @+1 {{the version is needed here}}
  return %c, %o : !kv, !t
}

// CHECK-LABEL: func @moved_and_borrowed
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: %[[R:.*]]:2 = call @both(%[[COPY]], %[[CACHE]]
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: llm.replace_kv %[[CACHE]], %[[R]]#0
// CHECK-NEXT: return %[[R]]#1
func.func @moved_and_borrowed(%c: !kv, %t: !t) -> (!kv, !t) {
  // expected-remark @+2 {{takes a snapshot of its cache, which is still needed}}
  // expected-note @+1 {{the version is needed here}}
  %next, %o = call @both(%c, %c, %t) : (!kv, !kv, !t) -> (!kv, !t)
  return %next, %o : !kv, !t
}

// CHECK-LABEL: func @moved_twice
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: %[[R:.*]]:2 = call @swaps(
// CHECK-NEXT: llm.drop_kv %[[R]]#0
// CHECK-NEXT: llm.replace_kv %[[CACHE]], %[[R]]#1
func.func @moved_twice(%c: !kv) -> !kv {
  // expected-remark @+2 {{takes a snapshot of its cache, which is still needed}}
  // expected-note @+1 {{the version is needed here}}
  %r:2 = call @swaps(%c, %c) : (!kv, !kv) -> (!kv, !kv)
  return %r#1 : !kv
}

//===----------------------------------------------------------------------===//
// Public functions
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @tied_by_order
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %{{.*}}: tensor<4x1x1x64xf32>) -> tensor<4x1x1x64xf32>
// CHECK-NEXT: llm.append_kv %[[C]]
// CHECK-NEXT: llm.append_kv %[[D]]
// CHECK-NEXT: return
func.func @tied_by_order(%c: !kv, %d: !kv, %t: !t) -> (!kv, !t, !kv) {
  %a = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  %b = llm.append_kv %d, %t, %t : !kv, !t, !t -> !kv
  return %a, %t, %b : !kv, !t, !kv
}

// CHECK-LABEL: func @tied_by_attribute
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16> {llm.borrowed}, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16>,
// CHECK-NEXT: llm.append_kv %[[D]]
// CHECK-NEXT: return
func.func @tied_by_attribute(%c: !kv, %d: !kv, %t: !t) -> (!kv {llm.tied = 1}) {
  %next = llm.append_kv %d, %t, %t : !kv, !t, !t -> !kv
  return %next : !kv
}

// The host sees no change of what it lends.

// CHECK-LABEL: func @borrowed_from_the_host
// CHECK-SAME: (%[[CACHE:[^:]*]]: !llm.kv_handle<1x1x64xf16> {llm.borrowed},
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: llm.append_kv %[[COPY]]
// CHECK-NEXT: %[[O:.*]] = llm.paged_attention %{{.*}}, %[[COPY]]
// CHECK-NEXT: llm.drop_kv %[[COPY]]
// CHECK-NEXT: return %[[O]]
// expected-note @+1 {{the version is needed here}}
func.func @borrowed_from_the_host(%c: !kv, %t: !t) -> !t {
  // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  %o = llm.paged_attention %t, %next : !t, !kv -> !t
  return %o : !t
}

// CHECK-LABEL: func @read_of_the_host
// CHECK-SAME: {llm.borrowed}
// CHECK-NOT: llm.snapshot_kv
// CHECK: return
func.func @read_of_the_host(%c: !kv, %t: !t) -> !t {
  %o = llm.paged_attention %t, %c : !t, !kv -> !t
  return %o : !t
}

// CHECK-LABEL: func @returned_unchanged
// CHECK-NEXT: return
func.func @returned_unchanged(%c: !kv) -> !kv {
  return %c : !kv
}

// CHECK-LABEL: func @fresh_version
// CHECK-SAME: (%[[HOST:[^:]*]]:
// CHECK-NEXT: llm.drop_kv %[[HOST]]
// CHECK-NEXT: %[[CACHE:.*]] = llm.create_kv_cache
// CHECK-NEXT: llm.replace_kv %[[HOST]], %[[CACHE]]
func.func @fresh_version(%c: !static, %blocks: index) -> !static {
  %fresh = llm.create_kv_cache blocks(%blocks) : !static
  return %fresh : !static
}

// What is tied to nothing is the host's new object, an argument behind the last.

// CHECK-LABEL: func @fresh(
// CHECK-SAME: %{{.*}}: index, %[[NEW:.*]]: !llm.kv_handle<{{.*}}> {llm.fresh, llm.name = "new"}) {
// CHECK-NEXT: %[[CACHE:.*]] = llm.create_kv_cache
// CHECK-NEXT: llm.replace_kv %[[NEW]], %[[CACHE]]
// CHECK-NEXT: return
func.func @fresh(%blocks: index) -> (!static {llm.name = "new"}) {
  %c = llm.create_kv_cache blocks(%blocks) : !static
  return %c : !static
}

// CHECK-LABEL: func @fresh_beside_a_tied_one
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %{{[^:]*}}: tensor<{{[^>]*}}>, %[[NEW:.*]]: !llm.kv_handle<1x1x64xf16> {llm.fresh})
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[C]]
// CHECK-NEXT: llm.append_kv %[[COPY]]
// CHECK-NEXT: llm.replace_kv %[[NEW]], %[[COPY]]
// CHECK-NEXT: return
func.func @fresh_beside_a_tied_one(%c: !kv, %t: !t) -> (!kv, !kv) {
  // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  // expected-note @+1 {{the version is needed here}}
  return %c, %next : !kv, !kv
}

// A new object is never an old one.

// CHECK-LABEL: func @fresh_copy_of_a_borrowed_one
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16> {llm.borrowed}, %[[NEW:.*]]: !llm.kv_handle<1x1x64xf16> {llm.fresh})
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[C]]
// CHECK-NEXT: llm.replace_kv %[[NEW]], %[[COPY]]
// CHECK-NEXT: return
// expected-note @+1 {{the version is needed here}}
func.func @fresh_copy_of_a_borrowed_one(%c: !kv) -> (!kv {llm.fresh}) {
  // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
  return %c : !kv
}

// CHECK-LABEL: func @fresh_or_tied
// CHECK: %[[R:.*]]:2 = scf.if
// CHECK: %[[COPY:.*]] = llm.snapshot_kv %[[R]]#1
// CHECK-NEXT: llm.drop_kv %[[R]]#1
// CHECK-NEXT: llm.replace_kv %{{.*}}, %[[R]]#0
// CHECK-NEXT: llm.replace_kv %{{.*}}, %[[COPY]]
// CHECK-NEXT: return
// expected-note @+1 {{result 1 is a new object}}
func.func @fresh_or_tied(%c: !static, %p: i1, %blocks: index) -> (!static, !static) {
  %new = llm.create_kv_cache blocks(%blocks) : !static
  %x = arith.select %p, %c, %new : !static
  %y = arith.select %p, %new, %c : !static
  // expected-remark @+1 {{takes a snapshot of its cache, which may be another argument's object}}
  return %x, %y : !static, !static
}

// No object may become another before that one is written.

// CHECK-LABEL: func @swapped
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16>)
// CHECK-DAG: %[[NEW_C:.*]] = llm.snapshot_kv %[[D]]
// CHECK-DAG: %[[NEW_D:.*]] = llm.snapshot_kv %[[C]]
// CHECK: llm.replace_kv %[[C]], %[[NEW_C]]
// CHECK-NEXT: llm.replace_kv %[[D]], %[[NEW_D]]
// CHECK-NEXT: return
// expected-note @+2 {{result 0 is tied to argument 0}}
// expected-note @+1 {{result 1 is tied to argument 1}}
func.func @swapped(%c: !kv, %d: !kv) -> (!kv, !kv) {
  // expected-remark @+1 {{takes a snapshot of its cache, which may be another argument's object}}
  return %d, %c : !kv, !kv
}

// CHECK-LABEL: func @swapped_by_attribute
// CHECK-NEXT: return
func.func @swapped_by_attribute(%c: !kv, %d: !kv) -> (!kv {llm.tied = 1}, !kv {llm.tied = 0}) {
  return %d, %c : !kv, !kv
}

// CHECK-LABEL: func @swapped_in_a_loop
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16>,
// CHECK: %[[R:.*]]:2 = scf.for {{.*}} iter_args(%[[A:.*]] = %[[C]], %[[B:.*]] = %[[D]])
// CHECK-NEXT: scf.yield %[[B]], %[[A]]
// CHECK-NEXT: }
// CHECK-DAG: %[[NEW_C:.*]] = llm.snapshot_kv %[[R]]#0
// CHECK-DAG: %[[NEW_D:.*]] = llm.snapshot_kv %[[R]]#1
// CHECK-DAG: llm.drop_kv %[[R]]#0
// CHECK-DAG: llm.drop_kv %[[R]]#1
// CHECK: llm.replace_kv %[[C]], %[[NEW_C]]
// CHECK-NEXT: llm.replace_kv %[[D]], %[[NEW_D]]
// expected-note @+2 {{result 0 is tied to argument 0}}
// expected-note @+1 {{result 1 is tied to argument 1}}
func.func @swapped_in_a_loop(%c: !kv, %d: !kv, %n: index) -> (!kv, !kv) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %r:2 = scf.for %i = %c0 to %n step %c1 iter_args(%a = %c, %b = %d) -> (!kv, !kv) {
    scf.yield %b, %a : !kv, !kv
  }
  // expected-remark @+1 {{takes a snapshot of its cache, which may be another argument's object}}
  return %r#0, %r#1 : !kv, !kv
}

// CHECK-LABEL: func @swapped_by_a_call
// CHECK: %[[R:.*]]:2 = call @swaps
// CHECK-DAG: llm.snapshot_kv %[[R]]#0
// CHECK-DAG: llm.snapshot_kv %[[R]]#1
// CHECK: return
// expected-note @+2 {{result 0 is tied to argument 0}}
// expected-note @+1 {{result 1 is tied to argument 1}}
func.func @swapped_by_a_call(%c: !kv, %d: !kv) -> (!kv, !kv) {
  %r:2 = call @swaps(%c, %d) : (!kv, !kv) -> (!kv, !kv)
  // expected-remark @+1 {{takes a snapshot of its cache, which may be another argument's object}}
  return %r#0, %r#1 : !kv, !kv
}

// A call returns no object that it only borrows.

// CHECK-LABEL: func @beside_a_borrowed_one
// CHECK-NOT: llm.snapshot_kv
// CHECK: return
func.func @beside_a_borrowed_one(%c: !kv, %d: !kv, %t: !t) -> (!kv, !kv, !t) {
  %next, %o = call @both(%c, %d, %t) : (!kv, !kv, !t) -> (!kv, !t)
  return %next, %d, %o : !kv, !kv, !t
}
