//===- Invoke.cpp - Running an entry as a transaction ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Model.h"
#include "Parallel.h"
#include "Tensors.h"

#include <cstring>

using namespace llm;

namespace {

/// Everything that a call was given.
struct Arguments {
  std::span<llm_kv_cache *> caches; ///< of the host
  std::span<llm_kv_cache *> fresh;  ///< null until the call has made them
  std::span<const llm_tensor> inputs;
  std::span<const llm_tensor> outputs;
};

using FreshCaches = std::vector<std::unique_ptr<llm_kv_cache>>;

} // namespace

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

static constexpr int64_t unbound = -1;

static Status checkSize(const llm_value_desc &value, int32_t i, int64_t actual,
                        std::vector<int64_t> &symbols) {
  int64_t expected = value.sizes[i];
  if (expected < 0) {
    const int32_t symbol = value.symbols[i];
    expected = 0;
    if (symbol < 0 && actual >= 0)
      return Status();
    if (symbol >= 0) {
      expected = value.symbol_add[i];
      if (symbols[symbol] == unbound && actual >= expected)
        symbols[symbol] = actual - expected;
      if (symbols[symbol] != unbound)
        expected += symbols[symbol];
    }
  }
  if (actual == expected && actual >= 0)
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, expected, actual,
                       "expected dimension %d of %s to be %lld, got %lld", i,
                       value.name, static_cast<long long>(expected),
                       static_cast<long long>(actual));
}

/// Checks every element of an i32 tensor against [0, below).
static Status checkElements(const llm_value_desc &value,
                            const llm_tensor &tensor, int64_t below,
                            int32_t dimension = 0, int64_t offset = 0) {
  for (int64_t i = 0; dimension < tensor.rank && i < tensor.sizes[dimension];
       ++i)
    LLM_TRY(checkElements(value, tensor, below, dimension + 1,
                          offset + i * tensor.strides[dimension]));
  if (dimension < tensor.rank)
    return Status();
  const int32_t element = static_cast<const int32_t *>(tensor.data)[offset];
  if (element >= 0 && element < below)
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, below, element,
                       "expected elements of %s in [0, %lld), got %d",
                       value.name, static_cast<long long>(below), element);
}

static Status checkRange(const llm_value_desc &value, const llm_tensor &tensor,
                         const std::vector<int64_t> &symbols) {
  const int64_t below =
      value.below_symbol >= 0 ? symbols[value.below_symbol] : value.below;
  if (below < 0 || value.dtype != LLM_I32)
    return Status();
  return checkElements(value, tensor, below);
}

static Status checkValue(const llm_value_desc &value, const llm_tensor &tensor,
                         std::vector<int64_t> &symbols) {
  if (tensor.rank != value.rank)
    return Status::error(LLM_INVALID_ARGUMENT, value.rank, tensor.rank,
                         "expected %s of rank %d, got %d", value.name,
                         value.rank, tensor.rank);
  if (tensor.dtype != value.dtype)
    return Status::error(LLM_INVALID_ARGUMENT, value.dtype, tensor.dtype,
                         "expected %s of type %s, got %s", value.name,
                         dtypeName(value.dtype), dtypeName(tensor.dtype));
  int64_t elements = 1;
  for (int32_t i = 0; i < value.rank; ++i) {
    LLM_TRY(checkSize(value, i, tensor.sizes[i], symbols));
    elements *= tensor.sizes[i] != 0;
  }
  if (elements && !tensor.data)
    return nullArgument(value.name);
  return Status();
}

static Status checkCount(const char *what, int64_t expected, int64_t actual) {
  if (expected == actual)
    return Status();
  return Status::error(
      LLM_INVALID_ARGUMENT, expected, actual, "expected %lld %s, got %lld",
      static_cast<long long>(expected), what, static_cast<long long>(actual));
}

static Status checkTensors(const llm_entry_desc &entry,
                           const Arguments &arguments,
                           std::vector<int64_t> &symbols) {
  symbols.assign(entry.num_symbols, unbound);
  LLM_TRY(checkCount("inputs", entry.num_inputs, arguments.inputs.size()));
  LLM_TRY(checkCount("outputs", entry.num_outputs, arguments.outputs.size()));
  for (int32_t i = 0; i < entry.num_inputs; ++i)
    LLM_TRY(checkValue(entry.inputs[i], arguments.inputs[i], symbols));
  for (int32_t i = 0; i < entry.num_outputs; ++i)
    LLM_TRY(checkValue(entry.outputs[i], arguments.outputs[i], symbols));
  for (int32_t i = 0; i < entry.num_inputs; ++i)
    LLM_TRY(checkRange(entry.inputs[i], arguments.inputs[i], symbols));
  return Status();
}

