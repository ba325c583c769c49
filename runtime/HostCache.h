//===- HostCache.h - The host's cache objects ----------------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_HOSTCACHE_H
#define LLM_RUNTIME_HOSTCACHE_H

#include "Error.h"
#include "KVPool.h"
#include "llm/Runtime/PagedKVCache.h"

struct llm_context {
  int32_t numThreads;
  std::shared_ptr<llm::Faults> faults;
};

namespace llm {

/// What stands behind an llm_kv_cache: an open step keeps it alive.
struct HostCache {
  ~HostCache();

  /// LLM_CANCELLED while the host wants no more changes.
  Status checkCancelled() const;

  int32_t numThreads = 0;
  std::atomic<bool> cancelled = false; ///< set from any thread
  Gate gate;                           ///< to `version`
  std::unique_ptr<PagedKVCache> version;
  /// The version that a running call has replaced: wanted back if it fails.
  std::unique_ptr<PagedKVCache> replaced;

  /// The object becomes this version, until the call fails.
  void replace(std::unique_ptr<PagedKVCache> with) noexcept;
  void begin() noexcept { version->beginTransaction(); }
  void commit() noexcept;
  /// Takes a replaced version back. Everything that a call has made must be
  /// gone before any of its hosts aborts.
  void revert() noexcept;
  void abort() noexcept { version->abortTransaction(); }
  /// Of an object that the call itself has made.
  void discard() noexcept;
};

/// The right to change a host's cache, or to probe it, for a scope. It covers
/// the object, whose version a call may replace, and the pool, which other
/// objects may be on.
class CacheLock {
public:
  enum Kind { Change, Probe };

  explicit CacheLock(Kind kind) : kind_(kind) {}
  CacheLock(CacheLock &&) noexcept = default;
  ~CacheLock();

  /// LLM_BUSY while another call changes the cache or one on its pool, else why
  /// the pool is poisoned if it is. `others` hold what is not to be taken
  /// again.
  Status acquire(const std::shared_ptr<HostCache> &host,
                 std::span<const CacheLock> others = {});
  /// The same of a pool that may be poisoned.
  Status acquireAnyway(const std::shared_ptr<HostCache> &host,
                       std::span<const CacheLock> others = {});

private:
  bool enter(Gate &gate) const;
  void leave(Gate &gate) const;

  Kind kind_;
  std::shared_ptr<HostCache> host_; ///< null: not entered
  std::shared_ptr<KVPool> pool_;    ///< null: not entered
};

/// The library's defaults, then what a group (may be null) fixes or suggests.
void initConfig(const llm_kv_group_desc *group, llm_kv_config &config);

/// LLM_BUSY while a host's step is open on the pool.
Status checkNoStep(const KVPool &pool);

} // namespace llm

struct llm_kv_cache {
  std::shared_ptr<llm::HostCache> host;
};

#endif // LLM_RUNTIME_HOSTCACHE_H
