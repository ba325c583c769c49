//===- KVPool.cpp - The memory that versions share ------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "KVPool.h"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>

using namespace llm;

//===----------------------------------------------------------------------===//
// Configuration
//===----------------------------------------------------------------------===//

static Status checkAtLeast(const char *field, int64_t value, int64_t least) {
  if (value >= least)
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, least, value,
                       "expected %s of at least %lld, got %lld", field,
                       static_cast<long long>(least),
                       static_cast<long long>(value));
}

static Status checkAtMost(const char *field, int64_t value, int64_t most) {
  if (value <= most)
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, most, value,
                       "expected %s of at most %lld, got %lld", field,
                       static_cast<long long>(most),
                       static_cast<long long>(value));
}

static Status checkFields(const llm_kv_config &c) {
  // Layer + 1 must fit into the 16 bits that a step's handle has for it, and
  // lengths and block numbers into the int32 of kernels.
  LLM_TRY(checkAtLeast("layers", c.layers, 1));
  LLM_TRY(checkAtMost("layers", c.layers, 65534));
  LLM_TRY(checkAtLeast("kv_heads", c.kv_heads, 1));
  LLM_TRY(checkAtLeast("head_dim", c.head_dim, 1));
  LLM_TRY(checkAtMost("head_dim", c.head_dim, kMaxHeadDim));
  LLM_TRY(checkAtLeast("block_size", c.block_size, 1));
  LLM_TRY(checkAtLeast("max_sequences", c.max_sequences, 1));
  LLM_TRY(checkAtLeast("window", c.window, 0));
  LLM_TRY(checkAtLeast("sinks", c.sinks, 0));
  if (c.sinks && !c.window)
    return Status::error(LLM_INVALID_ARGUMENT, 0, c.sinks,
                         "expected no sinks without a window, got %d", c.sinks);
  LLM_TRY(checkAtLeast("max_seq_len", c.max_seq_len, 1));
  LLM_TRY(checkAtMost("max_seq_len", c.max_seq_len, INT32_MAX));
  LLM_TRY(checkAtLeast("num_blocks", c.num_blocks, 0));
  LLM_TRY(checkAtLeast("dtype", c.dtype, LLM_F32));
  LLM_TRY(checkAtMost("dtype", c.dtype, LLM_BF16));
  LLM_TRY(checkAtLeast("k_storage", c.k_storage, LLM_KV_STORAGE_DTYPE));
  LLM_TRY(checkAtMost("k_storage", c.k_storage, LLM_KV_STORAGE_I8));
  LLM_TRY(checkAtLeast("v_storage", c.v_storage, LLM_KV_STORAGE_DTYPE));
  LLM_TRY(checkAtMost("v_storage", c.v_storage, LLM_KV_STORAGE_I8));
  LLM_TRY(checkAtLeast("strategy", c.strategy, LLM_KV_PAGED));
  LLM_TRY(checkAtMost("strategy", c.strategy, LLM_KV_STATIC));
  if (c.strategy == LLM_KV_STATIC)
    LLM_TRY(checkAtMost("num_blocks (static)", c.num_blocks, 0));
  return Status();
}

llm_dtype llm::storedType(llm_dtype dtype, llm_kv_storage storage) {
  return storage == LLM_KV_STORAGE_I8         ? LLM_I8
         : storage == LLM_KV_STORAGE_F8E4M3FN ? LLM_F8E4M3FN
                                              : dtype;
}

static constexpr int64_t kScaleBytes = sizeof(float);

/// The strides of K or V. Scales stand at the end of a head's page, so pages
/// beside them are as aligned as they are.
static KVPlane describePlane(const llm_kv_config &c, llm_kv_storage storage) {
  KVPlane plane = {};
  plane.dtype = storedType(c.dtype, storage);
  plane.tokenStride = c.head_dim * elementBytes(plane.dtype);
  plane.headStride = plane.tokenStride * c.block_size;
  if (c.k_storage || c.v_storage)
    plane.headStride =
        (plane.headStride + kScaleBytes - 1) / kScaleBytes * kScaleBytes;
  if (storage) {
    plane.headStride += kScaleBytes * c.block_size;
    plane.scaleHeadStride = plane.headStride;
  }
  return plane;
}

