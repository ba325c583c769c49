// RUN: %llm-opt %s --llm-switch-to-if | FileCheck %s
// RUN: %llm-opt %s --llm-switch-to-if --one-shot-bufferize=bufferize-function-boundaries | FileCheck %s --check-prefix=BUFFERS

// CHECK-LABEL: func @switch
// CHECK-SAME: (%[[I:.*]]: index, %[[A:.*]]: tensor<4xf32>, %[[B:.*]]: tensor<4xf32>
// CHECK: %[[C7:.*]] = arith.constant 7
// CHECK: %[[IS_7:.*]] = arith.cmpi eq, %[[I]], %[[C7]]
// CHECK: %[[R:.*]]:2 = scf.if %[[IS_7]]
// CHECK-NEXT: scf.yield %[[A]], %[[A]]
// CHECK-NEXT: else
// CHECK: %[[IS_2:.*]] = arith.cmpi eq, %[[I]], %c2
// CHECK: %[[S:.*]]:2 = scf.if %[[IS_2]]
// CHECK-NEXT: scf.yield %[[A]], %[[B]]
// CHECK-NEXT: else
// CHECK-NEXT: scf.yield %[[B]], %[[B]]
// CHECK: scf.yield %[[S]]#0, %[[S]]#1
// CHECK: tensor.insert %{{.*}} into %[[R]]#0

// Both results may be one buffer: a write of one leaves the other alone.

// BUFFERS-LABEL: func @switch
// BUFFERS: %[[R:.*]]:2 = scf.if
// BUFFERS: memref.copy %[[R]]#0, %[[COPY:.*]] :
// BUFFERS: memref.store %{{.*}}, %[[COPY]]
// BUFFERS: memref.load %[[R]]#1
func.func @switch(%i: index, %a: tensor<4xf32>, %b: tensor<4xf32>, %x: f32) -> (f32, tensor<4xf32>) {
  %c0 = arith.constant 0 : index
  %r:2 = scf.index_switch %i -> tensor<4xf32>, tensor<4xf32>
  case 7 {
    scf.yield %a, %a : tensor<4xf32>, tensor<4xf32>
  }
  case 2 {
    scf.yield %a, %b : tensor<4xf32>, tensor<4xf32>
  }
  default {
    scf.yield %b, %b : tensor<4xf32>, tensor<4xf32>
  }
  %w = tensor.insert %x into %r#0[%c0] : tensor<4xf32>
  %e = tensor.extract %r#1[%c0] : tensor<4xf32>
  return %e, %w : f32, tensor<4xf32>
}

// CHECK-LABEL: func @no_case
// CHECK-NEXT: return %{{.*}} : tensor<4xf32>
func.func @no_case(%i: index, %a: tensor<4xf32>) -> tensor<4xf32> {
  %r = scf.index_switch %i -> tensor<4xf32>
  default {
    scf.yield %a : tensor<4xf32>
  }
  return %r : tensor<4xf32>
}

// No tensor, no change.

// CHECK-LABEL: func @numbers
// CHECK: scf.index_switch
func.func @numbers(%i: index) -> index {
  %r = scf.index_switch %i -> index
  default {
    scf.yield %i : index
  }
  return %r : index
}
