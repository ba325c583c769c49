//===- LLMOps.td - Operations of the llm dialect -----------*- tablegen -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IR_LLMOPS_TD
#define LLM_IR_LLMOPS_TD

include "llm/IR/LLMBase.td"
include "llm/IR/LLMTypes.td"
include "llm/IR/LLMAttrs.td"
include "llm/IR/LLMInterfaces.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

class LLM_Op<string opMnemonic, list<Trait> traits = []>
    : Op<LLM_Dialect, opMnemonic, traits>;

/// An op that `convert-llm-to-runtime` turns into one call of `symbol`, which
/// CAPI.h declares.
class LLM_RuntimeOp<string opMnemonic, string symbol, list<Trait> traits = []>
    : LLM_Op<opMnemonic, traits> {
  code runtimeDeclaration = [{
    static ::llvm::StringRef getRuntimeSymbol() { return "}] # symbol # [{"; }
  }];
  let extraClassDeclaration = runtimeDeclaration;
}

/// Value form: no effect. Handle form: reads, and writes if it consumes.
class LLM_CacheOp<string opMnemonic, string symbol, bit consuming,
                  list<Trait> traits = []>
    : LLM_RuntimeOp<opMnemonic, symbol, !listconcat(traits, [
        DeclareOpInterfaceMethods<LLM_KVCacheInterface>,
        DeclareOpInterfaceMethods<MemoryEffectsOpInterface>])> {
  code cacheDefinition = [{
    ::mlir::OpOperand &$cppClass::getCacheOperand() {
      return getCacheMutable();
    }
    void $cppClass::getEffects(
        ::llvm::SmallVectorImpl<::mlir::MemoryEffects::EffectInstance>
            &effects) {
      detail::getCacheEffects(getOperation(), effects);
    }
    bool $cppClass::isConsuming() { return }] # !if(consuming, "true", "false") # [{; }
  }];
  code readerDefinition = [{
    ::mlir::Value $cppClass::getResultCache() { return {}; }
  }];
}

class LLM_ReadingOp<string opMnemonic, string symbol, list<Trait> traits = []>
    : LLM_CacheOp<opMnemonic, symbol, 0, traits> {
  let extraClassDefinition = cacheDefinition # readerDefinition;
}

/// In value form the first result is the next version, of the operand's type;
/// in handle form there is none.
class LLM_ConsumingOp<string opMnemonic, string symbol, list<Trait> traits = []>
    : LLM_CacheOp<opMnemonic, symbol, 1, traits> {
  let extraClassDefinition = cacheDefinition # [{
    ::mlir::Value $cppClass::getResultCache() { return getResult(); }
  }];
}

//===----------------------------------------------------------------------===//
// Creation and types
//===----------------------------------------------------------------------===//