//===----------------------------------------------------------------------===//
// Caches
//===----------------------------------------------------------------------===//

static Status checkFresh(const llm_entry_desc &entry,
                         std::span<llm_kv_cache *const> fresh) {
  for (size_t i = 0; i < fresh.size(); ++i)
    if (fresh[i])
      return Status::error(LLM_INVALID_ARGUMENT, 0, 1,
                           "expected null for cache %zu, which entry %s makes",
                           size_t(entry.num_kv) - fresh.size() + i, entry.name);
  return Status();
}

static Status checkDistinct(std::span<llm_kv_cache *const> caches) {
  for (size_t i = 0; i < caches.size(); ++i) {
    if (!caches[i])
      return nullArgument("a cache");
    for (size_t j = 0; j < i; ++j)
      if (caches[i] == caches[j])
        return Status::error(LLM_INVALID_ARGUMENT, static_cast<int64_t>(i),
                             static_cast<int64_t>(j),
                             "expected distinct caches, got one as arguments "
                             "%zu and %zu",
                             j, i);
  }
  return Status();
}

static Status checkTypes(const llm_program &program,
                         const llm_entry_desc &entry,
                         std::span<llm_kv_cache *const> caches) {
  for (size_t i = 0; i < caches.size(); ++i)
    LLM_TRY(checkType(program.groups[entry.kv_groups[i]],
                      caches[i]->host->version->config()));
  return Status();
}

/// Locks every cache, and each pool once: several caches may be on one.
static Status lockCaches(std::span<llm_kv_cache *const> caches,
                         std::vector<CacheLock> &locks) {
  for (const llm_kv_cache *cache : caches) {
    CacheLock lock(CacheLock::Change);
    const Status status = lock.acquire(cache->host, locks);
    locks.push_back(std::move(lock));
    LLM_TRY(status);
    LLM_TRY(checkNoStep(*cache->host->version->pool()));
    LLM_TRY(cache->host->checkCancelled());
  }
  return Status();
}

//===----------------------------------------------------------------------===//
// The transaction
//===----------------------------------------------------------------------===//

/// Objects without a version: the entry gives each one.
static FreshCaches makeFresh(size_t count, int32_t numThreads) {
  FreshCaches fresh;
  for (size_t i = 0; i < count; ++i) {
    fresh.push_back(std::make_unique<llm_kv_cache>());
    fresh.back()->host = std::make_shared<HostCache>();
    fresh.back()->host->numThreads = numThreads;
  }
  return fresh;
}

static Status endSteps(const Call &call, const Arguments &arguments,
                       const FreshCaches &fresh) {
  for (llm_kv_cache *cache : arguments.caches)
    LLM_TRY(cache->host->version->endStep());
  for (size_t i = 0; i < fresh.size(); ++i) {
    PagedKVCache *version = fresh[i]->host->version.get();
    if (!version)
      return Status::error(LLM_WRONG_STATE, 1, 0,
                           "expected entry %s to make cache %zu, got none",
                           call.entry->name, arguments.caches.size() + i);
    LLM_TRY(version->endStep());
  }
  return Status();
}

/// Runs the entry; on success every step is complete.
static Status runEntry(const llm_model &model, Call &call,
                       const Arguments &arguments, const FreshCaches &fresh) {
  for (llm_kv_cache *cache : arguments.caches)
    call.handles.push_back(
        call.versions.addHost(call.hosts.emplace_back(cache->host.get())));
  for (const auto &cache : fresh)
    call.handles.push_back(call.versions.addHost(cache->host.get()));
  call.inputs = arguments.inputs.data();
  call.outputs = arguments.outputs.data();
  call.weights = model.packed.data();
  call.kv = call.handles.data();
  const llm_code code = call.entry->fn(&call);
  if (code != LLM_OK)
    return call.status.code() == code
               ? call.status
               : Status::error(code, LLM_OK, code,
                               "entry %s returned code %d, expected %d",
                               call.entry->name, code, LLM_OK);
  return endSteps(call, arguments, fresh);
}

