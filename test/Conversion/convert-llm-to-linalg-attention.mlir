// RUN: %llm-opt %s --llm-to-spec | %mlir-runner -e main | FileCheck %s

// With keys of 0 every visible key weighs the same, so attention is a mean.

!kv = !llm.paged_kv_cache<1x1x1xf32, block_size = 2, max_seq_len = 8, max_sequences = 2>
!recent = !llm.paged_kv_cache<1x1x1xf32, block_size = 2, max_seq_len = 8, max_sequences = 2, window = 2>
!sinks = !llm.paged_kv_cache<1x1x1xf32, block_size = 2, max_seq_len = 8, max_sequences = 2, window = 2, sinks = 1>
!heads = !llm.paged_kv_cache<1x2x4xf16, block_size = 2, max_seq_len = 8, max_sequences = 2>
!bf16 = !llm.paged_kv_cache<1x1x1xbf16, block_size = 2, max_seq_len = 8, max_sequences = 2>
!any = !llm.paged_kv_cache
!rows = tensor<1x4x1x1xf32>

func.func private @printMemrefF32(tensor<*xf32>) attributes {llvm.emit_c_interface}
func.func private @printMemrefI32(tensor<*xi32>) attributes {llvm.emit_c_interface}

func.func private @print(%x: !rows) {
  %row = tensor.collapse_shape %x [[0, 1, 2, 3]] : !rows into tensor<4xf32>
  %any = tensor.cast %row : tensor<4xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  return
}

func.func private @print_lse(%x: tensor<1x4x1xf32>) {
  %row = tensor.collapse_shape %x [[0, 1, 2]] : tensor<1x4x1xf32> into tensor<4xf32>
  %any = tensor.cast %row : tensor<4xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  return
}

func.func private @masks() {
  %blocks = arith.constant 8 : index
  %q = arith.constant dense<1.0> : !rows
  %zero = arith.constant dense<0.0> : !rows
  %v = arith.constant dense<[[[[1.0]], [[2.0]], [[3.0]], [[4.0]]]]> : !rows
  %empty = llm.create_kv_cache blocks(%blocks) : !kv
  %c = llm.append_kv %empty, %zero, %v : !kv, !rows, !rows -> !kv

  // CHECK: [1, 1.5, 2, 2.5]
  // CHECK: [0, 0.693147, 1.09861, 1.38629]
  %o, %lse = llm.paged_attention %q, %c : !rows, !kv -> !rows, tensor<1x4x1xf32>
  call @print(%o) : (!rows) -> ()
  call @print_lse(%lse) : (tensor<1x4x1xf32>) -> ()

  // CHECK: [2.5, 2.5, 2.5, 2.5]
  %open = llm.paged_attention %q, %c {causal = false} : !rows, !kv -> !rows
  call @print(%open) : (!rows) -> ()

  // CHECK: [1, 1.5, 2.5, 3.5]
  %narrow = llm.paged_attention %q, %c {window = 2 : i32} : !rows, !kv -> !rows
  call @print(%narrow) : (!rows) -> ()

  // A key may be hidden whatever it holds.
  // CHECK: [1, 1.5, 2, nan]
  %nan = arith.constant dense<[[[[1.0]], [[2.0]], [[3.0]], [[0x7FC00000]]]]> : !rows
  %poisoned = llm.append_kv %empty, %zero, %nan : !kv, !rows, !rows -> !kv
  %seen = llm.paged_attention %q, %poisoned : !rows, !kv -> !rows
  call @print(%seen) : (!rows) -> ()

  // Tokens 3, 4, 1, 2: a table also says where keys stand.
  // CHECK: [3, 3.5, 2.66667, 2.5]
  %order = arith.constant dense<[[1, 0]]> : tensor<1x2xi32>
  %permuted = llm.paged_attention %q, %c blocks(%order : tensor<1x2xi32>) : !rows, !kv -> !rows
  call @print(%permuted) : (!rows) -> ()
  return
}