/// The same in blocks at `data`.
static KVPlane placePlane(const llm_kv_config &c, llm_kv_storage storage,
                          char *data, int64_t blockStride) {
  KVPlane plane = describePlane(c, storage);
  plane.data = data;
  plane.blockStride = blockStride;
  if (storage)
    plane.scales = data + plane.headStride - kScaleBytes * c.block_size;
  return plane;
}

/// The numbers of a token and head, and their scale.
static int64_t rowBytes(const KVPlane &plane) {
  return plane.tokenStride + (plane.scaleHeadStride ? kScaleBytes : 0);
}

Status llm::resolveConfig(const llm_kv_config &config, llm_kv_config &resolved,
                          int64_t &bytes) {
  if (config.struct_size != sizeof(llm_kv_config))
    return Status::error(LLM_INVALID_ARGUMENT, sizeof(llm_kv_config),
                         config.struct_size,
                         "expected a struct_size of %zu, got %u",
                         sizeof(llm_kv_config), config.struct_size);
  LLM_TRY(checkFields(config));
  resolved = config;
  if (!resolved.num_blocks)
    resolved.num_blocks = (config.max_seq_len + config.block_size - 1) /
                          config.block_size * config.max_sequences;
  LLM_TRY(checkAtMost("num_blocks", resolved.num_blocks, INT32_MAX - 1));
  const int64_t factors[] = {
      config.layers, config.kv_heads,
      describePlane(config, config.k_storage).headStride +
          describePlane(config, config.v_storage).headStride};
  bytes = resolved.num_blocks + 1;
  for (int64_t factor : factors)
    if (__builtin_mul_overflow(bytes, factor, &bytes))
      return Status::error(LLM_INVALID_ARGUMENT, INT64_MAX, resolved.num_blocks,
                           "%lld blocks need more than %lld bytes",
                           static_cast<long long>(resolved.num_blocks),
                           static_cast<long long>(INT64_MAX));
  return Status();
}

