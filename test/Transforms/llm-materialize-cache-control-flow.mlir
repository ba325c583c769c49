// RUN: %llm-opt %s --llm-materialize-cache --verify-diagnostics | FileCheck %s
// RUN: %llm-opt %s --llm-materialize-cache --llm-materialize-cache 2>/dev/null | FileCheck %s

!kv = !llm.paged_kv_cache<1x1x64xf16>
!static = !llm.paged_kv_cache<1x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
!t = tensor<4x1x1x64xf32>

//===----------------------------------------------------------------------===//
// Branches
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @consumed_on_one_path
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NEXT: %[[NEXT:.*]] = scf.if
// CHECK-NEXT: llm.append_kv %[[CACHE]]
// CHECK-NEXT: scf.yield %[[CACHE]]
// CHECK-NEXT: else
// CHECK-NEXT: scf.yield %[[CACHE]]
// CHECK-NEXT: }
// CHECK-NEXT: llm.replace_kv %[[CACHE]], %[[NEXT]]
func.func @consumed_on_one_path(%c: !kv, %t: !t, %p: i1) -> !kv {
  %next = scf.if %p -> !kv {
    %appended = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
    scf.yield %appended : !kv
  } else {
    scf.yield %c : !kv
  }
  return %next : !kv
}

// Where a path does not consume the version, it drops it.

// CHECK-LABEL: func @without_else
// CHECK: %[[CACHE:.*]] = llm.create_kv_cache
// CHECK-NEXT: scf.if
// CHECK-NEXT: llm.append_kv %[[CACHE]]
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: else
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: }
// CHECK-NEXT: return
func.func @without_else(%blocks: index, %t: !t, %p: i1) {
  %c = llm.create_kv_cache blocks(%blocks) : !static
  scf.if %p {
    %next = llm.append_kv %c, %t, %t : !static, !t, !t -> !static
  }
  return
}

// CHECK-LABEL: func @read_inside
// CHECK: %[[CACHE:.*]] = llm.create_kv_cache
// CHECK-NEXT: scf.if
// CHECK-NOT: llm.drop_kv
// CHECK: else
// CHECK-NEXT: scf.yield
// CHECK-NEXT: }
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: return
func.func @read_inside(%blocks: index, %t: !t, %p: i1) -> !t {
  %c = llm.create_kv_cache blocks(%blocks) : !static
  %r = scf.if %p -> !t {
    %o = llm.paged_attention %t, %c : !t, !static -> !t
    scf.yield %o : !t
  } else {
    scf.yield %t : !t
  }
  return %r : !t
}

// CHECK-LABEL: func @needed_after_the_branch
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK: scf.if
// CHECK-NEXT: %[[BRANCH:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: llm.append_kv %[[BRANCH]]
// CHECK-NEXT: %{{.*}} = llm.paged_attention %{{.*}}, %[[BRANCH]]
// CHECK-NEXT: llm.drop_kv %[[BRANCH]]
// CHECK: else
// CHECK-NOT: llm.
// CHECK: return
func.func @needed_after_the_branch(%c: !kv, %t: !t, %p: i1) -> (!kv, !t) {
  %r = scf.if %p -> !t {
    // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
    %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
    %o = llm.paged_attention %t, %next : !t, !kv -> !t
    scf.yield %o : !t
  } else {
    scf.yield %t : !t
  }
  // expected-note @+1 {{the version is needed here}}
  return %c, %r : !kv, !t
}

// CHECK-LABEL: func private @yielded_twice
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16>,
// CHECK-NEXT: scf.if
// CHECK-NEXT: llm.drop_kv %[[D]]
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[C]]
// CHECK-NEXT: scf.yield {{%.*}}, {{%.*}} :
// CHECK-NEXT: else
// CHECK-NEXT: scf.yield %[[C]], %[[D]]
func.func private @yielded_twice(%c: !kv, %d: !kv, %p: i1) -> (!kv, !kv) {
  %r:2 = scf.if %p -> (!kv, !kv) {
    // expected-remark @+2 {{takes a snapshot of its cache, which is still needed}}
    // expected-note @+1 {{the version is needed here}}
    scf.yield %c, %c : !kv, !kv
  } else {
    scf.yield %c, %d : !kv, !kv
  }
  return %r#0, %r#1 : !kv, !kv
}

