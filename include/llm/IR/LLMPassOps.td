//===- LLMPassOps.td - Operations that passes make ---------*- tablegen -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Importers write none of these. They are what `llm-materialize-cache`,
// `llm-export-entry` and `llm-pack-weights` need on the way to calls of the
// runtime.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IR_LLMPASSOPS_TD
#define LLM_IR_LLMPASSOPS_TD

include "llm/IR/LLMOps.td"

//===----------------------------------------------------------------------===//
// Handles
//===----------------------------------------------------------------------===//

def LLM_DropKVOp : LLM_RuntimeOp<"drop_kv", "llm_rt_drop_kv"> {
  let summary = "End of a version";
  let description = [{
    Made by `llm-materialize-cache`, over values and then over handles. The
    host's own object outlives its drop.

    Example:

    ```mlir
    !handle = !llm.kv_handle<2x1x64xf16>
    func.func private @drop(%h: !handle) {
      llm.drop_kv %h : !handle
      return
    }
    ```
  }];
  let arguments = (ins Arg<LLM_AnyCache, "", [MemFree]>:$cache);
  let assemblyFormat = "$cache attr-dict `:` type($cache)";
}

def LLM_NullKVOp : LLM_Op<"null_kv", [Pure]> {
  let summary = "No version";
  let description = [{
    What `llm-materialize-cache` makes of `ub.poison`: the version on a path
    that no one takes. Its drop and its snapshot do nothing; all else is
    `wrong state`. Other than poison, it is never taken for another handle.

    Example:

    ```mlir
    !handle = !llm.kv_handle<2x1x64xf16>
    func.func private @none() -> !handle {
      %none = llm.null_kv : !handle
      return %none : !handle
    }
    ```
  }];
  let results = (outs LLM_KVHandleType:$result);
  let assemblyFormat = "attr-dict `:` qualified(type($result))";
}

def LLM_ReplaceKVOp : LLM_RuntimeOp<"replace_kv", "llm_rt_replace_kv"> {
  let summary = "The host's object becomes a version";
  let description = [{
    Ends an exported function: the object that the host passed as `host` now
    holds the version `version`, whose handle ends.

    Example:

    ```mlir
    !handle = !llm.kv_handle<2x1x64xf16>
    func.func private @replace(%host: !handle, %version: !handle) {
      llm.replace_kv %host, %version : !handle, !handle
      return
    }
    ```
  }];
  let arguments = (ins Arg<LLM_KVHandleType, "", [MemRead, MemWrite]>:$host,
                       Arg<LLM_KVHandleType, "", [MemRead, MemFree]>:$version);
  let assemblyFormat =
      "$host `,` $version attr-dict `:` type($host) `,` type($version)";
  let hasCanonicalizeMethod = 1;
}

//===----------------------------------------------------------------------===//
// The exported call
//===----------------------------------------------------------------------===//

def LLM_CallArgumentOp : LLM_Op<"call_argument", [MemoryEffects<[MemRead]>]> {
  let summary = "An argument of the exported call";
  let description = [{
    What `llm-export-entry` turns the arguments of a public function into: the
    buffer of input, output or weight number `index`, or the handle of a cache.
    Buffers have the shape that `llm_model_invoke` has checked.

    Example:

    ```mlir
    func.func @entry() {
      %tokens = llm.call_argument input 0 : memref<?xi32, strided<[?], offset: ?>>
      %cache = llm.call_argument cache 0 : !llm.kv_handle<2x1x64xf16>
      return
    }
    ```
  }];
  let arguments = (ins LLM_ArgumentKindAttr:$kind, I32Attr:$index);
  let results = (outs AnyTypeOf<[AnyMemRef, LLM_KVHandleType]>:$result);
  let assemblyFormat = "$kind $index attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def LLM_CheckSizeOp : LLM_RuntimeOp<"check_size", "llm_rt_check_size"> {
  let summary = "Fail unless two sizes are equal";
  let description = [{
    Guards what only the run can tell: the size of an output buffer. Fails with
    `invalid argument`, both numbers, and `what`.

    Example:

    ```mlir
    func.func private @check(%computed: index, %given: index) {
      llm.check_size %given, %computed, "output 0, dimension 1"
      return
    }
    ```
  }];
  let arguments = (ins Index:$actual, Index:$expected, StrAttr:$what);
  let assemblyFormat = "$actual `,` $expected `,` $what attr-dict";
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

def LLM_LinearOp : LLM_RuntimeOp<"linear", "llm_rt_linear", [Pure]> {
  let summary = "The product with a packed weight matrix";
  let description = [{
    `x [M, K] * transpose(w)`, of `llm-pack-weights`: the result is [M, N], and
    w is a [N, K] matrix of bf16 as tiles `[ceil(N / 32)][K / 32][1024]`
    (LLM_LAYOUT_TILES32 of CAPI.h), of f32 or bf16 as panels
    `[ceil(N / 32)][K][32]`, or of a quantized `format` as blocks
    `[ceil(N / 32)][K / 32][1088, 576 or 640]` (LLM_LAYOUT_BLOCKS32). x is
    rounded to `activations` first: f32, bf16 beside tiles and blocks, or, beside
    blocks, i8: that with a scale for each 32 numbers of a row; with AMX many
    rows are of bf16 then. Blocks meet rows of i8 as they are, others rounded to
    bf16. Products of normal numbers are exact, sums are of f32
    (`llm_rt_linear` of CAPI.h).

    Example:

    ```mlir
    func.func @product(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>)
        -> tensor<?x40xf32> {
      %y = llm.linear %x, %w as bf16
        : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
      return %y : tensor<?x40xf32>
    }
    func.func @quantized(%x: tensor<?x64xf32>, %w: tensor<2x2x640xi8>)
        -> tensor<?x40xf32> {
      %y = llm.linear %x, %w of q4_1 as i8
        : tensor<?x64xf32>, tensor<2x2x640xi8> -> tensor<?x40xf32>
      return %y : tensor<?x40xf32>
    }
    ```
  }];
  let arguments = (ins 2DTensorOf<[F32]>:$x, 3DTensorOf<[F32, BF16, I8]>:$weight,
                       OptionalAttr<LLM_WeightFormatAttr>:$format,
                       TypeAttr:$activations);
  let results = (outs 2DTensorOf<[F32]>:$result);
  let assemblyFormat = [{
    $x `,` $weight (`of` `` $format^)? `as` $activations attr-dict `:` type($x)
    `,` type($weight) `->` type($result)
  }];
  let hasVerifier = 1;
}

#endif // LLM_IR_LLMPASSOPS_TD
