// RUN: %llm-opt %s --llm-to-spec | %mlir-runner -e main | FileCheck %s

// Versions and sequences of a cache of one layer. Token n is n, of K and of V.

!kv = !llm.paged_kv_cache<1x1x1xf32, block_size = 2, max_seq_len = 8, max_sequences = 4>
!one = tensor<1xi32>
!two = tensor<2xi32>

func.func private @printMemrefF32(tensor<*xf32>) attributes {llvm.emit_c_interface}
func.func private @printMemrefI32(tensor<*xi32>) attributes {llvm.emit_c_interface}

// Prints what sequences 0 to 3 hold.
func.func private @show(%c: !kv) {
  %ids = arith.constant dense<[0, 1, 2, 3]> : tensor<4xi32>
  %lengths = llm.seq_lens %c, %ids : !kv, tensor<4xi32> -> tensor<4xi32>
  %any = tensor.cast %lengths : tensor<4xi32> to tensor<*xi32>
  call @printMemrefI32(%any) : (tensor<*xi32>) -> ()
  %k, %v = llm.lookup_kv %c : !kv -> tensor<4x4x1x1xf32>, tensor<4x4x1x1xf32>
  %rows = tensor.collapse_shape %k [[0], [1, 2, 3]] : tensor<4x4x1x1xf32> into tensor<4x4xf32>
  %any_rows = tensor.cast %rows : tensor<4x4xf32> to tensor<*xf32>
  call @printMemrefF32(%any_rows) : (tensor<*xf32>) -> ()
  return
}

// Appends one token to sequence `id`.
func.func private @add(%c: !kv, %id: i32, %x: f32) -> !kv {
  %ids = tensor.from_elements %id : !one
  %cu = arith.constant dense<[0, 1]> : !two
  %k = tensor.from_elements %x : tensor<1x1x1xf32>
  %c0, %step = llm.begin_step %c, %ids, %cu : !kv, !one, !two -> !kv
  %c1 = llm.append_kv %c0, %k, %k at %step : !kv, tensor<1x1x1xf32>, tensor<1x1x1xf32> -> !kv
  return %c1 : !kv
}