// CHECK-LABEL: func private @either
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16>,
// CHECK-NEXT: scf.if
// CHECK-NEXT: llm.drop_kv %[[D]]
// CHECK-NEXT: scf.yield %[[C]]
// CHECK-NEXT: else
// CHECK-NEXT: llm.drop_kv %[[C]]
// CHECK-NEXT: scf.yield %[[D]]
func.func private @either(%c: !kv, %d: !kv, %p: i1) -> !kv {
  %r = arith.select %p, %c, %d : !kv
  return %r : !kv
}

// CHECK-LABEL: func @unused_result
// CHECK: %[[R:.*]] = scf.if
// CHECK: else
// CHECK-NEXT: llm.drop_kv
// CHECK-NEXT: scf.yield
// CHECK-NEXT: }
// CHECK-NEXT: llm.drop_kv %[[R]]
// CHECK-NEXT: return
func.func @unused_result(%blocks: index, %p: i1) {
  %c = llm.create_kv_cache blocks(%blocks) : !static
  %d = llm.create_kv_cache blocks(%blocks) : !static
  %r = arith.select %p, %c, %d : !static
  return
}

// CHECK-LABEL: func private @switch
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK: case 0
// CHECK-NEXT: llm.append_kv %[[CACHE]]
// CHECK-NEXT: scf.yield %[[CACHE]]
// CHECK: case 3
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: %[[NONE:.*]] = llm.null_kv : !llm.kv_handle
// CHECK-NEXT: scf.yield %[[NONE]]
// CHECK: default
// CHECK-NEXT: scf.yield %[[CACHE]]
func.func private @switch(%c: !kv, %t: !t, %i: index) -> !kv {
  %r = scf.index_switch %i -> !kv
  case 0 {
    %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
    scf.yield %next : !kv
  }
  case 3 {
    %none = ub.poison : !kv
    scf.yield %none : !kv
  }
  default {
    scf.yield %c : !kv
  }
  return %r : !kv
}

// CHECK-LABEL: func @nested_branches
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NOT: llm.snapshot_kv
// CHECK-NOT: llm.drop_kv
// CHECK: return
func.func @nested_branches(%c: !kv, %t: !t, %p: i1, %q: i1) -> !kv {
  %r = scf.if %p -> !kv {
    %inner = scf.if %q -> !kv {
      %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
      scf.yield %next : !kv
    } else {
      scf.yield %c : !kv
    }
    scf.yield %inner : !kv
  } else {
    scf.yield %c : !kv
  }
  return %r : !kv
}

// CHECK-LABEL: func @regions_are_inlined
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NEXT: llm.append_kv %[[CACHE]]
// CHECK-NEXT: return
func.func @regions_are_inlined(%c: !kv, %t: !t) -> !kv {
  %r = scf.execute_region -> !kv {
    %inner = scf.execute_region -> !kv {
      %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
      scf.yield %next : !kv
    }
    scf.yield %inner : !kv
  }
  return %r : !kv
}

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

// A decode loop copies nothing.

