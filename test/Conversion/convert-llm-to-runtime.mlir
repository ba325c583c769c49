// RUN: %llm-opt %s --convert-llm-to-runtime --split-input-file --verify-diagnostics | FileCheck %s

!handle = !llm.kv_handle<2x1x4xf32>

// Every function takes the call; handles and steps are i64.

// CHECK-LABEL: func private @step
// CHECK-SAME: %[[CALL:[a-z0-9]+]]: !llvm.ptr, %[[KV:[a-z0-9]+]]: i64, %[[IDS:[a-z0-9]+]]: tensor<?xi32>
// CHECK-SAME: -> i64
func.func private @step(%c: !handle, %ids: tensor<?xi32>, %cu: tensor<?xi32>) -> !llm.kv_step {
  // CHECK: %[[VIEW:.*]] = bufferization.to_buffer %[[IDS]] read_only : tensor<?xi32> to memref<?xi32, strided<[?], offset: ?>>
  // CHECK: call @llm_rt_begin_step(%[[CALL]], %{{.*}}, %[[KV]], %{{.*}}, %{{.*}}, %[[SLOT:[0-9]+]]) {llm.op = "llm.begin_step"}
  // CHECK: %[[STEP:.*]] = llvm.load %[[SLOT]] : !llvm.ptr -> i64
  %step = llm.begin_step %c, %ids, %cu : !handle, tensor<?xi32>, tensor<?xi32>
  // CHECK: return %[[STEP]] : i64
  return %step : !llm.kv_step
}

// The size of a result that only the runtime knows is asked for first.

// CHECK-LABEL: func private @positions
func.func private @positions(%step: !llm.kv_step) -> tensor<?xi32> {
  // CHECK: call @llm_rt_step_size({{.*}}) {llm.op = "llm.positions"}
  // CHECK: %[[BUFFER:.*]] = memref.alloc(%{{.*}}) : memref<?xi32>
  // CHECK: call @llm_rt_positions(
  // CHECK: bufferization.to_tensor %[[BUFFER]] restrict writable
  %positions = llm.positions %step : tensor<?xi32>
  return %positions : tensor<?xi32>
}

// Absent operands are 0 or null.

// CHECK-LABEL: func private @attend
// CHECK-SAME: %[[CALL:[a-z0-9]+]]: !llvm.ptr, %[[Q:[a-z0-9]+]]: tensor<?x3x4xf32>, %[[KV:[a-z0-9]+]]: i64, %[[STEP:[a-z0-9]+]]: i64
func.func private @attend(%q: tensor<?x3x4xf32>, %c: !handle, %step: !llm.kv_step, %layer: index) -> tensor<?x3x4xf32> {
  // CHECK: call @llm_rt_at_layer(%[[CALL]], %{{.*}}, %[[STEP]],
  // CHECK: %[[AT:.*]] = llvm.load
  %at = llm.at_layer %step[%layer]
  // CHECK: %[[NULL:[0-9]+]] = llvm.mlir.zero
  // CHECK: %[[PARAMS:.*]] = llvm.mlir.addressof @llm_attention_params
  // CHECK: %[[EXTRAS:[0-9]+]] = llvm.mlir.zero
  // CHECK: call @llm_rt_paged_attention(%[[CALL]], %{{.*}}, %[[KV]], %[[AT]], %{{.*}}, %{{.*}}, %[[NULL]], %[[PARAMS]], %[[EXTRAS]])
  %o = llm.paged_attention %q, %c at %at : tensor<?x3x4xf32>, !handle -> tensor<?x3x4xf32>
  return %o : tensor<?x3x4xf32>
}

// Optional tensors come in a struct that says its size.

