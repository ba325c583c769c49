// RUN: %llm-opt %s --llm-to-spec | %mlir-runner -e main | FileCheck %s

// A step of two sequences at two layers, over f16: the values are worked out by
// hand.

!kv = !llm.paged_kv_cache<2x1x2xf16, block_size = 2, max_seq_len = 8, max_sequences = 3>
!ids = tensor<2xi32>
!rows = tensor<4x1x2xf32>

func.func private @printMemrefF32(tensor<*xf32>) attributes {llvm.emit_c_interface}
func.func private @printMemrefI32(tensor<*xi32>) attributes {llvm.emit_c_interface}

func.func private @print_f16(%x: tensor<2x4x1x2xf16>) {
  %empty = tensor.empty() : tensor<2x4x1x2xf32>
  %wide = linalg.generic {
      indexing_maps = [affine_map<(a, b, c, d) -> (a, b, c, d)>,
                       affine_map<(a, b, c, d) -> (a, b, c, d)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%x : tensor<2x4x1x2xf16>) outs(%empty : tensor<2x4x1x2xf32>) {
  ^bb0(%from: f16, %unused: f32):
    %to = arith.extf %from : f16 to f32
    linalg.yield %to : f32
  } -> tensor<2x4x1x2xf32>
  %any = tensor.cast %wide : tensor<2x4x1x2xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  return
}

func.func private @lengths(%c: !kv) {
  %ids = arith.constant dense<[2, 0]> : !ids
  %lengths = llm.seq_lens %c, %ids : !kv, !ids -> !ids
  %any = tensor.cast %lengths : !ids to tensor<*xi32>
  call @printMemrefI32(%any) : (tensor<*xi32>) -> ()
  return
}

func.func @main() {
  %blocks = arith.constant 16 : index
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %ids = arith.constant dense<[2, 0]> : !ids
  %cu = arith.constant dense<[0, 3, 4]> : tensor<3xi32>
  %k = arith.constant dense<[[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]], [[7.0, 8.001]]]> : !rows
  %v = arith.constant dense<[[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]], [[2.0, 3.0]]]> : !rows
  %c = llm.create_kv_cache blocks(%blocks) : !kv
  %c0, %step = llm.begin_step %c, %ids, %cu : !kv, !ids, tensor<3xi32> -> !kv

  // CHECK: sizes = [4]
  // CHECK-NEXT: [0, 1, 2, 0]
  %positions = llm.positions %step : tensor<?xi32>
  %any_positions = tensor.cast %positions : tensor<?xi32> to tensor<*xi32>
  call @printMemrefI32(%any_positions) : (tensor<*xi32>) -> ()

  %at0 = llm.at_layer %step[%zero]
  %at1 = llm.at_layer %step[%one]
  %c1 = llm.append_kv %c0, %k, %v at %at0 : !kv, !rows, !rows -> !kv
  %c2 = llm.append_kv %c1, %v, %k at %at1 : !kv, !rows, !rows -> !kv

  // The first min(4, length) tokens of each row, rounded, then zeros.
  // CHECK: sizes = [2, 4, 1, 2]
  // CHECK-NEXT: [1, 2]
  // CHECK-NEXT: [3, 4]
  // CHECK-NEXT: [5, 6]
  // CHECK-NEXT: [0, 0]
  // CHECK-NEXT: [7, 8]
  // CHECK-NEXT: [0, 0]
  // CHECK-NEXT: [0, 0]
  // CHECK-NEXT: [0, 0]
  %dk, %dv = llm.lookup_kv %c2 at %at0 : !kv -> tensor<2x4x1x2xf16>, tensor<2x4x1x2xf16>
  call @print_f16(%dk) : (tensor<2x4x1x2xf16>) -> ()

  // Scores of the first sequence are 1.5, 3.5 and 5.5: its second token weighs
  // 1 / (1 + e^2) and e^2 / (1 + e^2).
  // CHECK: sizes = [4, 2, 2]
  // CHECK-NEXT: [1, 0]
  // CHECK-NEXT: [1, 0]
  // CHECK-NEXT: [0.119203, 0.880797]
  // CHECK-NEXT: [0.119203, 0.880797]
  // CHECK-NEXT: [0.88269, 0.984124]
  // CHECK-NEXT: [0.88269, 0.984124]
  // CHECK-NEXT: [2, 3]
  // CHECK-NEXT: [2, 3]
  // CHECK: sizes = [4, 2]
  // CHECK-NEXT: [1.5, 1.5]
  // CHECK-NEXT: [3.62693, 3.62693]
  // CHECK-NEXT: [5.64293, 5.64293]
  // CHECK-NEXT: [7.5, 7.5]
  %q = arith.constant dense<1.0> : tensor<4x2x2xf32>
  %o, %lse = llm.paged_attention %q, %c2 at %at0 {scale = 0.5 : f32}
      : tensor<4x2x2xf32>, !kv -> tensor<4x2x2xf32>, tensor<4x2xf32>
  %any_o = tensor.cast %o : tensor<4x2x2xf32> to tensor<*xf32>
  call @printMemrefF32(%any_o) : (tensor<*xf32>) -> ()
  %any_lse = tensor.cast %lse : tensor<4x2xf32> to tensor<*xf32>
  call @printMemrefF32(%any_lse) : (tensor<*xf32>) -> ()

  // An old version is as it was.
  // CHECK: [3, 1]
  // CHECK: [0, 0]
  call @lengths(%c2) : (!kv) -> ()
  call @lengths(%c0) : (!kv) -> ()

  // In the next step each sequence goes on where it ended.
  // CHECK: sizes = [3]
  // CHECK-NEXT: [3, 1, 2]
  %next_cu = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
  %c3, %next = llm.begin_step %c2, %ids, %next_cu : !kv, !ids, tensor<3xi32> -> !kv
  %next_positions = llm.positions %next : tensor<?xi32>
  %any_next = tensor.cast %next_positions : tensor<?xi32> to tensor<*xi32>
  call @printMemrefI32(%any_next) : (tensor<*xi32>) -> ()
  return
}