// CHECK-LABEL: func @decode
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NOT: llm.snapshot_kv
// CHECK: %[[R:.*]]:2 = scf.for {{.*}} iter_args(%[[KV:.*]] = %[[CACHE]], %[[X:.*]] = %{{.*}})
// CHECK-NEXT: llm.append_kv %[[KV]], %[[X]], %[[X]]
// CHECK-NEXT: %[[O:.*]] = llm.paged_attention %[[X]], %[[KV]]
// CHECK-NEXT: scf.yield %[[KV]], %[[O]]
// CHECK-NEXT: }
// CHECK-NEXT: llm.replace_kv %[[CACHE]], %[[R]]#0
// CHECK-NEXT: return %[[R]]#1
// CHECK-NOT: llm.snapshot_kv
func.func @decode(%c: !kv, %t: !t, %n: index) -> (!kv, !t) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %r:2 = scf.for %i = %c0 to %n step %c1 iter_args(%v = %c, %x = %t) -> (!kv, !t) {
    %next = llm.append_kv %v, %x, %x : !kv, !t, !t -> !kv
    %o = llm.paged_attention %x, %next : !t, !kv -> !t
    scf.yield %next, %o : !kv, !t
  }
  return %r#0, %r#1 : !kv, !t
}

// CHECK-LABEL: func @consumed_on_one_path_of_a_loop
// CHECK-NOT: llm.snapshot_kv
// CHECK-NOT: llm.drop_kv
// CHECK: return
func.func @consumed_on_one_path_of_a_loop(%c: !kv, %t: !t, %n: index, %p: i1) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %r = scf.for %i = %c0 to %n step %c1 iter_args(%v = %c) -> !kv {
    %x = scf.if %p -> !kv {
      %next = llm.append_kv %v, %t, %t : !kv, !t, !t -> !kv
      scf.yield %next : !kv
    } else {
      scf.yield %v : !kv
    }
    scf.yield %x : !kv
  }
  return %r : !kv
}

// Each iteration starts from the version outside.

// CHECK-LABEL: func private @consumes_an_outer_version
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK: scf.for
// CHECK-NEXT: %[[TRY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: llm.append_kv %[[TRY]]
// CHECK-NEXT: %[[O:.*]] = llm.paged_attention %{{.*}}, %[[TRY]]
// CHECK-NEXT: llm.drop_kv %[[TRY]]
// CHECK-NEXT: scf.yield %[[O]]
// CHECK-NEXT: }
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: return
func.func private @consumes_an_outer_version(%c: !kv, %t: !t, %n: index) -> !t {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // expected-note @+1 {{the version is needed here}}
  %r = scf.for %i = %c0 to %n step %c1 iter_args(%x = %t) -> !t {
    // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
    %next = llm.append_kv %c, %x, %x : !kv, !t, !t -> !kv
    %o = llm.paged_attention %x, %next : !t, !kv -> !t
    scf.yield %o : !t
  }
  return %r : !t
}

// CHECK-LABEL: func private @init_is_read_inside
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK: %[[COPY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: %[[R:.*]] = scf.for {{.*}} iter_args(%[[KV:.*]] = %[[COPY]])
// CHECK-NEXT: llm.paged_attention %{{.*}}, %[[CACHE]]
// CHECK-NEXT: llm.append_kv %[[KV]]
// CHECK-NEXT: scf.yield %[[KV]]
// CHECK-NEXT: }
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: return %[[R]]
func.func private @init_is_read_inside(%c: !kv, %t: !t, %n: index) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // expected-remark @+2 {{takes a snapshot of its cache, which is still needed}}
  // expected-note @+1 {{the version is needed here}}
  %r = scf.for %i = %c0 to %n step %c1 iter_args(%v = %c) -> !kv {
    %o = llm.paged_attention %t, %c : !t, !kv -> !t
    %next = llm.append_kv %v, %o, %o : !kv, !t, !t -> !kv
    scf.yield %next : !kv
  }
  return %r : !kv
}

// CHECK-LABEL: func private @yields_an_outer_version
// CHECK-SAME: (%[[C:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[D:[^:]*]]: !llm.kv_handle<1x1x64xf16>,
// CHECK: scf.for {{.*}} iter_args(%[[KV:.*]] = %[[C]])
// CHECK-NEXT: llm.drop_kv %[[KV]]
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[D]]
// CHECK-NEXT: scf.yield %[[COPY]]
// CHECK-NEXT: }
// CHECK-NEXT: llm.drop_kv %[[D]]
func.func private @yields_an_outer_version(%c: !kv, %d: !kv, %n: index) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // expected-note @+1 {{the version is needed here}}
  %r = scf.for %i = %c0 to %n step %c1 iter_args(%v = %c) -> !kv {
    // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
    scf.yield %d : !kv
  }
  return %r : !kv
}