// The narrower window counts: of the cache, also where the type does not say it.
func.func private @windows() {
  %blocks = arith.constant 8 : index
  %q = arith.constant dense<1.0> : !rows
  %zero = arith.constant dense<0.0> : !rows
  %v = arith.constant dense<[[[[1.0]], [[2.0]], [[3.0]], [[4.0]]]]> : !rows
  %empty = llm.create_kv_cache blocks(%blocks) : !recent
  %c = llm.append_kv %empty, %zero, %v : !recent, !rows, !rows -> !recent
  // CHECK: [1, 1.5, 2.5, 3.5]
  %o = llm.paged_attention %q, %c : !rows, !recent -> !rows
  call @print(%o) : (!rows) -> ()
  // CHECK: [1, 1.5, 2.5, 3.5]
  // CHECK: [1, 2, 3, 4]
  %any = llm.cast_kv %c : !recent -> !any
  %wider = llm.paged_attention %q, %any {window = 3 : i32} : !rows, !any -> !rows
  call @print(%wider) : (!rows) -> ()
  %narrower = llm.paged_attention %q, %any {window = 1 : i32} : !rows, !any -> !rows
  call @print(%narrower) : (!rows) -> ()
  return
}

// The first key stays visible: beside a window of the cache, and a narrower one.
func.func private @sinks() {
  %blocks = arith.constant 8 : index
  %q = arith.constant dense<1.0> : !rows
  %zero = arith.constant dense<0.0> : !rows
  %v = arith.constant dense<[[[[1.0]], [[2.0]], [[3.0]], [[4.0]]]]> : !rows
  %empty = llm.create_kv_cache blocks(%blocks) : !sinks
  %c = llm.append_kv %empty, %zero, %v : !sinks, !rows, !rows -> !sinks
  // CHECK: [1, 1.5, 2, 2.66667]
  %o = llm.paged_attention %q, %c : !rows, !sinks -> !rows
  call @print(%o) : (!rows) -> ()
  // CHECK: [1, 1.5, 2, 2.5]
  %narrower = llm.paged_attention %q, %c {window = 1 : i32} : !rows, !sinks -> !rows
  call @print(%narrower) : (!rows) -> ()

  // With keys of 1 a query of log 3 for the sink triples its weight.
  // CHECK: [1, 1.25, 1.6, 2]
  %one = arith.constant dense<1.0> : !rows
  %log3 = arith.constant dense<1.0986123> : !rows
  %ones = llm.append_kv %empty, %one, %v : !sinks, !rows, !rows -> !sinks
  %nearer = llm.paged_attention %zero, %ones sink_query(%log3 : !rows) : !rows, !sinks -> !rows
  call @print(%nearer) : (!rows) -> ()
  return
}

// A slope of log 2 halves the weight of a key with each position before p, and
// doubles it behind p: the scale and the softcap are none of its.
func.func private @alibi() {
  %blocks = arith.constant 8 : index
  %q = arith.constant dense<1.0> : !rows
  %zero = arith.constant dense<0.0> : !rows
  %v = arith.constant dense<[[[[1.0]], [[2.0]], [[3.0]], [[4.0]]]]> : !rows
  %slope = arith.constant dense<0.6931472> : tensor<1xf32>
  %empty = llm.create_kv_cache blocks(%blocks) : !kv
  %c = llm.append_kv %empty, %zero, %v : !kv, !rows, !rows -> !kv
  // CHECK: [1, 1.66667, 2.42857, 3.26667]
  %o = llm.paged_attention %q, %c alibi(%slope : tensor<1xf32>) {scale = 3.0 : f32, softcap = 0.1 : f32} : !rows, !kv -> !rows
  call @print(%o) : (!rows) -> ()
  // CHECK: [3.26667, 3.26667, 3.26667, 3.26667]
  %open = llm.paged_attention %q, %c alibi(%slope : tensor<1xf32>) {causal = false} : !rows, !kv -> !rows
  call @print(%open) : (!rows) -> ()
  return
}