int64_t llm::elementBytes(llm_dtype dtype) {
  switch (dtype) {
  case LLM_F32:
  case LLM_I32:
    return 4;
  case LLM_F16:
  case LLM_BF16:
    return 2;
  case LLM_F8E4M3FN:
  case LLM_I8:
    return 1;
  case LLM_I64:
    return 8;
  }
  return -1;
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

static constexpr int64_t kLargePage = int64_t(2) << 20;

/// Large pages spare decode a tenth of its time: walks through page tables. One
/// is memory as soon as a token is in it, so layers have to be larger, and
/// blocks smaller. A system that has none refuses, and pages stay small.
static void askForLargePages(void *memory, int64_t bytes,
                             const llm_kv_config &config) {
#if defined(MADV_HUGEPAGE)
  const int64_t layer = bytes / config.layers;
  if (layer >= 2 * kLargePage &&
      layer / (config.num_blocks + 1) <= kLargePage / 2)
    madvise(memory, bytes, MADV_HUGEPAGE);
#endif
}

Status KVPool::create(const llm_kv_config &config,
                      std::shared_ptr<Faults> faults,
                      std::shared_ptr<KVPool> &pool) {
  llm_kv_config resolved;
  int64_t bytes;
  LLM_TRY(resolveConfig(config, resolved, bytes));
  void *memory = MAP_FAILED;
  if (!faults->strikes(Resource::Memory))
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return Status::error(LLM_OUT_OF_MEMORY, bytes, 0,
                         "cannot reserve %lld bytes for %lld blocks",
                         static_cast<long long>(bytes),
                         static_cast<long long>(resolved.num_blocks));
  askForLargePages(memory, bytes, resolved);
  Mapping mapping(static_cast<char *>(memory), {bytes});
  pool.reset(new KVPool(resolved, std::move(faults), std::move(mapping)));
  return Status();
}

void KVPool::Unmap::operator()(char *memory) const { munmap(memory, bytes); }

KVPool::KVPool(const llm_kv_config &config, std::shared_ptr<Faults> faults,
               Mapping memory)
    : config_(config), faults_(std::move(faults)), memory_(std::move(memory)),
      blockStride_(memory_.get_deleter().bytes / (config.num_blocks + 1) /
                   config.layers),
      blocks_(static_cast<int32_t>(config.num_blocks)) {
  if (config_.poison)
    for (int32_t number = 0; number <= config_.num_blocks; ++number)
      poison(number);
}

char *KVPool::block(int32_t layer, int32_t number) const {
  return memory_.get() +
         (layer * (config_.num_blocks + 1) + number) * blockStride_;
}

KVPages KVPool::pages(int32_t layer) const {
  char *first = block(layer, 0);
  KVPages pages;
  pages.k = placePlane(config_, config_.k_storage, first, blockStride_);
  pages.v =
      placePlane(config_, config_.v_storage,
                 first + config_.kv_heads * pages.k.headStride, blockStride_);
  pages.kvHeads = config_.kv_heads;
  pages.headDim = config_.head_dim;
  pages.blockSize = config_.block_size;
  return pages;
}

/// 0x7fff is a NaN as f16 and bf16, and twice of it as f32: scales, too.
void KVPool::poison(int32_t number) {
  for (int32_t layer = 0; layer < config_.layers; ++layer) {
    auto *values = reinterpret_cast<uint16_t *>(block(layer, number));
    std::fill_n(values, blockStride_ / 2, uint16_t(0x7fff));
  }
}

Status KVPool::allocate(std::span<int32_t> out) {
  if (!out.empty() && faults_->strikes(Resource::Blocks))
    return Status::error(LLM_OUT_OF_BLOCKS, static_cast<int64_t>(out.size()), 0,
                         "needs %zu blocks, 0 are free", out.size());
  return blocks_.allocate(out);
}

Status KVPool::checkKernel(const char *name) {
  if (!faults_->strikes(Resource::Kernel))
    return Status();
  failure = Status::error(LLM_DEVICE, 0, 1,
                          "kernel %s failed on its device: what the cache "
                          "holds is lost",
                          name);
  return failure;
}

void KVPool::release(int32_t block) noexcept {
  if (blocks_.release(block) && config_.poison)
    poison(block);
}

void KVPool::unpin(int32_t block) noexcept {
  if (blocks_.unpin(block) && config_.poison)
    poison(block);
}

void KVPool::copyRows(int32_t layer, int32_t from, int32_t to, int32_t rows) {
  const KVPages pages = this->pages(layer);
  for (const KVPlane *plane : {&pages.k, &pages.v}) {
    for (int32_t head = 0; head < config_.kv_heads; ++head) {
      std::memcpy(plane->at(to, head, 0), plane->at(from, head, 0),
                  rows * plane->tokenStride);
      if (plane->scales)
        std::memcpy(plane->scaleAt(to, head, 0), plane->scaleAt(from, head, 0),
                    rows * kScaleBytes);
    }
    history.copied_bytes += rowBytes(*plane) * config_.kv_heads * rows;
  }
}

llm_kv_stats KVPool::stats() const {
  llm_kv_stats stats = history;
  stats.total_blocks = blocks_.total();
  stats.free_blocks = blocks_.numFree();
  stats.live_blocks = blocks_.numLive();
  stats.pending_blocks = blocks_.numPending();
  stats.peak_live_blocks = blocks_.peakLive();
  stats.block_bytes = blockStride_ * config_.layers;
  stats.versions = static_cast<int64_t>(versions.size());
  return stats;
}