// One version starts two iteration arguments.

// CHECK-LABEL: func private @init_of_two
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK: %[[COPY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: scf.for {{.*}} iter_args(%[[A:.*]] = %{{.*}}, %[[B:.*]] = %{{.*}})
// CHECK-NEXT: llm.append_kv %[[A]]
// CHECK-NEXT: scf.yield %[[B]], %[[A]]
func.func private @init_of_two(%c: !kv, %t: !t, %n: index) -> (!kv, !kv) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // expected-remark @+2 {{takes a snapshot of its cache, which is still needed}}
  // expected-note @+1 {{the version is needed here}}
  %r:2 = scf.for %i = %c0 to %n step %c1 iter_args(%a = %c, %b = %c) -> (!kv, !kv) {
    %next = llm.append_kv %a, %t, %t : !kv, !t, !t -> !kv
    scf.yield %b, %next : !kv, !kv
  }
  return %r#0, %r#1 : !kv, !kv
}

// CHECK-LABEL: func @nested_loops
// CHECK-NOT: llm.snapshot_kv
// CHECK-NOT: llm.drop_kv
// CHECK: return
func.func @nested_loops(%c: !kv, %t: !t, %n: index) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %r = scf.for %i = %c0 to %n step %c1 iter_args(%v = %c) -> !kv {
    %inner = scf.for %j = %c0 to %n step %c1 iter_args(%w = %v) -> !kv {
      %next = llm.append_kv %w, %t, %t : !kv, !t, !t -> !kv
      scf.yield %next : !kv
    }
    scf.yield %inner : !kv
  }
  return %r : !kv
}

// CHECK-LABEL: func @made_in_a_loop
// CHECK: scf.for
// CHECK: %[[CACHE:.*]] = llm.create_kv_cache
// CHECK-NEXT: llm.append_kv %[[CACHE]]
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: }
func.func @made_in_a_loop(%blocks: index, %t: !t, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  scf.for %i = %c0 to %n step %c1 {
    %c = llm.create_kv_cache blocks(%blocks) : !static
    %next = llm.append_kv %c, %t, %t : !static, !t, !t -> !static
  }
  return
}

//===----------------------------------------------------------------------===//
// Loops with a condition
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @while_loop
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK-NEXT: %[[R:.*]] = scf.while (%[[V:.*]] = %[[CACHE]])
// CHECK-NEXT: %[[GO:.*]] = func.call @more(%[[V]])
// CHECK-NEXT: scf.condition(%[[GO]]) %[[V]]
// CHECK-NEXT: } do {
// CHECK-NEXT: ^bb0(%[[W:.*]]: !llm.kv_handle
// CHECK-NEXT: llm.append_kv %[[W]]
// CHECK-NEXT: scf.yield %[[W]]
// CHECK-NEXT: }
// CHECK-NEXT: llm.replace_kv %[[CACHE]], %[[R]]
func.func private @more(!kv {llm.borrowed}) -> i1
func.func @while_loop(%c: !kv, %t: !t) -> !kv {
  %r = scf.while (%v = %c) : (!kv) -> !kv {
    %go = func.call @more(%v) : (!kv) -> i1
    scf.condition(%go) %v : !kv
  } do {
  ^bb0(%w: !kv):
    %next = llm.append_kv %w, %t, %t : !kv, !t, !t -> !kv
    scf.yield %next : !kv
  }
  return %r : !kv
}

// Each side drops what the other does not get.

