// RUN: not %llm-opt %s --llm-check-pipeline='after=a-pass gone=llm.at_layer' 2>&1 | FileCheck %s --check-prefix=OP
// RUN: not %llm-opt %s --llm-check-pipeline='after=a-pass gone=arith' 2>&1 | FileCheck %s --check-prefix=DIALECT
// RUN: not %llm-opt %s --llm-check-pipeline='after=a-pass gone-types=step' 2>&1 | FileCheck %s --check-prefix=TYPE
// RUN: not %llm-opt %s --llm-check-pipeline='after=a-pass gone-types=handle' 2>&1 | FileCheck %s --check-prefix=HANDLE
// RUN: not %llm-opt %s --llm-check-pipeline='after=a-pass gone-types=cache' 2>&1 | FileCheck %s --check-prefix=CACHE
// RUN: not %llm-opt %s --llm-check-pipeline='after=a-pass gone-types=tensor' 2>&1 | FileCheck %s --check-prefix=TENSOR
// RUN: %llm-opt %s --llm-check-pipeline='after=a-pass gone=scf,llm.rope'

// OP: 'llm.at_layer' op must be gone after a-pass
// DIALECT: 'arith.constant' op must be gone after a-pass
// TYPE: has type '!llm.kv_step', which must be gone after a-pass
// HANDLE: has type '!llm.kv_handle', which must be gone after a-pass
// CACHE: has type '!llm.paged_kv_cache', which must be gone after a-pass
// TENSOR: has type 'tensor<4xf32>', which must be gone after a-pass
func.func private @f(%step: !llm.kv_step, %h: !llm.kv_handle, %c: !llm.paged_kv_cache, %t: tensor<4xf32>) -> !llm.kv_step {
  %c0 = arith.constant 0 : index
  %at = llm.at_layer %step[%c0]
  return %at : !llm.kv_step
}
