//===- AbiTest.cpp - Lowered IR and CAPI.h say the same -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

#include "llm/IR/LLM.h"
#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/Support/raw_ostream.h"

#include <dlfcn.h>
#include <map>

using namespace llm::testing;

//===----------------------------------------------------------------------===//
// Symbols
//===----------------------------------------------------------------------===//

/// The runtime symbols of the ops that have one.
template <typename... OpTs>
static std::vector<std::string> collectSymbols() {
  std::vector<std::string> symbols;
  const auto collect = [&]<typename OpT>(OpT *) {
    if constexpr (requires { OpT::getRuntimeSymbol(); })
      symbols.push_back(OpT::getRuntimeSymbol().str());
  };
  (collect(static_cast<OpTs *>(nullptr)), ...);
  return symbols;
}

static std::vector<std::string> getRuntimeSymbols() {
  return collectSymbols<
#define GET_OP_LIST
#include "llm/IR/LLMOps.cpp.inc"
      >();
}

TEST(AbiTest, RuntimeExportsTheSymbolOfEveryOp) {
  const std::vector<std::string> symbols = getRuntimeSymbols();
  EXPECT_GE(symbols.size(), 18u);
  for (const std::string &symbol : symbols)
    EXPECT_NE(dlsym(RTLD_DEFAULT, symbol.c_str()), nullptr) << symbol;
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "llm_rt_no_such_symbol"), nullptr);
}

//===----------------------------------------------------------------------===//
// Signatures
//===----------------------------------------------------------------------===//

/// How the LLVM dialect prints a C type.
template <typename T>
static std::string printType() {
  if constexpr (std::is_pointer_v<T>)
    return "!llvm.ptr";
  else if constexpr (std::is_integral_v<T>)
    return "i" + std::to_string(8 * sizeof(T));
  else
    return std::is_same_v<T, float> ? "f32" : "unknown";
}

template <typename ResultT, typename... ArgumentTs>
static std::string printSignature(ResultT (*)(ArgumentTs...)) {
  std::string text = printType<ResultT>() + " (";
  ((text += printType<ArgumentTs>() + ","), ...);
  return text + ")";
}

static std::string printSignature(mlir::LLVM::LLVMFunctionType type) {
  std::string text;
  llvm::raw_string_ostream os(text);
  os << type.getReturnType() << " (";
  for (mlir::Type argument : type.getParams())
    os << argument << ",";
  os << ")";
  return text;
}

/// What CAPI.h declares for compiled code.
static const std::map<std::string, std::string> &getDeclarations() {
#define DECLARATION(name)                                                      \
  {                                                                            \
    #name, printSignature(&name)                                               \
  }
  static const std::map<std::string, std::string> declarations = {
      DECLARATION(llm_rt_create_kv_cache),
      DECLARATION(llm_rt_cast_kv),
      DECLARATION(llm_rt_begin_step),
      DECLARATION(llm_rt_step_size),
      DECLARATION(llm_rt_positions),
      DECLARATION(llm_rt_at_layer),
      DECLARATION(llm_rt_append_kv),
      DECLARATION(llm_rt_paged_attention),
      DECLARATION(llm_rt_lookup_kv),
      DECLARATION(llm_rt_linear),
      DECLARATION(llm_rt_fork_kv),
      DECLARATION(llm_rt_trim_kv),
      DECLARATION(llm_rt_release_kv),
      DECLARATION(llm_rt_seq_lens),
      DECLARATION(llm_rt_block_table_width),
      DECLARATION(llm_rt_block_table),
      DECLARATION(llm_rt_kv_stats),
      DECLARATION(llm_rt_snapshot_kv),
      DECLARATION(llm_rt_drop_kv),
      DECLARATION(llm_rt_replace_kv),
      DECLARATION(llm_rt_workspace),
      DECLARATION(llm_rt_workspace_mark),
      DECLARATION(llm_rt_workspace_release),
      DECLARATION(llm_rt_check_size),
      DECLARATION(llm_rt_fail),
  };
#undef DECLARATION
  return declarations;
}

// Needs every function of the runtime that compiled code may call.
static const char everyOp[] = R"mlir(
!kv = !llm.paged_kv_cache<1x2x4xf32>
!own = !llm.paged_kv_cache<1x2x4xf32, block_size = 4, max_seq_len = 16,
                           max_sequences = 2>
!ids = tensor<?xi32>
!rows = tensor<?x2x4xf32>

