// RUN: %llm-opt %s --llm-decompose-rope --split-input-file | FileCheck %s

// Cosines, then sines.

// CHECK-LABEL: @table
// CHECK-SAME: %[[POSITIONS:.*]]: tensor<?xi32>
func.func private @table(%pos: tensor<?xi32>) -> tensor<?x4xf32> {
  // CHECK-DAG: %[[FREQUENCIES:.*]] = arith.constant dense<[1.000000e+00, 0.00999999977{{.*}}]> : tensor<2xf32>
  // CHECK: %[[ANGLES:.*]]:2 = linalg.generic {{.*}} ins(%[[POSITIONS]], %[[FREQUENCIES]]
  // CHECK: math.cos
  // CHECK: math.sin
  // CHECK: %[[COSINES:.*]] = tensor.insert_slice %[[ANGLES]]#0 into %{{.*}}[0, 0] [%{{.*}}, 2] [1, 1]
  // CHECK: %[[TABLE:.*]] = tensor.insert_slice %[[ANGLES]]#1 into %[[COSINES]][0, 2] [%{{.*}}, 2] [1, 1]
  // CHECK: return %[[TABLE]]
  %t = llm.rope_table %pos {inv_freq = array<f32: 1.0, 0.01>} : tensor<?xi32> -> tensor<?x4xf32>
  return %t : tensor<?x4xf32>
}

// -----

// The table knows more of its size than the positions do, and the reverse.

// CHECK-LABEL: @sizes
// CHECK-NOT: llm.rope_table
func.func private @sizes(%pos: tensor<?xi32>, %five: tensor<5xi32>) -> (tensor<5x4xf32>, tensor<?x4xf32>) {
  %t = llm.rope_table %pos {inv_freq = array<f32: 1.0, 0.01>} : tensor<?xi32> -> tensor<5x4xf32>
  %u = llm.rope_table %five {inv_freq = array<f32: 1.0, 0.01>} : tensor<5xi32> -> tensor<?x4xf32>
  return %t, %u : tensor<5x4xf32>, tensor<?x4xf32>
}

// -----

// Halves pair up: lane i of the first half with lane i of the second.

// CHECK-LABEL: @half
// CHECK-SAME: %[[X:.*]]: tensor<?x3x4xf32>, %[[TABLE:.*]]: tensor<?x4xf32>
func.func private @half(%x: tensor<?x3x4xf32>, %table: tensor<?x4xf32>) -> tensor<?x3x4xf32> {
  // CHECK: %[[PAIRS:.*]] = tensor.expand_shape %[[X]] {{.*}} into tensor<?x3x2x2xf32>
  // CHECK: %[[A:.*]] = tensor.extract_slice %[[PAIRS]][0, 0, 0, 0] [%{{.*}}, 3, 1, 2]
  // CHECK: %[[B:.*]] = tensor.extract_slice %[[PAIRS]][0, 0, 1, 0] [%{{.*}}, 3, 1, 2]
  // CHECK: %[[COSINES:.*]] = tensor.extract_slice %[[TABLE]][0, 0] [%{{.*}}, 2]
  // CHECK: %[[SINES:.*]] = tensor.extract_slice %[[TABLE]][0, 2] [%{{.*}}, 2]
  // CHECK: linalg.generic {{.*}} ins(%[[A]], %[[B]], %[[COSINES]], %[[SINES]]
  // CHECK-NOT: llm.rope
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>} : tensor<?x3x4xf32>, tensor<?x4xf32>
  return %y : tensor<?x3x4xf32>
}

// -----

// Neighbours pair up: lane 2i with lane 2i + 1.

// CHECK-LABEL: @adjacent
func.func private @adjacent(%x: tensor<?x3x6xf32>, %table: tensor<?x6xf32>) -> tensor<?x3x6xf32> {
  // CHECK: %[[PAIRS:.*]] = tensor.expand_shape {{.*}} into tensor<?x3x3x2xf32>
  // CHECK: tensor.extract_slice %[[PAIRS]][0, 0, 0, 0] [%{{.*}}, 3, 3, 1]
  // CHECK: tensor.extract_slice %[[PAIRS]][0, 0, 0, 1] [%{{.*}}, 3, 3, 1]
  // CHECK-NOT: llm.rope
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<adjacent>} : tensor<?x3x6xf32>, tensor<?x6xf32>
  return %y : tensor<?x3x6xf32>
}
