//===- Passes.td - Every pass and conversion on one page ---*- tablegen -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// In the order of the pipeline `llm-to-cpu`, then that of `llm-to-spec`.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TRANSFORMS_PASSES_TD
#define LLM_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def FuseRope : Pass<"llm-fuse-rope", "::mlir::func::FuncOp"> {
  let summary = "Rotate keys on their way into the cache";
  let description = [{
    An `llm.rope` whose one use is the key of an `llm.append_kv` beside it
    becomes part of that append: no rotated key is ever written to memory but
    into the cache. The bits stay the same.

    ```mlir
    %y = llm.rope %k, %table {pairing = #llm.rope_pairing<half>}
        : tensor<?x3x64xf32>, tensor<?x64xf32>
    %c1 = llm.append_kv %c, %y, %v at %at : ...
    ```
    becomes
    ```mlir
    %c1 = llm.append_kv %c, %k, %v at %at rope_table(%table : tensor<?x64xf32>)
        {pairing = #llm.rope_pairing<half>} : ...
    ```
  }];
}

def DecomposeRope : Pass<"llm-decompose-rope", "::mlir::ModuleOp"> {
  let summary = "Lower llm.rope and its table to linalg";
  let description = [{
    An `llm.rope_table` becomes a `linalg.generic` of the cosines and sines of
    all angles, in f32, and an `llm.rope` the rotation. Leaves neither.

    ```mlir
    %t = llm.rope_table %pos {inv_freq = array<f32: 1.0, 0.01>}
        : tensor<?xi32> -> tensor<?x4xf32>
    %y = llm.rope %x, %t {pairing = #llm.rope_pairing<half>}
        : tensor<?x3x4xf32>, tensor<?x4xf32>
    ```
    becomes
    ```mlir
    %angles:2 = linalg.generic ... ins(%pos) outs(%a, %a : tensor<?x2xf32>)
    %t = tensor.insert_slice %angles#1 into ... : tensor<?x4xf32>
    %y = linalg.generic ... outs(%b : tensor<?x3x2x2xf32>)
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::tensor::TensorDialect"];
}

def PackWeights : Pass<"llm-pack-weights", "::mlir::ModuleOp"> {
  let summary = "Hold weight matrices as panels of 32 rows, tiles or blocks";
  let description = [{
    A weight argument `[N, K]` of a public function that is only used as the
    second operand of `linalg.matmul` with a transposed right side, directly or
    through calls of private functions, becomes panels `[ceil(N / 32)][K][32]`
    (zeros behind row N) or, of bf16 and for K a multiple of 32, tiles
    `[ceil(N / 32)][K / 32][1024]`, and each product an `llm.linear`. A weight
    with a `format` becomes blocks of it; a parameter that gets several has the
    largest, and the weights with it, and where one weight has none they have
    none. `llm.linear` rounds its input to i8 beside blocks
    and to bf16 beside tiles, unless `activations` is a larger type. The loader
    packs (`panel_rows` in `#llm.weight`). Other weights stay as they are.

    ```mlir
    func.func @f(%x: tensor<?x64xf32>, %w: tensor<96x64xf32>
        {llm.weight = #llm.weight<["w"]>}) -> tensor<?x96xf32>
    ```
    becomes
    ```mlir
    func.func @f(%x: tensor<?x64xf32>, %w: tensor<3x64x32xf32>
        {llm.weight = #llm.weight<["w"], panel_rows = 96>}) -> tensor<?x96xf32>
    ```
    and with bf16 for the type of `%w`
    ```mlir
    func.func @f(%x: tensor<?x64xf32>, %w: tensor<3x2x1024xbf16>
        {llm.weight = #llm.weight<["w"], panel_rows = 96>}) -> tensor<?x96xf32>
    ```
    and with `#llm.weight<["w"], format = q4_1>` for its attribute
    ```mlir
    func.func @f(%x: tensor<?x64xf32>, %w: tensor<3x2x640xi8>
        {llm.weight = #llm.weight<["w"], panel_rows = 96, format = q4_1>})
        -> tensor<?x96xf32>
    ```
  }];
  let options = [
    Option<"activations", "activations", "::mlir::llm::Activations",
           "::mlir::llm::Activations::I8",
           "What linear layers may round their input to", [{::llvm::cl::values(
             clEnumValN(::mlir::llm::Activations::F32, "f32", ""),
             clEnumValN(::mlir::llm::Activations::BF16, "bf16", ""),
             clEnumValN(::mlir::llm::Activations::I8, "i8", ""))}]>];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::tensor::TensorDialect"];
}

