// RUN: %llm-opt %s --llm-copy-returns | FileCheck %s
// RUN: %llm-opt %s --llm-copy-returns --one-shot-bufferize="bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map" | FileCheck %s --check-prefix=BUFFERS

// An argument as two results: the caller may write into one of them.

// CHECK-LABEL: func private @twice
// CHECK-SAME: (%[[A:.*]]: tensor<4xi32>)
// CHECK: %[[COPY:.*]] = bufferization.alloc_tensor() copy(%[[A]])
// CHECK: return %[[A]], %[[COPY]]
func.func private @twice(%a: tensor<4xi32>) -> (tensor<4xi32>, tensor<4xi32>) {
  return %a, %a : tensor<4xi32>, tensor<4xi32>
}

// BUFFERS-LABEL: func @writes_one
// BUFFERS: %[[R:.*]]:2 = call @twice
// BUFFERS: %[[ALLOC:.*]] = memref.alloc()
// BUFFERS: memref.copy %[[R]]#0, %[[ALLOC]] :
// BUFFERS: memref.store %{{.*}}, %[[ALLOC]]
// BUFFERS: memref.load %[[ALLOC]]
// BUFFERS: memref.load %[[R]]#1
func.func @writes_one(%a: tensor<4xi32>, %i: index, %v: i32)
    -> (i32, i32, tensor<4xi32>) {
  %r:2 = call @twice(%a) : (tensor<4xi32>) -> (tensor<4xi32>, tensor<4xi32>)
  %w = tensor.insert %v into %r#0[%i] : tensor<4xi32>
  %x = tensor.extract %w[%i] : tensor<4xi32>
  %y = tensor.extract %r#1[%i] : tensor<4xi32>
  return %x, %y, %a : i32, i32, tensor<4xi32>
}

// Parts of one tensor, through a branch and a loop.

// CHECK-LABEL: func private @parts
// CHECK: %[[PART:.*]] = tensor.extract_slice
// CHECK: %[[IF:.*]] = scf.if
// CHECK: %[[FOR:.*]] = scf.for
// CHECK: %[[COPY:.*]] = bufferization.alloc_tensor() copy(%[[FOR]])
// CHECK: %[[COPY2:.*]] = bufferization.alloc_tensor() copy(%[[PART]])
// CHECK: return %[[IF]], %[[COPY]], %[[COPY2]]
func.func private @parts(%a: tensor<4xi32>, %b: tensor<4xi32>, %c: i1,
                         %n: index)
    -> (tensor<4xi32>, tensor<4xi32>, tensor<2xi32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %part = tensor.extract_slice %a[0] [2] [1] : tensor<4xi32> to tensor<2xi32>
  %r = scf.if %c -> (tensor<4xi32>) {
    scf.yield %a : tensor<4xi32>
  } else {
    scf.yield %b : tensor<4xi32>
  }
  %f = scf.for %i = %zero to %n step %one iter_args(%t = %b)
      -> (tensor<4xi32>) {
    scf.yield %t : tensor<4xi32>
  }
  return %r, %f, %part : tensor<4xi32>, tensor<4xi32>, tensor<2xi32>
}

// A constant: the caller must not write into it.

// CHECK-LABEL: func private @constant
// CHECK: %[[C:.*]] = arith.constant
// CHECK: %[[COPY:.*]] = bufferization.alloc_tensor() copy(%[[C]])
// CHECK: return %[[COPY]]
func.func private @constant() -> tensor<4xi32> {
  %c = arith.constant dense<7> : tensor<4xi32>
  return %c : tensor<4xi32>
}

// What two calls give may be one buffer.

// CHECK-LABEL: func private @both
// CHECK: %[[R:.*]]:2 = call @twice
// CHECK: %[[COPY:.*]] = bufferization.alloc_tensor() copy(%[[R]]#1)
// CHECK: return %[[R]]#0, %[[COPY]]
func.func private @both(%a: tensor<4xi32>) -> (tensor<4xi32>, tensor<4xi32>) {
  %r:2 = call @twice(%a) : (tensor<4xi32>) -> (tensor<4xi32>, tensor<4xi32>)
  return %r#0, %r#1 : tensor<4xi32>, tensor<4xi32>
}

// Results of their own are returned as they are, whatever else is returned.

// CHECK-LABEL: func private @own
// CHECK-NOT: alloc_tensor
// CHECK: return
func.func private @own(%a: tensor<4xi32>, %b: tensor<4xi32>, %v: i32)
    -> (tensor<4xi32>, i32, tensor<4xi32>, tensor<4xi32>) {
  %s = tensor.splat %v : tensor<4xi32>
  return %b, %v, %a, %s : tensor<4xi32>, i32, tensor<4xi32>, tensor<4xi32>
}
