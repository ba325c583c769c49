//===- Agreement.cpp - Runs programs in both of their meanings ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// llm-agreement PRODUCT.mlir SPEC.mlir INPUTS [PIPELINE] > RESULTS
//
// Entry @p0, @p1, ... of both modules takes its part of INPUTS: the bytes of
// its three tensor arguments, one after the other. RESULTS holds for each
// program an i32 status and the bytes of its four results, first of all
// programs as the product, then of all as the specification. The product's are
// followed by what the host's caches hold in the end: for each the i32 lengths
// of all sequences, and for each layer K and V [S, max_seq_len, Hkv, D]. An
// upstream PIPELINE runs over both modules first. The status is the runtime's,
// of the specification's the text decides; a leak or a broken invariant is 100
// or 101. The lines of PRODUCT.mlir that took a snapshot go to standard error.
//
//===----------------------------------------------------------------------===//

#include "Model.h"
#include "SpecificationEngine.h"
#include "llm/Driver/Compiler.h"
#include "llm/Transforms/Passes.h"

#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Target/LLVMIR/Dialect/All.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <numeric>
#include <set>

using namespace mlir;
using ::llm::testing::SpecificationEngine;

static constexpr int32_t kLeak = 100, kInvariant = 101, kUnknown = 102;
static constexpr size_t kNumInputs = 3;

[[noreturn]] static void fail(const llvm::Twine &why) {
  llvm::errs() << "llm-agreement: " << why << '\n';
  std::exit(2);
}

template <typename T>
static T take(llvm::Expected<T> value) {
  if (!value)
    fail(toString(value.takeError()));
  return std::move(*value);
}

static void write(const void *data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, stdout) != bytes)
    fail("cannot write the results");
}

//===----------------------------------------------------------------------===//
// Tensors of an entry
//===----------------------------------------------------------------------===//

namespace {
/// Shape and bytes, as a memref descriptor of rank 1 and as llm_tensor.
struct Buffer {
  struct Descriptor {
    void *allocated, *aligned;
    int64_t offset, size, stride;
  };

  explicit Buffer(RankedTensorType type)
      : size(type.getNumElements()),
        bytes(size * type.getElementTypeBitWidth() / 8), data(bytes) {
    Type element = type.getElementType();
    dtype = element.isF32()    ? LLM_F32
            : element.isF16()  ? LLM_F16
            : element.isBF16() ? LLM_BF16
                               : LLM_I32;
  }

  Descriptor descriptor() { return {data.data(), data.data(), 0, size, 1}; }
  llm_tensor tensor() { return {data.data(), dtype, 1, {size}, {1}}; }

  int64_t size;
  size_t bytes;
  llm_dtype dtype;
  std::vector<char> data;
};

struct Program {
  std::string name;
  std::deque<Buffer> inputs, outputs;
};
} // namespace

static bool isEntry(func::FuncOp function) {
  return function.isPublic() && function.getName().starts_with("p");
}

static std::vector<Program> describe(ModuleOp module, StringRef inputs) {
  std::vector<Program> programs;
  for (auto function : module.getOps<func::FuncOp>()) {
    if (!isEntry(function))
      continue;
    Program &program = programs.emplace_back();
    program.name = function.getName().str();
    for (Type type : function.getArgumentTypes())
      if (auto tensor = dyn_cast<RankedTensorType>(type)) {
        Buffer &buffer = program.inputs.emplace_back(tensor);
        if (inputs.size() < buffer.bytes)
          fail("the inputs end before those of " + program.name);
        std::memcpy(buffer.data.data(), inputs.data(), buffer.bytes);
        inputs = inputs.drop_front(buffer.bytes);
      }
    for (Type type : function.getResultTypes())
      if (auto tensor = dyn_cast<RankedTensorType>(type))
        program.outputs.emplace_back(tensor);
    if (program.inputs.size() != kNumInputs)
      fail(program.name + " does not take three tensors");
  }
  return programs;
}

static void writeResult(Program &program, int32_t status) {
  write(&status, sizeof(status));
  for (Buffer &output : program.outputs)
    write(output.data.data(), output.bytes);
}

//===----------------------------------------------------------------------===//
// The product
//===----------------------------------------------------------------------===//

