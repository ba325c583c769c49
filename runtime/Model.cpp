//===- Model.cpp - A compiled model with its weights ----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Model.h"
#include "FileBlocks.h"
#include "FileFormats.h"
#include "Parallel.h"
#include "Tensors.h"
#include "Weights.h"
#include "cpu/Blocks.h"
#include "cpu/Features.h"
#include "cpu/Kernels.h"

#include <algorithm>
#include <cstring>

using namespace llm;

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

static Status checkVersion(const llm_program &program) {
  if (program.abi_version != LLM_ABI_VERSION)
    return Status::error(LLM_ABI_MISMATCH, LLM_ABI_VERSION, program.abi_version,
                         "expected a program of ABI version %u, got %u",
                         LLM_ABI_VERSION, program.abi_version);
  if (program.struct_size != sizeof(llm_program))
    return Status::error(LLM_ABI_MISMATCH, sizeof(llm_program),
                         program.struct_size,
                         "expected an llm_program of %zu bytes, got %u",
                         sizeof(llm_program), program.struct_size);
  return Status();
}

/// So that code for another CPU never ends in an illegal instruction.
static Status checkCPU(const llm_program &program) {
  if (!program.cpu_features)
    return Status();
  const std::string missing = cpu::missingFeatures(program.cpu_features);
  if (missing.empty())
    return Status();
  return Status::error(LLM_UNSUPPORTED, 0, 0,
                       "expected a CPU that runs code for %s, got one without "
                       "%s",
                       program.cpu ? program.cpu : "another one",
                       missing.c_str());
}

/// Of layouts that are read 32 columns at a time.
static Status checkDepth(const llm_weight_desc &weight, int32_t index) {
  if (weight.rank != 2 || weight.sizes[1] % cpu::kWeightDepth != 0)
    return Status::error(
        LLM_UNSUPPORTED, cpu::kWeightDepth, weight.sizes[1],
        "expected a matrix of a multiple of %lld columns in tiles or blocks, "
        "got rank %d and %lld columns for weight %d",
        static_cast<long long>(cpu::kWeightDepth), weight.rank,
        static_cast<long long>(weight.sizes[1]), index);
  return Status();
}

static Status checkTiles(const llm_weight_desc &weight, int32_t index) {
  if (weight.dtype != LLM_BF16)
    return Status::error(LLM_UNSUPPORTED, LLM_BF16, weight.dtype,
                         "expected weight %d in tiles of bf16, got %s", index,
                         dtypeName(weight.dtype));
  return checkDepth(weight, index);
}

static Status checkBlocks(const llm_weight_desc &weight, int32_t index) {
  if (weight.dtype != LLM_I8)
    return Status::error(LLM_UNSUPPORTED, LLM_I8, weight.dtype,
                         "expected weight %d in blocks of i8, got %s", index,
                         dtypeName(weight.dtype));
  if (!cpu::isBlockFormat(weight.format))
    return Status::error(LLM_UNSUPPORTED, LLM_FILE_Q4_1, weight.format,
                         "expected blocks of format %d to %d for weight %d, "
                         "got %d",
                         LLM_FILE_Q8_0, LLM_FILE_Q4_1, index, weight.format);
  return checkDepth(weight, index);
}

static Status checkWeight(const llm_weight_desc &weight, int32_t index) {
  if (weight.layout == LLM_LAYOUT_BLOCKS32)
    return checkBlocks(weight, index);
  const bool known = weight.dtype == LLM_F32 || weight.dtype == LLM_BF16;
  if (!known)
    return Status::error(LLM_UNSUPPORTED, LLM_F32, weight.dtype,
                         "expected weight %d of type f32 or bf16, got %s",
                         index, dtypeName(weight.dtype));
  if (weight.layout < LLM_LAYOUT_PLAIN || weight.layout > LLM_LAYOUT_BLOCKS32)
    return Status::error(LLM_UNSUPPORTED, LLM_LAYOUT_BLOCKS32, weight.layout,
                         "expected weight %d in layout 0, 1, 2 or 3, got %d",
                         index, weight.layout);
  if (weight.rank != 1 && weight.rank != 2)
    return Status::error(LLM_UNSUPPORTED, 2, weight.rank,
                         "expected weight %d of rank 1 or 2, got %d", index,
                         weight.rank);
  if (weight.layout == LLM_LAYOUT_TILES32)
    return checkTiles(weight, index);
  return Status();
}

llm_model::llm_model(const llm_program *program, const llm_context &context)
    : program(program), numThreads(context.numThreads), faults(context.faults),
      weights(program->num_weights), packed(program->num_weights),
      finished(program->num_weights == 0) {
  for (int32_t i = 0; i < program->num_weights; ++i) {
    weights[i].sources.resize(program->weights[i].num_names);
    weights[i].bound.resize(program->weights[i].num_names);
  }
}

