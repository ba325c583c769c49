// RUN: %llm-opt %s --llm-decompose-rope --split-input-file | FileCheck %s

// Halves pair up: lane i of the first half with lane i of the second.

// CHECK-LABEL: @half
// CHECK-SAME: %[[X:.*]]: tensor<?x3x4xf32>, %[[POSITIONS:.*]]: tensor<?xi32>
func.func private @half(%x: tensor<?x3x4xf32>, %pos: tensor<?xi32>) -> tensor<?x3x4xf32> {
  // CHECK-DAG: %[[FREQUENCIES:.*]] = arith.constant dense<[1.000000e+00, 0.00999999977{{.*}}]> : tensor<2xf32>
  // CHECK: %[[ANGLES:.*]]:2 = linalg.generic {{.*}} ins(%[[POSITIONS]], %[[FREQUENCIES]]
  // CHECK: math.cos
  // CHECK: math.sin
  // CHECK: %[[PAIRS:.*]] = tensor.expand_shape %[[X]] {{.*}} into tensor<?x3x2x2xf32>
  // CHECK: %[[A:.*]] = tensor.extract_slice %[[PAIRS]][0, 0, 0, 0] [%{{.*}}, 3, 1, 2]
  // CHECK: %[[B:.*]] = tensor.extract_slice %[[PAIRS]][0, 0, 1, 0] [%{{.*}}, 3, 1, 2]
  // CHECK: linalg.generic {{.*}} ins(%[[A]], %[[B]], %[[ANGLES]]#0, %[[ANGLES]]#1
  // CHECK-NOT: llm.rope
  %y = llm.rope %x, %pos {inv_freq = array<f32: 1.0, 0.01>, pairing = #llm.rope_pairing<half>}
      : tensor<?x3x4xf32>, tensor<?xi32>
  return %y : tensor<?x3x4xf32>
}

// -----

// Neighbours pair up: lane 2i with lane 2i + 1.

// CHECK-LABEL: @adjacent
func.func private @adjacent(%x: tensor<?x3x6xf32>, %pos: tensor<?xi32>) -> tensor<?x3x6xf32> {
  // CHECK: %[[PAIRS:.*]] = tensor.expand_shape {{.*}} into tensor<?x3x3x2xf32>
  // CHECK: tensor.extract_slice %[[PAIRS]][0, 0, 0, 0] [%{{.*}}, 3, 3, 1]
  // CHECK: tensor.extract_slice %[[PAIRS]][0, 0, 0, 1] [%{{.*}}, 3, 3, 1]
  // CHECK-NOT: llm.rope
  %y = llm.rope %x, %pos {inv_freq = array<f32: 1.0, 0.1, 0.01>, pairing = #llm.rope_pairing<adjacent>}
      : tensor<?x3x6xf32>, tensor<?xi32>
  return %y : tensor<?x3x6xf32>
}
