// Speculative decoding in plain IR: each round appends four drafted tokens to
// sequence 0, attends with all of them at once, and keeps the first two. What is
// rolled back was never anybody else's: no block is copied, no snapshot taken.
//
//   llm-opt examples/speculation.mlir --llm-materialize-cache=strict
//   llm-opt examples/speculation.mlir --llm-to-cpu

!kv = !llm.paged_kv_cache<1x2x4xf32>
!drafts = tensor<?x2x4xf32>
!four = tensor<4x2x4xf32>
!one = tensor<1xi32>

// What the two kept queries saw; a private reader borrows its cache.
func.func private @verify(%q: !four, %c: !kv, %at: !llm.kv_step) -> !four {
  %o = llm.paged_attention %q, %c at %at : !four, !kv -> !four
  return %o : !four
}

func.func @speculate(%c: !kv, %k: !drafts, %v: !drafts, %q: !drafts)
    -> (!kv, !drafts) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c4 = arith.constant 4 : index
  %two = arith.constant 2 : i32
  %id = arith.constant dense<0> : !one
  %cu = arith.constant dense<[0, 4]> : tensor<2xi32>
  %tokens = tensor.dim %k, %c0 : !drafts
  %end:2 = scf.for %i = %c0 to %tokens step %c4
      iter_args(%before = %c, %seen = %q) -> (!kv, !drafts) {
    %ki = tensor.extract_slice %k[%i, 0, 0] [4, 2, 4] [1, 1, 1] : !drafts to !four
    %vi = tensor.extract_slice %v[%i, 0, 0] [4, 2, 4] [1, 1, 1] : !drafts to !four
    %qi = tensor.extract_slice %q[%i, 0, 0] [4, 2, 4] [1, 1, 1] : !drafts to !four
    %lengths = llm.seq_lens %before, %id : !kv, !one -> !one
    %begun, %step = llm.begin_step %before, %id, %cu : !kv, !one, tensor<2xi32> -> !kv
    %at = llm.at_layer %step[%c0]
    %drafted = llm.append_kv %begun, %ki, %vi at %at : !kv, !four, !four -> !kv
    %o = func.call @verify(%qi, %drafted, %at) : (!four, !kv, !llm.kv_step) -> !four
    %length = tensor.extract %lengths[%c0] : !one
    %accepted = arith.addi %length, %two : i32
    %keep = tensor.from_elements %accepted : !one
    %after = llm.trim_kv %drafted, %id, %keep : !kv, !one, !one -> !kv
    %next = tensor.insert_slice %o into %seen[%i, 0, 0] [4, 2, 4] [1, 1, 1]
        : !four into !drafts
    scf.yield %after, %next : !kv, !drafts
  }
  return %end#0, %end#1 : !kv, !drafts
}