def MaterializeCache : Pass<"llm-materialize-cache", "::mlir::ModuleOp"> {
  let summary = "Turn cache values into handles, in place where provable";
  let description = [{
    Gives every cache value one owner: a version is consumed or dropped exactly
    once on every path.

    1. *Normalise*: `arith.select` on caches becomes `scf.if` (neighbours that
       choose from the same versions one nest of them),
       `scf.execute_region` is inlined, and the iterations of an `scf.forall`
       that have caches of their own run in order. What the pass does not know
       (a cache through unstructured control flow, one that the iterations of a
       parallel loop would share, an unknown op) is an error at the op.
    2. *Schedule reads* of an old version, with what computes their operands,
       before its consumer, unless they need what comes of it.
    3. *Snapshot* what remains: a second consuming use on a path, a read that
       may follow, a consumer in a loop that the value is defined outside of.
       Each is a remark; with `strict`, an error with a note at the stale use.
    4. *Drop elaboration*: `llm.drop_kv` where a version ends unconsumed.
    5. *Convert* to handles with memory effects: consuming ops lose their cache
       result.

    A private function takes its cache *moved* if it may consume it, else
    *borrowed* (a fixpoint over the call graph). A public function's i-th
    returned cache is *tied* to its i-th cache argument, or as `llm.tied` on the
    result says: `llm.replace_kv` writes it back to the host's object. An
    argument tied to no result is borrowed: the host sees no change. A result
    tied to nothing, or marked `llm.fresh`, is a new object of the host: it
    becomes a last argument, `llm.fresh` as well, that `llm.replace_kv` fills.

    ```mlir
    func.func @f(%c: !kv, %k: tensor<1x1x1x64xf16>) -> !kv {
      %c1 = llm.append_kv %c, %k, %k : !kv, ... -> !kv
      return %c1 : !kv
    }
    ```
    becomes
    ```mlir
    func.func @f(%c: !handle, %k: tensor<1x1x1x64xf16>) {
      llm.append_kv %c, %k, %k : !handle, ...
      return
    }
    ```
  }];
  let options = [
    Option<"strict", "strict", "bool", "false",
           "Report an error where a snapshot would have to be inserted.">,
    Option<"stopAfter", "stop-after", "std::string", "\"\"",
           "Stop after the step normalise, schedule, snapshot or drop.">,
  ];
  let statistics = [
    Statistic<"numSnapshots", "snapshots", "Number of snapshots inserted">,
    Statistic<"numDrops", "drops", "Number of drops inserted">,
  ];
  let dependentDialects = [
    "::mlir::llm::LLMDialect", "::mlir::scf::SCFDialect"];
}

def ExportEntry : Pass<"llm-export-entry", "::mlir::ModuleOp"> {
  let summary = "Make public functions entries of the exported call";
  let description = [{
    Needs handles. The arguments of every public function become
    `llm.call_argument`, its tensor results go to output buffers, and a
    description of weights, caches, inputs and outputs is left on the function
    as `llm.entry` for `convert-llm-to-runtime`. `llm.dims` names the
    symbolic dimensions ("T", "B+1"); an output dimension without a name is
    checked against the computed size when it runs. Leaves public functions
    without arguments and results.
  }];
  let dependentDialects = [
    "::mlir::bufferization::BufferizationDialect", "::mlir::cf::ControlFlowDialect",
    "::mlir::memref::MemRefDialect", "::mlir::tensor::TensorDialect",
    "::mlir::llm::LLMDialect"];
}

