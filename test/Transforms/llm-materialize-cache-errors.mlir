// RUN: %llm-opt %s --llm-materialize-cache=strict --allow-unregistered-dialect --split-input-file --verify-diagnostics

//===----------------------------------------------------------------------===//
// Strict: no snapshot is inserted
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<1x1x64xf16>
!ids = tensor<4xi32>
func.func @two_consumers(%c: !kv, %ids: !ids) -> (!kv, !ids) {
  // expected-error @+1 {{consumes a cache version that is still needed; use llm.snapshot_kv to keep both}}
  %a = llm.trim_kv %c, %ids, %ids : !kv, !ids, !ids -> !kv
  // expected-note @+1 {{the version is needed here}}
  %b = llm.release_kv %c, %ids : !kv, !ids -> !kv
  %lengths = llm.seq_lens %a, %ids : !kv, !ids -> !ids
  return %b, %lengths : !kv, !ids
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
!ids = tensor<4xi32>
func.func private @yielded_twice(%c: !kv, %p: i1) -> (!kv, !kv) {
  // expected-error @+2 {{consumes a cache version that is still needed; use llm.snapshot_kv to keep both}}
  // expected-note @+1 {{the version is needed here}}
  return %c, %c : !kv, !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
// expected-note @+2 {{result 0 is tied to argument 0}}
// expected-note @+1 {{result 1 is tied to argument 1}}
func.func @swapped(%c: !kv, %d: !kv) -> (!kv, !kv) {
  // expected-error @+1 {{consumes a cache version that may be another argument's object; use llm.snapshot_kv to keep both}}
  return %d, %c : !kv, !kv
}

// -----

// What the program asks for is fine.

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @swapped_copies(%c: !kv, %d: !kv) -> (!kv, !kv) {
  %new_c = llm.snapshot_kv %d : !kv
  %new_d = llm.snapshot_kv %c : !kv
  return %new_c, %new_d : !kv, !kv
}

// -----

//===----------------------------------------------------------------------===//
// What the pass does not know
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @unknown_user(%c: !kv) -> !kv {
  // expected-error @+1 {{takes a cache as operand 0, and is not known to read or to consume one}}
  %x = builtin.unrealized_conversion_cast %c : !kv to index
  return %c : !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func private @unknown_origin(%x: index) -> !kv {
  // expected-error @+1 {{makes a cache in a way that is not known}}
  %c = builtin.unrealized_conversion_cast %x : index to !kv
  return %c : !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @in_a_tensor(%c: !kv) -> !kv {
  // expected-error @+1 {{takes a cache as operand 0, and is not known to read or to consume one}}
  %x = tensor.from_elements %c : tensor<1x!kv>
  return %c : !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
!t = tensor<4x1x1x64xf32>
// expected-note @+1 {{the cache is defined here}}
func.func @captured_by_a_forall(%c: !kv, %t: !t, %n: index) -> !kv {
  // expected-error @+1 {{'scf.forall' op shares a cache between its iterations, which may run at once; use scf.for}}
  scf.forall (%i) in (%n) {
    %o = llm.paged_attention %t, %c : !t, !kv -> !t
  }
  return %c : !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
!t = tensor<4x1x1x64xf32>
func.func @captured_by_a_parallel_loop(%c: !kv, %t: !t, %n: index) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // expected-error @+1 {{uses a cache in its region; only scf.if, scf.index_switch, scf.for, scf.while, scf.forall and scf.execute_region may}}
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    %o = llm.paged_attention %t, %c : !t, !kv -> !t
  }
  return %c : !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @argument_of_an_unknown_region() {
  // expected-error @+1 {{uses a cache in its region; only scf.if, scf.index_switch, scf.for, scf.while, scf.forall and scf.execute_region may}}
  "unknown.loop"() ({
  ^bb0(%v: !kv):
    "unknown.yield"() : () -> ()
  }) : () -> ()
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
// expected-error @+1 {{cache crosses unstructured control flow; run --lift-cf-to-scf first}}
func.func @unstructured(%c: !kv, %ids: tensor<4xi32>, %p: i1) -> !kv {
  cf.cond_br %p, ^yes, ^no(%c : !kv)
^yes:
  %released = llm.release_kv %c, %ids : !kv, tensor<4xi32> -> !kv
  cf.br ^no(%released : !kv)
^no(%r: !kv):
  return %r : !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @unstructured_region(%c: !kv, %ids: tensor<4xi32>, %p: i1) -> !kv {
  // expected-error @+1 {{cache crosses unstructured control flow; run --lift-cf-to-scf first}}
  %r = scf.execute_region -> !kv {
    cf.cond_br %p, ^yes, ^no(%c : !kv)
  ^yes:
    %released = llm.release_kv %c, %ids : !kv, tensor<4xi32> -> !kv
    cf.br ^no(%released : !kv)
  ^no(%x: !kv):
    scf.yield %x : !kv
  }
  return %r : !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
// expected-error @+1 {{cache crosses unstructured control flow; run --lift-cf-to-scf first}}
func.func private @unreachable_block() {
  return
^bb1(%v: !kv):
  return
}

// -----

func.func @never_returns(%c: !llm.paged_kv_cache) -> !llm.paged_kv_cache {
  // expected-error @+1 {{'ub.unreachable' op ends a region that holds a cache; only 'func.return' may}}
  ub.unreachable
}

// -----

func.func @never_yields(%c: !llm.paged_kv_cache) -> !llm.paged_kv_cache {
  %r = scf.execute_region -> !llm.paged_kv_cache {
    // expected-error @+1 {{'ub.unreachable' op ends a region that holds a cache; only 'scf.yield' may}}
    ub.unreachable
  }
  return %r : !llm.paged_kv_cache
}

// -----

// Nobody would end a cache of the module itself.

!kv = !llm.paged_kv_cache<1x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
%blocks = arith.constant 3 : index
// expected-error @+1 {{uses a cache outside of a function}}
%c = llm.create_kv_cache blocks(%blocks) : !kv

// -----

// A nested module's functions are not this pass's.

!kv = !llm.paged_kv_cache
module {
  // expected-error @+1 {{uses a cache in its region; only func.func in the module itself may}}
  module @nested {
    func.func @inner(%c: !kv, %ids: tensor<4xi32>) -> !kv {
      %r = llm.release_kv %c, %ids : !kv, tensor<4xi32> -> !kv
      return %r : !kv
    }
  }
}

// -----

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @public(%c: !kv) -> !kv {
  return %c : !kv
}
func.func @calls_a_public_function(%c: !kv) -> !kv {
  // expected-error @+1 {{calls the public function @public with a cache; only private functions may be called}}
  %r = call @public(%c) : (!kv) -> !kv
  return %r : !kv
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func private @callee(%c: !kv) {
  return
}
func.func @takes_a_reference() {
  // expected-error @+1 {{refers to @callee, which takes or returns a cache, other than by a call}}
  %f = func.constant @callee : (!kv) -> ()
  return
}

// -----

// expected-error @+1 {{takes or returns a cache, and an unregistered op may refer to it}}
func.func private @referred_to(%c: !llm.paged_kv_cache) {
  return
}
"unknown.table"() ({
  "unknown.entry"() {callee = @referred_to} : () -> ()
}) : () -> ()

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @indirect(%f: (!kv) -> !kv, %c: !kv) -> !kv {
  // expected-error @+1 {{takes a cache as operand 1, and is not known to read or to consume one}}
  %r = call_indirect %f(%c) : (!kv) -> !kv
  return %r : !kv
}

// -----

// expected-error @+1 {{result 0 of type '!llm.paged_kv_cache<1x1x64xf16>' cannot be written back to argument 0 of type '!llm.paged_kv_cache'}}
func.func @tied_to_another_type(%c: !llm.paged_kv_cache) -> !llm.paged_kv_cache<1x1x64xf16> {
  %known = llm.cast_kv %c : !llm.paged_kv_cache -> !llm.paged_kv_cache<1x1x64xf16>
  return %known : !llm.paged_kv_cache<1x1x64xf16>
}

// -----

// expected-error @+1 {{result 0 is tied to argument 0, which is borrowed}}
func.func @tied_to_a_borrowed_argument(%c: !llm.paged_kv_cache {llm.borrowed}) -> !llm.paged_kv_cache {
  return %c : !llm.paged_kv_cache
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
// expected-error @+1 {{two results are tied to argument 1}}
func.func @tied_twice(%c: !kv, %d: !kv) -> (!kv {llm.tied = 1}, !kv) {
  return %c, %d : !kv, !kv
}

// -----

//===----------------------------------------------------------------------===//
// Misuse of steps
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<2x1x64xf16>
!t = tensor<?x1x64xf32>
func.func @layer_out_of_range(%c: !kv, %ids: tensor<4xi32>, %cu: tensor<5xi32>, %t: !t) -> !kv {
  %c2 = arith.constant 2 : index
  %begun, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<4xi32>, tensor<5xi32> -> !kv
  %at = llm.at_layer %step[%c2]
  // expected-error @+1 {{expected a layer in [0, 2), got 2}}
  %next = llm.append_kv %begun, %t, %t at %at : !kv, !t, !t -> !kv
  return %next : !kv
}

// -----

!kv = !llm.paged_kv_cache<?x1x64xf16>
!t = tensor<?x1x64xf32>
func.func @negative_layer(%c: !kv, %ids: tensor<4xi32>, %cu: tensor<5xi32>, %t: !t) -> !kv {
  %minus = arith.constant -1 : index
  %begun, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<4xi32>, tensor<5xi32> -> !kv
  %at = llm.at_layer %step[%minus]
  // expected-error @+1 {{expected a layer of at least 0, got -1}}
  %next = llm.append_kv %begun, %t, %t at %at : !kv, !t, !t -> !kv
  return %next : !kv
}

// -----

!kv = !llm.paged_kv_cache<2x1x64xf16>
!t = tensor<?x1x64xf32>
func.func @double_append(%c: !kv, %ids: tensor<4xi32>, %cu: tensor<5xi32>, %t: !t) -> !kv {
  %c1 = arith.constant 1 : index
  %begun, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<4xi32>, tensor<5xi32> -> !kv
  %at = llm.at_layer %step[%c1]
  // expected-note @+1 {{it was appended to here}}
  %once = llm.append_kv %begun, %t, %t at %at : !kv, !t, !t -> !kv
  // expected-error @+1 {{appends twice at layer 1 in one step}}
  %twice = llm.append_kv %once, %t, %t at %at : !kv, !t, !t -> !kv
  return %twice : !kv
}

// -----

!kv = !llm.paged_kv_cache<2x1x64xf16>
!t = tensor<?x1x64xf32>
func.func @step_of_another_cache(%c: !kv, %d: !kv, %ids: tensor<4xi32>, %cu: tensor<5xi32>, %t: !t) -> (!kv, !kv) {
  %c1 = arith.constant 1 : index
  // expected-note @+1 {{the step begins here}}
  %begun, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<4xi32>, tensor<5xi32> -> !kv
  %at = llm.at_layer %step[%c1]
  // expected-error @+1 {{works under a step of another cache version}}
  %next = llm.append_kv %d, %t, %t at %at : !kv, !t, !t -> !kv
  return %begun, %next : !kv, !kv
}
