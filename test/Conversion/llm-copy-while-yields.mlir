// RUN: %llm-opt %s --llm-copy-while-yields | FileCheck %s
// RUN: %llm-opt %s --llm-copy-while-yields --one-shot-bufferize="bufferize-function-boundaries allow-return-allocs-from-loops" | FileCheck %s --check-prefix=BUFFERS

func.func private @read(f32)

// A tensor of outside: the next turn writes into a copy.

// CHECK-LABEL: func @outside
// CHECK-SAME: (%[[A:[a-z0-9]*]]: tensor<4xf32>
// CHECK: } do {
// CHECK: %[[COPY:.*]] = bufferization.alloc_tensor() copy(%[[A]])
// CHECK-NEXT: scf.yield %[[COPY]]

// BUFFERS-LABEL: func @outside
// BUFFERS-SAME: (%[[A:[a-z0-9]*]]: memref<4xf32
// BUFFERS: } do {
// BUFFERS-NEXT: %[[COPY:.*]] = memref.alloc()
// BUFFERS-NEXT: memref.copy %[[A]], %[[COPY]] :
// BUFFERS-NOT: %[[A]]
// BUFFERS: scf.yield
func.func @outside(%a: tensor<4xf32>, %b: tensor<4xf32>, %more: i1, %x: f32) {
  %c0 = arith.constant 0 : index
  scf.while (%t = %b) : (tensor<4xf32>) -> () {
    %w = tensor.insert %x into %t[%c0] : tensor<4xf32>
    %e = tensor.extract %w[%c0] : tensor<4xf32>
    func.call @read(%e) : (f32) -> ()
    scf.condition(%more)
  } do {
    scf.yield %a : tensor<4xf32>
  }
  return
}

// Arguments that change places, and one tensor for two.

// CHECK-LABEL: func @exchange
// CHECK: ^bb0(%[[T:.*]]: tensor<4xf32>, %[[U:.*]]: tensor<4xf32>, %[[V:.*]]: tensor<4xf32>):
// CHECK-DAG: %[[FIRST:.*]] = bufferization.alloc_tensor() copy(%[[U]])
// CHECK-DAG: %[[SECOND:.*]] = bufferization.alloc_tensor() copy(%[[T]])
// CHECK-DAG: %[[THIRD:.*]] = bufferization.alloc_tensor() copy(%[[T]])
// CHECK: scf.yield %[[FIRST]], %[[SECOND]], %[[THIRD]]
func.func @exchange(%a: tensor<4xf32>, %more: i1) -> tensor<4xf32> {
  %r:3 = scf.while (%t = %a, %u = %a, %v = %a)
      : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>)
      -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
    scf.condition(%more) %t, %u, %v : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
  } do {
  ^bb0(%t: tensor<4xf32>, %u: tensor<4xf32>, %v: tensor<4xf32>):
    scf.yield %u, %t, %t : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
  }
  return %r#0 : tensor<4xf32>
}

// What changes its argument in place needs no copy.

// CHECK-LABEL: func @in_place
// CHECK: scf.while
// CHECK-NOT: bufferization.alloc_tensor

// BUFFERS-LABEL: func @in_place
// BUFFERS: scf.while
// BUFFERS-NOT: memref.copy
// BUFFERS: return
func.func @in_place(%a: tensor<4xf32>, %more: i1, %x: f32, %i: index) -> tensor<4xf32> {
  %b = bufferization.alloc_tensor() copy(%a) : tensor<4xf32>
  %r = scf.while (%t = %b) : (tensor<4xf32>) -> tensor<4xf32> {
    scf.condition(%more) %t : tensor<4xf32>
  } do {
  ^bb0(%t: tensor<4xf32>):
    %w = tensor.insert %x into %t[%i] : tensor<4xf32>
    %y = tensor.insert %x into %w[%i] : tensor<4xf32>
    scf.yield %y : tensor<4xf32>
  }
  return %r : tensor<4xf32>
}