// A head's logit of log 2 weighs as much as two keys, and has no value. It is all
// that a query has which sees nothing.
func.func private @head_sink() {
  %blocks = arith.constant 8 : index
  %q = arith.constant dense<1.0> : !rows
  %zero = arith.constant dense<0.0> : !rows
  %v = arith.constant dense<[[[[1.0]], [[2.0]], [[3.0]], [[4.0]]]]> : !rows
  %log2 = arith.constant dense<0.6931472> : tensor<1xf32>
  %empty = llm.create_kv_cache blocks(%blocks) : !kv
  %c = llm.append_kv %empty, %zero, %v : !kv, !rows, !rows -> !kv
  // CHECK: [0.333333, 0.75, 1.2, 1.66667]
  // CHECK: [1.09861, 1.38629, 1.60944, 1.79176]
  %o, %lse = llm.paged_attention %q, %c head_sink(%log2 : tensor<1xf32>) {scale = 3.0 : f32, softcap = 0.1 : f32} : !rows, !kv -> !rows, tensor<1x4x1xf32>
  call @print(%o) : (!rows) -> ()
  call @print_lse(%lse) : (tensor<1x4x1xf32>) -> ()

  %ids = arith.constant dense<1> : tensor<1xi32>
  %cu = arith.constant dense<[0, 1]> : tensor<2xi32>
  %row = arith.constant dense<1.0> : tensor<1x1x1xf32>
  %begun, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<1xi32>, tensor<2xi32> -> !kv
  // CHECK: [0]
  // CHECK: [0.693147]
  %none, %no_lse = llm.paged_attention %row, %begun at %step head_sink(%log2 : tensor<1xf32>) : tensor<1x1x1xf32>, !kv -> tensor<1x1x1xf32>, tensor<1x1xf32>
  %flat = tensor.collapse_shape %none [[0, 1, 2]] : tensor<1x1x1xf32> into tensor<1xf32>
  %any = tensor.cast %flat : tensor<1xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  %any_lse = tensor.cast %no_lse : tensor<1x1xf32> to tensor<*xf32>
  call @printMemrefF32(%any_lse) : (tensor<*xf32>) -> ()
  return
}

// Softcap 1 makes scores 0 and 100 to 0 and 1: the second key weighs e / (1 + e).
func.func private @softcap() {
  %blocks = arith.constant 8 : index
  %q = arith.constant dense<1.0> : tensor<1x1x1x1xf32>
  %k = arith.constant dense<[[[[0.0]], [[100.0]]]]> : tensor<1x2x1x1xf32>
  %v = arith.constant dense<[[[[0.0]], [[1.0]]]]> : tensor<1x2x1x1xf32>
  %empty = llm.create_kv_cache blocks(%blocks) : !kv
  %c = llm.append_kv %empty, %k, %v : !kv, tensor<1x2x1x1xf32>, tensor<1x2x1x1xf32> -> !kv
  // CHECK: [0.731059]
  %o = llm.paged_attention %q, %c {softcap = 1.0 : f32} : tensor<1x1x1x1xf32>, !kv -> tensor<1x1x1x1xf32>
  %any = tensor.cast %o : tensor<1x1x1x1xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  return
}

// Query heads 0 and 1 read KV head 0. A score is 4 / sqrt(4) times 1 and -1. A
// query of f16 gives a result of f16.
func.func private @groups() {
  %blocks = arith.constant 8 : index
  %zero = arith.constant 0 : index
  %ids = arith.constant dense<1> : tensor<1xi32>
  %cu = arith.constant dense<[0, 1]> : tensor<2xi32>
  %q = arith.constant dense<1.0> : tensor<1x4x4xf16>
  %k = arith.constant dense<[[[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]]]> : tensor<1x2x4xbf16>
  %v = arith.constant dense<[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]> : tensor<1x2x4xbf16>
  %empty = llm.create_kv_cache blocks(%blocks) : !heads
  %c0, %step = llm.begin_step %empty, %ids, %cu : !heads, tensor<1xi32>, tensor<2xi32> -> !heads
  %at = llm.at_layer %step[%zero]

  // Nothing to see yet.
  // CHECK: [-inf, -inf, -inf, -inf]
  // CHECK: [0, 0, 0, 0]
  // CHECK-NEXT: [0, 0, 0, 0]
  // CHECK-NEXT: [0, 0, 0, 0]
  // CHECK-NEXT: [0, 0, 0, 0]
  %nothing, %no_lse = llm.paged_attention %q, %c0 at %at : tensor<1x4x4xf16>, !heads -> tensor<1x4x4xf16>, tensor<1x4xf32>
  call @print_heads(%nothing, %no_lse) : (tensor<1x4x4xf16>, tensor<1x4xf32>) -> ()

  // CHECK: [2, 2, -2, -2]
  // CHECK: [1, 2, 3, 4]
  // CHECK-NEXT: [1, 2, 3, 4]
  // CHECK-NEXT: [5, 6, 7, 8]
  // CHECK-NEXT: [5, 6, 7, 8]
  %c1 = llm.append_kv %c0, %k, %v at %at : !heads, tensor<1x2x4xbf16>, tensor<1x2x4xbf16> -> !heads
  %o, %lse = llm.paged_attention %q, %c1 at %at : tensor<1x4x4xf16>, !heads -> tensor<1x4x4xf16>, tensor<1x4xf32>
  call @print_heads(%o, %lse) : (tensor<1x4x4xf16>, tensor<1x4xf32>) -> ()
  return
}

