//===- KVCAPI.cpp - The C ABI of caches -----------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HostCache.h"
#include "Parallel.h"
#include "Tensors.h"
#include "cpu/Kernels.h"

#include <algorithm>
#include <cmath>

using namespace llm;

struct llm_kv_step {
  std::shared_ptr<HostCache> host;
  KVStep step;
};

//===----------------------------------------------------------------------===//
// How a function runs
//===----------------------------------------------------------------------===//

/// Reports what `body` returns, which runs while nobody else changes the cache.
template <typename Body>
static llm_code locked(const llm_kv_cache *cache, llm_error *error,
                       const Body &body,
                       CacheLock::Kind kind = CacheLock::Change) {
  if (!cache)
    return report(nullArgument("a cache"), error);
  return report(withoutExceptions([&]() -> Status {
                  CacheLock lock(kind);
                  LLM_TRY(lock.acquire(cache->host));
                  return body(*cache->host);
                }),
                error);
}

/// The same beside others who only look.
template <typename Body>
static llm_code probed(const llm_kv_cache *cache, llm_error *error,
                       const Body &body) {
  return locked(cache, error, body, CacheLock::Probe);
}

/// The same as a transaction: an error leaves everything as it was.
template <typename Body>
static llm_code transacted(llm_kv_cache *cache, llm_error *error,
                           const Body &body) {
  return locked(cache, error, [&](HostCache &host) -> Status {
    LLM_TRY(checkNoStep(*host.version->pool()));
    LLM_TRY(host.checkCancelled());
    host.begin();
    const Status status =
        withoutExceptions([&] { return body(*host.version); });
    status.ok() ? host.commit() : host.abort();
    return status;
  });
}

template <typename T>
static std::span<const T> array(const T *data, int32_t n) {
  return {data, static_cast<size_t>(n)};
}

//===----------------------------------------------------------------------===//
// Objects
//===----------------------------------------------------------------------===//

llm_code llm_context_create(int32_t num_threads, llm_context **context,
                            llm_error *error) {
  if (!context)
    return report(nullArgument("a place for the context"), error);
  return report(withoutExceptions([&]() -> Status {
                  LLM_TRY(cpu::selectedAtLoad());
                  *context = new llm_context{std::max(num_threads, 0),
                                             std::make_shared<Faults>()};
                  return Status();
                }),
                error);
}

void llm_context_destroy(llm_context *context) { delete context; }

static void applyGroup(const llm_kv_group_desc &group, llm_kv_config &config) {
  const auto choose = [](auto &field, auto fixed, auto suggested) {
    if (fixed)
      field = fixed;
    else if (suggested)
      field = suggested;
  };
  config.layers = group.layers;
  config.kv_heads = group.kv_heads;
  config.head_dim = group.head_dim;
  config.window = group.window;
  config.sinks = group.sinks;
  config.strategy = group.strategy;
  if (group.dtype >= 0)
    config.dtype = group.dtype;
  config.k_storage = group.k_storage;
  config.v_storage = group.v_storage;
  if (config.k_storage == LLM_KV_STORAGE_I4)
    config.block_size = kGroupSize;
  choose(config.block_size, group.block_size, group.default_block_size);
  choose(config.max_sequences, group.max_sequences,
         group.default_max_sequences);
  choose(config.max_seq_len, group.max_seq_len, group.default_max_seq_len);
}

void llm::initConfig(const llm_kv_group_desc *group, llm_kv_config &config) {
  config = llm_kv_config{};
  config.struct_size = sizeof(llm_kv_config);
  config.dtype = LLM_F16;
  config.block_size = 16;
  config.max_sequences = 1;
  config.max_seq_len = 4096;
  config.strategy = LLM_KV_PAGED;
  if (group)
    applyGroup(*group, config);
}

llm_code llm_kv_config_init(const llm_program *program, int32_t group,
                            llm_kv_config *config, llm_error *error) {
  if (!config)
    return report(nullArgument("a config"), error);
  if (program && (group < 0 || group >= program->num_groups))
    return report(Status::error(LLM_INVALID_ARGUMENT, program->num_groups,
                                group, "expected a group below %d, got %d",
                                program->num_groups, group),
                  error);
  initConfig(program ? &program->groups[group] : nullptr, *config);
  return LLM_OK;
}

llm_code llm_kv_bytes(const llm_kv_config *config, int64_t *bytes,
                      llm_error *error) {
  if (!config || !bytes)
    return report(nullArgument("a config and a place for the bytes"), error);
  llm_kv_config resolved;
  int64_t size;
  const Status status = resolveConfig(*config, resolved, size);
  if (status.ok())
    *bytes = size;
  return report(status, error);
}