// CHECK-LABEL: func private @modified
func.func private @modified(%q: tensor<?x3x4xf32>, %c: !handle, %step: !llm.kv_step, %slopes: tensor<3xf32>, %logits: tensor<3xf32>) -> tensor<?x3x4xf32> {
  // CHECK-DAG: %[[EXTRAS:[0-9]+]] = llvm.alloca %{{.*}} x !llvm.struct<(i32, i32, ptr, ptr, ptr, ptr, ptr)>
  // CHECK: %[[BYTES:.*]] = arith.constant 48 : i32
  // CHECK: llvm.store %[[BYTES]], %{{.*}}
  // CHECK: %[[TABLE:.*]] = llvm.mlir.zero
  // CHECK: %[[TABLE_PLACE:.*]] = llvm.getelementptr %[[EXTRAS]][0, 2]
  // CHECK: llvm.store %[[TABLE]], %[[TABLE_PLACE]]
  // CHECK: %[[ALIBI_PLACE:.*]] = llvm.getelementptr %[[EXTRAS]][0, 3]
  // CHECK: llvm.store %[[ALIBI:.*]], %[[ALIBI_PLACE]]
  // CHECK: %[[SINK_PLACE:.*]] = llvm.getelementptr %[[EXTRAS]][0, 4]
  // CHECK: llvm.store %{{.*}}, %[[SINK_PLACE]]
  // CHECK: %[[QUERY:.*]] = llvm.mlir.zero
  // CHECK: %[[QUERY_PLACE:.*]] = llvm.getelementptr %[[EXTRAS]][0, 5]
  // CHECK: llvm.store %[[QUERY]], %[[QUERY_PLACE]]
  // CHECK: call @llm_rt_paged_attention({{.*}}, %[[EXTRAS]])
  %o = llm.paged_attention %q, %c at %step alibi(%slopes : tensor<3xf32>) head_sink(%logits : tensor<3xf32>) : tensor<?x3x4xf32>, !handle -> tensor<?x3x4xf32>
  return %o : tensor<?x3x4xf32>
}

// So does the table by which a key rotates, beside its pairing.

