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
  pool->gate.write();
  version.reset();
  pool->gate.endWrite();
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

bool CacheLock::enter(Gate &gate) const {
  return kind_ == Probe ? gate.tryProbe() : gate.tryWrite();
}

void CacheLock::leave(Gate &gate) const {
  kind_ == Probe ? gate.endProbe() : gate.endWrite();
}

CacheLock::~CacheLock() {
  if (pool_)
    leave(pool_->gate);
  if (host_)
    leave(host_->gate);
}

Status CacheLock::acquire(const std::shared_ptr<HostCache> &host,
                          std::span<const CacheLock> others) {
  LLM_TRY(acquireAnyway(host, others));
  return host->version->pool()->failure;
}

Status CacheLock::acquireAnyway(const std::shared_ptr<HostCache> &host,
                                std::span<const CacheLock> others) {
  const Status busy = Status::error(
      LLM_BUSY, 1, 2, "expected 1 call at a time on this cache, got 2");
  if (!enter(host->gate))
    return busy;
  host_ = host;
  const std::shared_ptr<KVPool> &pool = host->version->pool();
  for (const CacheLock &other : others)
    if (other.pool_ == pool)
      return Status();
  if (!enter(pool->gate))
    return busy;
  pool_ = pool;
  return Status();
}

Status llm::checkNoStep(const KVPool &pool) {
  if (!pool.stepOpen)
    return Status();
  return Status::error(LLM_BUSY, 0, 1,
                       "expected no open step on this cache, got 1");
}
