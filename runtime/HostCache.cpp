//===- HostCache.cpp - The host's cache objects ---------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HostCache.h"

using namespace llm;

// Another object on the same pool may be in use on another thread.
HostCache::~HostCache() {
  if (!version)
    return;
  const std::shared_ptr<KVPool> pool = version->pool();
  pool->lock();
  version.reset();
  pool->unlock();
}

void HostCache::replace(std::unique_ptr<PagedKVCache> with) noexcept {
  if (!replaced)
    replaced = std::move(version);
  version = std::move(with);
}

void HostCache::commit() noexcept {
  version->commitTransaction();
  if (!replaced)
    return;
  replaced->commitTransaction();
  replaced.reset();
}

void HostCache::revert() noexcept {
  if (replaced)
    version = std::move(replaced);
}

void HostCache::discard() noexcept {
  version.reset();
  replaced.reset();
}

Status HostCache::checkCancelled() const {
  if (!cancelled.load(std::memory_order_relaxed))
    return Status();
  return Status::error(LLM_CANCELLED, 0, 1, "cancelled by the host");
}

PoolLock::~PoolLock() {
  if (pool_)
    pool_->unlock();
}

Status PoolLock::acquire(const std::shared_ptr<KVPool> &pool) {
  LLM_TRY(acquireAnyway(pool));
  return pool->failure;
}

Status PoolLock::acquireAnyway(const std::shared_ptr<KVPool> &pool) {
  if (!pool->tryLock())
    return Status::error(LLM_BUSY, 1, 2,
                         "expected 1 call at a time on this cache, got 2");
  pool_ = pool;
  return Status();
}

Status llm::checkNoStep(const KVPool &pool) {
  if (!pool.stepOpen)
    return Status();
  return Status::error(LLM_BUSY, 0, 1,
                       "expected no open step on this cache, got 1");
}
