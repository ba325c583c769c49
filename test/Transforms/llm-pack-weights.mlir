// RUN: %llm-opt %s --llm-pack-weights --split-input-file | FileCheck %s --check-prefixes=CHECK,ROUNDED
// RUN: %llm-opt %s --llm-pack-weights=activations=bf16 --split-input-file | FileCheck %s --check-prefixes=CHECK,BF16
// RUN: %llm-opt %s --llm-pack-weights=activations=f32 --split-input-file | FileCheck %s --check-prefixes=CHECK,EXACT

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// The weight reaches its product through a private function. 40 rows take two
// panels. 70 columns are no whole tiles, and panels meet activations as they are.

// CHECK-LABEL: func private @linear
// CHECK-SAME: %[[X:.*]]: tensor<?x70xf32>, %[[PANELS:.*]]: tensor<2x70x32xbf16>
func.func private @linear(%x: tensor<?x70xf32>, %w: tensor<40x70xbf16>) -> tensor<?x40xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x70xf32>
  %empty = tensor.empty(%rows) : tensor<?x40xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x40xf32>) -> tensor<?x40xf32>
  // CHECK: %[[Y:.*]] = llm.linear %[[X]], %[[PANELS]] as f32 : tensor<?x70xf32>, tensor<2x70x32xbf16> -> tensor<?x40xf32>
  // CHECK-NOT: linalg.matmul
  // CHECK: return %[[Y]]
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x70xf32>, tensor<40x70xbf16>) outs(%init : tensor<?x40xf32>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// CHECK: func @packed
// CHECK-SAME: tensor<2x70x32xbf16> {llm.weight = #llm.weight<["a"], panel_rows = 40>}
func.func @packed(%x: tensor<?x70xf32>, %w: tensor<40x70xbf16> {llm.weight = #llm.weight<["a"]>}) -> tensor<?x40xf32> {
  %y = call @linear(%x, %w) : (tensor<?x70xf32>, tensor<40x70xbf16>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// Of 64 columns, a weight of bf16 becomes tiles.

// CHECK-LABEL: func @tiles
// CHECK-SAME: %[[X:.*]]: tensor<?x64xf32>, %[[TILES:.*]]: tensor<2x2x1024xbf16> {llm.weight = #llm.weight<["a"], panel_rows = 40>}
func.func @tiles(%x: tensor<?x64xf32>, %w: tensor<40x64xbf16> {llm.weight = #llm.weight<["a"]>}) -> tensor<?x40xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %empty = tensor.empty(%rows) : tensor<?x40xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x40xf32>) -> tensor<?x40xf32>
  // ROUNDED: %[[Y:.*]] = llm.linear %[[X]], %[[TILES]] as bf16 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  // BF16: %[[Y:.*]] = llm.linear %[[X]], %[[TILES]] as bf16 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  // EXACT: %[[Y:.*]] = llm.linear %[[X]], %[[TILES]] as f32 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  // CHECK: return %[[Y]]
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x64xf32>, tensor<40x64xbf16>) outs(%init : tensor<?x40xf32>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// A weight of f32 becomes panels.

// CHECK-LABEL: func @panels
// CHECK-SAME: %[[X:.*]]: tensor<?x64xf32>, %[[PANELS:.*]]: tensor<2x64x32xf32> {llm.weight = #llm.weight<["a"], panel_rows = 40>}
func.func @panels(%x: tensor<?x64xf32>, %w: tensor<40x64xf32> {llm.weight = #llm.weight<["a"]>}) -> tensor<?x40xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %empty = tensor.empty(%rows) : tensor<?x40xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x40xf32>) -> tensor<?x40xf32>
  // CHECK: %[[Y:.*]] = llm.linear %[[X]], %[[PANELS]] as f32 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x40xf32>
  // CHECK: return %[[Y]]
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x64xf32>, tensor<40x64xf32>) outs(%init : tensor<?x40xf32>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// A weight with a format keeps the bits of the file, as blocks of 32 rows and
// columns, also where a private function multiplies with it.

// CHECK-LABEL: func private @blocks
// CHECK-SAME: %[[X:.*]]: tensor<?x64xf32>, %[[BLOCKS:.*]]: tensor<2x2x640xi8>
func.func private @blocks(%x: tensor<?x64xf32>, %w: tensor<40x64xf32>) -> tensor<?x40xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %empty = tensor.empty(%rows) : tensor<?x40xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x40xf32>) -> tensor<?x40xf32>
  // ROUNDED: %[[Y:.*]] = llm.linear %[[X]], %[[BLOCKS]] of q4_1 as i8 : tensor<?x64xf32>, tensor<2x2x640xi8> -> tensor<?x40xf32>
  // BF16: %[[Y:.*]] = llm.linear %[[X]], %[[BLOCKS]] of q4_1 as bf16
  // EXACT: %[[Y:.*]] = llm.linear %[[X]], %[[BLOCKS]] of q4_1 as f32
  // CHECK: return %[[Y]]
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x64xf32>, tensor<40x64xf32>) outs(%init : tensor<?x40xf32>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// CHECK: func @quantized
// CHECK-SAME: tensor<2x2x640xi8> {llm.weight = #llm.weight<["a", "b"], panel_rows = 40, format = q4_1>}
// CHECK-SAME: tensor<1x2x576xi8> {llm.weight = #llm.weight<["c"], panel_rows = 7, format = q4_0>}
// CHECK-SAME: tensor<1x2x1088xi8> {llm.weight = #llm.weight<["d"], panel_rows = 8, format = q8_0>}
func.func @quantized(%x: tensor<?x64xf32>,
    %w: tensor<40x64xf32> {llm.weight = #llm.weight<["a", "b"], format = q4_1>},
    %u: tensor<7x64xf32> {llm.weight = #llm.weight<["c"], format = q4_0>},
    %v: tensor<8x64xf32> {llm.weight = #llm.weight<["d"], format = q8_0>})
    -> (tensor<?x40xf32>, tensor<?x7xf32>, tensor<?x8xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %seven = tensor.empty(%rows) : tensor<?x7xf32>
  %eight = tensor.empty(%rows) : tensor<?x8xf32>
  %init7 = linalg.fill ins(%zero : f32) outs(%seven : tensor<?x7xf32>) -> tensor<?x7xf32>
  %init8 = linalg.fill ins(%zero : f32) outs(%eight : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = call @blocks(%x, %w) : (tensor<?x64xf32>, tensor<40x64xf32>) -> tensor<?x40xf32>
  // CHECK: llm.linear {{.*}} of q4_0 as
  %z = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %u : tensor<?x64xf32>, tensor<7x64xf32>) outs(%init7 : tensor<?x7xf32>) -> tensor<?x7xf32>
  // CHECK: llm.linear {{.*}} of q8_0 as
  %t = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %v : tensor<?x64xf32>, tensor<8x64xf32>) outs(%init8 : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y, %z, %t : tensor<?x40xf32>, tensor<?x7xf32>, tensor<?x8xf32>
}

// -----

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// A function that gets weights of several formats has the largest blocks of
// them, which the loader converts the others to.

// CHECK-LABEL: func private @linear
// CHECK-SAME: tensor<1x2x640xi8>
func.func private @linear(%x: tensor<?x64xf32>, %w: tensor<32x64xf32>) -> tensor<?x32xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %empty = tensor.empty(%rows) : tensor<?x32xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x32xf32>) -> tensor<?x32xf32>
  // CHECK: llm.linear {{.*}} of q4_1 as
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x64xf32>, tensor<32x64xf32>) outs(%init : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

// CHECK-LABEL: func private @wider
// CHECK-SAME: tensor<1x2x1088xi8>
func.func private @wider(%x: tensor<?x64xf32>, %w: tensor<32x64xf32>) -> tensor<?x32xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %empty = tensor.empty(%rows) : tensor<?x32xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x32xf32>) -> tensor<?x32xf32>
  // CHECK: llm.linear {{.*}} of q8_0 as
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x64xf32>, tensor<32x64xf32>) outs(%init : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

// CHECK: func @two_formats
// CHECK-SAME: tensor<1x2x640xi8> {llm.weight = #llm.weight<["a"], panel_rows = 32, format = q4_1>}
// CHECK-SAME: tensor<1x2x640xi8> {llm.weight = #llm.weight<["b"], panel_rows = 32, format = q4_1>}
// CHECK-SAME: tensor<1x2x1088xi8> {llm.weight = #llm.weight<["c"], panel_rows = 32, format = q8_0>}
// CHECK-SAME: tensor<1x2x1088xi8> {llm.weight = #llm.weight<["d"], panel_rows = 32, format = q8_0>}
func.func @two_formats(%x: tensor<?x64xf32>,
    %a: tensor<32x64xf32> {llm.weight = #llm.weight<["a"], format = q4_0>},
    %b: tensor<32x64xf32> {llm.weight = #llm.weight<["b"], format = q4_1>},
    %c: tensor<32x64xf32> {llm.weight = #llm.weight<["c"], format = q8_0>},
    %d: tensor<32x64xf32> {llm.weight = #llm.weight<["d"], format = q4_1>})
    -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>) {
  %y = call @linear(%x, %a) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %z = call @linear(%x, %b) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %t = call @wider(%x, %c) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %u = call @wider(%x, %d) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  return %y, %z, %t, %u : tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>
}

// -----

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// Where one of the weights has no format, the function has panels of f32, which
// the loader unpacks all of them to.

// CHECK-LABEL: func private @linear
// CHECK-SAME: tensor<1x64x32xf32>
func.func private @linear(%x: tensor<?x64xf32>, %w: tensor<32x64xf32>) -> tensor<?x32xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %empty = tensor.empty(%rows) : tensor<?x32xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x32xf32>) -> tensor<?x32xf32>
  // CHECK: llm.linear {{.*}} as f32 :
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x64xf32>, tensor<32x64xf32>) outs(%init : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

// CHECK: func @one_without_a_format
// CHECK-SAME: tensor<1x64x32xf32> {llm.weight = #llm.weight<["a"], panel_rows = 32>}
// CHECK-SAME: tensor<1x64x32xf32> {llm.weight = #llm.weight<["b"], panel_rows = 32>}
// CHECK-SAME: tensor<1x64x32xf32> {llm.weight = #llm.weight<["c"], panel_rows = 32>}
func.func @one_without_a_format(%x: tensor<?x64xf32>,
    %u: tensor<32x64xf32> {llm.weight = #llm.weight<["a"], format = q4_1>},
    %v: tensor<32x64xf32> {llm.weight = #llm.weight<["b"], format = q8_0>},
    %w: tensor<32x64xf32> {llm.weight = #llm.weight<["c"]>})
    -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>) {
  %y = call @linear(%x, %u) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %z = call @linear(%x, %v) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %t = call @linear(%x, %w) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  return %y, %z, %t : tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>
}

// -----

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// The weight knows sizes that the product's types leave open.

// CHECK-LABEL: func @open_types
func.func @open_types(%x: tensor<?x?xf32>, %w: tensor<32x64xbf16> {llm.weight = #llm.weight<["a"]>}, %rows: index, %columns: index) -> tensor<?x?xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty(%rows, %columns) : tensor<?x?xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x?xf32>) -> tensor<?x?xf32>
  // CHECK: %[[X:.*]] = tensor.cast %{{.*}} : tensor<?x?xf32> to tensor<?x64xf32>
  // CHECK: %[[Y:.*]] = llm.linear %[[X]]{{.*}} -> tensor<?x32xf32>
  // CHECK: tensor.cast %[[Y]] : tensor<?x32xf32> to tensor<?x?xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x?xf32>, tensor<32x64xbf16>) outs(%init : tensor<?x?xf32>) -> tensor<?x?xf32>
  return %y : tensor<?x?xf32>
}

// -----

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// A weight with another use stays a matrix, and so does the parameter that it
// is passed to.

// CHECK-LABEL: func private @linear
// CHECK-SAME: tensor<32x64xf32>
func.func private @linear(%x: tensor<?x64xf32>, %w: tensor<32x64xf32>) -> tensor<?x32xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %empty = tensor.empty(%rows) : tensor<?x32xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x32xf32>) -> tensor<?x32xf32>
  // CHECK: linalg.matmul
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x64xf32>, tensor<32x64xf32>) outs(%init : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

// CHECK: func @other_use
// CHECK-SAME: %[[W:.*]]: tensor<32x64xf32> {llm.weight = #llm.weight<["a"]>}
// CHECK-SAME: tensor<32x64xf32> {llm.weight = #llm.weight<["b"]>}
func.func @other_use(%x: tensor<?x64xf32>, %w: tensor<32x64xf32> {llm.weight = #llm.weight<["a"]>},
                     %u: tensor<32x64xf32> {llm.weight = #llm.weight<["b"]>}) -> (tensor<?x32xf32>, tensor<?x32xf32>, f32) {
  %c0 = arith.constant 0 : index
  %y = call @linear(%x, %w) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %z = call @linear(%x, %u) : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %element = tensor.extract %w[%c0, %c0] : tensor<32x64xf32>
  return %y, %z, %element : tensor<?x32xf32>, tensor<?x32xf32>, f32
}

// -----

// A panel holds rows of the weight, which a plain product sums over: that one
// stays what it is.

// CHECK-LABEL: func @not_transposed
// CHECK-SAME: tensor<64x64xf32> {llm.weight = #llm.weight<["a"]>}
func.func @not_transposed(%x: tensor<?x64xf32>, %w: tensor<64x64xf32> {llm.weight = #llm.weight<["a"]>}) -> tensor<?x64xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows = tensor.dim %x, %c0 : tensor<?x64xf32>
  %empty = tensor.empty(%rows) : tensor<?x64xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x64xf32>) -> tensor<?x64xf32>
  // CHECK: linalg.matmul
  %y = linalg.matmul ins(%x, %w : tensor<?x64xf32>, tensor<64x64xf32>) outs(%init : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}