// CHECK-LABEL: func private @while_drops
// CHECK: scf.while (%[[A:.*]] = %{{.*}}, %[[B:.*]] = %{{.*}})
// CHECK-NEXT: llm.drop_kv %[[B]]
// CHECK-NEXT: llm.append_kv %[[A]]
// CHECK-NEXT: scf.condition(%{{.*}}) %[[A]]
// CHECK-NEXT: } do {
// CHECK-NEXT: ^bb0(%[[W:.*]]: !llm.kv_handle
// CHECK-NEXT: %[[NEW:.*]] = llm.create_kv_cache
// CHECK-NEXT: scf.yield %[[W]], %[[NEW]]
func.func private @while_drops(%c: !static, %d: !static, %t: !t, %p: i1, %n: index) -> !static {
  %r = scf.while (%a = %c, %b = %d) : (!static, !static) -> !static {
    %next = llm.append_kv %a, %t, %t : !static, !t, !t -> !static
    scf.condition(%p) %next : !static
  } do {
  ^bb0(%w: !static):
    %new = llm.create_kv_cache blocks(%n) : !static
    scf.yield %w, %new : !static, !static
  }
  return %r : !static
}

// CHECK-LABEL: func @while_consumes_an_outer_version
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK: scf.while
// CHECK: do
// CHECK-NEXT: %[[COPY:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: llm.append_kv %[[COPY]]
// CHECK-NEXT: llm.drop_kv %[[COPY]]
// CHECK-NEXT: scf.yield
// CHECK-NEXT: }
// CHECK-NEXT: return
func.func @while_consumes_an_outer_version(%c: !kv, %t: !t, %p: i1) -> !kv {
  scf.while : () -> () {
    scf.condition(%p)
  } do {
    // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
    %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
    scf.yield
  }
  // expected-note @+1 {{the version is needed here}}
  return %c : !kv
}

// What the condition reads, it reads before the body appends.

// CHECK-LABEL: func @while_reads
// CHECK: scf.while
// CHECK-NEXT: llm.paged_attention
// CHECK-NOT: llm.snapshot_kv
// CHECK: return
func.func @while_reads(%c: !kv, %t: !t, %p: i1) -> (!kv, !t) {
  %r:2 = scf.while (%v = %c, %q = %t) : (!kv, !t) -> (!kv, !t) {
    %o = llm.paged_attention %q, %v : !t, !kv -> !t
    scf.condition(%p) %v, %o : !kv, !t
  } do {
  ^bb0(%w: !kv, %q: !t):
    %next = llm.append_kv %w, %t, %t : !kv, !t, !t -> !kv
    scf.yield %next, %q : !kv, !t
  }
  return %r#0, %r#1 : !kv, !t
}

//===----------------------------------------------------------------------===//
// Loops without an order
//===----------------------------------------------------------------------===//

// Iterations with caches of their own run one after the other.

// CHECK-LABEL: func @forall
// CHECK-SAME: (%[[N:.*]]: index, %[[OUT:.*]]: tensor<?x1x64xf32>
// CHECK: scf.for %[[I:.*]] = {{.*}} iter_args(%[[SO_FAR:.*]] = %[[OUT]])
// CHECK-NEXT: %[[C:.*]] = llm.create_kv_cache
// CHECK-NEXT: llm.append_kv %[[C]]
// CHECK-NEXT: %[[O:.*]] = llm.paged_attention %{{.*}}, %[[C]]
// CHECK-NEXT: llm.drop_kv %[[C]]
// CHECK-NEXT: %[[ROW:.*]] = tensor.extract_slice %[[O]]
// CHECK-NEXT: %[[NEXT:.*]] = tensor.insert_slice %[[ROW]] into %[[SO_FAR]][%[[I]], 0, 0]
// CHECK-NEXT: scf.yield %[[NEXT]]
func.func @forall(%n: index, %out: tensor<?x1x64xf32>, %t: !t) -> tensor<?x1x64xf32> {
  %r = scf.forall (%i) in (%n) shared_outs(%o = %out) -> tensor<?x1x64xf32> {
    %c = llm.create_kv_cache blocks(%n) : !static
    %next = llm.append_kv %c, %t, %t : !static, !t, !t -> !static
    %seen = llm.paged_attention %t, %next : !t, !static -> !t
    %row = tensor.extract_slice %seen[0, 0, 0, 0] [1, 1, 1, 64] [1, 1, 1, 1] : !t to tensor<1x1x64xf32>
    scf.forall.in_parallel {
      tensor.parallel_insert_slice %row into %o[%i, 0, 0] [1, 1, 64] [1, 1, 1] : tensor<1x1x64xf32> into tensor<?x1x64xf32>
    }
  }
  return %r : tensor<?x1x64xf32>
}

