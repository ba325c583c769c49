//===- LLMAttrs.td - Attributes of the llm dialect ---------*- tablegen -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IR_LLMATTRS_TD
#define LLM_IR_LLMATTRS_TD

include "llm/IR/LLMBase.td"

class LLM_Attr<string name, string attrMnemonic, list<Trait> traits = []>
    : AttrDef<LLM_Dialect, name, traits> {
  let mnemonic = attrMnemonic;
}

//===----------------------------------------------------------------------===//
// Enumerations
//===----------------------------------------------------------------------===//

def LLM_KVStrategy : I32Enum<"KVStrategy", "how a cache gets its blocks", [
    I32EnumCase<"Paged", 0, "paged">,
    I32EnumCase<"Static", 1, "static">]> {
  let cppNamespace = "::mlir::llm";
}

def LLM_KVStrategyAttr : EnumAttr<LLM_Dialect, LLM_KVStrategy, "kv_strategy"> {
  let summary = "How a cache gets its blocks";
  let description = [{
    `paged`: a pool of a given number of blocks, taken as sequences grow.
    `static`: room for every sequence at max_seq_len, so that no step can run
    out of blocks. This is policy, not type: it changes no value.
  }];
  let assemblyFormat = "`<` $value `>`";
}

def LLM_KVScale : I32Enum<"KVScale", "what numbers share a scale", [
    I32EnumCase<"TokenHead", 0, "token_head">]> {
  let cppNamespace = "::mlir::llm";
}

def LLM_RopePairing : I32Enum<"RopePairing", "which lanes rotate together", [
    I32EnumCase<"Half", 0, "half">,
    I32EnumCase<"Adjacent", 1, "adjacent">]> {
  let cppNamespace = "::mlir::llm";
}

