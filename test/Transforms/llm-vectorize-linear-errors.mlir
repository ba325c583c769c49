// RUN: %llm-opt %s --pass-pipeline='builtin.module(func.func(llm-vectorize-linear))' --split-input-file --verify-diagnostics

#line = affine_map<(m, k) -> (m, k)>
func.func @copy(%x: tensor<4x64xf32>, %init: tensor<4x64xf32>) -> tensor<4x64xf32> {
  // expected-error @+1 {{expected 'llm.linear' only on a product of [M, K] and static panels [P, K, 32]}}
  %y = linalg.generic {indexing_maps = [#line, #line], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<4x64xf32>) outs(%init : tensor<4x64xf32>) attrs = {llm.linear} {
  ^bb0(%a: f32, %c: f32):
    linalg.yield %a : f32
  } -> tensor<4x64xf32>
  return %y : tensor<4x64xf32>
}

// -----

#x = affine_map<(m, p, k, n) -> (m, k)>
#w = affine_map<(m, p, k, n) -> (p, k, n)>
#y = affine_map<(m, p, k, n) -> (m, p, n)>
func.func @dynamic_panels(%x: tensor<?x64xf32>, %w: tensor<3x64x?xf32>, %init: tensor<?x3x?xf32>) -> tensor<?x3x?xf32> {
  // expected-error @+1 {{expected 'llm.linear' only on a product of [M, K] and static panels [P, K, 32]}}
  %y = linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "reduction", "parallel"]}
      ins(%x, %w : tensor<?x64xf32>, tensor<3x64x?xf32>) outs(%init : tensor<?x3x?xf32>) attrs = {llm.linear} {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %product = arith.mulf %a, %b : f32
    %sum = arith.addf %c, %product : f32
    linalg.yield %sum : f32
  } -> tensor<?x3x?xf32>
  return %y : tensor<?x3x?xf32>
}

// -----

#x = affine_map<(m, p, k, n) -> (m, k)>
#w = affine_map<(m, p, k, n) -> (p, k, n)>
#y = affine_map<(m, p, k, n) -> (m, p, n)>
func.func @buffers(%x: memref<?x64xf32>, %w: memref<3x64x32xf32>, %init: memref<?x3x32xf32>) {
  // expected-error @+1 {{expected 'llm.linear' only on a product of [M, K] and static panels [P, K, 32]}}
  linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "reduction", "parallel"]}
      ins(%x, %w : memref<?x64xf32>, memref<3x64x32xf32>) outs(%init : memref<?x3x32xf32>) attrs = {llm.linear} {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %product = arith.mulf %a, %b : f32
    %sum = arith.addf %c, %product : f32
    linalg.yield %sum : f32
  }
  return
}

// -----

#x = affine_map<(m, p, k, n) -> (m, k)>
#w = affine_map<(m, p, k, n) -> (p, k, n)>
#y = affine_map<(m, p, k, n) -> (m, p, n)>
func.func private @add(f32, f32) -> f32
func.func @call(%x: tensor<?x64xf32>, %w: tensor<3x64x32xf32>, %init: tensor<?x3x32xf32>) -> tensor<?x3x32xf32> {
  // expected-error @+1 {{the product marked 'llm.linear' could not be vectorized}}
  %y = linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "reduction", "parallel"]}
      ins(%x, %w : tensor<?x64xf32>, tensor<3x64x32xf32>) outs(%init : tensor<?x3x32xf32>) attrs = {llm.linear} {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %product = arith.mulf %a, %b : f32
    %sum = func.call @add(%c, %product) : (f32, f32) -> f32
    linalg.yield %sum : f32
  } -> tensor<?x3x32xf32>
  return %y : tensor<?x3x32xf32>
}