/// Wraps a version as an object of the host.
static llm_kv_cache *makeHost(int32_t numThreads,
                              std::unique_ptr<PagedKVCache> version) {
  auto cache = std::make_unique<llm_kv_cache>();
  cache->host = std::make_shared<HostCache>();
  cache->host->numThreads = numThreads;
  cache->host->version = std::move(version);
  return cache.release();
}

llm_code llm_kv_create(llm_context *context, const llm_kv_config *config,
                       llm_kv_cache **cache, llm_error *error) {
  if (!context || !config || !cache)
    return report(nullArgument("a context, a config and a place for the cache"),
                  error);
  return report(withoutExceptions([&]() -> Status {
                  std::unique_ptr<PagedKVCache> version;
                  LLM_TRY(
                      PagedKVCache::create(*config, version, context->faults));
                  *cache = makeHost(context->numThreads, std::move(version));
                  return Status();
                }),
                error);
}

void llm_kv_destroy(llm_kv_cache *cache) { delete cache; }

llm_code llm_kv_get_config(const llm_kv_cache *cache, llm_kv_config *config,
                           llm_error *error) {
  if (!cache || !config)
    return report(nullArgument("a cache and a config"), error);
  return probed(cache, error, [&](const HostCache &host) {
    *config = host.version->config();
    return Status();
  });
}

llm_code llm_kv_snapshot(llm_kv_cache *cache, llm_kv_cache **copy,
                         llm_error *error) {
  if (!copy)
    return report(nullArgument("a place for the copy"), error);
  return locked(cache, error, [&](HostCache &host) -> Status {
    LLM_TRY(checkNoStep(*host.version->pool()));
    *copy = makeHost(host.numThreads, host.version->snapshot());
    return Status();
  });
}

/// The same of a poisoned cache too.
template <typename Body>
static llm_code probedAnyway(const llm_kv_cache *cache, llm_error *error,
                             const Body &body) {
  if (!cache)
    return report(nullArgument("a cache"), error);
  CacheLock lock(CacheLock::Probe);
  const Status status = lock.acquireAnyway(cache->host);
  if (status.ok())
    body(*cache->host->version);
  return report(status, error);
}

llm_code llm_kv_get_stats(llm_kv_cache *cache, llm_kv_stats *stats,
                          llm_error *error) {
  if (!stats)
    return report(nullArgument("a place for the statistics"), error);
  return probedAnyway(cache, error, [&](const PagedKVCache &version) {
    *stats = version.stats();
  });
}

llm_code llm_kv_get_work(llm_kv_cache *cache, llm_kv_work *work,
                         llm_error *error) {
  if (!work)
    return report(nullArgument("a place for the work"), error);
  return probedAnyway(cache, error, [&](const PagedKVCache &version) {
    *work = version.pool()->work;
  });
}

llm_code llm_kv_check(llm_kv_cache *cache, llm_error *error) {
  return locked(cache, error, [&](const HostCache &host) {
    const Status status = host.version->checkInvariants();
    if (!status.ok())
      host.version->pool()->failure = status;
    return status;
  });
}

