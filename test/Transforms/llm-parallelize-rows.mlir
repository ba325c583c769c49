// RUN: %llm-opt %s --llm-parallelize-rows | FileCheck %s
// RUN: %llm-opt %s --llm-parallelize-rows=least-numbers=1280 | FileCheck %s --check-prefix=FEWER

#row = affine_map<(i, j) -> (i, j)>
#sum = affine_map<(i, j) -> (i)>
#swapped = affine_map<(i, j) -> (j, i)>

// What an op writes, the next one reads in the same row. Few rows are one
// thread's, of 2 * 64 numbers here.

// CHECK-LABEL: func @neighbours
// CHECK-SAME: (%[[X:.*]]: memref<?x64xf32>, %[[Z:.*]]: memref<?x64xf32>)
// CHECK: %[[ROWS:.*]] = memref.dim %[[X]]
// CHECK: %[[Y:.*]] = memref.alloc(%[[ROWS]])
// CHECK: %[[LEAST:.*]] = arith.constant 256 : index
// CHECK-NEXT: %[[MANY:.*]] = arith.cmpi uge, %{{.*}}, %[[LEAST]]
// CHECK: scf.if %[[MANY]]
// CHECK: scf.parallel (%[[I:.*]]) =
// CHECK: %[[X1:.*]] = memref.subview %[[X]][%[[I]], 0] [1, 64] [1, 1]
// CHECK: %[[Y1:.*]] = memref.subview %[[Y]][%[[I]], 0] [1, 64] [1, 1]
// CHECK: linalg.generic {{.*}} ins(%[[X1]] : {{.*}}) outs(%[[Y1]] :
// CHECK: %[[Y1:.*]] = memref.subview %[[Y]][%[[I]], 0]
// CHECK: %[[Z1:.*]] = memref.subview %[[Z]][%[[I]], 0]
// CHECK: linalg.generic {{.*}} ins(%[[Y1]] : {{.*}}) outs(%[[Z1]] :
// CHECK: scf.reduce
// CHECK: } else {
// CHECK: scf.for
// CHECK-COUNT-2: linalg.generic
// CHECK: }
// CHECK-NOT: linalg.generic
// FEWER-LABEL: func @neighbours
// FEWER: arith.constant 10 : index
// FEWER-NEXT: arith.cmpi uge
func.func @neighbours(%x: memref<?x64xf32>, %z: memref<?x64xf32>) {
  %c0 = arith.constant 0 : index
  %rows = memref.dim %x, %c0 : memref<?x64xf32>
  %y = memref.alloc(%rows) : memref<?x64xf32>
  linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel", "parallel"]}
      ins(%x : memref<?x64xf32>) outs(%y : memref<?x64xf32>) {
  ^bb0(%a: f32, %b: f32):
    %negated = arith.negf %a : f32
    linalg.yield %negated : f32
  }
  %same_rows = memref.dim %y, %c0 : memref<?x64xf32>
  %view = memref.alloc(%same_rows) : memref<?x64xf32>
  linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel", "parallel"]}
      ins(%y : memref<?x64xf32>) outs(%z : memref<?x64xf32>) {
  ^bb0(%a: f32, %b: f32):
    %sum = arith.addf %a, %b : f32
    linalg.yield %sum : f32
  }
  return
}

// The number of rows of %z is another one, for all that is known.

// CHECK-LABEL: func @lengths
// CHECK: scf.if
// CHECK: else
// CHECK-COUNT-1: linalg.fill
// CHECK: scf.if
func.func @lengths(%y: memref<?x64xf32>, %z: memref<?x64xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%y : memref<?x64xf32>)
  linalg.fill ins(%zero : f32) outs(%z : memref<?x64xf32>)
  return
}

// A call may read what is written before it.

// CHECK-LABEL: func @call
// CHECK: scf.if
// CHECK: call @f
// CHECK: scf.if
func.func private @f()
func.func @call(%y: memref<?x64xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%y : memref<?x64xf32>)
  func.call @f() : () -> ()
  linalg.fill ins(%zero : f32) outs(%y : memref<?x64xf32>)
  return
}

// The rows of a view with an offset are others of the memory below it.

// CHECK-LABEL: func @shifted
// CHECK: scf.if
// CHECK: scf.if
func.func @shifted(%x: memref<65x64xf32>, %z: memref<64x64xf32>) {
  %zero = arith.constant 0.0 : f32
  %rows = memref.subview %x[0, 0] [64, 64] [1, 1] : memref<65x64xf32> to memref<64x64xf32, strided<[64, 1]>>
  %next = memref.subview %x[1, 0] [64, 64] [1, 1] : memref<65x64xf32> to memref<64x64xf32, strided<[64, 1], offset: 64>>
  linalg.fill ins(%zero : f32) outs(%rows : memref<64x64xf32, strided<[64, 1]>>)
  linalg.copy ins(%next : memref<64x64xf32, strided<[64, 1], offset: 64>>) outs(%z : memref<64x64xf32>)
  return
}

// Views that begin at the same row share the loop.

