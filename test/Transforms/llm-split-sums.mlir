// RUN: %llm-opt %s --llm-split-sums | FileCheck %s

#row = affine_map<(i, j) -> (i, j)>
#sum = affine_map<(i, j) -> (i)>
#column = affine_map<(i, j) -> (j, i)>

// CHECK-DAG: #[[LANES:.*]] = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
// CHECK-DAG: #[[SUMS:.*]] = affine_map<(d0, d1, d2) -> (d0, d2)>

// CHECK-LABEL: func @squares
// CHECK-SAME: (%[[X:.*]]: tensor<?x64xf32>, %[[INIT:.*]]: tensor<?xf32>)
// CHECK-DAG: %[[ZERO:.*]] = arith.constant 0.000000e+00 : f32
// CHECK-DAG: %[[ROWS:.*]] = tensor.dim %[[INIT]]
// CHECK-DAG: %[[EMPTY:.*]] = tensor.empty(%[[ROWS]]) : tensor<?x16xf32>
// CHECK-DAG: %[[ZEROS:.*]] = linalg.fill ins(%[[ZERO]] : f32) outs(%[[EMPTY]] : tensor<?x16xf32>)
// CHECK-DAG: %[[EXPANDED:.*]] = tensor.expand_shape %[[X]] {{\[\[}}0], [1, 2]] output_shape [%{{.*}}, 4, 16]
// CHECK: %[[LANE_SUMS:.*]] = linalg.generic {indexing_maps = [#[[LANES]], #[[SUMS]]], iterator_types = ["parallel", "reduction", "parallel"]} ins(%[[EXPANDED]] : {{.*}}) outs(%[[ZEROS]] :
// CHECK: %[[SQUARE:.*]] = arith.mulf
// CHECK: arith.addf %{{.*}}, %[[SQUARE]]
// CHECK: linalg.generic {{.*}}iterator_types = ["parallel", "reduction"]} ins(%[[LANE_SUMS]] : tensor<?x16xf32>) outs(%[[INIT]] : tensor<?xf32>)
// CHECK-NOT: arith.mulf
func.func @squares(%x: tensor<?x64xf32>, %init: tensor<?xf32>) -> tensor<?xf32> {
  %r = linalg.generic {indexing_maps = [#row, #sum], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<?x64xf32>) outs(%init : tensor<?xf32>) {
  ^bb0(%a: f32, %s: f32):
    %square = arith.mulf %a, %a : f32
    %next = arith.addf %s, %square : f32
    linalg.yield %next : f32
  } -> tensor<?xf32>
  return %r : tensor<?xf32>
}

// The sum of the lanes is not split again, nor is a row that leaves some over.

// CHECK-LABEL: func @lanes
// CHECK-COUNT-1: linalg.generic
// CHECK-NOT: linalg.generic
func.func @lanes(%x: tensor<?x16xf32>, %init: tensor<?xf32>) -> tensor<?xf32> {
  %r = linalg.generic {indexing_maps = [#row, #sum], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<?x16xf32>) outs(%init : tensor<?xf32>) {
  ^bb0(%a: f32, %s: f32):
    %next = arith.addf %s, %a : f32
    linalg.yield %next : f32
  } -> tensor<?xf32>
  return %r : tensor<?xf32>
}

// CHECK-LABEL: func @odd
// CHECK-COUNT-1: linalg.generic
// CHECK-NOT: linalg.generic
func.func @odd(%x: tensor<?x72xf32>, %init: tensor<?xf32>) -> tensor<?xf32> {
  %r = linalg.generic {indexing_maps = [#row, #sum], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<?x72xf32>) outs(%init : tensor<?xf32>) {
  ^bb0(%a: f32, %s: f32):
    %next = arith.addf %s, %a : f32
    linalg.yield %next : f32
  } -> tensor<?xf32>
  return %r : tensor<?xf32>
}

// Only sums: what the order of changes more than the last bits stays as it is.

// CHECK-LABEL: func @horner
// CHECK-COUNT-1: linalg.generic
// CHECK-NOT: linalg.generic
func.func @horner(%x: tensor<?x64xf32>, %init: tensor<?xf32>) -> tensor<?xf32> {
  %r = linalg.generic {indexing_maps = [#row, #sum], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<?x64xf32>) outs(%init : tensor<?xf32>) {
  ^bb0(%a: f32, %s: f32):
    %scaled = arith.mulf %s, %a : f32
    %next = arith.addf %s, %scaled : f32
    linalg.yield %next : f32
  } -> tensor<?xf32>
  return %r : tensor<?xf32>
}

// CHECK-LABEL: func @columns
// CHECK-COUNT-1: linalg.generic
// CHECK-NOT: linalg.generic
func.func @columns(%x: tensor<64x?xf32>, %init: tensor<?xf32>) -> tensor<?xf32> {
  %r = linalg.generic {indexing_maps = [#column, #sum], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<64x?xf32>) outs(%init : tensor<?xf32>) {
  ^bb0(%a: f32, %s: f32):
    %next = arith.addf %s, %a : f32
    linalg.yield %next : f32
  } -> tensor<?xf32>
  return %r : tensor<?xf32>
}