llm_code llm_kv_cancel(llm_kv_cache *cache, int32_t on, llm_error *error) {
  if (!cache)
    return report(nullArgument("a cache"), error);
  cache->host->cancelled = on != 0;
  return LLM_OK;
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

llm_code llm_kv_acquire_sequence(llm_kv_cache *cache, int32_t *id,
                                 llm_error *error) {
  if (!id)
    return report(nullArgument("a place for the id"), error);
  return probed(cache, error, [&](const HostCache &host) {
    return host.version->firstEmptySequence(*id);
  });
}

llm_code llm_kv_fork(llm_kv_cache *cache, int32_t parent,
                     const int32_t *children, int32_t n, int64_t length,
                     llm_error *error) {
  return transacted(cache, error, [&](PagedKVCache &version) -> Status {
    LLM_TRY(checkArray("children", children, n));
    LLM_TRY(version.checkSequence(parent));
    const std::vector<int32_t> parents(n, parent);
    const std::vector<int64_t> lengths(n, length);
    return version.fork(parents, array(children, n), lengths);
  });
}

llm_code llm_kv_trim(llm_kv_cache *cache, const int32_t *ids,
                     const int64_t *lengths, int32_t n, llm_error *error) {
  return transacted(cache, error, [&](PagedKVCache &version) -> Status {
    LLM_TRY(checkArray("ids", ids, n));
    LLM_TRY(checkArray("lengths", lengths, n));
    return version.trim(array(ids, n), array(lengths, n));
  });
}

llm_code llm_kv_release(llm_kv_cache *cache, const int32_t *ids, int32_t n,
                        llm_error *error) {
  return transacted(cache, error, [&](PagedKVCache &version) -> Status {
    LLM_TRY(checkArray("ids", ids, n));
    return version.release(array(ids, n));
  });
}

llm_code llm_kv_length(llm_kv_cache *cache, int32_t id, int64_t *length,
                       llm_error *error) {
  if (!length)
    return report(nullArgument("a place for the length"), error);
  return probed(cache, error, [&](const HostCache &host) -> Status {
    LLM_TRY(host.version->checkSequence(id));
    *length = host.version->length(id);
    return Status();
  });
}

llm_code llm_kv_reserve_check(llm_kv_cache *cache, const int32_t *ids,
                              const int64_t *new_tokens, int32_t n,
                              llm_error *error) {
  return locked(cache, error, [&](HostCache &host) -> Status {
    LLM_TRY(checkNoStep(*host.version->pool()));
    LLM_TRY(checkArray("ids", ids, n));
    LLM_TRY(checkArray("new_tokens", new_tokens, n));
    return host.version->checkRoom(array(ids, n), array(new_tokens, n));
  });
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

template <typename Body>
static llm_code inStep(llm_kv_step *step, llm_error *error, const Body &body) {
  if (!step)
    return report(nullArgument("a step"), error);
  return report(withoutExceptions([&]() -> Status {
                  CacheLock lock(CacheLock::Change);
                  LLM_TRY(lock.acquire(step->host));
                  LLM_TRY(step->host->checkCancelled());
                  return body(*step->host->version, step->step);
                }),
                error);
}

llm_code llm_kv_begin(llm_kv_cache *cache, const int32_t *ids,
                      const int32_t *cu_seqlens, int32_t n, llm_kv_step **step,
                      llm_error *error) {
  if (!step)
    return report(nullArgument("a place for the step"), error);
  return locked(cache, error, [&](HostCache &host) -> Status {
    LLM_TRY(checkNoStep(*host.version->pool()));
    LLM_TRY(host.checkCancelled());
    LLM_TRY(checkArray("ids", ids, n));
    if (!cu_seqlens)
      return nullArgument("cu_seqlens");
    auto begun = std::make_unique<llm_kv_step>();
    begun->host = cache->host;
    host.begin();
    const Status status = withoutExceptions([&] {
      return host.version->beginStep(array(ids, n), array(cu_seqlens, n + 1),
                                     begun->step);
    });
    if (!status.ok()) {
      host.abort();
      return status;
    }
    host.version->pool()->stepOpen = true;
    *step = begun.release();
    return Status();
  });
}

llm_code llm_kv_append(llm_kv_step *step, int32_t layer, const llm_tensor *k,
                       const llm_tensor *v, llm_error *error) {
  if (!k || !v)
    return report(nullArgument("k and v"), error);
  return inStep(step, error, [&](PagedKVCache &version, const KVStep &data) {
    setNumThreads(step->host->numThreads);
    return version.append(data, layer, *k, *v);
  });
}

llm_code llm_kv_attention(llm_kv_step *step, int32_t layer, const llm_tensor *q,
                          const llm_attention_params *params,
                          const llm_extras *extras, const llm_tensor *out,
                          const llm_tensor *lse, llm_error *error) {
  if (!q || !out)
    return report(nullArgument("q and out"), error);
  const llm_attention_params defaults = {NAN, 0, 0, 1};
  return inStep(
      step, error, [&](PagedKVCache &version, const KVStep &data) -> Status {
        llm_extras known;
        LLM_TRY(readExtras(extras, known));
        setNumThreads(step->host->numThreads);
        return version.attention(data, layer, *q, params ? *params : defaults,
                                 *out, lse, known);
      });
}

/// A step's end: the pool is free for other calls, the object is gone.
static void closeStep(llm_kv_step *step) {
  step->host->version->pool()->stepOpen = false;
}

llm_code llm_kv_commit(llm_kv_step *step, llm_error *error) {
  const llm_code code =
      inStep(step, error, [&](PagedKVCache &version, const KVStep &) -> Status {
        LLM_TRY(version.endStep());
        step->host->commit();
        closeStep(step);
        return Status();
      });
  if (code == LLM_OK)
    delete step;
  return code;
}

void llm_kv_abort(llm_kv_step *step) {
  if (!step)
    return;
  const std::shared_ptr<KVPool> pool = step->host->version->pool();
  pool->gate.write();
  step->host->abort();
  closeStep(step);
  pool->gate.endWrite();
  delete step;
}

llm_code llm_kv_lookup(llm_kv_cache *cache, int32_t layer, const int32_t *ids,
                       int32_t n, const llm_tensor *k, const llm_tensor *v,
                       llm_error *error) {
  if (!k || !v)
    return report(nullArgument("k and v"), error);
  return locked(cache, error, [&](HostCache &host) -> Status {
    LLM_TRY(checkArray("ids", ids, n));
    return host.version->lookup(array(ids, n), layer, *k, *v);
  });
}
