// RUN: %llm-opt %s --llm-block-rows --split-input-file --canonicalize --cse | FileCheck %s
// RUN: %llm-opt %s --llm-block-rows=rows=48 --split-input-file --canonicalize --cse | FileCheck %s --check-prefix=SHORT
// RUN: not %llm-opt %s --llm-block-rows=rows=0 --split-input-file 2>&1 | FileCheck %s --check-prefix=NONE

// NONE: error: expected a block of at least 1 row, got 0

#row = affine_map<(i, j) -> (i, j)>

// Blocks of one size, of which the last may be shorter. What is between the
// products is no longer than a block.

// CHECK-LABEL: func @between
// CHECK-SAME: (%[[X:.*]]: tensor<?x64xf32>, %[[U:.*]]: tensor<3x64x32xf32>, %[[V:.*]]: tensor<2x48x32xf32>)
// CHECK-DAG: %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG: %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG: %[[MOST:.*]] = arith.constant 128 : index
// CHECK: %[[ROWS:.*]] = tensor.dim %[[X]], %[[C0]]
// CHECK: %[[BLOCKS:.*]] = arith.ceildivui %[[ROWS]], %[[MOST]]
// CHECK: %[[SOME:.*]] = arith.maxui %[[BLOCKS]], %[[C1]]
// CHECK: %[[EVEN:.*]] = arith.ceildivui %[[ROWS]], %[[SOME]]
// CHECK: %[[SIZE:.*]] = arith.maxui %[[EVEN]], %[[C1]]
// CHECK: %[[EMPTY:.*]] = tensor.empty(%[[ROWS]]) : tensor<?x64xf32>
// CHECK: %[[LOOP:.*]] = scf.for %[[I:.*]] = %[[C0]] to %[[ROWS]] step %[[SIZE]] iter_args(%[[OUT:.*]] = %[[EMPTY]])
// CHECK:   %[[LEFT:.*]] = arith.subi %[[ROWS]], %[[I]]
// CHECK:   %[[N:.*]] = arith.minui %[[LEFT]], %[[SIZE]]
// CHECK:   %[[X1:.*]] = tensor.extract_slice %[[X]][%[[I]], 0] [%[[N]], 64] [1, 1]
// CHECK:   %[[A:.*]] = llm.linear %[[X1]], %[[U]] as f32
// CHECK:   %[[GATE:.*]] = tensor.extract_slice %[[A]][0, 0] [%[[N]], 48] [1, 1]
// CHECK:   %[[UP:.*]] = tensor.extract_slice %[[A]][0, 48] [%[[N]], 48] [1, 1]
// CHECK:   %[[B0:.*]] = tensor.empty(%[[N]]) : tensor<?x48xf32>
// CHECK:   %[[B:.*]] = linalg.generic {{.*}} ins(%[[GATE]], %[[UP]] : {{.*}}) outs(%[[B0]] :
// CHECK:   %[[C:.*]] = llm.linear %[[B]], %[[V]] as f32
// CHECK:   %[[NEXT:.*]] = tensor.insert_slice %[[C]] into %[[OUT]][%[[I]], 0] [%[[N]], 64] [1, 1]
// CHECK:   scf.yield %[[NEXT]]
// CHECK: return %[[LOOP]]
// SHORT-LABEL: func @between
// SHORT: %[[MOST:.*]] = arith.constant 48 : index
// SHORT: arith.ceildivui %{{.*}}, %[[MOST]]
func.func @between(%x: tensor<?x64xf32>, %u: tensor<3x64x32xf32>, %v: tensor<2x48x32xf32>) -> tensor<?x64xf32> {
  %c0 = arith.constant 0 : index
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<3x64x32xf32> -> tensor<?x96xf32>
  %gate = tensor.extract_slice %a[0, 0] [%rows, 48] [1, 1] : tensor<?x96xf32> to tensor<?x48xf32>
  %up = tensor.extract_slice %a[0, 48] [%rows, 48] [1, 1] : tensor<?x96xf32> to tensor<?x48xf32>
  %empty = tensor.empty(%rows) : tensor<?x48xf32>
  %b = linalg.generic {indexing_maps = [#row, #row, #row], iterator_types = ["parallel", "parallel"]}
      ins(%gate, %up : tensor<?x48xf32>, tensor<?x48xf32>) outs(%empty : tensor<?x48xf32>) {
  ^bb0(%l: f32, %r: f32, %o: f32):
    %product = arith.mulf %l, %r : f32
    linalg.yield %product : f32
  } -> tensor<?x48xf32>
  %c = llm.linear %b, %v as f32 : tensor<?x48xf32>, tensor<2x48x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

// -----

#row = affine_map<(i, j) -> (i, j)>
#column = affine_map<(i, j) -> (j)>
#first = affine_map<(i, j) -> (i)>
#sum = affine_map<(i, j, k) -> (i, j, k)>
#lanes = affine_map<(i, j, k) -> (i, k)>

// What is added to is added to in place: its rows are read from what the loop
// has made of it, which are untouched till their turn. Sums begin with zeros of
// their own. A result that is needed beside the last one is one of the loop.

// CHECK-LABEL: func @in_place
// CHECK-SAME: (%[[X:[^:]*]]: tensor<?x64xf32>, %[[H:[^:]*]]: tensor<?x64xf32>
// CHECK: %[[ROWS:.*]] = tensor.dim %[[X]]
// CHECK: %[[SUMS:.*]] = tensor.empty(%[[ROWS]]) : tensor<?xf32>
// CHECK: %[[LOOP:.*]]:2 = scf.for %[[I:.*]] = {{.*}} iter_args(%[[SUM:.*]] = %[[SUMS]], %[[OUT:.*]] = %[[H]])
// CHECK:   %[[N:.*]] = arith.minui
// CHECK:   %[[H1:.*]] = tensor.extract_slice %[[OUT]][%[[I]], 0] [%[[N]], 64] [1, 1]
// CHECK:   %[[X1:.*]] = tensor.extract_slice %[[X]][%[[I]], 0] [%[[N]], 64] [1, 1]
// CHECK:   %[[A:.*]] = llm.linear %[[X1]]
// CHECK:   %[[H2:.*]] = linalg.generic {{.*}} ins(%[[A]] : {{.*}}) outs(%[[H1]] :
// CHECK:   %[[WIDE:.*]] = tensor.expand_shape %[[H2]] {{.*}} output_shape [%[[N]], 4, 16]
// CHECK:   %[[EMPTY:.*]] = tensor.empty(%[[N]]) : tensor<?x16xf32>
// CHECK:   %[[ZEROS:.*]] = linalg.fill {{.*}} outs(%[[EMPTY]]
// CHECK:   %[[LANES:.*]] = linalg.generic {{.*}} ins(%[[WIDE]] : {{.*}}) outs(%[[ZEROS]] :
// CHECK:   %[[EMPTY:.*]] = tensor.empty(%[[N]]) : tensor<?xf32>
// CHECK:   %[[S:.*]] = linalg.generic {{.*}} ins(%[[LANES]] : {{.*}}) outs(%[[EMPTY]] :
// CHECK:   %[[B:.*]] = linalg.generic {{.*}} ins(%[[H2]], %[[S]], %{{.*}} :
// CHECK:   %[[C:.*]] = llm.linear %[[B]]
// CHECK:   %[[H3:.*]] = linalg.generic {{.*}} ins(%[[C]] : {{.*}}) outs(%[[H2]] :
// CHECK:   tensor.insert_slice %[[S]] into %[[SUM]][%[[I]]] [%[[N]]] [1]
// CHECK:   tensor.insert_slice %[[H3]] into %[[OUT]][%[[I]], 0] [%[[N]], 64] [1, 1]
// CHECK: return %[[LOOP]]#1, %[[LOOP]]#0
func.func @in_place(%x: tensor<?x64xf32>, %h: tensor<?x64xf32>, %norm: tensor<64xf32>,
                    %u: tensor<2x64x32xf32>) -> (tensor<?x64xf32>, tensor<?xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %h, %c0 : tensor<?x64xf32>
  %lanes_empty = tensor.empty(%rows) : tensor<?x16xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%lanes_empty : tensor<?x16xf32>) -> tensor<?x16xf32>
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %h2 = linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel", "parallel"]}
      ins(%a : tensor<?x64xf32>) outs(%h : tensor<?x64xf32>) {
  ^bb0(%l: f32, %o: f32):
    %sum = arith.addf %l, %o : f32
    linalg.yield %sum : f32
  } -> tensor<?x64xf32>
  %same_rows = tensor.dim %zeros, %c0 : tensor<?x16xf32>
  %wide = tensor.expand_shape %h2 [[0], [1, 2]] output_shape [%same_rows, 4, 16] : tensor<?x64xf32> into tensor<?x4x16xf32>
  %lanes = linalg.generic {indexing_maps = [#sum, #lanes], iterator_types = ["parallel", "reduction", "parallel"]}
      ins(%wide : tensor<?x4x16xf32>) outs(%zeros : tensor<?x16xf32>) {
  ^bb0(%l: f32, %o: f32):
    %sum = arith.addf %l, %o : f32
    linalg.yield %sum : f32
  } -> tensor<?x16xf32>
  %last_rows = tensor.dim %h2, %c0 : tensor<?x64xf32>
  %sums_empty = tensor.empty(%last_rows) : tensor<?xf32>
  %s = linalg.generic {indexing_maps = [#row, #first], iterator_types = ["parallel", "reduction"]}
      ins(%lanes : tensor<?x16xf32>) outs(%sums_empty : tensor<?xf32>) {
  ^bb0(%l: f32, %o: f32):
    %most = arith.maximumf %l, %o : f32
    linalg.yield %most : f32
  } -> tensor<?xf32>
  %empty = tensor.empty(%last_rows) : tensor<?x64xf32>
  %b = linalg.generic {indexing_maps = [#row, #first, #column, #row], iterator_types = ["parallel", "parallel"]}
      ins(%h2, %s, %norm : tensor<?x64xf32>, tensor<?xf32>, tensor<64xf32>) outs(%empty : tensor<?x64xf32>) {
  ^bb0(%l: f32, %m: f32, %n: f32, %o: f32):
    %scaled = arith.mulf %l, %m : f32
    %normed = arith.mulf %scaled, %n : f32
    linalg.yield %normed : f32
  } -> tensor<?x64xf32>
  %c = llm.linear %b, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %h3 = linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel", "parallel"]}
      ins(%c : tensor<?x64xf32>) outs(%h2 : tensor<?x64xf32>) {
  ^bb0(%l: f32, %o: f32):
    %sum = arith.addf %l, %o : f32
    linalg.yield %sum : f32
  } -> tensor<?x64xf32>
  return %h3, %s : tensor<?x64xf32>, tensor<?xf32>
}

// -----

// Views behind the last product stay behind the loop, and so do sizes.

// CHECK-LABEL: func @views
// CHECK-SAME: (%[[X:.*]]: tensor<?x64xf32>,
// CHECK: %[[ROWS:.*]] = tensor.dim %[[X]]
// CHECK: %[[LOOP:.*]] = scf.for
// CHECK: scf.yield
// CHECK: %[[LEFT:.*]] = tensor.extract_slice %[[LOOP]][0, 0] [%[[ROWS]], 32] [1, 1]
// CHECK: %[[HEADS:.*]] = tensor.expand_shape %[[LEFT]]
// CHECK: return %[[HEADS]], %[[ROWS]]
func.func @views(%x: tensor<?x64xf32>, %u: tensor<2x64x32xf32>) -> (tensor<?x4x8xf32>, index) {
  %c0 = arith.constant 0 : index
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %b = llm.linear %a, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %rows = tensor.dim %b, %c0 : tensor<?x64xf32>
  %left = tensor.extract_slice %b[0, 0] [%rows, 32] [1, 1] : tensor<?x64xf32> to tensor<?x32xf32>
  %heads = tensor.expand_shape %left [[0], [1, 2]] output_shape [%rows, 4, 8] : tensor<?x32xf32> into tensor<?x4x8xf32>
  return %heads, %rows : tensor<?x4x8xf32>, index
}

// -----

// One product has nothing to keep in a cache for another one.

// CHECK-LABEL: func @one
// CHECK-NOT: scf.for
func.func @one(%x: tensor<?x64xf32>, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %a : tensor<?x64xf32>
}

// -----

#row = affine_map<(i, j) -> (i, j)>
#ids = affine_map<(i, j) -> (i)>

// A chain ends where rows meet other rows: chosen by the op itself, as a whole
// operand, or turned; or where some rows are left out.

// CHECK-LABEL: func @gather
// CHECK-NOT: scf.for
func.func @gather(%x: tensor<?x64xf32>, %ids: tensor<?xindex>, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %b = linalg.generic {indexing_maps = [#ids, #row], iterator_types = ["parallel", "parallel"]}
      ins(%ids : tensor<?xindex>) outs(%a : tensor<?x64xf32>) {
  ^bb0(%row: index, %o: f32):
    %j = linalg.index 1 : index
    %other = tensor.extract %a[%row, %j] : tensor<?x64xf32>
    linalg.yield %other : f32
  } -> tensor<?x64xf32>
  %c = llm.linear %b, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

// What comes from outside may be read as a whole, beside the block's rows of it.

// CHECK-LABEL: func @gather_input
// CHECK-SAME: (%[[X:[^:]*]]: tensor<?x64xf32>
// CHECK: scf.for
// CHECK: %[[X1:.*]] = tensor.extract_slice %[[X]]
// CHECK: llm.linear %[[X1]]
// CHECK: tensor.extract %[[X]][
// CHECK: llm.linear
func.func @gather_input(%x: tensor<?x64xf32>, %ids: tensor<?xindex>, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %b = linalg.generic {indexing_maps = [#ids, #row], iterator_types = ["parallel", "parallel"]}
      ins(%ids : tensor<?xindex>) outs(%a : tensor<?x64xf32>) {
  ^bb0(%row: index, %o: f32):
    %j = linalg.index 1 : index
    %other = tensor.extract %x[%row, %j] : tensor<?x64xf32>
    linalg.yield %other : f32
  } -> tensor<?x64xf32>
  %c = llm.linear %b, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

// CHECK-LABEL: func @gather_then_add
// CHECK-SAME: %[[H:[^:]*]]: tensor<?x64xf32>, %{{[^:]*}}: tensor<2x64x32xf32>
// CHECK: scf.for
// CHECK: tensor.extract %[[H]][
// CHECK: %[[H1:.*]] = tensor.extract_slice %[[H]]
// CHECK: linalg.add ins(%{{.*}}, %[[H1]] :
func.func @gather_then_add(%x: tensor<?x64xf32>, %ids: tensor<?xindex>, %h: tensor<?x64xf32>,
                           %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %b = linalg.generic {indexing_maps = [#ids, #row], iterator_types = ["parallel", "parallel"]}
      ins(%ids : tensor<?xindex>) outs(%a : tensor<?x64xf32>) {
  ^bb0(%row: index, %o: f32):
    %j = linalg.index 1 : index
    %other = tensor.extract %h[%row, %j] : tensor<?x64xf32>
    linalg.yield %other : f32
  } -> tensor<?x64xf32>
  %sum = linalg.add ins(%b, %h : tensor<?x64xf32>, tensor<?x64xf32>)
      outs(%b : tensor<?x64xf32>) -> tensor<?x64xf32>
  %c = llm.linear %sum, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

// CHECK-LABEL: func @row_number
// CHECK-NOT: scf.for
func.func @row_number(%x: tensor<?x64xf32>, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %b = linalg.generic {indexing_maps = [#row], iterator_types = ["parallel", "parallel"]}
      outs(%a : tensor<?x64xf32>) {
  ^bb0(%o: f32):
    %i = linalg.index 0 : index
    %integer = arith.index_cast %i : index to i32
    %float = arith.sitofp %integer : i32 to f32
    linalg.yield %float : f32
  } -> tensor<?x64xf32>
  %c = llm.linear %b, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

#i = affine_map<(i, j, k) -> (i, k)>
#j = affine_map<(i, j, k) -> (j, k)>
#ij = affine_map<(i, j, k) -> (i, j)>

// CHECK-LABEL: func @all_rows
// CHECK-NOT: scf.for
func.func @all_rows(%x: tensor<?x64xf32>, %most: tensor<?x64xf32>, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %b = linalg.generic {indexing_maps = [#i, #j, #i], iterator_types = ["parallel", "reduction", "parallel"]}
      ins(%a, %a : tensor<?x64xf32>, tensor<?x64xf32>) outs(%most : tensor<?x64xf32>) {
  ^bb0(%l: f32, %r: f32, %o: f32):
    %difference = arith.subf %l, %r : f32
    %larger = arith.maximumf %difference, %o : f32
    linalg.yield %larger : f32
  } -> tensor<?x64xf32>
  %c = llm.linear %b, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

// CHECK-LABEL: func @some_rows
// CHECK-NOT: scf.for
func.func @some_rows(%x: tensor<?x64xf32>, %n: index, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %b = tensor.extract_slice %a[0, 0] [%n, 64] [1, 1] : tensor<?x64xf32> to tensor<?x64xf32>
  %c = llm.linear %b, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

// CHECK-LABEL: func @later_rows
// CHECK-NOT: scf.for
func.func @later_rows(%x: tensor<?x64xf32>, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %c0 = arith.constant 0 : index
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  %wide = tensor.expand_shape %a [[0], [1, 2]] output_shape [%rows, 2, 32] : tensor<?x64xf32> into tensor<?x2x32xf32>
  %b = tensor.collapse_shape %wide [[0, 1], [2]] : tensor<?x2x32xf32> into tensor<?x32xf32>
  %v = tensor.empty() : tensor<1x32x32xf32>
  %c = llm.linear %b, %v as f32 : tensor<?x32xf32>, tensor<1x32x32xf32> -> tensor<?x32xf32>
  %d = tensor.expand_shape %c [[0, 1], [2]] output_shape [%rows, 2, 32] : tensor<?x32xf32> into tensor<?x2x32xf32>
  %e = tensor.collapse_shape %d [[0], [1, 2]] : tensor<?x2x32xf32> into tensor<?x64xf32>
  return %e : tensor<?x64xf32>
}

// -----

// What is needed before the chain ends is not made by a loop behind that.

// CHECK-LABEL: func @needed
// CHECK: llm.linear
// CHECK: call @use
// CHECK: llm.linear
// CHECK-NOT: scf.for
func.func private @use(tensor<?x64xf32>)
func.func @needed(%x: tensor<?x64xf32>, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  func.call @use(%a) : (tensor<?x64xf32>) -> ()
  %c = llm.linear %a, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

// -----

// Nor does a chain go on behind what might do anything.

// CHECK-LABEL: func @waits
// CHECK: llm.linear
// CHECK: call @anything
// CHECK: llm.linear
// CHECK-NOT: scf.for
func.func private @anything()
func.func @waits(%x: tensor<?x64xf32>, %u: tensor<2x64x32xf32>) -> tensor<?x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  func.call @anything() : () -> ()
  %c = llm.linear %a, %u as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

// -----

// So many rows are no question of caches.

// CHECK-LABEL: func @static
// CHECK-NOT: scf.for
func.func @static(%x: tensor<8x64xf32>, %u: tensor<2x64x32xf32>) -> tensor<8x64xf32> {
  %a = llm.linear %x, %u as f32 : tensor<8x64xf32>, tensor<2x64x32xf32> -> tensor<8x64xf32>
  %c = llm.linear %a, %u as f32 : tensor<8x64xf32>, tensor<2x64x32xf32> -> tensor<8x64xf32>
  return %c : tensor<8x64xf32>
}