func.func @main() {
  %blocks = arith.constant 32 : index
  %id0 = arith.constant dense<0> : !one
  %id1 = arith.constant dense<1> : !one
  %i0 = arith.constant 0 : i32
  %i1 = arith.constant 1 : i32
  %f9 = arith.constant 9.0 : f32
  %f8 = arith.constant 8.0 : f32
  %c = llm.create_kv_cache blocks(%blocks) : !kv

  // Without a step row i is sequence i.
  // CHECK: [3, 3, 0, 0]
  // CHECK: [1, 2, 3, 0]
  // CHECK-NEXT: [4, 5, 6, 0]
  // CHECK-NEXT: [0, 0, 0, 0]
  // CHECK-NEXT: [0, 0, 0, 0]
  %k = arith.constant dense<[[[[1.0]], [[2.0]], [[3.0]]], [[[4.0]], [[5.0]], [[6.0]]]]> : tensor<2x3x1x1xf32>
  %c1 = llm.append_kv %c, %k, %k : !kv, tensor<2x3x1x1xf32>, tensor<2x3x1x1xf32> -> !kv
  call @show(%c1) : (!kv) -> ()

  // Two futures of one version, which stays as it is.
  // CHECK: [4, 3, 0, 0]
  // CHECK: [1, 2, 3, 9]
  // CHECK: [4, 3, 0, 0]
  // CHECK: [1, 2, 3, 8]
  // CHECK: [3, 3, 0, 0]
  // CHECK: [1, 2, 3, 0]
  %a = call @add(%c1, %i0, %f9) : (!kv, i32, f32) -> !kv
  %b = call @add(%c1, %i0, %f8) : (!kv, i32, f32) -> !kv
  %copy = llm.snapshot_kv %c1 : !kv
  call @show(%a) : (!kv) -> ()
  call @show(%b) : (!kv) -> ()
  call @show(%copy) : (!kv) -> ()

  // Children share what their parents hold, and go on alone.
  // CHECK: [3, 3, 2, 3]
  // CHECK: [1, 2, 3, 0]
  // CHECK-NEXT: [4, 5, 6, 0]
  // CHECK-NEXT: [1, 2, 0, 0]
  // CHECK-NEXT: [4, 5, 6, 0]
  // CHECK: [3, 4, 2, 3]
  // CHECK: [1, 2, 3, 0]
  // CHECK-NEXT: [4, 5, 6, 9]
  // CHECK-NEXT: [1, 2, 0, 0]
  // CHECK-NEXT: [4, 5, 6, 0]
  %parents = arith.constant dense<[0, 1]> : !two
  %children = arith.constant dense<[2, 3]> : !two
  %lengths = arith.constant dense<[2, 3]> : !two
  %d = llm.fork_kv %c1, %parents, %children, %lengths : !kv, !two, !two, !two -> !kv
  call @show(%d) : (!kv) -> ()
  %e = call @add(%d, %i1, %f9) : (!kv, i32, f32) -> !kv
  call @show(%e) : (!kv) -> ()

  // What is cut is gone; the next token takes its place.
  // CHECK: [1, 4, 2, 3]
  // CHECK: [1, 0, 0, 0]
  // CHECK: [2, 4, 2, 3]
  // CHECK: [1, 8, 0, 0]
  %cut = arith.constant dense<[1, 4]> : !two
  %f = llm.trim_kv %e, %parents, %cut : !kv, !two, !two -> !kv
  call @show(%f) : (!kv) -> ()
  %g = call @add(%f, %i0, %f8) : (!kv, i32, f32) -> !kv
  call @show(%g) : (!kv) -> ()

  // A released sequence is empty, and releasing it again is allowed.
  // CHECK: [2, 1, 2, 0]
  // CHECK: [1, 8, 0, 0]
  // CHECK-NEXT: [9, 0, 0, 0]
  // CHECK-NEXT: [1, 2, 0, 0]
  // CHECK-NEXT: [0, 0, 0, 0]
  %twice = arith.constant dense<[1, 3, 1]> : tensor<3xi32>
  %h = llm.release_kv %g, %twice : !kv, tensor<3xi32> -> !kv
  %i = call @add(%h, %i1, %f9) : (!kv, i32, f32) -> !kv
  call @show(%i) : (!kv) -> ()

  // Sequence s owns blocks 4 s to 4 s + 3.
  // CHECK: sizes = [2, 2]
  // CHECK-NEXT: [0, 1]
  // CHECK-NEXT: [4, -1]
  // CHECK: sizes = [2, 3]
  // CHECK-NEXT: [0, 1, -1]
  // CHECK-NEXT: [4, 5, -1]
  %j = llm.release_kv %c1, %id1 : !kv, !one -> !kv
  %l = call @add(%j, %i1, %f9) : (!kv, i32, f32) -> !kv
  %table = llm.block_table %l, %parents : !kv, !two -> tensor<?x?xi32>
  %any_table = tensor.cast %table : tensor<?x?xi32> to tensor<*xi32>
  call @printMemrefI32(%any_table) : (tensor<*xi32>) -> ()
  %wide = llm.block_table %c1, %parents : !kv, !two -> tensor<2x3xi32>
  %any_wide = tensor.cast %wide : tensor<2x3xi32> to tensor<*xi32>
  call @printMemrefI32(%any_wide) : (tensor<*xi32>) -> ()

  // A permuted table permutes what is read: tokens 3, then 1 and 2.
  // CHECK: sizes = [1, 4, 1, 1]
  // CHECK-NEXT: [3]
  // CHECK: [9]
  // CHECK: [1]
  // CHECK: [2]
  %four = call @add(%c1, %i0, %f9) : (!kv, i32, f32) -> !kv
  %order = arith.constant dense<[[1, 0]]> : tensor<1x2xi32>
  %pk, %pv = llm.lookup_kv %four blocks(%order : tensor<1x2xi32>) : !kv -> tensor<1x4x1x1xf32>, tensor<1x4x1x1xf32>
  %any_pk = tensor.cast %pk : tensor<1x4x1x1xf32> to tensor<*xf32>
  call @printMemrefF32(%any_pk) : (tensor<*xf32>) -> ()
  return
}