static void endTransaction(llm_model &model, Call &call, bool commit,
                           const Arguments &arguments,
                           FreshCaches &fresh) noexcept {
  const std::span<llm_kv_cache *const> caches = arguments.caches;
  if (commit) {
    for (llm_kv_cache *cache : caches)
      cache->host->commit();
    for (size_t i = 0; i < fresh.size(); ++i) {
      fresh[i]->host->commit();
      arguments.fresh[i] = fresh[i].release();
    }
    model.leakedVersions += call.versions.clear();
    return;
  }
  for (llm_kv_cache *cache : caches)
    cache->host->revert();
  call.versions.clear();
  for (const auto &cache : fresh)
    cache->host->discard();
  for (llm_kv_cache *cache : caches)
    cache->host->abort();
}

static Status transact(llm_model &model, Call &call,
                       const Arguments &arguments) {
  FreshCaches fresh = makeFresh(arguments.fresh.size(), model.numThreads);
  std::vector<CacheLock> locks;
  LLM_TRY(lockCaches(arguments.caches, locks));
  LLM_TRY(checkTypes(*model.program, *call.entry, arguments.caches));
  for (llm_kv_cache *cache : arguments.caches)
    cache->host->begin();
  const Status status = withoutExceptions(
      [&] { return runEntry(model, call, arguments, fresh); });
  endTransaction(model, call, status.ok(), arguments, fresh);
  return status;
}

static Status findEntry(const llm_model &model, const char *name,
                        const llm_entry_desc *&entry) {
  const llm_program &program = *model.program;
  const std::span<const llm_entry_desc> entries(program.entries,
                                                size_t(program.num_entries));
  if (!model.finished)
    return Status::error(LLM_WRONG_STATE, 1, 0,
                         "expected llm_model_finish before llm_model_invoke");
  if (!name && entries.size() != 1)
    return Status::error(LLM_NOT_FOUND, 1, program.num_entries,
                         "expected the name of an entry of a program with %d",
                         program.num_entries);
  for (const llm_entry_desc &candidate : entries)
    if (!name || !std::strcmp(candidate.name, name)) {
      entry = &candidate;
      return Status();
    }
  return Status::error(LLM_NOT_FOUND, program.num_entries, 0,
                       "no entry of %d is named %s", program.num_entries, name);
}

namespace {

/// A call of the model for a scope, as before its first use but for its memory.
class BorrowedCall {
public:
  explicit BorrowedCall(llm_model &model)
      : model_(model), call_(model.takeCall()) {
    call_->steps.reset();
    call_->arena.reset();
    call_->handles.clear();
    call_->hosts.clear();
    call_->status = Status();
    call_->site = -1;
  }
  ~BorrowedCall() { model_.giveBack(std::move(call_)); }
  Call *operator->() const { return call_.get(); }
  Call &operator*() const { return *call_; }

private:
  llm_model &model_;
  std::unique_ptr<Call> call_;
};

} // namespace

llm_code llm_model_invoke(llm_model *model, const char *entry,
                          llm_kv_cache **caches, int32_t num_caches,
                          const llm_tensor *inputs, int32_t num_inputs,
                          const llm_tensor *outputs, int32_t num_outputs,
                          llm_error *error) {
  if (!model)
    return report(nullArgument("a model"), error);
  int32_t site = -1;
  const Status status = withoutExceptions([&]() -> Status {
    const llm_entry_desc *found = nullptr;
    LLM_TRY(findEntry(*model, entry, found));
    LLM_TRY(checkArray("caches", caches, num_caches));
    LLM_TRY(checkArray("inputs", inputs, num_inputs));
    LLM_TRY(checkArray("outputs", outputs, num_outputs));
    LLM_TRY(checkCount("caches", found->num_kv, num_caches));
    const auto numFresh = static_cast<size_t>(found->num_fresh);
    const std::span<llm_kv_cache *> objects(caches, size_t(num_caches));
    const Arguments arguments = {objects.first(objects.size() - numFresh),
                                 objects.last(numFresh),
                                 {inputs, size_t(num_inputs)},
                                 {outputs, size_t(num_outputs)}};
    const BorrowedCall call(*model);
    call->entry = found;
    LLM_TRY(checkTensors(*found, arguments, call->symbols));
    LLM_TRY(checkDistinct(arguments.caches));
    LLM_TRY(checkFresh(*found, arguments.fresh));
    setNumThreads(model->numThreads);
    const Status result = transact(*model, *call, arguments);
    site = call->site;
    return result;
  });
  return report(status, error, model->program, site);
}