llm_code llm_model_create(llm_context *context, const llm_program *program,
                          llm_model **model, llm_error *error) {
  if (!context || !program || !model)
    return report(
        nullArgument("a context, a program and a place for the model"), error);
  return report(withoutExceptions([&]() -> Status {
                  LLM_TRY(checkVersion(*program));
                  LLM_TRY(checkCPU(*program));
                  for (int32_t i = 0; i < program->num_weights; ++i)
                    LLM_TRY(checkWeight(program->weights[i], i));
                  auto *created = new llm_model(program, *context);
                  for (int32_t i = 0; i < program->num_weights; ++i)
                    created->packedBytes += packedBytes(program->weights[i]);
                  *model = created;
                  return Status();
                }),
                error);
}

void llm_model_destroy(llm_model *model) { delete model; }

const llm_program *llm_model_describe(const llm_model *model) {
  return model ? model->program : nullptr;
}

int64_t llm_model_weight_bytes(const llm_model *model) {
  return model ? model->packedBytes : 0;
}

std::unique_ptr<Call> llm_model::takeCall() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!idle_.empty()) {
    std::unique_ptr<Call> call = std::move(idle_.back());
    idle_.pop_back();
    return call;
  }
  // Giving back must not need memory.
  idle_.reserve(calls_ + 1);
  auto call = std::make_unique<Call>(program, faults);
  ++calls_;
  return call;
}

void llm_model::giveBack(std::unique_ptr<Call> call) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  work_.linear_ns += call->work.linear_ns;
  work_.linear_bytes += call->work.linear_bytes;
  work_.linear_flops += call->work.linear_flops;
  call->work = {};
  idle_.push_back(std::move(call));
}

llm_model_work llm_model::work() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return work_;
}

llm_code llm_model_get_work(llm_model *model, llm_model_work *work,
                            llm_error *error) {
  if (!model || !work)
    return report(nullArgument("a model and a place for its work"), error);
  *work = model->work();
  return LLM_OK;
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

static Status checkFormat(const char *name, const llm_weight_source &source) {
  if (!source.data)
    return nullArgument("data of the weight");
  if (source.rank != 1 && source.rank != 2)
    return Status::error(LLM_INVALID_ARGUMENT, 2, source.rank,
                         "expected %s of rank 1 or 2, got %d", name,
                         source.rank);
  const int64_t cols = source.sizes[source.rank - 1];
  if (!llm_file_format_name(source.format))
    return Status::error(LLM_INVALID_ARGUMENT, LLM_FILE_Q6_K, source.format,
                         "expected a format of at most %d for %s, got %d",
                         LLM_FILE_Q6_K, name, source.format);
  const int64_t block = weightsOfBlock(source.format);
  if (llm_file_row_bytes(source.format, cols) < 0)
    return Status::error(LLM_INVALID_ARGUMENT, block, cols,
                         "expected rows of whole blocks of %lld weights in %s "
                         "(%s), got %lld",
                         static_cast<long long>(block), name,
                         llm_file_format_name(source.format),
                         static_cast<long long>(cols));
  return Status();
}

/// The sizes that a source must have; -1 along the axis of several names.
static int64_t wantedSize(const llm_weight_desc &weight, int32_t dimension) {
  const bool open = weight.num_names > 1 && dimension == weight.axis;
  return open ? -1 : weight.sizes[dimension];
}

static Status checkSource(const llm_weight_desc &weight, const char *name,
                          const llm_weight_source &source) {
  const bool blocks = weight.layout == LLM_LAYOUT_BLOCKS32;
  if (blocks && !canHold(weight.format, source.format))
    return Status::error(LLM_INVALID_ARGUMENT, weight.format, source.format,
                         "expected %s of a format that blocks of %s hold, got "
                         "%s",
                         name, llm_file_format_name(weight.format),
                         llm_file_format_name(source.format));
  bool same = source.rank == weight.rank;
  for (int32_t i = 0; same && i < weight.rank; ++i) {
    const int64_t wanted = wantedSize(weight, i);
    same = wanted < 0 ? source.sizes[i] <= weight.sizes[i]
                      : source.sizes[i] == wanted;
  }
  if (same)
    return Status();
  const auto size = [](const auto &shape, int32_t i) {
    return static_cast<long long>(i < shape.rank ? shape.sizes[i] : 1);
  };
  return Status::error(LLM_INVALID_ARGUMENT, weight.sizes[0], source.sizes[0],
                       "expected %s of shape [%lld, %lld] (rank %d), got "
                       "[%lld, %lld] (rank %d)",
                       name, size(weight, 0), size(weight, 1), weight.rank,
                       size(source, 0), size(source, 1), source.rank);
}

/// Calls visit(weight, its place in the weight) for every mention of a name.
template <typename Visit>
static Status forEachMention(const llm_program &program, const char *name,
                             const Visit &visit) {
  for (int32_t i = 0; i < program.num_weights; ++i)
    for (int32_t j = 0; j < program.weights[i].num_names; ++j)
      if (!std::strcmp(program.weights[i].names[j], name))
        LLM_TRY(visit(i, j));
  return Status();
}

static Status bind(llm_model &model, const char *name,
                   const llm_weight_source &source) {
  if (model.finished && model.program->num_weights)
    return Status::error(LLM_WRONG_STATE, 0, 1,
                         "expected to bind %s before llm_model_finish, got it "
                         "after",
                         name);
  LLM_TRY(checkFormat(name, source));
  int64_t mentions = 0;
  LLM_TRY(forEachMention(*model.program, name, [&](int32_t i, int32_t) {
    ++mentions;
    return checkSource(model.program->weights[i], name, source);
  }));
  if (!mentions)
    return Status::error(LLM_NOT_FOUND, 1, 0, "no weight is named %s", name);
  return forEachMention(*model.program, name, [&](int32_t i, int32_t j) {
    model.weights[i].sources[j] = source;
    model.weights[i].bound[j] = true;
    return Status();
  });
}

llm_code llm_model_bind_weight(llm_model *model, const char *name,
                               const llm_weight_source *source,
                               llm_error *error) {
  if (!model || !name || !source)
    return report(nullArgument("a model, a name and a source"), error);
  return report(withoutExceptions([&] { return bind(*model, name, *source); }),
                error);
}

static Status checkAllBound(const llm_model &model) {
  int64_t missing = 0;
  const char *first = nullptr;
  for (size_t i = 0; i < model.weights.size(); ++i)
    for (size_t j = 0; j < model.weights[i].bound.size(); ++j)
      if (!model.weights[i].bound[j]) {
        if (!missing++)
          first = model.program->weights[i].names[j];
      }
  if (!missing)
    return Status();
  return Status::error(LLM_NOT_FOUND, 0, missing,
                       "%lld weights are not bound, the first is %s",
                       static_cast<long long>(missing), first);
}

/// The parts of a weight must make up its size.
static Status checkConcatenation(const llm_weight_desc &desc,
                                 const llm_model::Weight &weight) {
  if (desc.num_names <= 1)
    return Status();
  int64_t total = 0;
  for (const llm_weight_source &source : weight.sources)
    total += source.sizes[desc.axis];
  if (total == desc.sizes[desc.axis])
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, desc.sizes[desc.axis], total,
                       "expected %s and %d more to make %lld along axis %d, "
                       "got %lld",
                       desc.names[0], desc.num_names - 1,
                       static_cast<long long>(desc.sizes[desc.axis]), desc.axis,
                       static_cast<long long>(total));
}