namespace {
/// The host's caches of a program, whose free blocks are NaN.
class HostCaches {
public:
  HostCaches(llm_context *context, const llm_program &program,
             const llm_entry_desc &entry) {
    for (int32_t i = 0; i < entry.num_kv; ++i) {
      llm_kv_config config;
      llm_error error = LLM_ERROR_INIT;
      if (llm_kv_config_init(&program, entry.kv_groups[i], &config, &error))
        fail(error.message);
      config.poison = 1;
      config.num_blocks =
          8 * config.max_sequences *
          ((config.max_seq_len + config.block_size - 1) / config.block_size);
      if (llm_kv_create(context, &config, &caches.emplace_back(), &error))
        fail(error.message);
    }
  }
  ~HostCaches() {
    for (llm_kv_cache *cache : caches)
      llm_kv_destroy(cache);
  }

  /// One version for each object, in the pools that they are in now.
  int32_t check() {
    std::set<const void *> pools;
    int64_t versions = 0;
    for (llm_kv_cache *cache : caches) {
      llm_kv_stats stats;
      if (llm_kv_check(cache, nullptr) ||
          llm_kv_get_stats(cache, &stats, nullptr))
        return kInvariant;
      if (pools.insert(cache->host->version->pool().get()).second)
        versions += stats.versions;
      if (stats.pending_blocks != 0)
        return kLeak;
    }
    return versions == int64_t(caches.size()) ? LLM_OK : kLeak;
  }

  void write() const {
    for (llm_kv_cache *cache : caches)
      writeContent(cache);
  }

  std::vector<llm_kv_cache *> caches;

private:
  static void writeContent(llm_kv_cache *cache) {
    llm_kv_config config;
    llm_error error = LLM_ERROR_INIT;
    if (llm_kv_get_config(cache, &config, &error))
      fail(error.message);
    std::vector<int32_t> ids(config.max_sequences);
    std::iota(ids.begin(), ids.end(), 0);
    for (int32_t id : ids) {
      int64_t length = 0;
      if (llm_kv_length(cache, id, &length, &error))
        fail(error.message);
      const int32_t written = int32_t(length);
      ::write(&written, sizeof(written));
    }
    const int64_t row = int64_t(config.kv_heads) * config.head_dim;
    const int64_t count = config.max_sequences * config.max_seq_len * row;
    std::vector<char> k(count * (config.dtype == LLM_F32 ? 4 : 2)), v(k);
    llm_tensor tensor{nullptr,
                      config.dtype,
                      4,
                      {config.max_sequences, config.max_seq_len,
                       config.kv_heads, config.head_dim},
                      {config.max_seq_len * row, row, config.head_dim, 1}};
    for (int32_t layer = 0; layer < config.layers; ++layer) {
      llm_tensor keys = tensor, values = tensor;
      keys.data = k.data(), values.data = v.data();
      if (llm_kv_lookup(cache, layer, ids.data(), config.max_sequences, &keys,
                        &values, &error))
        fail(error.message);
      ::write(k.data(), k.size());
      ::write(v.data(), v.size());
    }
  }
};
} // namespace

static int32_t invoke(llm_context *context, llm_model *model,
                      const llm_entry_desc &entry, HostCaches &hosts,
                      Program &program) {
  std::vector<llm_tensor> inputs, outputs;
  for (Buffer &buffer : program.inputs)
    inputs.push_back(buffer.tensor());
  for (Buffer &buffer : program.outputs)
    outputs.push_back(buffer.tensor());
  llm_error error = LLM_ERROR_INIT;
  const int64_t leaked = model->leakedVersions;
  llm_code code = llm_model_invoke(model, entry.name, hosts.caches.data(),
                                   int32_t(hosts.caches.size()), inputs.data(),
                                   int32_t(inputs.size()), outputs.data(),
                                   int32_t(outputs.size()), &error);
  if (code != LLM_OK)
    llvm::errs() << "product " << program.name << ": " << error.line << ": "
                 << error.message << '\n';
  if (code == LLM_OK && model->leakedVersions != leaked)
    return kLeak;
  const int32_t checked = hosts.check();
  return checked ? checked : code;
}

