// RUN: %llm-opt %s --llm-to-spec | %mlir-runner -e main | FileCheck %s

// What is read of groups of 4 bits: K in groups of 32 tokens, V in groups of 32
// channels, of which there are 3 here.

!kv = !llm.paged_kv_cache<1x1x3xf32, block_size = 32, max_seq_len = 96, max_sequences = 1, storage = #llm.kv_storage<k = i4, v = i4>>
!rows = tensor<1x64x1x3xf32>

func.func private @printMemrefF32(tensor<*xf32>) attributes {llvm.emit_c_interface}

// Tokens 31 to 34, and 63.
func.func private @show(%x: !rows) {
  %group = tensor.extract_slice %x[0, 31, 0, 0] [1, 4, 1, 3] [1, 1, 1, 1] : !rows to tensor<4x3xf32>
  %any = tensor.cast %group : tensor<4x3xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  %last = tensor.extract_slice %x[0, 63, 0, 0] [1, 1, 1, 3] [1, 1, 1, 1] : !rows to tensor<1x3xf32>
  %any_last = tensor.cast %last : tensor<1x3xf32> to tensor<*xf32>
  call @printMemrefF32(%any_last) : (tensor<*xf32>) -> ()
  return
}

func.func @main() {
  %blocks = arith.constant 3 : index
  %c = llm.create_kv_cache blocks(%blocks) : !kv

  // Token t of K is (t, -1000 - t / 4, 1 but for one infinity), of V (t, 0, 1).
  %x = tensor.generate {
  ^bb0(%b: index, %t: index, %h: index, %d: index):
    %i = arith.index_cast %t : index to i32
    %token = arith.sitofp %i : i32 to f32
    %quarter = arith.constant -0.25 : f32
    %offset = arith.constant -1000.0 : f32
    %part = arith.mulf %token, %quarter : f32
    %outlier = arith.addf %part, %offset : f32
    %fifty = arith.constant 50 : index
    %is_fifty = arith.cmpi eq, %t, %fifty : index
    %infinity = arith.constant 0x7F800000 : f32
    %one = arith.constant 1.0 : f32
    %rare = arith.select %is_fifty, %infinity, %one : f32
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %is_first = arith.cmpi eq, %d, %c0 : index
    %is_second = arith.cmpi eq, %d, %c1 : index
    %other = arith.select %is_second, %outlier, %rare : f32
    %value = arith.select %is_first, %token, %other : f32
    tensor.yield %value : f32
  } : !rows
  %y = tensor.generate {
  ^bb0(%b: index, %t: index, %h: index, %d: index):
    %i = arith.index_cast %t : index to i32
    %token = arith.sitofp %i : i32 to f32
    %zero = arith.constant 0.0 : f32
    %one = arith.constant 1.0 : f32
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %is_first = arith.cmpi eq, %d, %c0 : index
    %is_second = arith.cmpi eq, %d, %c1 : index
    %other = arith.select %is_second, %zero, %one : f32
    %value = arith.select %is_first, %token, %other : f32
    tensor.yield %value : f32
  } : !rows
  %c1 = llm.append_kv %c, %x, %y : !kv, !rows, !rows -> !kv
  %k1, %v1 = llm.lookup_kv %c1 : !kv -> !rows, !rows
  // CHECK: [31, -1007.75, 1]
  // CHECK-NEXT: [32, -1007.97, {{-?nan}}]
  // CHECK-NEXT: [32, -1008.51, {{-?nan}}]
  // CHECK-NEXT: [34.0781, -1008.51, {{-?nan}}]
  // CHECK: [63.1719, -1016, {{-?nan}}]
  call @show(%k1) : (!rows) -> ()
  // CHECK: [31.1719, 0, 0]
  // CHECK-NEXT: [32.1094, 0, 0]
  // CHECK-NEXT: [33.0469, 0, 0]
  // CHECK-NEXT: [34.2188, 0, 0]
  // CHECK: [63.2812, 0, 0]
  call @show(%v1) : (!rows) -> ()

  // Tokens 32 to 39 keep what they read as, and are quantized again with others
  // when the group is complete.
  %id = arith.constant dense<0> : tensor<1xi32>
  %length = arith.constant dense<40> : tensor<1xi32>
  %c2 = llm.trim_kv %c1, %id, %length : !kv, tensor<1xi32>, tensor<1xi32> -> !kv
  %few = arith.constant dense<7.0> : tensor<1x1x1x3xf32>
  %c3 = llm.append_kv %c2, %few, %few : !kv, tensor<1x1x1x3xf32>, tensor<1x1x1x3xf32> -> !kv
  %k3, %v3 = llm.lookup_kv %c3 : !kv -> !rows, !rows
  // CHECK: [31, -1007.75, 1]
  // CHECK-NEXT: [32, -1007.97, {{-?nan}}]
  // CHECK-NEXT: [32, -1008.51, {{-?nan}}]
  // CHECK-NEXT: [34.0781, -1008.51, {{-?nan}}]
  // CHECK: [0, 0, 0]
  call @show(%k3) : (!rows) -> ()
  %most = arith.constant dense<100.0> : tensor<1x23x1x3xf32>
  %c4 = llm.append_kv %c3, %most, %most : !kv, tensor<1x23x1x3xf32>, tensor<1x23x1x3xf32> -> !kv
  %k4, %v4 = llm.lookup_kv %c4 : !kv -> !rows, !rows
  // CHECK: [31, -1007.75, 1]
  // CHECK-NEXT: [31.875, -1012, {{-?nan}}]
  // CHECK-NEXT: [31.875, -1012, {{-?nan}}]
  // CHECK-NEXT: [31.875, -1012, {{-?nan}}]
  // CHECK: [100.281, 105.5, {{-?nan}}]
  call @show(%k4) : (!rows) -> ()
  llm.drop_kv %c4 : !kv
  return
}