def LLM_CreateKVCacheOp : LLM_RuntimeOp<"create_kv_cache",
    "llm_rt_create_kv_cache", [DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "Make an empty cache";
  let description = [{
    An empty cache. With the strategy `paged` (the default) it has room for
    `blocks` blocks, with `static` room for every sequence at max_seq_len. The
    type must be fully static. Fails with `out of memory`.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16, block_size = 16, max_seq_len = 512,
                              max_sequences = 4>
    func.func @create(%blocks: index) {
      %paged = llm.create_kv_cache blocks(%blocks) : !kv
      %static = llm.create_kv_cache {strategy = #llm.kv_strategy<static>} : !kv
      return
    }
    ```
  }];
  let arguments = (ins
    Optional<Index>:$blocks,
    DefaultValuedAttr<LLM_KVStrategyAttr,
                      "::mlir::llm::KVStrategy::Paged">:$strategy);
  let results = (outs LLM_AnyCache:$result);
  let assemblyFormat = "(`blocks` `(` $blocks^ `)`)? attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def LLM_CastKVOp : LLM_ConsumingOp<"cast_kv", "llm_rt_cast_kv"> {
  let summary = "Change what is known of a cache";
  let description = [{
    The same cache under a type that says more or less. What the new type says
    is checked when it runs: `invalid argument` names the parameter. Consumes
    the cache.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<1x16x64xf16, block_size = 16>
    func.func @cast(%c: !llm.paged_kv_cache) -> !llm.paged_kv_cache {
      %static = llm.cast_kv %c : !llm.paged_kv_cache -> !kv
      %bare = llm.cast_kv %static : !kv -> !llm.paged_kv_cache
      return %bare : !llm.paged_kv_cache
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache);
  let results = (outs LLM_AnyCache:$result);
  let assemblyFormat = "$cache attr-dict `:` type($cache) `->` type($result)";
  let hasVerifier = 1;
  let hasFolder = 1;
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

def LLM_BeginStepOp : LLM_ConsumingOp<"begin_step", "llm_rt_begin_step"> {
  let summary = "Begin a step and take its blocks";
  let description = [{
    Tokens `cu_seqlens[i] .. cu_seqlens[i + 1] - 1` of the ragged batch belong
    to sequence `seq_ids[i]`; a free id starts an empty sequence. Takes all
    blocks that the step needs, for all layers, copies of shared tails
    included: the one op of a normal step that runs out of blocks. It fails for
    the batch as a whole, nothing changes, and the error names the first
    sequence that did not fit. Ids must be in range and distinct
    (`invalid argument`).

    The step ends at the next `llm.begin_step` or at the end of the exported
    call; then every layer that was ever appended to must have been appended to
    (`wrong state` names the layer).

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func @begin(%c: !kv, %ids: tensor<?xi32>, %cu: tensor<?xi32>) -> !kv {
      %c1, %step = llm.begin_step %c, %ids, %cu
          : !kv, tensor<?xi32>, tensor<?xi32> -> !kv
      return %c1 : !kv
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache, LLM_IdTensor:$seq_ids,
                       LLM_IdTensor:$cu_seqlens);
  let results = (outs Optional<LLM_AnyCache>:$result, LLM_KVStep:$step);
  let assemblyFormat = [{
    $cache `,` $seq_ids `,` $cu_seqlens attr-dict `:` type($cache) `,`
    type($seq_ids) `,` type($cu_seqlens) (`->` type($result)^)?
  }];
  let hasVerifier = 1;
}

def LLM_PositionsOp : LLM_RuntimeOp<"positions", "llm_rt_positions",
                                    [NoMemoryEffect]> {
  let summary = "The position of each token of a step";
  let description = [{
    One i32 for each of the step's T tokens, for RoPE or learned positions.

    Example:

    ```mlir
    func.func private @rotate(%step: !llm.kv_step) -> tensor<?xi32> {
      %pos = llm.positions %step : tensor<?xi32>
      return %pos : tensor<?xi32>
    }
    ```
  }];
  let arguments = (ins LLM_KVStep:$step);
  let results = (outs LLM_IdTensor:$result);
  let assemblyFormat = "$step attr-dict `:` type($result)";
}

def LLM_AtLayerOp : LLM_RuntimeOp<"at_layer", "llm_rt_at_layer",
                                  [NoMemoryEffect]> {
  let summary = "The step at one layer";
  let description = [{
    The same step, seen at a layer. A layer that the step's cache does not have
    is `invalid argument`.

    Example:

    ```mlir
    func.func private @third(%step: !llm.kv_step) -> !llm.kv_step {
      %c2 = arith.constant 2 : index
      %at = llm.at_layer %step[%c2]
      return %at : !llm.kv_step
    }
    ```
  }];
  let arguments = (ins LLM_KVStep:$step, Index:$layer);
  let results = (outs LLM_KVStep:$result);
  let assemblyFormat = "$step `[` $layer `]` attr-dict";
  let hasFolder = 1;
}

//===----------------------------------------------------------------------===//
// Append and read
//===----------------------------------------------------------------------===//

def LLM_AppendKVOp : LLM_ConsumingOp<"append_kv", "llm_rt_append_kv"> {
  let summary = "Append K and V at one layer";
  let description = [{
    With a step: K and V are `[T, Hkv, D]`, and each token goes to the end of
    its sequence at the step's layer. Without: K and V are `[B, S, Hkv, D]`,
    row i is sequence i, all S tokens are valid, the cache has one layer, and
    blocks are taken on the fly. Elements are f32, f16 or bf16 whatever the
    cache holds: they are rounded once, to nearest even, or quantized as
    `#llm.kv_storage` says. A second append at a layer in one step, or a step of
    another cache, is `wrong state`.

    With `rope_table` the key, of f32 under a step, is rotated first, as
    `llm.rope` with this table and `pairing` would (`llm-fuse-rope`).

    `block_size` and `max_seq_len` are checked against the cache's type.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func private @append(%c: !kv, %at: !llm.kv_step, %k: tensor<?x1x64xf32>,
                              %v: tensor<?x1x64xf32>) -> !kv {
      %c1 = llm.append_kv %c, %k, %v at %at
          : !kv, tensor<?x1x64xf32>, tensor<?x1x64xf32> -> !kv
      return %c1 : !kv
    }

    func.func private @append_rotated(
        %c: !kv, %at: !llm.kv_step, %k: tensor<?x1x64xf32>,
        %v: tensor<?x1x64xf32>, %table: tensor<?x64xf32>) -> !kv {
      %c1 = llm.append_kv %c, %k, %v at %at
          rope_table(%table : tensor<?x64xf32>)
          {pairing = #llm.rope_pairing<half>}
          : !kv, tensor<?x1x64xf32>, tensor<?x1x64xf32> -> !kv
      return %c1 : !kv
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache, LLM_FloatTensor:$key,
                       LLM_FloatTensor:$value, Variadic<AnyType>:$extras,
                       OptionalAttr<LLM_ExtraNamesAttr>:$extra_names,
                       OptionalAttr<LLM_RopePairingAttr>:$pairing,
                       OptionalAttr<I32Attr>:$block_size,
                       OptionalAttr<I32Attr>:$max_seq_len);
  let results = (outs Optional<LLM_AnyCache>:$result);
  let assemblyFormat = [{
    $cache `,` $key `,` $value `` custom<Extras>($extras, type($extras),
    $extra_names) attr-dict `:` type($cache) `,` type($key) `,` type($value)
    (`->` type($result)^)?
  }];
  let extraClassDeclaration = runtimeDeclaration # [{
    ::mlir::Value getExtra(::mlir::llm::Extra extra);
    ::mlir::Value getStepOperand() {
      return getExtra(::mlir::llm::Extra::Step);
    }
  }];
  let hasVerifier = 1;
}

def LLM_PagedAttentionOp : LLM_ReadingOp<"paged_attention",
    "llm_rt_paged_attention", [DeclareOpInterfaceMethods<LLM_AttentionInterface>]> {
  let summary = "Attention of queries over a cache";
  let description = [{
    `softmax(scale q k^T + masks) v`, accumulated in f32. With a step the
    queries are `[T, Hq, D]` at the step's positions and layer; without,
    `[B, S, Hq, D]`, the last S positions of sequence i. Hq is a multiple of
    the KV heads. A query sees keys at positions up to its own unless `causal`
    is false; `window` may only narrow the cache's, whose sinks stay visible;
    `softcap` c turns a score s into `c tanh(s / c)`. `scale` is
    1 / sqrt(head_dim) when absent. The optional result `lse` is the natural log
    of the sum of exponentials, so that partial results merge; a row that sees
    no key has o = 0, lse = -inf.

    Optional tensors modify the scores, in this order: scale, `softcap`, `alibi`.

    | operand | type | meaning |
    |---|---|---|
    | `alibi` | f32 `[Hq]` | slopes: the score of key j for position p grows by slope (j - p) |
    | `head_sink` | f32 `[Hq]` | one more logit of each query head, as it is, without a value |
    | `sink_query` | as the query | takes its place for the cache's sinks |

    A head sink enters the denominator alone, and `lse` contains it: in partial
    results that are to be merged only one may have it. A row that sees no key
    has it for its lse. `sink_query` is for sinks that are to seem nearer than
    they are: the query of position p, rotated for min(p, sinks + window - 1).

    `blocks` is an explicit block table, i32 `[B, W]`: token j of row i is slot
    j mod block_size of block `table[i, j div block_size]`. Its ids must be live
    in this version and hold the tokens that are read, and a row must reach them
    (`invalid argument`).

    `num_heads` (query heads) and `head_dim` are checked against the types.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func private @attend(%q: tensor<?x3x64xf32>, %c: !kv,
                              %at: !llm.kv_step) -> tensor<?x3x64xf32> {
      %o = llm.paged_attention %q, %c at %at {scale = 0.125 : f32}
          : tensor<?x3x64xf32>, !kv -> tensor<?x3x64xf32>
      return %o : tensor<?x3x64xf32>
    }

    !windowed = !llm.paged_kv_cache<2x1x64xf16, window = 512, sinks = 4>
    func.func private @modified(%q: tensor<?x3x64xf32>, %c: !windowed,
                                %at: !llm.kv_step, %slopes: tensor<3xf32>,
                                %logits: tensor<3xf32>,
                                %nearer: tensor<?x3x64xf32>)
        -> tensor<?x3x64xf32> {
      %o = llm.paged_attention %q, %c at %at alibi(%slopes : tensor<3xf32>)
          head_sink(%logits : tensor<3xf32>)
          sink_query(%nearer : tensor<?x3x64xf32>)
          : tensor<?x3x64xf32>, !windowed -> tensor<?x3x64xf32>
      return %o : tensor<?x3x64xf32>
    }
    ```
  }];
  let arguments = (ins LLM_FloatTensor:$query, LLM_AnyCache:$cache,
                       Variadic<AnyType>:$extras,
                       OptionalAttr<LLM_ExtraNamesAttr>:$extra_names,
                       OptionalAttr<I32Attr>:$num_heads,
                       OptionalAttr<I32Attr>:$head_dim,
                       OptionalAttr<F32Attr>:$scale,
                       OptionalAttr<F32Attr>:$softcap,
                       OptionalAttr<I32Attr>:$window,
                       DefaultValuedAttr<BoolAttr, "true">:$causal);
  let results = (outs LLM_FloatTensor:$output,
                      Optional<RankedTensorOf<[F32]>>:$lse);
  let assemblyFormat = [{
    $query `,` $cache `` custom<Extras>($extras, type($extras), $extra_names)
    attr-dict `:` type($query) `,` type($cache) `->` type($output)
    (`,` type($lse)^)?
  }];
  let extraClassDeclaration = runtimeDeclaration # [{
    ::mlir::Value getExtra(::mlir::llm::Extra extra);
    ::mlir::Value getStepOperand() {
      return getExtra(::mlir::llm::Extra::Step);
    }
  }];
  let hasVerifier = 1;
}

def LLM_LookupKVOp : LLM_ReadingOp<"lookup_kv", "llm_rt_lookup_kv"> {
  let summary = "K and V as dense tensors";
  let description = [{
    `[B, C, Hkv, D]` tensors of the cache's element type, to which what is
    quantized is rounded. C is a bound: the first min(C, length) tokens, then
    zeros. Row i is the step's i-th sequence,
    or sequence i without a step (one layer). `blocks` as in
    `llm.paged_attention`. This is the oracle and decomposition path.

    `num_heads` (KV heads) and `head_dim` are checked against the types.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func private @lookup(%c: !kv, %at: !llm.kv_step)
        -> (tensor<?x32x1x64xf16>, tensor<?x32x1x64xf16>) {
      %k, %v = llm.lookup_kv %c at %at
          : !kv -> tensor<?x32x1x64xf16>, tensor<?x32x1x64xf16>
      return %k, %v : tensor<?x32x1x64xf16>, tensor<?x32x1x64xf16>
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache, Variadic<AnyType>:$extras,
                       OptionalAttr<LLM_ExtraNamesAttr>:$extra_names,
                       OptionalAttr<I32Attr>:$num_heads,
                       OptionalAttr<I32Attr>:$head_dim);
  let results = (outs LLM_FloatTensor:$key, LLM_FloatTensor:$value);
  let assemblyFormat = [{
    $cache `` custom<Extras>($extras, type($extras), $extra_names) attr-dict `:`
    type($cache) `->` type($key) `,` type($value)
  }];
  let extraClassDeclaration = runtimeDeclaration # [{
    ::mlir::Value getExtra(::mlir::llm::Extra extra);
    ::mlir::Value getStepOperand() {
      return getExtra(::mlir::llm::Extra::Step);
    }
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

def LLM_ForkKVOp : LLM_ConsumingOp<"fork_kv", "llm_rt_fork_kv"> {
  let summary = "Let sequences share a parent's first tokens";
  let description = [{
    Sequence `children[i]`, empty before (`wrong state` else), holds the first
    `lengths[i]` tokens of `parents[i]`; more than it has is `invalid argument`,
    more than some layer holds inside a step is `wrong state`. Nothing is copied
    until somebody writes into a shared block.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func @fork(%c: !kv, %from: tensor<?xi32>, %to: tensor<?xi32>,
                    %lengths: tensor<?xi32>) -> !kv {
      %c1 = llm.fork_kv %c, %from, %to, %lengths
          : !kv, tensor<?xi32>, tensor<?xi32>, tensor<?xi32> -> !kv
      return %c1 : !kv
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache, LLM_IdTensor:$parents,
                       LLM_IdTensor:$children, LLM_IdTensor:$lengths);
  let results = (outs Optional<LLM_AnyCache>:$result);
  let assemblyFormat = [{
    $cache `,` $parents `,` $children `,` $lengths attr-dict `:` type($cache)
    `,` type($parents) `,` type($children) `,` type($lengths)
    (`->` type($result)^)?
  }];
  let hasVerifier = 1;
}

def LLM_TrimKVOp : LLM_ConsumingOp<"trim_kv", "llm_rt_trim_kv"> {
  let summary = "Cut sequences back";
  let description = [{
    Sequence `seq_ids[i]` keeps its first `lengths[i]` tokens; more than it has
    is `invalid argument`.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func @trim(%c: !kv, %ids: tensor<?xi32>, %lengths: tensor<?xi32>) -> !kv {
      %c1 = llm.trim_kv %c, %ids, %lengths
          : !kv, tensor<?xi32>, tensor<?xi32> -> !kv
      return %c1 : !kv
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache, LLM_IdTensor:$seq_ids,
                       LLM_IdTensor:$lengths);
  let results = (outs Optional<LLM_AnyCache>:$result);
  let assemblyFormat = [{
    $cache `,` $seq_ids `,` $lengths attr-dict `:` type($cache) `,`
    type($seq_ids) `,` type($lengths) (`->` type($result)^)?
  }];
  let hasVerifier = 1;
}

def LLM_ReleaseKVOp : LLM_ConsumingOp<"release_kv", "llm_rt_release_kv"> {
  let summary = "Give sequences back";
  let description = [{
    The sequences are empty afterwards. Releasing an empty one is allowed.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func @release(%c: !kv, %ids: tensor<?xi32>) -> !kv {
      %c1 = llm.release_kv %c, %ids : !kv, tensor<?xi32> -> !kv
      return %c1 : !kv
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache, LLM_IdTensor:$seq_ids);
  let results = (outs Optional<LLM_AnyCache>:$result);
  let assemblyFormat = [{
    $cache `,` $seq_ids attr-dict `:` type($cache) `,` type($seq_ids)
    (`->` type($result)^)?
  }];
  let hasVerifier = 1;
}

def LLM_SnapshotKVOp : LLM_RuntimeOp<"snapshot_kv", "llm_rt_snapshot_kv", [
    AllTypesMatch<["cache", "result"]>,
    DeclareOpInterfaceMethods<LLM_KVCacheInterface>,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "A second, independent version of a cache";
  let description = [{
    Costs O(sequences); blocks are shared and copied when written. Over values
    it says that a copy is wanted where `llm-materialize-cache` may insert none
    (`strict`).

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func private @twice(%c: !kv) -> (!kv, !kv) {
      %copy = llm.snapshot_kv %c : !kv
      return %c, %copy : !kv, !kv
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache);
  let results = (outs LLM_AnyCache:$result);
  let assemblyFormat = "$cache attr-dict `:` type($cache)";
  let extraClassDefinition = [{
    ::mlir::OpOperand &$cppClass::getCacheOperand() {
      return getCacheMutable();
    }
    ::mlir::Value $cppClass::getResultCache() { return {}; }
    bool $cppClass::isConsuming() { return false; }
  }];
  let builders = [OpBuilder<(ins "::mlir::Value":$cache), [{
    build($_builder, $_state, cache.getType(), cache);
  }]>];
}

//===----------------------------------------------------------------------===//
// Queries
//===----------------------------------------------------------------------===//

def LLM_SeqLensOp : LLM_ReadingOp<"seq_lens", "llm_rt_seq_lens"> {
  let summary = "The lengths of sequences";
  let description = [{
    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func @lengths(%c: !kv, %ids: tensor<?xi32>) -> tensor<?xi32> {
      %lengths = llm.seq_lens %c, %ids : !kv, tensor<?xi32> -> tensor<?xi32>
      return %lengths : tensor<?xi32>
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache, LLM_IdTensor:$seq_ids);
  let results = (outs LLM_IdTensor:$lengths);
  let assemblyFormat = [{
    $cache `,` $seq_ids attr-dict `:` type($cache) `,` type($seq_ids) `->`
    type($lengths)
  }];
  let hasVerifier = 1;
}

def LLM_BlockTableOp : LLM_ReadingOp<"block_table", "llm_rt_block_table"> {
  let summary = "The block tables of sequences";
  let description = [{
    i32 `[B, W]`: row i holds the blocks of `seq_ids[i]` in order, then -1. A
    dynamic W is the longest of these tables; a static one that is too small is
    `invalid argument`. The ids are opaque and valid with this version only.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func @table(%c: !kv, %ids: tensor<?xi32>) -> tensor<?x?xi32> {
      %table = llm.block_table %c, %ids : !kv, tensor<?xi32> -> tensor<?x?xi32>
      return %table : tensor<?x?xi32>
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache, LLM_IdTensor:$seq_ids);
  let results = (outs 2DTensorOf<[I32]>:$table);
  let assemblyFormat = [{
    $cache `,` $seq_ids attr-dict `:` type($cache) `,` type($seq_ids) `->`
    type($table)
  }];
  let hasVerifier = 1;
}

def LLM_KVStatsOp : LLM_RuntimeOp<"kv_stats", "llm_rt_kv_stats", [
    DeclareOpInterfaceMethods<LLM_KVCacheInterface>,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "Statistics of a cache's pool";
  let description = [{
    Twelve i64 in the order of `llm_kv_stats` in CAPI.h: total, free, live,
    pending and peak live blocks, bytes of a block, versions, snapshots,
    blocks and bytes copied on write, tables copied, tokens appended. It reads
    history, not the value, so it has a read effect.

    Example:

    ```mlir
    !kv = !llm.paged_kv_cache<2x1x64xf16>
    func.func @stats(%c: !kv) -> tensor<12xi64> {
      %stats = llm.kv_stats %c : !kv -> tensor<12xi64>
      return %stats : tensor<12xi64>
    }
    ```
  }];
  let arguments = (ins LLM_AnyCache:$cache);
  let results = (outs StaticShapeTensorOf<[I64]>:$stats);
  let assemblyFormat = "$cache attr-dict `:` type($cache) `->` type($stats)";
  let extraClassDeclaration = runtimeDeclaration # [{
    static constexpr int64_t kNumStats = 12;
  }];
  let extraClassDefinition = [{
    ::mlir::OpOperand &$cppClass::getCacheOperand() {
      return getCacheMutable();
    }
    ::mlir::Value $cppClass::getResultCache() { return {}; }
    bool $cppClass::isConsuming() { return false; }
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Rotary position embedding
//===----------------------------------------------------------------------===//

def LLM_RopeTableOp : LLM_Op<"rope_table", [Pure]> {
  let summary = "Cosines and sines of a rotary position embedding";
  let description = [{
    Row t holds the D/2 cosines, then the D/2 sines, of the angles
    `positions[t] * inv_freq[i]` (f32). `inv_freq` holds D/2 inverse frequencies
    rounded once from f64; every scaling rule is in them. All layers of a step
    share a table.

    Example:

    ```mlir
    func.func private @table(%pos: tensor<?xi32>) -> tensor<?x4xf32> {
      %t = llm.rope_table %pos {inv_freq = array<f32: 1.0, 0.01>}
          : tensor<?xi32> -> tensor<?x4xf32>
      return %t : tensor<?x4xf32>
    }
    ```
  }];
  let arguments = (ins LLM_IdTensor:$positions, DenseF32ArrayAttr:$inv_freq);
  let results = (outs 2DTensorOf<[F32]>:$table);
  let assemblyFormat = [{
    $positions attr-dict `:` type($positions) `->` type($table)
  }];
  let hasVerifier = 1;
}

def LLM_RopeOp : LLM_Op<"rope", [Pure, AllTypesMatch<["input", "result"]>]> {
  let summary = "Rotary position embedding";
  let description = [{
    Rotates each pair (a, b) of lanes of token t of `input`, `[T, H, D]`, to
    (a cos - b sin, a sin + b cos), with the cosine and sine of that pair from
    row t of the `llm.rope_table`: two products and one sum in f32, each
    rounded. `pairing` says which lanes are a pair.

    Example:

    ```mlir
    func.func private @rotate(%x: tensor<?x3x4xf32>, %table: tensor<?x4xf32>)
        -> tensor<?x3x4xf32> {
      %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>}
          : tensor<?x3x4xf32>, tensor<?x4xf32>
      return %y : tensor<?x3x4xf32>
    }
    ```
  }];
  let arguments = (ins 3DTensorOf<[F32]>:$input, 2DTensorOf<[F32]>:$table,
                       LLM_RopePairingAttr:$pairing);
  let results = (outs 3DTensorOf<[F32]>:$result);
  let assemblyFormat = [{
    $input `,` $table attr-dict `:` type($input) `,` type($table)
  }];
  let hasVerifier = 1;
}

#endif // LLM_IR_LLMOPS_TD