func.func private @print_heads(%o: tensor<1x4x4xf16>, %lse: tensor<1x4xf32>) {
  %any_lse = tensor.cast %lse : tensor<1x4xf32> to tensor<*xf32>
  call @printMemrefF32(%any_lse) : (tensor<*xf32>) -> ()
  %empty = tensor.empty() : tensor<1x4x4xf32>
  %wide = linalg.generic {
      indexing_maps = [affine_map<(a, b, c) -> (a, b, c)>, affine_map<(a, b, c) -> (a, b, c)>],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%o : tensor<1x4x4xf16>) outs(%empty : tensor<1x4x4xf32>) {
  ^bb0(%from: f16, %unused: f32):
    %to = arith.extf %from : f16 to f32
    linalg.yield %to : f32
  } -> tensor<1x4x4xf32>
  %any = tensor.cast %wide : tensor<1x4x4xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  return
}

// Rounding to nearest even: 1 + 1/256 and 1 + 3/256 are ties. A subnormal, inf
// and NaN are kept.
func.func private @rounding() {
  %blocks = arith.constant 8 : index
  %k = arith.constant dense<[[[[1.00390625]], [[1.01171875]], [[0x00012345]], [[0x00018000]], [[0x7F800000]], [[0x7F800001]]]]> : tensor<1x6x1x1xf32>
  %empty = llm.create_kv_cache blocks(%blocks) : !bf16
  %c = llm.append_kv %empty, %k, %k : !bf16, tensor<1x6x1x1xf32>, tensor<1x6x1x1xf32> -> !bf16
  %o, %unused = llm.lookup_kv %c : !bf16 -> tensor<1x6x1x1xbf16>, tensor<1x6x1x1xbf16>
  %none = tensor.empty() : tensor<1x6x1x1xi32>
  %bits = linalg.generic {
      indexing_maps = [affine_map<(a, b, c, d) -> (a, b, c, d)>, affine_map<(a, b, c, d) -> (a, b, c, d)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%o : tensor<1x6x1x1xbf16>) outs(%none : tensor<1x6x1x1xi32>) {
  ^bb0(%x: bf16, %unused_bits: i32):
    %short = arith.bitcast %x : bf16 to i16
    %to = arith.extui %short : i16 to i32
    linalg.yield %to : i32
  } -> tensor<1x6x1x1xi32>
  // 0x3F80, 0x3F82, 0x0001, 0x0002, 0x7F80, 0x7FC0
  // CHECK: [16256, 16258, 1, 2, 32640, 32704]
  %row = tensor.collapse_shape %bits [[0, 1, 2, 3]] : tensor<1x6x1x1xi32> into tensor<6xi32>
  %any = tensor.cast %row : tensor<6xi32> to tensor<*xi32>
  call @printMemrefI32(%any) : (tensor<*xi32>) -> ()
  return
}

func.func @main() {
  call @masks() : () -> ()
  call @windows() : () -> ()
  call @sinks() : () -> ()
  call @alibi() : () -> ()
  call @head_sink() : () -> ()
  call @softcap() : () -> ()
  call @groups() : () -> ()
  call @rounding() : () -> ()
  return
}
