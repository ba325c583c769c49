// RUN: %llm-opt %s --llm-to-spec | %mlir-runner -e main | FileCheck %s

// What is read of quantized rows of 6 numbers, one for each head and token.

!kv = !llm.paged_kv_cache<1x1x6xf32, block_size = 2, max_seq_len = 16, max_sequences = 1, storage = #llm.kv_storage<k = i8, v = f8E4M3FN>>
!rows = tensor<1x8x1x6xf32>

func.func private @printMemrefF32(tensor<*xf32>) attributes {llvm.emit_c_interface}

func.func private @show(%x: !rows) {
  %rows = tensor.collapse_shape %x [[0, 1, 2], [3]] : !rows into tensor<8x6xf32>
  %any = tensor.cast %rows : tensor<8x6xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  return
}

func.func @main() {
  %blocks = arith.constant 8 : index
  %c = llm.create_kv_cache blocks(%blocks) : !kv

  // The largest is 127 or 448 times a power of two: so are the scales. Halves
  // are rounded to even; a scale may be too small to be a number, or all that
  // a row has left.
  %k = arith.constant dense<[[
    [[127.0, 0.5, 1.5, -2.5, 2.51, -0.2]],
    [[-31.75, 0.125, 0.375, 0.376, -0.374, 31.6]],
    [[0.0, -0.0, 0.0, 0.0, 0.0, 0.0]],
    [[1.0, 2.0, 3.0, 4.0, 0x7F800000, 5.0]],
    [[1.0, 2.0, 0x7FC00000, 4.0, 6.0, 5.0]],
    [[0x00000001, 0x00000010, 0.0, 0.0, 0.0, 0.0]],
    [[0x000000BE, 0x80000001, 0.0, 0.0, 0.0, 0.0]],
    [[254.0, 2.0, 1.0, 3.0, -5.0, 7.0]]]]> : !rows
  %v = arith.constant dense<[[
    [[448.0, 17.0, 19.0, -21.0, 433.0, 431.0]],
    [[-0.4375, 0.0000009, 0.0000015, -0.0000011, 0.0, -0.0]],
    [[0.0, -0.0, 0.0, 0.0, 0.0, 0.0]],
    [[1.0, 2.0, 3.0, 4.0, 0xFF800000, 5.0]],
    [[1.0, 2.0, 0xFFC00001, 4.0, 6.0, 5.0]],
    [[0x00000001, 0x00000010, 0.0, 0.0, 0.0, 0.0]],
    [[0x0000029F, 0x80000001, 0x00000011, 0.0, 0.0, 0.0]],
    [[896.0, 34.0, 1.0, 3.0, -5.0, 7.0]]]]> : !rows
  %c1 = llm.append_kv %c, %k, %v : !kv, !rows, !rows -> !kv
  %k1, %v1 = llm.lookup_kv %c1 : !kv -> !rows, !rows
  // CHECK: [127, 0, 2, -2, 3, 0]
  // CHECK-NEXT: [-31.75, 0, 0.5, 0.5, -0.25, 31.5]
  // CHECK-NEXT: [0, 0, 0, 0, 0, 0]
  // CHECK-NEXT: [{{-?nan, -?nan, -?nan, -?nan, -?nan, -?nan}}]
  // CHECK-NEXT: [{{-?nan, -?nan, -?nan, -?nan, -?nan, -?nan}}]
  // CHECK-NEXT: [0, 0, 0, 0, 0, 0]
  // CHECK-NEXT: [1.77965e-43, -1.4013e-45, 0, 0, 0, 0]
  // CHECK-NEXT: [254, 2, 0, 4, -4, 8]
  call @show(%k1) : (!rows) -> ()
  // CHECK: [448, 16, 20, -20, 448, 416]
  // CHECK-NEXT: [-0.4375, 0, 1.90735e-06, -1.90735e-06, 0, -0]
  // CHECK-NEXT: [0, 0, 0, 0, 0, 0]
  // CHECK-NEXT: [{{-?nan, -?nan, -?nan, -?nan, -?nan, -?nan}}]
  // CHECK-NEXT: [{{-?nan, -?nan, -?nan, -?nan, -?nan, -?nan}}]
  // CHECK-NEXT: [0, 0, 0, 0, 0, 0]
  // CHECK-NEXT: [6.27782e-43, -1.4013e-45, 2.24208e-44, 0, 0, 0]
  // CHECK-NEXT: [896, 32, 1, 3, -5, 7]
  call @show(%v1) : (!rows) -> ()
  llm.drop_kv %c1 : !kv
  return
}
