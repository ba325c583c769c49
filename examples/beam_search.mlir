// Beam search in plain IR: two beams, each a version of the cache with its last
// token and its score; 16 steps over a vocabulary of two tokens. A step extends
// both beams by both tokens and keeps the two best of the four candidates.
//
// Caches are values, so "keep" is a select. Both selects choose from the same
// two versions: llm-materialize-cache takes a snapshot only on the paths where
// both chose the same beam. Where each beam goes on, nothing is copied.
//
//   llm-opt examples/beam_search.mlir --llm-materialize-cache
//   llm-opt examples/beam_search.mlir --llm-to-cpu

!kv = !llm.paged_kv_cache<1x1x2xf32>
!table = tensor<2x1x2xf32>
!row = tensor<1x1x1x2xf32>

// Appends the beam's last token; the scores of the beam with either next token.
func.func private @extend(%beam: !kv, %token: index, %score: f32, %k: !table,
                          %v: !table, %q: !table) -> (!kv, f32, f32) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %k_row = func.call @row(%k, %token) : (!table, index) -> !row
  %v_row = func.call @row(%v, %token) : (!table, index) -> !row
  %q_row = func.call @row(%q, %token) : (!table, index) -> !row
  %longer = llm.append_kv %beam, %k_row, %v_row : !kv, !row, !row -> !kv
  %o = llm.paged_attention %q_row, %longer : !row, !kv -> !row
  %gain0 = tensor.extract %o[%c0, %c0, %c0, %c0] : !row
  %gain1 = tensor.extract %o[%c0, %c0, %c0, %c1] : !row
  %score0 = arith.addf %score, %gain0 : f32
  %score1 = arith.addf %score, %gain1 : f32
  return %longer, %score0, %score1 : !kv, f32, f32
}

func.func private @row(%table: !table, %token: index) -> !row {
  %row = tensor.extract_slice %table[%token, 0, 0] [1, 1, 2] [1, 1, 1]
      : !table to tensor<1x1x2xf32>
  %padded = tensor.expand_shape %row [[0, 1], [2], [3]] output_shape [1, 1, 1, 2]
      : tensor<1x1x2xf32> into !row
  return %padded : !row
}

// The better of two scores and its token, then the other one.
func.func private @order(%score0: f32, %score1: f32) -> (f32, index, f32, index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %p = arith.cmpf oge, %score0, %score1 : f32
  %best = arith.select %p, %score0, %score1 : f32
  %best_token = arith.select %p, %c0, %c1 : index
  %other = arith.select %p, %score1, %score0 : f32
  %other_token = arith.select %p, %c1, %c0 : index
  return %best, %best_token, %other, %other_token : f32, index, f32, index
}

// The best beam becomes the host's cache.
func.func @beam_search(%prompt: !kv, %k: !table, %v: !table, %q: !table)
    -> (!kv, tensor<2xf32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %steps = arith.constant 16 : index
  %zero = arith.constant 0.0 : f32
  %never = arith.constant 0xFF800000 : f32 // one beam to begin with
  %end:6 = scf.for %i = %c0 to %steps step %c1
      iter_args(%x = %prompt, %y = %prompt, %x_token = %c0, %y_token = %c0,
                %x_score = %zero, %y_score = %never)
      -> (!kv, !kv, index, index, f32, f32) {
    %a, %a0, %a1 = func.call @extend(%x, %x_token, %x_score, %k, %v, %q)
        : (!kv, index, f32, !table, !table, !table) -> (!kv, f32, f32)
    %b, %b0, %b1 = func.call @extend(%y, %y_token, %y_score, %k, %v, %q)
        : (!kv, index, f32, !table, !table, !table) -> (!kv, f32, f32)
    %a_best, %a_token, %a_other, %a_other_token = func.call @order(%a0, %a1)
        : (f32, f32) -> (f32, index, f32, index)
    %b_best, %b_token, %b_other, %b_other_token = func.call @order(%b0, %b1)
        : (f32, f32) -> (f32, index, f32, index)

    // The best candidate, then the best that is left of each beam.
    %first = arith.cmpf oge, %a_best, %b_best : f32
    %x_next = arith.select %first, %a, %b : !kv
    %x_next_score = arith.select %first, %a_best, %b_best : f32
    %x_next_token = arith.select %first, %a_token, %b_token : index
    %a_left = arith.select %first, %a_other, %a_best : f32
    %a_left_token = arith.select %first, %a_other_token, %a_token : index
    %b_left = arith.select %first, %b_best, %b_other : f32
    %b_left_token = arith.select %first, %b_token, %b_other_token : index
    %second = arith.cmpf oge, %a_left, %b_left : f32
    %y_next = arith.select %second, %a, %b : !kv
    %y_next_score = arith.select %second, %a_left, %b_left : f32
    %y_next_token = arith.select %second, %a_left_token, %b_left_token : index
    scf.yield %x_next, %y_next, %x_next_token, %y_next_token, %x_next_score,
              %y_next_score : !kv, !kv, index, index, f32, f32
  }
  %scores = tensor.from_elements %end#4, %end#5 : tensor<2xf32>
  return %end#0, %scores : !kv, tensor<2xf32>
}