def LLM_RopePairingAttr
    : EnumAttr<LLM_Dialect, LLM_RopePairing, "rope_pairing"> {
  let summary = "Which lanes rotate together";
  let description = [{
    `half`: lanes i and i + D/2 (Hugging Face); `adjacent`: lanes 2i and 2i + 1
    (GGUF's llama files, whose q and k rows are permuted for it).
  }];
  let assemblyFormat = "`<` $value `>`";
}

/// The optional operands of `append_kv` (the first and the last), `lookup_kv`
/// (the first two) and `paged_attention` (all but the last).
def LLM_Extra : I32Enum<"Extra", "name of an optional operand", [
    I32EnumCase<"Step", 0, "step">,
    I32EnumCase<"BlockIndices", 1, "block_indices">,
    I32EnumCase<"Alibi", 2, "alibi">,
    I32EnumCase<"HeadSink", 3, "head_sink">,
    I32EnumCase<"SinkQuery", 4, "sink_query">,
    I32EnumCase<"RopeTable", 5, "rope_table">]> {
  let cppNamespace = "::mlir::llm";
}

def LLM_ExtraAttr : EnumAttr<LLM_Dialect, LLM_Extra, "extra"> {
  let summary = "Name of an optional operand";
  let assemblyFormat = "`<` $value `>`";
}
def LLM_ExtraNamesAttr
    : TypedArrayAttrBase<LLM_ExtraAttr, "names of the optional operands">;

/// Numbered as llm_file_format of CAPI.h.
def LLM_WeightFormat : I32Enum<"WeightFormat", "format of quantized weights", [
    I32EnumCase<"Q8_0", 3, "q8_0">,
    I32EnumCase<"Q4_0", 4, "q4_0">,
    I32EnumCase<"Q4_1", 5, "q4_1">]> {
  let cppNamespace = "::mlir::llm";
}

def LLM_WeightFormatAttr
    : EnumAttr<LLM_Dialect, LLM_WeightFormat, "weight_format"> {
  let summary = "Format of quantized weights";
  let description = [{
    Blocks of 32 numbers of a row, as ggml has them: `q4_0` a scale and 32
    nibbles from -8 on, `q4_1` a scale, a minimum and 32 nibbles, `q8_0` a scale
    and 32 signed bytes. These are the formats that `llm.linear` multiplies with;
    each holds the weights of those before it: q4_0 as q4_1 with the minimum -8
    times the scale, and both as q8_0.
  }];
}

def LLM_OptionalWeightFormat
    : OptionalParameter<"std::optional<::mlir::llm::WeightFormat>",
                        "of quantized tensors"> {
  let printer = "$_printer << stringifyEnum(*$_self)";
}

def LLM_ArgumentKind : I32Enum<"ArgumentKind", "kind of a call's argument", [
    I32EnumCase<"Input", 0, "input">,
    I32EnumCase<"Output", 1, "output">,
    I32EnumCase<"Weight", 2, "weight">,
    I32EnumCase<"Cache", 3, "cache">]> {
  let cppNamespace = "::mlir::llm";
}

def LLM_ArgumentKindAttr
    : EnumAttr<LLM_Dialect, LLM_ArgumentKind, "argument_kind"> {
  let summary = "Kind of a call's argument";
}

//===----------------------------------------------------------------------===//
// Attributes of types
//===----------------------------------------------------------------------===//

def LLM_KVStorageAttr : LLM_Attr<"KVStorage", "kv_storage"> {
  let summary = "In which formats a cache holds K and V";
  let description = [{
    The parameter `storage` of a cache type: `i8`, `f8E4M3FN` or `i4` for K, for
    V or for both. What is absent is held in the cache's element type.

    Here is the one definition of what these formats hold. All arithmetic is in
    f32, to nearest even, and keeps subnormals. The x are the numbers that are
    appended, after rotation and not rounded to the element type before;
    `llm.lookup_kv` rounds what is read to the element type.

    In `i8` and `f8E4M3FN` the head_dim numbers x of one token and KV head share
    a scale (`token_head`):

    ```
    m = max |x|, NaN if some x is
    s = m / 127          (i8)      m / 448                          (f8E4M3FN)
    q = x / s, to the nearest integer     the nearest number of the format,
        to nearest even; beyond the largest, 127 or 448: the largest
    ```

    An s that is not finite is NaN, and all q are 0 if s is 0 or NaN. What is
    read is f32(q) * s: a row with a NaN or an infinity reads as NaNs.

    In `i4` up to 32 numbers x share a minimum and a step, both of them bf16:

    ```
    l = min x, rounded down to a bf16 (-0 counts as 0)
    s = (max x - l) / 15, rounded up to a bf16
    q = (x - l) / s, to the nearest integer, to nearest even, from 0 to 15;
        0 if s is 0
    ```

    What is read is q * s + l, of which the product is exact. A group that has a
    NaN or an infinity, or for which 15 s is infinite, reads as NaNs.

    A group of V is 32 channels of one token and head, the last one maybe fewer.
    A group of K is *one* channel of the tokens 32 g .. 32 g + 31 of a sequence,
    since K has its outliers in channels: the append that completes group g
    quantizes it. Group 0, where the tokens with the largest outliers are, never
    is, and its K reads as the x; so does that of a group that is not complete.
    A sequence that is cut or forked inside of a group that has been quantized
    keeps the numbers that its tokens read as: they are the x when the group is
    complete again. Blocks hold whole groups: K of `i4` needs a `block_size` that
    is a multiple of 32.

    Example:

    ```mlir
    func.func private @quantized(
        !llm.paged_kv_cache<32x8x128xf16, storage = #llm.kv_storage<
            k = i8, v = f8E4M3FN, scale = token_head>>,
        !llm.paged_kv_cache<32x8x128xbf16, storage = #llm.kv_storage<v = i8>>,
        !llm.paged_kv_cache<32x8x128xf16, block_size = 32,
                            storage = #llm.kv_storage<k = i4, v = i4>>)
    ```
  }];
  let parameters = (ins
    OptionalParameter<"::mlir::Type", "absent: the element type">:$k,
    OptionalParameter<"::mlir::Type", "absent: the element type">:$v,
    DefaultValuedParameter<"::mlir::llm::KVScale",
                           "::mlir::llm::KVScale::TokenHead">:$scale);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

//===----------------------------------------------------------------------===//
// Attributes of function arguments
//===----------------------------------------------------------------------===//

def LLM_KVCacheConfigAttr : LLM_Attr<"KVCacheConfig", "kv_cache_config"> {
  let summary = "What a model suggests for its cache";
  let description = [{
    The argument attribute `llm.config` of a public function's cache: what
    `llm_kv_config_init` starts from where the type leaves a parameter open.

    Example:

    ```mlir
    func.func @f(%c: !llm.paged_kv_cache<2x1x64xf16>
        {llm.config = #llm.kv_cache_config<block_size = 16,
                                           max_seq_len = 8192>})
        -> !llm.paged_kv_cache<2x1x64xf16> {
      return %c : !llm.paged_kv_cache<2x1x64xf16>
    }
    ```
  }];
  let parameters = (ins
    OptionalParameter<"int64_t", "0: the library's default">:$block_size,
    OptionalParameter<"int64_t", "0: the library's default">:$max_seq_len,
    OptionalParameter<"int64_t", "0: the library's default">:$max_sequences,
    DefaultValuedParameter<"::mlir::llm::KVStrategy",
                           "::mlir::llm::KVStrategy::Paged">:$strategy);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

def LLM_WeightAttr : LLM_Attr<"Weight", "weight"> {
  let summary = "The tensors of a model file that make up a weight argument";
  let description = [{
    The argument attribute `llm.weight` of a public function. Several names are
    concatenated along `axis` at load, each read in its file's own format.
    `panel_rows` is set by `llm-pack-weights`: the argument then holds the
    [N, K] matrix of that many rows N for `llm.linear`, as panels
    `[ceil(N / 32)][K][32]` or, of bf16, as panels of tiles
    `[ceil(N / 32)][K / 32][1024]` (LLM_LAYOUT_TILES32 of CAPI.h).

    `format` says that every tensor is quantized, and what all of them are packed
    as, each by the loader from its own format in the file. The argument is then
    a matrix of f32, which has the values of the weights, until it is packed as
    panels of blocks `[ceil(N / 32)][K / 32][1088, 576 or 640]` of i8
    (LLM_LAYOUT_BLOCKS32 of CAPI.h):

    | `format` | file's formats that it can be packed from                      |
    |----------|----------------------------------------------------------------|
    | `q4_0`   | q4_0, the bits of the file                                     |
    | `q4_1`   | q4_1, the bits of the file; q4_0, the same weights; q4_K, with |
    |          | scale and minimum of 32 weights rounded to f16                 |
    | `q8_0`   | q8_0, the bits of the file; q4_0 and q5_0, the same weights;   |
    |          | q4_1, q5_1, q4_K, q5_K and q6_K, rounded to 1 / 127 of the     |
    |          | largest of 32 weights                                          |

    So files that mix formats stay quantized: a concatenation, or a parameter of
    a function that gets several weights, has the smallest format that all of
    them can be packed as.

    Example:

    ```mlir
    func.func @f(%qkv: tensor<96x64xf32>
        {llm.weight = #llm.weight<["q.weight", "k.weight", "v.weight"],
                                  axis = 0>}) {
      return
    }
    ```
  }];
  let parameters = (ins
    ArrayRefParameter<"::mlir::StringAttr">:$names,
    DefaultValuedParameter<"int64_t", "0">:$axis,
    OptionalParameter<"int64_t", "rows of a packed matrix">:$panel_rows,
    LLM_OptionalWeightFormat:$format);
  let assemblyFormat = [{
    `<` `[` $names `]` (`,` struct($axis, $panel_rows, $format)^)? `>`
  }];
  let extraClassDeclaration = [{
    /// How an argument of `type` with this attribute lies in memory.
    PackedLayout getLayout(::mlir::RankedTensorType type) const;
  }];
  let genVerifyDecl = 1;
}

#endif // LLM_IR_LLMATTRS_TD
