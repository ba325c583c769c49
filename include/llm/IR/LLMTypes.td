//===- LLMTypes.td - Cache, step and handle ----------------*- tablegen -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IR_LLMTYPES_TD
#define LLM_IR_LLMTYPES_TD

include "llm/IR/LLMBase.td"

class LLM_Type<string name, string typeMnemonic, list<Trait> traits = []>
    : TypeDef<LLM_Dialect, name, traits> {
  let mnemonic = typeMnemonic;
}

def LLM_PagedKVCacheType : LLM_Type<"PagedKVCache", "paged_kv_cache"> {
  let summary = "A version of a paged KV cache";
  let description = [{
    `layers x kv_heads x head_dim x element type`, as ops see it (f32, f16 or
    bf16), then what is known of the rest:

    | parameter | meaning |
    |---|---|
    | `block_size` | tokens of one block |
    | `max_seq_len` | tokens that a sequence may hold |
    | `max_sequences` | sequence ids are [0, max_sequences) |
    | `window` | a query at position p sees the keys in (p - window, p] |
    | `sinks` | and the first `sinks` keys, whatever p is: only with a window |
    | `storage` | formats in which K and V are held, a `#llm.kv_storage` |

    A dimension `?` and an absent parameter are known only at run time; the
    bare type knows nothing and is checked when it runs. An absent `window`
    means that there is none, and an absent `sinks` beside a window that there
    are none. Both are masks: nothing is forgotten or renumbered. Without
    `storage` K and V are held in the element type. The type implements neither
    `TensorLikeType` nor
    `BufferLikeType`: One-Shot Bufferize must not see a cache.

    Example:

    ```mlir
    func.func private @types(
        !llm.paged_kv_cache<32x8x128xf16, block_size = 16, max_seq_len = 8192,
                            max_sequences = 64>,
        !llm.paged_kv_cache<4x2x64xf32, window = 128>,
        !llm.paged_kv_cache<4x2x64xf32, window = 512, sinks = 4>,
        !llm.paged_kv_cache<32x8x128xf16,
                            storage = #llm.kv_storage<k = i8, v = f8E4M3FN>>,
        !llm.paged_kv_cache<?x8x128xbf16>,
        !llm.paged_kv_cache)
    ```
  }];
  let parameters = (ins
    "int64_t":$layers, "int64_t":$kvHeads, "int64_t":$headDim,
    "::mlir::Type":$elementType,
    "int64_t":$blockSize, "int64_t":$maxSeqLen, "int64_t":$maxSequences,
    "int64_t":$window, "int64_t":$sinks,
    "::mlir::llm::KVStorageAttr":$storage);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let skipDefaultBuilders = 1;
  let builders = [
    TypeBuilderWithInferredContext<(ins "::mlir::Type":$elementType,
      "int64_t":$layers, "int64_t":$kvHeads, "int64_t":$headDim,
      CArg<"int64_t", "ShapedType::kDynamic">:$blockSize,
      CArg<"int64_t", "ShapedType::kDynamic">:$maxSeqLen,
      CArg<"int64_t", "ShapedType::kDynamic">:$maxSequences,
      CArg<"int64_t", "0">:$window, CArg<"int64_t", "0">:$sinks,
      CArg<"::mlir::llm::KVStorageAttr", "{}">:$storage), [{
      return $_get(elementType.getContext(), layers, kvHeads, headDim,
                   elementType, blockSize, maxSeqLen, maxSequences, window,
                   sinks, storage);
    }]>,
    // Nothing but these two is known.
    TypeBuilder<(ins "int64_t":$blockSize, "int64_t":$maxSeqLen), [{
      constexpr int64_t dynamic = ShapedType::kDynamic;
      return $_get($_ctxt, dynamic, dynamic, dynamic, Type(), blockSize,
                   maxSeqLen, dynamic, int64_t(0), int64_t(0),
                   KVStorageAttr());
    }]>,
    TypeBuilder<(ins), [{
      constexpr int64_t dynamic = ShapedType::kDynamic;
      return $_get($_ctxt, dynamic, dynamic, dynamic, Type(), dynamic, dynamic,
                   dynamic, int64_t(0), int64_t(0), KVStorageAttr());
    }]>,
  ];
  let extraClassDeclaration = [{
    /// Nothing is known: the bare `!llm.paged_kv_cache`.
    bool isBare() const { return !getElementType(); }
    /// Everything but the window and its sinks is known.
    bool isFullyStatic() const;
    /// The format in which K or V is held, if not in the element type.
    Type getKFormat() const;
    Type getVFormat() const;
    /// Whether blocks can have `size` tokens: with K of i4, whole groups.
    static bool canHaveBlocksOf(KVStorageAttr storage, int64_t size);
    /// Could a cache of this type at run time also have type `other`?
    bool isCompatibleWith(PagedKVCacheType other) const;
  }];
}

def LLM_KVHandleType : LLM_Type<"KVHandle", "kv_handle"> {
  let summary = "A cache with identity, after materialization";
  let description = [{
    What a cache value becomes in `llm-materialize-cache`: one object that ops
    read and write. Its parameters are those of the value's type.

    Example:

    ```mlir
    func.func private @handle(!llm.kv_handle<32x8x128xf16, block_size = 16>)
    ```
  }];
  let parameters = (ins "::mlir::llm::PagedKVCacheType":$cache);
  let hasCustomAssemblyFormat = 1;
  let builders = [
    TypeBuilderWithInferredContext<(ins "PagedKVCacheType":$cache), [{
      return $_get(cache.getContext(), cache);
    }]>,
  ];
}

def LLM_KVStepType : LLM_Type<"KVStep", "kv_step"> {
  let summary = "Which sequences and tokens a step concerns";
  let description = [{
    Plain, copyable data: the sequences of the step, their tokens, start
    lengths and positions, and, after `llm.at_layer`, a layer. It never crosses
    a public function.
  }];
}

def LLM_AnyCache : AnyTypeOf<[LLM_PagedKVCacheType, LLM_KVHandleType],
                             "KV cache value or handle">;
def LLM_KVStep : Type<LLM_KVStepType.predicate, "KV step">,
                 BuildableType<"$_builder.getType<::mlir::llm::KVStepType>()">;
def LLM_FloatTensor : RankedTensorOf<[F32, F16, BF16]>;
def LLM_IdTensor : 1DTensorOf<[I32]>;

#endif // LLM_IR_LLMTYPES_TD