func.func @steps(%c: !kv, %ids: !ids, %cu: !ids, %k: !rows)
    -> (!kv, !ids, !rows, tensor<?x4x2x4xf32>) {
  %zero = arith.constant 0 : index
  %c1, %step = llm.begin_step %c, %ids, %cu : !kv, !ids, !ids -> !kv
  %positions = llm.positions %step : !ids
  %at = llm.at_layer %step[%zero]
  %c2 = llm.append_kv %c1, %k, %k at %at : !kv, !rows, !rows -> !kv
  %o = llm.paged_attention %k, %c2 at %at : !rows, !kv -> !rows
  %dk, %dv = llm.lookup_kv %c2 at %at
      : !kv -> tensor<?x4x2x4xf32>, tensor<?x4x2x4xf32>
  return %c2, %positions, %o, %dk : !kv, !ids, !rows, tensor<?x4x2x4xf32>
}

func.func @sequences(%c: !kv, %ids: !ids, %other: !ids)
    -> (!kv, !ids, tensor<?x?xi32>, tensor<12xi64>) {
  %copy = llm.snapshot_kv %c : !kv
  %c1 = llm.fork_kv %copy, %ids, %other, %ids : !kv, !ids, !ids, !ids -> !kv
  %c2 = llm.trim_kv %c1, %ids, %other : !kv, !ids, !ids -> !kv
  %c3 = llm.release_kv %c2, %ids : !kv, !ids -> !kv
  %lengths = llm.seq_lens %c3, %ids : !kv, !ids -> !ids
  %table = llm.block_table %c3, %ids : !kv, !ids -> tensor<?x?xi32>
  %stats = llm.kv_stats %c : !kv -> tensor<12xi64>
  return %c3, %lengths, %table, %stats
      : !kv, !ids, tensor<?x?xi32>, tensor<12xi64>
}

func.func @creation(%c: !llm.paged_kv_cache, %n: tensor<1xi32>)
    -> (!llm.paged_kv_cache, tensor<1xi32>) {
  %zero = arith.constant 0 : index
  %number = tensor.extract %n[%zero] : tensor<1xi32>
  %blocks = arith.index_cast %number : i32 to index
  %limit = arith.constant 7 : i32
  %few = arith.cmpi slt, %number, %limit : i32
  cf.assert %few, "expected few blocks"
  %own = llm.create_kv_cache blocks(%blocks) : !own
  %lengths = llm.seq_lens %own, %n : !own, tensor<1xi32> -> tensor<1xi32>
  %known = llm.cast_kv %c : !llm.paged_kv_cache -> !own
  %bare = llm.cast_kv %known : !own -> !llm.paged_kv_cache
  return %bare, %lengths : !llm.paged_kv_cache, tensor<1xi32>
}

func.func @product(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>
    {llm.weight = #llm.weight<["w"], panel_rows = 40>}) -> tensor<?x40xf32> {
  %y = llm.linear %x, %w as bf16
      : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}
)mlir";

