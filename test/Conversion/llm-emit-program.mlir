// RUN: %llm-opt %s --llm-emit-program='triple=x86_64-linux cpu=i8086 cpu-features=avx2,fma' | FileCheck %s
// RUN: %llm-opt %s --llm-emit-program='program-name=my-model' | FileCheck %s --check-prefix=NAMED

// One symbol is exported; equal ops at one place share a site.

// NAMED: llvm.func @my_model_program() -> !llvm.ptr

module @tiny attributes {
  llm.metadata = "{}",
  llm.groups = [["cache", !llm.paged_kv_cache<2x1x4xf32>, #llm.kv_cache_config<max_seq_len = 64>]],
  llm.weights = [[#llm.weight<["a", "b"], panel_rows = 40>, tensor<2x64x32xbf16>]]
} {
  llvm.func @llm_rt_drop_kv(!llvm.ptr, i32, i64) -> i32

  // CHECK-DAG: llvm.mlir.global private constant @{{.*}}("llm.drop_kv\00")
  // CHECK-DAG: llvm.mlir.global private constant @{{.*}}("model.mlir\00")
  // CHECK-DAG: llvm.mlir.global private constant @{{.*}}("x86_64-linux\00")
  // CHECK-DAG: llvm.mlir.global private constant @{{.*}}("i8086\00")
  // CHECK-DAG: llvm.mlir.global private constant @{{.*}}("avx2,fma\00")
  // CHECK-DAG: llvm.mlir.global private constant @{{.*}}("b\00")
  // CHECK-LABEL: llvm.func internal @entry(
  // CHECK-NOT: llm.entry
  llvm.func @entry(%call: !llvm.ptr) -> i32 attributes {llm.entry = {
      caches = array<i32: 0>, fresh = 0 : i32, inputs = [], outputs = [], symbols = 0 : i32}} {
    %unnumbered = llvm.mlir.constant(-1 : i32) : i32
    %kv = llvm.mlir.constant(0 : i64) : i64
    // CHECK: %[[FIRST:.*]] = llvm.mlir.constant(0 : i32) : i32
    // CHECK: llvm.call @llm_rt_drop_kv(%{{.*}}, %[[FIRST]], %{{.*}}) : (
    %0 = llvm.call @llm_rt_drop_kv(%call, %unnumbered, %kv) {llm.op = "llm.drop_kv"} : (!llvm.ptr, i32, i64) -> i32 loc("model.mlir":3:4)
    // CHECK: %[[SAME:.*]] = llvm.mlir.constant(0 : i32) : i32
    // CHECK: llvm.call @llm_rt_drop_kv(%{{.*}}, %[[SAME]], %{{.*}}) : (
    %1 = llvm.call @llm_rt_drop_kv(%call, %unnumbered, %kv) {llm.op = "llm.drop_kv"} : (!llvm.ptr, i32, i64) -> i32 loc("model.mlir":3:4)
    // CHECK: %[[OTHER:.*]] = llvm.mlir.constant(1 : i32) : i32
    // CHECK: llvm.call @llm_rt_drop_kv(%{{.*}}, %[[OTHER]], %{{.*}}) : (
    %2 = llvm.call @llm_rt_drop_kv(%call, %unnumbered, %kv) {llm.op = "llm.drop_kv"} : (!llvm.ptr, i32, i64) -> i32 loc("layer.attn")
    llvm.return %0 : i32
  }
  // CHECK: llvm.func @tiny_program() -> !llvm.ptr
}