// CHECK-LABEL: func private @rotated
func.func private @rotated(%c: !handle, %step: !llm.kv_step, %k: tensor<?x1x4xf32>, %table: tensor<?x4xf32>) {
  // CHECK-DAG: %[[EXTRAS:[0-9]+]] = llvm.alloca %{{.*}} x !llvm.struct<(i32, i32, ptr, ptr, ptr, ptr, ptr)>
  // CHECK: %[[ADJACENT:.*]] = arith.constant 1 : i32
  // CHECK: %[[PAIRING:.*]] = llvm.getelementptr %[[EXTRAS]][0, 1]
  // CHECK: llvm.store %[[ADJACENT]], %[[PAIRING]]
  // CHECK: %[[PLACE:.*]] = llvm.getelementptr %[[EXTRAS]][0, 6]
  // CHECK: llvm.store %{{.*}}, %[[PLACE]]
  // CHECK: call @llm_rt_append_kv({{.*}}, %[[EXTRAS]])
  llm.append_kv %c, %k, %k at %step rope_table(%table : tensor<?x4xf32>) {pairing = #llm.rope_pairing<adjacent>} : !handle, tensor<?x1x4xf32>, tensor<?x1x4xf32>
  return
}

// The call is passed on.

// CHECK-LABEL: func private @caller
// CHECK-SAME: %[[CALL:[a-z0-9]+]]: !llvm.ptr
func.func private @caller(%step: !llm.kv_step) -> tensor<?xi32> {
  // CHECK: call @positions(%[[CALL]], %{{.*}}) : (!llvm.ptr, i64)
  %positions = call @positions(%step) : (!llm.kv_step) -> tensor<?xi32>
  return %positions : tensor<?xi32>
}

// A version on a path that no one takes is the null handle.

// CHECK-LABEL: func private @null
func.func private @null() {
  // CHECK: %[[NULL:.*]] = arith.constant 0 : i64
  // CHECK: call @llm_rt_drop_kv(%{{.*}}, %{{.*}}, %[[NULL]])
  %c = llm.null_kv : !handle
  llm.drop_kv %c : !handle
  return
}

// CHECK-LABEL: func private @poison
func.func private @poison() {
  // CHECK: %[[NULL:.*]] = arith.constant 0 : i64
  // CHECK: call @llm_rt_drop_kv(%{{.*}}, %{{.*}}, %[[NULL]])
  %c = ub.poison : !handle
  llm.drop_kv %c : !handle
  return
}

// The format of the weight is numbered as llm_file_format, activations as
// llm_dtype; the result has as many rows as x.

// CHECK-LABEL: func private @linear
// CHECK-SAME: %[[X:[a-z0-9]*]]: tensor<?x64xf32>
func.func private @linear(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>) -> tensor<?x40xf32> {
  // CHECK: %[[ROWS:.*]] = tensor.dim %[[X]]
  // CHECK: arith.constant 3 : i32
  // CHECK: %[[BF16:.*]] = arith.constant 2 : i32
  // CHECK-NEXT: %[[F32:.*]] = arith.constant 0 : i32
  // CHECK: memref.alloc(%[[ROWS]]) : memref<?x40xf32>
  // CHECK: call @llm_rt_linear(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %[[BF16]], %[[F32]], %{{.*}}) {llm.op = "llm.linear"}
  %y = llm.linear %x, %w as f32 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// CHECK-LABEL: func private @linear_of_blocks
func.func private @linear_of_blocks(%x: tensor<?x64xf32>, %w: tensor<2x2x640xi8>) -> tensor<?x40xf32> {
  // CHECK: %[[Q4_1:.*]] = arith.constant 5 : i32
  // CHECK-NEXT: %[[I8:.*]] = arith.constant 6 : i32
  // CHECK: call @llm_rt_linear(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %[[Q4_1]], %[[I8]], %{{.*}}) {llm.op = "llm.linear"}
  %y = llm.linear %x, %w of q4_1 as i8 : tensor<?x64xf32>, tensor<2x2x640xi8> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

// What an attribute of append says and a bare type leaves open is checked.

// CHECK-LABEL: func private @bare
func.func private @bare(%c: !llm.kv_handle, %k: tensor<1x1x1x4xf32>) {
  // CHECK: call @llm_rt_cast_kv({{.*}}) {llm.op = "llm.append_kv"}
  // CHECK: call @llm_rt_append_kv(
  llm.append_kv %c, %k, %k {block_size = 16 : i32} : !llm.kv_handle, tensor<1x1x1x4xf32>, tensor<1x1x1x4xf32>
  return
}

// -----

func.func private @value(%c: !llm.paged_kv_cache<2x1x4xf32>, %ids: tensor<?xi32>) -> tensor<?xi32> {
  // expected-error @+1 {{works on a cache value; run --llm-materialize-cache first}}
  %lengths = llm.seq_lens %c, %ids : !llm.paged_kv_cache<2x1x4xf32>, tensor<?xi32> -> tensor<?xi32>
  return %lengths : tensor<?xi32>
}

// -----

func.func private @rope(%x: tensor<?x3x4xf32>, %table: tensor<?x4xf32>) -> tensor<?x3x4xf32> {
  // expected-error @+1 {{must be decomposed first; run --llm-decompose-rope}}
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>}
      : tensor<?x3x4xf32>, tensor<?x4xf32>
  return %y : tensor<?x3x4xf32>
}

// -----

// A weight that private functions only read travels by number.

// CHECK-LABEL: func private @reads
// CHECK-SAME: %[[CALL:[a-z0-9]+]]: !llvm.ptr, %[[X:[a-z0-9]+]]: tensor<4xf32>, %[[NUMBER:[a-z0-9]+]]: i64
// CHECK: %[[FIELD:.*]] = llvm.getelementptr %[[CALL]][0, 4]
// CHECK: %[[TABLE:.*]] = llvm.load %[[FIELD]]
// CHECK: %[[ENTRY:.*]] = llvm.getelementptr %[[TABLE]][%[[NUMBER]]]
// CHECK: llvm.load %[[ENTRY]]
// CHECK: %[[W:.*]] = bufferization.to_tensor %{{.*}} restrict : memref<4xf32>
// CHECK: linalg.add ins(%[[X]], %[[W]]
func.func private @reads(%x: tensor<4xf32>, %w: tensor<4xf32>) -> tensor<4xf32> {
  %out = tensor.empty() : tensor<4xf32>
  %sum = linalg.add ins(%x, %w : tensor<4xf32>, tensor<4xf32>) outs(%out : tensor<4xf32>) -> tensor<4xf32>
  return %sum : tensor<4xf32>
}

// What is written, returned or passed on stays a tensor.

// CHECK-LABEL: func private @writes
// CHECK-SAME: !llvm.ptr, %{{.*}}: tensor<4xf32>
func.func private @writes(%w: tensor<4xf32>) -> tensor<4xf32> {
  %one = arith.constant 1.0 : f32
  %filled = linalg.fill ins(%one : f32) outs(%w : tensor<4xf32>) -> tensor<4xf32>
  return %filled : tensor<4xf32>
}

// CHECK-LABEL: func private @returns
// CHECK-SAME: !llvm.ptr, %{{.*}}: tensor<4xf32>
func.func private @returns(%w: tensor<4xf32>) -> tensor<4xf32> {
  return %w : tensor<4xf32>
}

// CHECK-LABEL: func private @passes
// CHECK-SAME: !llvm.ptr, %{{.*}}: tensor<4xf32>
func.func private @passes(%w: tensor<4xf32>) -> tensor<4xf32> {
  %r = call @returns(%w) : (tensor<4xf32>) -> tensor<4xf32>
  return %r : tensor<4xf32>
}

// So does what only some callers take from their call.

// CHECK-LABEL: func private @mixed
// CHECK-SAME: !llvm.ptr, %{{.*}}: tensor<4xf32>, %{{.*}}: tensor<4xf32>
func.func private @mixed(%x: tensor<4xf32>, %w: tensor<4xf32>) -> tensor<4xf32> {
  %out = tensor.empty() : tensor<4xf32>
  %sum = linalg.add ins(%x, %w : tensor<4xf32>, tensor<4xf32>) outs(%out : tensor<4xf32>) -> tensor<4xf32>
  return %sum : tensor<4xf32>
}

// CHECK-LABEL: func @entry
// CHECK-SAME: %[[CALL:[a-z0-9]+]]: !llvm.ptr
func.func @entry() {
  // CHECK-NOT: llvm.getelementptr %{{.*}}[7]
  %a = llm.call_argument weight 5 : memref<4xf32>
  %b = llm.call_argument weight 7 : memref<4xf32>
  %ta = bufferization.to_tensor %a restrict : memref<4xf32> to tensor<4xf32>
  %tb = bufferization.to_tensor %b restrict : memref<4xf32> to tensor<4xf32>
  // CHECK: %[[FIVE:.*]] = arith.constant 5 : i64
  // CHECK: call @reads(%[[CALL]], %[[A:.*]], %[[FIVE]]) : (!llvm.ptr, tensor<4xf32>, i64)
  // CHECK: %[[SEVEN:.*]] = arith.constant 7 : i64
  // CHECK: call @reads(%[[CALL]], %{{.*}}, %[[SEVEN]])
  %x = call @writes(%ta) : (tensor<4xf32>) -> tensor<4xf32>
  %0 = call @reads(%x, %ta) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %1 = call @reads(%0, %tb) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %2 = call @returns(%ta) : (tensor<4xf32>) -> tensor<4xf32>
  %3 = call @passes(%ta) : (tensor<4xf32>) -> tensor<4xf32>
  %4 = call @mixed(%x, %ta) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %5 = call @mixed(%ta, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return
}