// CHECK-LABEL: func @nested_foralls
// CHECK-NOT: scf.forall
// CHECK-COUNT-3: scf.for
// CHECK: llm.drop_kv
func.func @nested_foralls(%n: index) {
  scf.forall (%i, %j) in (%n, %n) {
    scf.forall (%k) in (%n) {
      %c = llm.create_kv_cache blocks(%n) : !static
    }
  }
  return
}

//===----------------------------------------------------------------------===//
// Choices of more than one version
//===----------------------------------------------------------------------===//

// Only where both choose the same is there a snapshot.

// CHECK-LABEL: func private @choose_two
// CHECK-SAME: (%[[A:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[B:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[P:[^:]*]]: i1, %[[Q:[^:]*]]: i1)
// CHECK-NEXT: %{{.*}} = scf.if %[[P]]
// CHECK-NEXT: %{{.*}} = scf.if %[[Q]]
// CHECK-NEXT: llm.drop_kv %[[B]]
// CHECK-NEXT: llm.snapshot_kv %[[A]]
// CHECK-NEXT: scf.yield
// CHECK-NEXT: else
// CHECK-NEXT: scf.yield %[[A]], %[[B]]
// CHECK: else
// CHECK-NEXT: %{{.*}} = scf.if %[[Q]]
// CHECK-NEXT: scf.yield %[[B]], %[[A]]
// CHECK-NEXT: else
// CHECK-NEXT: llm.drop_kv %[[A]]
// CHECK-NEXT: llm.snapshot_kv %[[B]]
// CHECK-NEXT: scf.yield
func.func private @choose_two(%a: !kv, %b: !kv, %p: i1, %q: i1) -> (!kv, !kv) {
  %x = arith.select %p, %a, %b : !kv
  // expected-remark @+2 {{takes a snapshot of its cache, which is still needed}}
  // expected-note @+1 {{the version is needed here}}
  %y = arith.select %q, %a, %b : !kv
  return %x, %y : !kv, !kv
}

// One condition, one branch.

// CHECK-LABEL: func private @exchange
// CHECK-SAME: (%[[A:[^:]*]]: !llm.kv_handle<1x1x64xf16>, %[[B:[^:]*]]: !llm.kv_handle<1x1x64xf16>,
// CHECK-NEXT: scf.if
// CHECK-NEXT: scf.yield %[[A]], %[[B]]
// CHECK-NEXT: else
// CHECK-NEXT: scf.yield %[[B]], %[[A]]
// CHECK-NEXT: }
// CHECK-NEXT: return
func.func private @exchange(%a: !kv, %b: !kv, %p: i1) -> (!kv, !kv) {
  %x = arith.select %p, %a, %b : !kv
  %y = arith.select %p, %b, %a : !kv
  return %x, %y : !kv, !kv
}

// A choice that is needed before the next one stays alone.

// CHECK-LABEL: func private @choose_again
// CHECK: scf.if
// CHECK: llm.append_kv
// CHECK: scf.if
// CHECK: return
func.func private @choose_again(%a: !kv, %b: !kv, %t: !t, %p: i1) -> !kv {
  // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
  %x = arith.select %p, %a, %b : !kv
  %next = llm.append_kv %x, %t, %t : !kv, !t, !t -> !kv
  // expected-note @+1 {{the version is needed here}}
  %y = arith.select %p, %a, %next : !kv
  return %y : !kv
}