constexpr int32_t kLargestHalf = 65504;

static Status pack(const llm_weight_desc &desc, llm_model::Weight &weight,
                   Faults &faults) {
  const int64_t bytes = (packedBytes(desc) + 63) / 64 * 64;
  if (!faults.strikes(Resource::Memory))
    weight.packed.reset(std::aligned_alloc(64, std::max<int64_t>(bytes, 64)));
  if (!weight.packed)
    return Status::error(LLM_OUT_OF_MEMORY, bytes, 0,
                         "no memory for the %lld bytes of %s",
                         static_cast<long long>(bytes), desc.names[0]);
  const float beyond =
      packWeight(desc, weight.sources.data(), weight.packed.get());
  if (!beyond)
    return Status();
  return Status::error(
      LLM_UNSUPPORTED, kLargestHalf, static_cast<int64_t>(beyond),
      "expected scales and minimums of at most %d in %s and %d "
      "more, to pack them as %s, got %g",
      kLargestHalf, desc.names[0], desc.num_names - 1,
      llm_file_format_name(desc.format), beyond);
}

static Status finish(llm_model &model) {
  if (model.finished)
    return Status();
  LLM_TRY(checkAllBound(model));
  const llm_weight_desc *descs = model.program->weights;
  for (size_t i = 0; i < model.weights.size(); ++i)
    LLM_TRY(checkConcatenation(descs[i], model.weights[i]));
  setNumThreads(model.numThreads);
  for (size_t i = 0; i < model.weights.size(); ++i) {
    LLM_TRY(pack(descs[i], model.weights[i], *model.faults));
    model.packed[i] = model.weights[i].packed.get();
  }
  model.finished = true;
  return Status();
}

llm_code llm_model_finish(llm_model *model, llm_error *error) {
  if (!model)
    return report(nullArgument("a model"), error);
  return report(withoutExceptions([&] { return finish(*model); }), error);
}