def ConvertLLMToRuntime : Pass<"convert-llm-to-runtime", "::mlir::ModuleOp"> {
  let summary = "Lower handles, steps and llm ops to calls of the runtime";
  let description = [{
    Needs handles and entries; runs before bufferization. Each op becomes one
    call of its runtime symbol (CAPI.h) that returns a code: tensors travel as
    `llm_tensor`, handles and steps as i64, results through pointers. Every
    function takes the call as its first argument; an op's name stays on its
    call for `llm-emit-program`. A weight that a private function only reads
    travels by number, as i64. Leaves no llm op or type.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::bufferization::BufferizationDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::memref::MemRefDialect"];
}

def ExpandExp : Pass<"llm-expand-exp", "::mlir::func::FuncOp"> {
  let summary = "Compute exponentials in line";
  let description = [{
    `math.exp` of f32 becomes a polynomial, so that a loop over it is vectors; a
    call of libm is one number at a time. Off by at most two units in the last
    place; what is not finite, overflows or vanishes does as with libm.

    ```mlir
    %e = math.exp %x : f32
    ```

    becomes, with p a polynomial and r what is left of x over ln 2 beside the
    integer n,

    ```mlir
    %scale = arith.bitcast %n_in_the_exponent : i32 to f32
    %e = arith.mulf %p_of_r, %scale : f32
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::math::MathDialect",
    "::mlir::vector::VectorDialect"];
}

def SwitchToIf : Pass<"llm-switch-to-if", "::mlir::func::FuncOp"> {
  let summary = "Turn switches with tensor results into branches";
  let description = [{
    For One-Shot Bufferize of MLIR 22, which does not see that two results of an
    `scf.index_switch` may share a buffer, and writes one in place where the
    other is read. A switch with tensor results becomes a chain of `scf.if`;
    others stay.

    ```mlir
    %r = scf.index_switch %i -> tensor<4xf32>
    case 7 {
      scf.yield %a : tensor<4xf32>
    }
    default {
      scf.yield %b : tensor<4xf32>
    }
    ```
    becomes
    ```mlir
    %c7 = arith.constant 7 : index
    %is_7 = arith.cmpi eq, %i, %c7 : index
    %r = scf.if %is_7 -> (tensor<4xf32>) {
      scf.yield %a : tensor<4xf32>
    } else {
      scf.yield %b : tensor<4xf32>
    }
    ```
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect"];
}

def CopyWhileYields : Pass<"llm-copy-while-yields", "::mlir::func::FuncOp"> {
  let summary = "Copy the tensors that while loops yield to their next turn";
  let description = [{
    For One-Shot Bufferize of MLIR 22, which yields the buffer of any tensor as
    it is, one from outside of the loop too, and the next turn writes into it. A
    tensor that an `scf.while` yields is a copy, unless it was made in place of
    the loop's own argument.

    ```mlir
    scf.while (%t = %b) : (tensor<4xf32>) -> () {
      ...
    } do {
      scf.yield %a : tensor<4xf32>
    }
    ```
    becomes
    ```mlir
    scf.while (%t = %b) : (tensor<4xf32>) -> () {
      ...
    } do {
      %copy = bufferization.alloc_tensor() copy(%a) : tensor<4xf32>
      scf.yield %copy : tensor<4xf32>
    }
    ```
  }];
  let dependentDialects = ["::mlir::bufferization::BufferizationDialect"];
}

def CopyReturns : Pass<"llm-copy-returns", "::mlir::func::FuncOp"> {
  let summary = "Copy returned tensors that may share a buffer";
  let description = [{
    For One-Shot Bufferize of MLIR 22, which takes the results of a call for
    memory of their own. A returned tensor becomes a copy if its buffer may be
    a constant's or that of another result: the caller would write into the
    constant, or into both results at once.

    ```mlir
    func.func private @twice(%a: tensor<4xi32>)
        -> (tensor<4xi32>, tensor<4xi32>) {
      return %a, %a : tensor<4xi32>, tensor<4xi32>
    }
    ```
    becomes
    ```mlir
    func.func private @twice(%a: tensor<4xi32>)
        -> (tensor<4xi32>, tensor<4xi32>) {
      %copy = bufferization.alloc_tensor() copy(%a) : tensor<4xi32>
      return %a, %copy : tensor<4xi32>, tensor<4xi32>
    }
    ```
  }];
  let dependentDialects = ["::mlir::bufferization::BufferizationDialect"];
}

def SplitSums : Pass<"llm-split-sums", "::mlir::func::FuncOp"> {
  let summary = "Sum rows in 16 lanes";
  let description = [{
    The sum of a row is a chain of additions, each of which waits for the one
    before. A `linalg.generic` on tensors that adds up f32 along its innermost
    dimension, of a static multiple of 16 numbers, becomes 16 sums side by side,
    which are one vector, and the sum of those. The order stays one that
    the program says, whatever the threads and the CPU.

    ```mlir
    %sum = linalg.generic {iterator_types = ["parallel", "reduction"], ...}
        ins(%x : tensor<?x64xf32>) outs(%zero : tensor<?xf32>) {...}
    ```
    becomes
    ```mlir
    %lanes = tensor.expand_shape %x [[0], [1, 2]] output_shape [%n, 4, 16] : ...
    %sums = linalg.generic
        {iterator_types = ["parallel", "reduction", "parallel"], ...}
        ins(%lanes : tensor<?x4x16xf32>) outs(%zeros : tensor<?x16xf32>) {...}
    %sum = linalg.generic {iterator_types = ["parallel", "reduction"], ...}
        ins(%sums : tensor<?x16xf32>) outs(%zero : tensor<?xf32>) {...}
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::tensor::TensorDialect"];
}

def BlockRows : Pass<"llm-block-rows", "::mlir::func::FuncOp"> {
  let summary = "Take some rows through many ops before the next ones";
  let description = [{
    What a step of many rows computes from `llm.linear` to `llm.linear` would
    leave the caches before it is read. A chain of ops that compute a row of
    their results from the same row of what they read, with at least two
    products, becomes a loop over blocks of rows, each of which goes through all
    of them. Blocks are of one size, at most `rows`: that is what threads
    share, so there should be 32 for each. A result that would be computed
    in place of an input is so still.

    ```mlir
    %a = llm.linear %x, %u as f32 : tensor<?x64xf32>, ... -> tensor<?x96xf32>
    %b = linalg.exp ins(%a : tensor<?x96xf32>) outs(...) -> tensor<?x96xf32>
    %c = llm.linear %b, %v as f32 : tensor<?x96xf32>, ... -> tensor<?x64xf32>
    ```
    becomes
    ```mlir
    %c = scf.for %i = %c0 to %rows step %size iter_args(%out = %empty)
        -> (tensor<?x64xf32>) {
      %n = ...  // size, or what is left
      %x1 = tensor.extract_slice %x[%i, 0] [%n, 64] [1, 1] : ...
      %a1 = llm.linear %x1, %u as f32 : ...
      %b1 = linalg.exp ins(%a1 : tensor<?x96xf32>) outs(...)
      %c1 = llm.linear %b1, %v as f32 : ...
      %next = tensor.insert_slice %c1 into %out[%i, 0] [%n, 64] [1, 1] : ...
      scf.yield %next : tensor<?x64xf32>
    }
    ```
  }];
  let options = [
    Option<"rows", "rows", "int64_t", "128", "The most rows of a block.">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect"];
}

def ParallelizeRows : Pass<"llm-parallelize-rows", "::mlir::func::FuncOp"> {
  let summary = "Share the rows of neighbouring loops between threads";
  let description = [{
    Runs on buffers. Neighbouring linalg ops whose outermost loops are parallel
    and of one length become one loop over rows, which does all of them for a
    row while it is in the nearest cache. Threads share the rows where there is
    more to compute than waking them costs; of fewer rows, as in a decode step,
    one thread does all. A row is computed the same way by all of them.

    Ops are neighbours if between them nothing touches memory. They share a
    loop if what one of them writes is only touched by row, and in the same row
    of memory, by all of them. Different allocations and arguments of functions
    are taken for memory that does not overlap, as One-Shot Bufferize leaves
    it; what a branch or a loop yields for memory that may be any.

    ```mlir
    linalg.generic {...} ins(%x : memref<?x64xf32>) outs(%y : memref<?x64xf32>)
    linalg.generic {...} ins(%y : memref<?x64xf32>) outs(%z : memref<?x64xf32>)
    ```
    becomes
    ```mlir
    %many = arith.cmpi uge, %rows, %c256 : index
    scf.if %many {
      scf.parallel (%i) = (%c0) to (%rows) step (%c1) {
        %x1 = memref.subview %x[%i, 0] [1, 64] [1, 1] : ...
        ...
        linalg.generic {...} ins(%x1 : ...) outs(%y1 : ...)
        linalg.generic {...} ins(%y1 : ...) outs(%z1 : ...)
      }
    } else {
      scf.for %i = %c0 to %rows step %c1 {
        ...
      }
    }
    ```
  }];
  let options = [
    Option<"leastNumbers", "least-numbers", "int64_t", "32768",
           "Numbers to compute that are worth waking threads.">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect"];
}

def PlanWorkspace : Pass<"llm-plan-workspace", "::mlir::ModuleOp"> {
  let summary = "Take buffers from the call's arena";
  let description = [{
    Runs after bufferization. Each `memref.alloc` becomes
    `llm_rt_workspace`, whose failure is a status; a function or loop body that
    returns no buffer marks the arena at its start and releases it at its end.
    An allocation inside a parallel region is an error. Leaves no
    `memref.alloc` and no `memref.dealloc`.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::memref::MemRefDialect"];
}

def PropagateStatus : Pass<"llm-propagate-status", "::mlir::ModuleOp"> {
  let summary = "Return the code of a runtime call that fails";
  let description = [{
    Runs on unstructured control flow. Every function that can reach a runtime
    call gets a leading i32 result; each such call is followed by a branch to
    one block that returns the code. A runtime call inside a parallel region is
    an error: it has no early exit. `cf.assert` becomes `llm_rt_fail`.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::cf::ControlFlowDialect",
    "::mlir::LLVM::LLVMDialect"];
}

def EmitProgram : Pass<"llm-emit-program", "::mlir::ModuleOp"> {
  let summary = "Describe the module as a program for the host";
  let description = [{
    Runs on the LLVM dialect. Numbers the runtime calls and makes the table of
    their source locations, writes `llm_program` with weights, cache groups,
    entries and sites as constant data, and leaves `NAME_program`, which returns
    it, as the one exported symbol. The module has `llm.program` then, a
    dictionary of the program's name, the names of its caches and its entries
    (`llm.entry`), for who writes a header.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
  let options = [
    Option<"programName", "program-name", "std::string", "\"\"",
           "Name of the program; the module's symbol name when empty, else "
           "\"model\".">,
    Option<"triple", "triple", "std::string", "\"\"",
           "Target triple to record in the program; the host's when empty.">,
    Option<"cpu", "cpu", "std::string", "\"\"",
           "The CPU that the program is compiled for.">,
    Option<"cpuFeatures", "cpu-features", "std::string", "\"\"",
           "What it needs of a CPU, of CPUFeatures.def, with commas.">,
  ];
}

def ConvertLLMToLinalg : Pass<"convert-llm-to-linalg", "::mlir::ModuleOp"> {
  let summary = "Lower cache values to plain tensors: the specification";
  let description = [{
    The other meaning of the dialect, which needs no runtime. What every op
    means is written down in lib/Conversion/Specification*.mlir; each op becomes
    a call of the function that is named like it there, and the functions that
    are called come along. Needs values; `llm.rope` must be decomposed.

    A cache becomes its K and V, `[L, S, C, H, D]` in f32, per layer and
    sequence what is held, per sequence the next position, per slot a position,
    and what says which steps have run: tensors of dynamic sizes, whatever the
    type fixes. Steps become tensors too, and preconditions `cf.assert` with the
    name of the runtime's status code. Out of memory and out of blocks have no
    counterpart. Functions lose the attributes of arguments and results, which
    are for the exported call.

    ```mlir
    func.func @lengths(%c: !llm.paged_kv_cache, %ids: tensor<?xi32>)
        -> tensor<?xi32> {
      %n = llm.seq_lens %c, %ids : ...
    ```
    becomes
    ```mlir
    func.func @lengths(%K: tensor<?x?x?x?x?xf32>, %V: tensor<?x?x?x?x?xf32>,
                       %cur: tensor<?x?xi32>, %next: tensor<?xi32>,
                       %pos: tensor<?x?x?xi32>, %appended: tensor<?xi64>,
                       %members: tensor<?xi64>, %running: i64, %dtype: i32,
                       %k_storage: i32, %v_storage: i32,
                       %block_size: i32, %window: i32, %sinks: i32,
                       %ids: tensor<?xi32>) -> tensor<?xi32> {
      %n = call @llm_spec.seq_lens(%cur, %ids) : ...
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::cf::ControlFlowDialect",
    "::mlir::func::FuncDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::memref::MemRefDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect"];
}

def CheckPipeline : Pass<"llm-check-pipeline", "::mlir::ModuleOp"> {
  let summary = "Verify what must be gone between two passes of a pipeline";
  let description = [{
    Fails at the first op of a dialect in `gone`, or the first value of the
    type `gone-types`, and names the pass that should have removed it.
  }];
  let options = [
    Option<"after", "after", "std::string", "\"\"",
           "The pass that should have removed them.">,
    ListOption<"gone", "gone", "std::string",
               "Ops (\"llm.rope\") or dialects (\"llm\") that must be gone.">,
    ListOption<"goneTypes", "gone-types", "std::string",
               "Types that must be gone: cache, handle, step or tensor.">,
  ];
}

#endif // LLM_TRANSFORMS_PASSES_TD
