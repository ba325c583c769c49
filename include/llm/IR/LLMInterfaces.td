//===- LLMInterfaces.td - What passes match on -------------*- tablegen -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IR_LLMINTERFACES_TD
#define LLM_IR_LLMINTERFACES_TD

include "mlir/IR/Interfaces.td"

def LLM_KVCacheInterface : OpInterface<"KVCacheInterface"> {
  let cppNamespace = "::mlir::llm";
  let description = [{
    An op that reads or consumes a cache. Passes match on this, never on op
    classes, so that a new op needs no change in them.
  }];
  let methods = [
    InterfaceMethod<"The cache that is read or consumed", "::mlir::OpOperand &",
                    "getCacheOperand">,
    InterfaceMethod<"The next version; null for reading ops and for handles",
                    "::mlir::Value", "getResultCache">,
    StaticInterfaceMethod<"Does the op end the version it is given", "bool",
                          "isConsuming">,
    InterfaceMethod<"The step the op works under, with its layer; or null",
                    "::mlir::Value", "getStepOperand", (ins), "", [{
      return ::mlir::Value();
    }]>,
    InterfaceMethod<"Is this the form over handles", "bool", "isHandleForm",
                    (ins), "", [{
      return ::llvm::isa<::mlir::llm::KVHandleType>(
          $_op.getCacheOperand().get().getType());
    }]>,
  ];
}

def LLM_AttentionInterface : OpInterface<"AttentionInterface"> {
  let cppNamespace = "::mlir::llm";
  let description = [{
    An op that attends over a cache with queries.
  }];
  let methods = [
    InterfaceMethod<"The queries, [T, Hq, D] or [B, S, Hq, D]",
                    "::mlir::Value", "getQueries">,
    InterfaceMethod<"The result, shaped like the queries", "::mlir::Value",
                    "getAttentionResult">,
    InterfaceMethod<"Factor of the scores; 1 / sqrt(head_dim) when absent",
                    "std::optional<::llvm::APFloat>", "getScoreScale">,
  ];
}

#endif // LLM_IR_LLMINTERFACES_TD
