//===- LLMBase.td - The llm dialect ------------------------*- tablegen -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IR_LLMBASE_TD
#define LLM_IR_LLMBASE_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"

def LLM_Dialect : Dialect {
  let name = "llm";
  let cppNamespace = "::mlir::llm";
  let summary = "A paged KV cache as a typed SSA value";
  let description = [{
    The key-value cache of a transformer is a value of type
    `!llm.paged_kv_cache`. Ops that change it *consume* one version and return
    the next; using an older version is branching the future (beam search,
    speculation, rollback), and copy-on-write blocks make that cheap.

    **Words.** Per sequence (an i32 slot in [0, max_sequences), chosen by the
    caller; an empty one is free): its *length* is the number of tokens it
    holds; its *position* is what the next token gets. A *step* says which
    sequences and tokens a pass over the layers concerns; each layer appends
    its own K and V under it. *Release* gives a sequence back, *drop* ends a
    version, *destroy* ends the host's object.

    **Contract.** Value ops have no memory effect, yet they can fail, so they
    are not speculatable: an op whose result is unused may be removed together
    with its error; equal ops on equal versions may be merged; nothing runs
    where the source did not run it. `llm.create_kv_cache` allocates.

    **A call is a transaction.** Any op that fails ends the exported call with
    a code, a source location and numbers, and every cache of the host is as it
    was before.

    **Block ids** are opaque and valid only with the version they came from. An
    id that is not live in that version is an error, never a read.

    **Two levels.** Programs are written over values. `llm-materialize-cache`
    proves where an update is in place and turns values into handles
    (`!llm.kv_handle`) with memory effects; there consuming ops have no cache
    result. Both levels use the same ops.
  }];
  let dependentDialects = [
    "::mlir::tensor::TensorDialect", "::mlir::arith::ArithDialect",
  ];
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
  let extraClassDeclaration = [{
    /// Argument and result attributes that the dialect verifies.
    static constexpr ::llvm::StringLiteral kTiedAttr = "llm.tied";
    static constexpr ::llvm::StringLiteral kFreshAttr = "llm.fresh";
    static constexpr ::llvm::StringLiteral kBorrowedAttr = "llm.borrowed";
    static constexpr ::llvm::StringLiteral kNameAttr = "llm.name";
    static constexpr ::llvm::StringLiteral kDimsAttr = "llm.dims";
    static constexpr ::llvm::StringLiteral kBelowAttr = "llm.below";
    static constexpr ::llvm::StringLiteral kWeightAttr = "llm.weight";
    static constexpr ::llvm::StringLiteral kConfigAttr = "llm.config";
    /// Module attribute: JSON text for the host, kept in the program.
    static constexpr ::llvm::StringLiteral kMetadataAttr = "llm.metadata";

    void registerTypes();
    void registerAttributes();
    void registerOperations();
  }];
  let hasRegionArgAttrVerify = 1;
  let hasRegionResultAttrVerify = 1;
}

#endif // LLM_IR_LLMBASE_TD