TEST(AbiTest, LoweredDeclarationsHaveTheSignaturesOfTheHeader) {
  mlir::DialectRegistry registry;
  mlir::llm::registerPipelineDialects(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  auto module = mlir::parseSourceString<mlir::ModuleOp>(everyOp, &context);
  ASSERT_TRUE(module);
  mlir::PassManager manager(&context);
  mlir::llm::buildLLMToCPUPipeline(manager, mlir::llm::LLMToCPUOptions());
  ASSERT_TRUE(succeeded(manager.run(*module)));

  std::map<std::string, std::string> lowered;
  for (auto function : module->getOps<mlir::LLVM::LLVMFuncOp>())
    if (function.getName().starts_with("llm_rt_")) {
      EXPECT_TRUE(function.isExternal());
      lowered[function.getName().str()] =
          printSignature(function.getFunctionType());
    }
  EXPECT_EQ(lowered, getDeclarations());
  for (const std::string &symbol : getRuntimeSymbols())
    EXPECT_TRUE(getDeclarations().contains(symbol)) << symbol;
  for (const auto &[symbol, signature] : getDeclarations())
    EXPECT_NE(dlsym(RTLD_DEFAULT, symbol.c_str()), nullptr) << symbol;
}

//===----------------------------------------------------------------------===//
// Layouts
//===----------------------------------------------------------------------===//

static const char tinyModel[] = R"mlir(
!kv = !llm.paged_kv_cache<2x3x8xbf16, window = 32, sinks = 4,
                          storage = #llm.kv_storage<k = i8, v = f8E4M3FN>>
!other = !llm.paged_kv_cache<1x?x8xf32, block_size = 16>

module @tiny_model attributes {llm.metadata = "{\22answer\22: 42}"} {
  func.func @forward(
      %tokens: tensor<?xi32> {llm.name = "tokens", llm.dims = ["T"],
                              llm.below = 100 : i64},
      %cu: tensor<?xi32> {llm.name = "cu_seqlens", llm.dims = ["B+1"]},
      %last: tensor<?xi32> {llm.name = "last", llm.dims = ["B"],
                            llm.below = "T"},
      %x: tensor<3x?xf16>,
      %c: !kv
          {llm.name = "cache",
           llm.config = #llm.kv_cache_config<block_size = 24,
                                             max_seq_len = 512,
                                             max_sequences = 9,
                                             strategy = static>},
      %w: tensor<6x5xbf16> {llm.weight = #llm.weight<["q", "k"], axis = 1>},
      %norm: tensor<7xf32> {llm.weight = #llm.weight<["norm"]>})
      -> (!kv,
          tensor<?xi32> {llm.name = "lengths", llm.dims = ["B"]},
          tensor<7xf32>, tensor<6x5xbf16>) {
    %lengths = llm.seq_lens %c, %last // the site
        : !kv, tensor<?xi32>
          -> tensor<?xi32>
    return %c, %lengths, %norm, %w
        : !kv, tensor<?xi32>,
          tensor<7xf32>, tensor<6x5xbf16>
  }

  func.func @reset(%c: !other,
                   %norm: tensor<7xf32> {llm.weight = #llm.weight<["norm"]>},
                   %ids: tensor<2xi32>)
      -> (!other, tensor<7xf32>) {
    %r = llm.release_kv %c, %ids
        : !other, tensor<2xi32>
          -> !other
    return %r, %norm : !other,
        tensor<7xf32>
  }
}
)mlir";

namespace {

/// The program that the host sees.
class DescriptorTest : public ::testing::Test {
protected:
  static std::vector<NamedWeight> weights() {
    return {{"q", {6, 2}, std::vector<float>(12)},
            {"k", {6, 3}, std::vector<float>(18)},
            {"norm", {7}, std::vector<float>(7)}};
  }

  const llm_entry_desc &entry(const std::string &name) {
    for (int32_t i = 0; i < described.num_entries; ++i)
      if (described.entries[i].name == name)
        return described.entries[i];
    ADD_FAILURE() << "no entry " << name;
    return described.entries[0];
  }

  static void expectValue(const llm_value_desc &value, const char *name,
                          llm_dtype dtype, const std::vector<int64_t> &sizes,
                          const std::vector<int32_t> &symbols,
                          const std::vector<int32_t> &adds) {
    EXPECT_STREQ(value.name, name);
    EXPECT_EQ(value.dtype, dtype) << name;
    ASSERT_EQ(value.rank, static_cast<int32_t>(sizes.size())) << name;
    for (int32_t i = 0; i < value.rank; ++i) {
      EXPECT_EQ(value.sizes[i], sizes[i]) << name << " " << i;
      EXPECT_EQ(value.symbols[i], symbols[i]) << name << " " << i;
      EXPECT_EQ(value.symbol_add[i], adds[i]) << name << " " << i;
    }
    EXPECT_EQ(value.reserved, 0) << name;
  }

  CompiledProgram program{tinyModel, weights()};
  const llm_program &described = program.descriptor();
};

} // namespace

TEST_F(DescriptorTest, ProgramHasItsNameVersionAndCounts) {
  EXPECT_EQ(described.struct_size, sizeof(llm_program));
  EXPECT_EQ(described.abi_version, LLM_ABI_VERSION);
  EXPECT_STREQ(described.name, "tiny_model");
  EXPECT_NE(std::string(described.triple).find("linux"), std::string::npos);
  EXPECT_STREQ(described.metadata_json, "{\"answer\": 42}");
  EXPECT_EQ(described.num_groups, 2);
  EXPECT_EQ(described.num_weights, 2); // the norm of both entries is one
  EXPECT_EQ(described.num_entries, 2);
}

TEST_F(DescriptorTest, GroupsAreTheTypesOfTheCaches) {
  const llm_entry_desc &forward = entry("forward"), &reset = entry("reset");
  ASSERT_EQ(forward.num_kv, 1);
  ASSERT_EQ(reset.num_kv, 1);
  const llm_kv_group_desc &group = described.groups[forward.kv_groups[0]];
  EXPECT_STREQ(group.name, "cache");
  EXPECT_EQ(group.layers, 2);
  EXPECT_EQ(group.kv_heads, 3);
  EXPECT_EQ(group.head_dim, 8);
  EXPECT_EQ(group.dtype, LLM_BF16);
  EXPECT_EQ(group.block_size, 0);
  EXPECT_EQ(group.max_sequences, 0);
  EXPECT_EQ(group.max_seq_len, 0);
  EXPECT_EQ(group.k_storage, LLM_KV_STORAGE_I8);
  EXPECT_EQ(group.v_storage, LLM_KV_STORAGE_F8E4M3FN);
  EXPECT_EQ(group.window, 32);
  EXPECT_EQ(group.sinks, 4);
  EXPECT_EQ(group.strategy, LLM_KV_STATIC);
  EXPECT_EQ(group.default_block_size, 24);
  EXPECT_EQ(group.default_max_sequences, 9);
  EXPECT_EQ(group.default_max_seq_len, 512);
  const llm_kv_group_desc &other = described.groups[reset.kv_groups[0]];
  EXPECT_EQ(other.layers, 1);
  EXPECT_EQ(other.kv_heads, 0);
  EXPECT_EQ(other.dtype, LLM_F32);
  EXPECT_EQ(other.k_storage, LLM_KV_STORAGE_DTYPE);
  EXPECT_EQ(other.v_storage, LLM_KV_STORAGE_DTYPE);
  EXPECT_EQ(other.block_size, 16);
  EXPECT_EQ(other.strategy, LLM_KV_PAGED);
}

TEST_F(DescriptorTest, WeightsHaveTheirNamesAndLogicalSizes) {
  const llm_weight_desc &matrix = described.weights[0];
  ASSERT_EQ(matrix.num_names, 2);
  EXPECT_STREQ(matrix.names[0], "q");
  EXPECT_STREQ(matrix.names[1], "k");
  EXPECT_EQ(matrix.axis, 1);
  EXPECT_EQ(matrix.dtype, LLM_BF16);
  EXPECT_EQ(matrix.layout, LLM_LAYOUT_PLAIN);
  EXPECT_EQ(matrix.rank, 2);
  EXPECT_EQ(matrix.sizes[0], 6);
  EXPECT_EQ(matrix.sizes[1], 5);
  const llm_weight_desc &norm = described.weights[1];
  EXPECT_STREQ(norm.names[0], "norm");
  EXPECT_EQ(norm.dtype, LLM_F32);
  EXPECT_EQ(norm.rank, 1);
  EXPECT_EQ(norm.sizes[0], 7);
}

TEST_F(DescriptorTest, EntriesDescribeInputsAndOutputs) {
  const llm_entry_desc &forward = entry("forward");
  EXPECT_NE(forward.fn, nullptr);
  ASSERT_EQ(forward.num_inputs, 4);
  ASSERT_EQ(forward.num_outputs, 3);
  EXPECT_EQ(forward.num_symbols, 2);
  expectValue(forward.inputs[0], "tokens", LLM_I32, {-1}, {0}, {0});
  EXPECT_EQ(forward.inputs[0].below, 100);
  EXPECT_EQ(forward.inputs[0].below_symbol, -1);
  expectValue(forward.inputs[1], "cu_seqlens", LLM_I32, {-1}, {1}, {1});
  EXPECT_EQ(forward.inputs[1].below, -1);
  expectValue(forward.inputs[2], "last", LLM_I32, {-1}, {1}, {0});
  EXPECT_EQ(forward.inputs[2].below_symbol, 0);
  expectValue(forward.inputs[3], "arg3", LLM_F16, {3, -1}, {-1, -1}, {0, 0});
  expectValue(forward.outputs[0], "lengths", LLM_I32, {-1}, {1}, {0});
  expectValue(forward.outputs[1], "result1", LLM_F32, {7}, {-1}, {0});
  expectValue(forward.outputs[2], "result2", LLM_BF16, {6, 5}, {-1, -1},
              {0, 0});
  EXPECT_EQ(entry("reset").num_symbols, 0);
}

TEST_F(DescriptorTest, SitesNameOpFileAndLine) {
  int32_t found = 0;
  for (int32_t i = 0; i < described.num_sites; ++i) {
    const llm_site &site = described.sites[i];
    if (std::string(site.op) != "llm.seq_lens")
      continue;
    ++found;
    EXPECT_STREQ(site.file, "test.mlir");
    EXPECT_EQ(site.line, program.lineOf("// the site"));
    EXPECT_GT(site.column, 0);
  }
  EXPECT_EQ(found, 1);
}
