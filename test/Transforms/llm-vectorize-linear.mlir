// RUN: %llm-opt %s --pass-pipeline='builtin.module(func.func(llm-vectorize-linear))' | FileCheck %s

// One panel a work item; 8 rows, then single rows; the tile of the result stays
// in registers over k.

// CHECK-LABEL: @linear
// CHECK-SAME: %[[X:.*]]: tensor<?x64xf32>, %[[PANELS:.*]]: tensor<3x64x32xbf16>
// CHECK: scf.forall (%[[PANEL:.*]]) in (3)
// CHECK:   scf.for %[[ROW:.*]] = %c0 to %{{.*}} step %c8
// CHECK:     scf.for %[[K:.*]] = %c0 to %c64 {{.*}} -> (vector<8x32xf32>)
// CHECK:       %[[SLICE:.*]] = tensor.extract_slice %[[PANELS]][%[[PANEL]], %[[K]], 0]
// CHECK:       %[[LINE:.*]] = vector.transfer_read %[[SLICE]]{{.*}} vector<32xbf16>
// CHECK:       %[[WIDE:.*]] = arith.extf %[[LINE]] : vector<32xbf16> to vector<32xf32>
// CHECK-NOT:   arith.extf
// CHECK-COUNT-8: vector.fma
// CHECK:     vector.transfer_write
// CHECK:   scf.for {{.*}} step %c8
// CHECK:     scf.for {{.*}} step %c1
// CHECK:       scf.for {{.*}} -> (vector<32xf32>)
// CHECK-NOT: llm.linear
#x = affine_map<(m, p, k, n) -> (m, k)>
#w = affine_map<(m, p, k, n) -> (p, k, n)>
#y = affine_map<(m, p, k, n) -> (m, p, n)>
func.func @linear(%x: tensor<?x64xf32>, %w: tensor<3x64x32xbf16>, %init: tensor<?x3x32xf32>) -> tensor<?x3x32xf32> {
  %y = linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "reduction", "parallel"]}
      ins(%x, %w : tensor<?x64xf32>, tensor<3x64x32xbf16>) outs(%init : tensor<?x3x32xf32>) attrs = {llm.linear} {
  ^bb0(%a: f32, %b: bf16, %c: f32):
    %wide = arith.extf %b : bf16 to f32
    %product = arith.mulf %a, %wide : f32
    %sum = arith.addf %c, %product : f32
    linalg.yield %sum : f32
  } -> tensor<?x3x32xf32>
  return %y : tensor<?x3x32xf32>
}