// CHECK-LABEL: func @same_block
// CHECK: scf.parallel
// CHECK-COUNT-2: linalg.fill
// CHECK: scf.for
// CHECK-COUNT-2: linalg.fill
// CHECK-NOT: scf.if
func.func @same_block(%x: memref<?x128xf32>, %first: index, %rows: index) {
  %zero = arith.constant 0.0 : f32
  %left = memref.subview %x[%first, 0] [%rows, 64] [1, 1] : memref<?x128xf32> to memref<?x64xf32, strided<[128, 1], offset: ?>>
  %right = memref.subview %x[%first, 64] [%rows, 64] [1, 1] : memref<?x128xf32> to memref<?x64xf32, strided<[128, 1], offset: ?>>
  linalg.fill ins(%zero : f32) outs(%left : memref<?x64xf32, strided<[128, 1], offset: ?>>)
  linalg.fill ins(%zero : f32) outs(%right : memref<?x64xf32, strided<[128, 1], offset: ?>>)
  return
}

// Columns of the same rows do share the loop.

// CHECK-LABEL: func @columns
// CHECK: scf.parallel
// CHECK-COUNT-2: linalg.fill
// CHECK: scf.for
// CHECK-COUNT-2: linalg.fill
// CHECK-NOT: scf.if
func.func @columns(%x: memref<?x128xf32>) {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %rows = memref.dim %x, %c0 : memref<?x128xf32>
  %left = memref.subview %x[0, 0] [%rows, 64] [1, 1] : memref<?x128xf32> to memref<?x64xf32, strided<[128, 1]>>
  %right = memref.subview %x[0, 64] [%rows, 64] [1, 1] : memref<?x128xf32> to memref<?x64xf32, strided<[128, 1], offset: 64>>
  linalg.fill ins(%zero : f32) outs(%left : memref<?x64xf32, strided<[128, 1]>>)
  linalg.fill ins(%zero : f32) outs(%right : memref<?x64xf32, strided<[128, 1], offset: 64>>)
  return
}

// A transposed reader needs all rows of what is written.

// CHECK-LABEL: func @transposed
// CHECK-SAME: (%[[X:.*]]: memref<64x64xf32>, %[[Y:.*]]: memref<64x64xf32>)
// CHECK: scf.for
// CHECK-NEXT: memref.subview
// CHECK-NEXT: linalg.fill
// CHECK: linalg.generic
// CHECK: linalg.generic {{.*}} ins(%[[X]] : memref<64x64xf32>) outs(%[[Y]] : memref<64x64xf32>)
func.func @transposed(%x: memref<64x64xf32>, %y: memref<64x64xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%x : memref<64x64xf32>)
  linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel", "parallel"]}
      outs(%x, %y : memref<64x64xf32>, memref<64x64xf32>) {
  ^bb0(%a: f32, %b: f32):
    linalg.yield %a, %a : f32, f32
  }
  linalg.generic {indexing_maps = [#swapped, #row], iterator_types = ["parallel", "parallel"]}
      ins(%x : memref<64x64xf32>) outs(%y : memref<64x64xf32>) {
  ^bb0(%a: f32, %b: f32):
    linalg.yield %a : f32
  }
  return
}

// So does one that chooses rows itself.

// CHECK-LABEL: func @gather
// CHECK: linalg.fill
// CHECK: scf.if
// CHECK: scf.parallel
// CHECK: memref.load
func.func @gather(%ids: memref<?xindex>, %x: memref<?x64xf32>, %y: memref<?x64xf32>) {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %rows = memref.dim %y, %c0 : memref<?x64xf32>
  linalg.fill ins(%zero : f32) outs(%x : memref<?x64xf32>)
  linalg.generic {indexing_maps = [#sum, #row], iterator_types = ["parallel", "parallel"]}
      ins(%ids : memref<?xindex>) outs(%y : memref<?x64xf32>) {
  ^bb0(%row: index, %b: f32):
    %column = linalg.index 1 : index
    %a = memref.load %x[%row, %column] : memref<?x64xf32>
    linalg.yield %a : f32
  }
  return
}

// What a branch has chosen may be either: %y, which the second op overwrites
// and of which the first one reads any row.

// CHECK-LABEL: func @chosen
// CHECK: memref.load
// CHECK: scf.if
// CHECK: linalg.fill
func.func @chosen(%which: i1, %ids: memref<?xindex>, %z: memref<?x64xf32>) {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %rows = memref.dim %z, %c0 : memref<?x64xf32>
  %x = memref.alloc(%rows) : memref<?x64xf32>
  %y = memref.alloc(%rows) : memref<?x64xf32>
  %chosen = arith.select %which, %x, %y : memref<?x64xf32>
  linalg.generic {indexing_maps = [#sum, #row], iterator_types = ["parallel", "parallel"]}
      ins(%ids : memref<?xindex>) outs(%z : memref<?x64xf32>) {
  ^bb0(%row: index, %b: f32):
    %column = linalg.index 1 : index
    %a = memref.load %chosen[%row, %column] : memref<?x64xf32>
    linalg.yield %a : f32
  }
  linalg.fill ins(%zero : f32) outs(%y : memref<?x64xf32>)
  return
}

// Loops that are not over rows of 64 numbers stay.

// CHECK-LABEL: func @others
// CHECK-NOT: scf.
// CHECK: return
func.func @others(%x: memref<?x63xf32>, %ids: memref<?x64xindex>, %s: memref<?xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%x : memref<?x63xf32>)
  linalg.generic {indexing_maps = [#row], iterator_types = ["parallel", "parallel"]}
      outs(%ids : memref<?x64xindex>) {
  ^bb0(%b: index):
    %row = linalg.index 0 : index
    linalg.yield %row : index
  }
  linalg.fill ins(%zero : f32) outs(%s : memref<?xf32>)
  return
}