static void runProduct(ModuleOp module, std::vector<Program> programs) {
  auto compiled =
      take(mlir::llm::CompiledModel::compile(module, {/*optLevel=*/0}));
  const llm_program &descriptor = compiled->program();
  llm_context *context = nullptr;
  llm_model *model = nullptr;
  llm_error error = LLM_ERROR_INIT;
  if (llm_context_create(1, &context, &error) ||
      llm_model_create(context, &descriptor, &model, &error) ||
      llm_model_finish(model, &error))
    fail(error.message);
  for (Program &program : programs)
    for (int32_t i = 0; i < descriptor.num_entries; ++i)
      if (descriptor.entries[i].name == program.name) {
        HostCaches hosts(context, descriptor, descriptor.entries[i]);
        writeResult(program, invoke(context, model, descriptor.entries[i],
                                    hosts, program));
        hosts.write();
      }
  llm_model_destroy(model);
  llm_context_destroy(context);
}

//===----------------------------------------------------------------------===//
// The specification
//===----------------------------------------------------------------------===//

static int32_t statusOf(StringRef text) {
  for (llm_code code = LLM_OK + 1; code < 20; ++code)
    if (const char *name = llm_code_name(code))
      if (text.starts_with(name))
        return code;
  return kUnknown;
}

static int32_t runSpecified(SpecificationEngine &engine, Program &program) {
  std::vector<Buffer::Descriptor> results(program.outputs.size());
  std::vector<Buffer::Descriptor> inputs;
  for (Buffer &buffer : program.inputs)
    inputs.push_back(buffer.descriptor());
  using Function = void (*)(void *, void *, void *, void *);
  std::string message = take(engine.run(program.name, [&](void *function) {
    reinterpret_cast<Function>(function)(results.data(), &inputs[0], &inputs[1],
                                         &inputs[2]);
  }));
  if (!message.empty()) {
    llvm::errs() << "specification " << program.name << ": " << message << '\n';
    return statusOf(message);
  }
  for (size_t i = 0; i < results.size(); ++i) {
    Buffer &output = program.outputs[i];
    const size_t element = output.bytes / output.size;
    const char *data = static_cast<const char *>(results[i].aligned) +
                       results[i].offset * int64_t(element);
    std::memcpy(output.data.data(), data, output.bytes);
  }
  return LLM_OK;
}

static void runSpecification(ModuleOp module, std::vector<Program> programs) {
  auto engine = take(SpecificationEngine::create(module));
  for (Program &program : programs)
    writeResult(program, runSpecified(*engine, program));
}

//===----------------------------------------------------------------------===//
// Modules
//===----------------------------------------------------------------------===//

static OwningOpRef<ModuleOp> parse(MLIRContext &context, const char *file,
                                   StringRef pipeline) {
  auto module = parseSourceFile<ModuleOp>(file, ParserConfig(&context));
  if (!module)
    fail(llvm::Twine(file) + " does not parse");
  PassManager manager(&context);
  if (!pipeline.empty() && failed(parsePassPipeline(pipeline, manager)))
    fail("no such pipeline: " + pipeline);
  if (failed(manager.run(*module)))
    fail(pipeline + " failed");
  return module;
}

static LogicalResult report(Diagnostic &diagnostic) {
  if (diagnostic.getSeverity() == DiagnosticSeverity::Error)
    llvm::errs() << diagnostic.getLocation() << ": " << diagnostic << '\n';
  if (diagnostic.getSeverity() == DiagnosticSeverity::Remark)
    if (auto location =
            diagnostic.getLocation()->findInstanceOf<FileLineColLoc>())
      llvm::errs() << "snapshot " << location.getLine() << '\n';
  return success();
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  if (argc < 4 || argc > 5)
    fail("expected PRODUCT.mlir SPEC.mlir INPUTS [PIPELINE]");
  StringRef pipeline = argc > 4 ? argv[4] : "";
  registerTransformsPasses();
  DialectRegistry registry;
  mlir::llm::registerPipelineDialects(registry);
  registerAllToLLVMIRTranslations(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.getDiagEngine().registerHandler(report);
  auto inputs = llvm::MemoryBuffer::getFile(argv[3]);
  if (!inputs)
    fail(llvm::Twine("cannot read ") + argv[3]);
  OwningOpRef<ModuleOp> product = parse(context, argv[1], pipeline);
  std::vector<Program> programs = describe(*product, (*inputs)->getBuffer());
  runProduct(*product, programs);
  OwningOpRef<ModuleOp> specification = parse(context, argv[2], pipeline);
  runSpecification(*specification, programs);
  return 0;
}
