//===- KVPool.cpp - The memory that versions share ------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "KVPool.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

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
  LLM_TRY(checkAtMost("k_storage", c.k_storage, LLM_KV_STORAGE_I4));
  LLM_TRY(checkAtLeast("v_storage", c.v_storage, LLM_KV_STORAGE_DTYPE));
  LLM_TRY(checkAtMost("v_storage", c.v_storage, LLM_KV_STORAGE_I4));
  if (c.k_storage == LLM_KV_STORAGE_I4 && c.block_size % kGroupSize)
    return Status::error(LLM_INVALID_ARGUMENT, kGroupSize, c.block_size,
                         "expected block_size to be a multiple of %d where K "
                         "is stored as i4, got %d",
                         static_cast<int>(kGroupSize), c.block_size);
  LLM_TRY(checkAtLeast("strategy", c.strategy, LLM_KV_PAGED));
  LLM_TRY(checkAtMost("strategy", c.strategy, LLM_KV_STATIC));
  if (c.strategy == LLM_KV_STATIC)
    LLM_TRY(checkAtMost("num_blocks (static)", c.num_blocks, 0));
  return Status();
}

llm_dtype llm::storedType(llm_dtype dtype, llm_kv_storage storage) {
  return storage == LLM_KV_STORAGE_I4         ? LLM_I4
         : storage == LLM_KV_STORAGE_I8       ? LLM_I8
         : storage == LLM_KV_STORAGE_F8E4M3FN ? LLM_F8E4M3FN
                                              : dtype;
}

static constexpr int64_t kScaleBytes = sizeof(float);
static constexpr int64_t kParamBytes = sizeof(uint32_t);

/// Bytes of the params of a token of V of LLM_I4.
static int64_t paramBytes(const llm_kv_config &c) {
  return kParamBytes * groupsOf(c.head_dim);
}

/// The strides of K of LLM_I4: groups of tokens.
static KVPlane describeTokenGroups(const llm_kv_config &c) {
  KVPlane plane = {};
  plane.dtype = LLM_I4;
  plane.tokenStride = codeBytes(c.head_dim);
  plane.groupStride = kGroupSize * plane.tokenStride + kParamBytes * c.head_dim;
  plane.headStride = plane.groupStride * groupsOf(c.block_size);
  return plane;
}

/// Of V of LLM_I4.
static KVPlane describeChannelGroups(const llm_kv_config &c) {
  KVPlane plane = {};
  plane.dtype = LLM_I4;
  plane.tokenStride = codeBytes(c.head_dim);
  plane.headStride = (plane.tokenStride + paramBytes(c)) * c.block_size;
  return plane;
}

/// The strides of K or V. Scales stand at the end of a head's page, so pages
/// beside them are as aligned as they are.
static KVPlane describePlane(const llm_kv_config &c, llm_kv_storage storage,
                             bool isK) {
  if (storage == LLM_KV_STORAGE_I4)
    return isK ? describeTokenGroups(c) : describeChannelGroups(c);
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
                          bool isK, char *data, int64_t blockStride) {
  KVPlane plane = describePlane(c, storage, isK);
  plane.data = data;
  plane.blockStride = blockStride;
  if (plane.scaleHeadStride)
    plane.scales = data + plane.headStride - kScaleBytes * c.block_size;
  if (storage == LLM_KV_STORAGE_I4 && !isK)
    plane.params = data + plane.headStride - paramBytes(c) * c.block_size;
  return plane;
}

/// The numbers of a token and head, and their scale or params.
static int64_t rowBytes(const llm_kv_config &c, const KVPlane &plane) {
  return plane.tokenStride + (plane.scales ? kScaleBytes : 0) +
         (plane.params ? paramBytes(c) : 0);
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
      describePlane(config, config.k_storage, /*isK=*/true).headStride +
          describePlane(config, config.v_storage, /*isK=*/false).headStride};
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
  Mapping memory(nullptr, {0});
  if (!faults->strikes(Resource::Memory))
    memory = reserve(bytes);
  if (!memory)
    return Status::error(LLM_OUT_OF_MEMORY, bytes, 0,
                         "cannot reserve %lld bytes for %lld blocks",
                         static_cast<long long>(bytes),
                         static_cast<long long>(resolved.num_blocks));
  askForLargePages(memory.get(), bytes, resolved);
  std::shared_ptr<KVPool> made(new KVPool(resolved, faults, std::move(memory)));
  if (resolved.k_storage == LLM_KV_STORAGE_I4)
    LLM_TRY(made->reserveExact(*faults));
  pool = std::move(made);
  return Status();
}

KVPool::Mapping KVPool::reserve(int64_t bytes) {
  void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return Mapping(memory == MAP_FAILED ? nullptr : static_cast<char *>(memory),
                 {bytes});
}

void KVPool::Unmap::operator()(char *memory) const { munmap(memory, bytes); }

void KVPool::Free::operator()(uint8_t *memory) const { std::free(memory); }

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
  pages.k =
      placePlane(config_, config_.k_storage, /*isK=*/true, first, blockStride_);
  pages.v =
      placePlane(config_, config_.v_storage, /*isK=*/false,
                 first + config_.kv_heads * pages.k.headStride, blockStride_);
  if (exact_) {
    const int64_t number = groupNumber(layer, 0, 0);
    pages.k.exact = {exact_.get() + number * groupStride_, held_.get() + number,
                     config_.block_size / kGroupSize, groupStride_};
  }
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
  if (blocks_.release(block))
    leave(block);
}

void KVPool::unpin(int32_t block) noexcept {
  if (blocks_.unpin(block))
    leave(block);
}

/// A block is free now.
void KVPool::leave(int32_t number) noexcept {
  for (int32_t layer = 0; exact_ && layer < config_.layers; ++layer)
    for (int32_t group = 0; group < config_.block_size / kGroupSize; ++group)
      if (isExact(layer, number, group)) {
        endExact(layer, number, group);
        giveBack(layer, number, group);
      }
  if (config_.poison)
    poison(number);
}

void KVPool::copyRows(int32_t layer, int32_t from, int32_t to, int32_t rows) {
  const KVPages pages = this->pages(layer);
  if (exact_)
    copyGroups(layer, from, to, rows);
  else
    copyPlane(pages.k, from, to, rows);
  copyPlane(pages.v, from, to, rows);
}

void KVPool::copyPlane(const KVPlane &plane, int32_t from, int32_t to,
                       int32_t rows) {
  for (int32_t head = 0; head < config_.kv_heads; ++head) {
    std::memcpy(plane.at(to, head, 0), plane.at(from, head, 0),
                rows * plane.tokenStride);
    if (plane.scales)
      std::memcpy(plane.scaleAt(to, head, 0), plane.scaleAt(from, head, 0),
                  rows * kScaleBytes);
    if (plane.params)
      std::memcpy(plane.paramsAt(to, head, 0, config_.head_dim),
                  plane.paramsAt(from, head, 0, config_.head_dim),
                  rows * paramBytes(config_));
  }
  history.copied_bytes += rowBytes(config_, plane) * config_.kv_heads * rows;
}

//===----------------------------------------------------------------------===//
// Exact groups
//===----------------------------------------------------------------------===//

/// Groups begin with a page of memory: each can be given back by itself. They
/// are at most eight times as large as the pool, which has been reserved.
Status KVPool::reserveExact(Faults &faults) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t bytes = kGroupSize * static_cast<int64_t>(sizeof(float)) *
                        config_.kv_heads * config_.head_dim;
  groupStride_ = (bytes + page - 1) / page * page;
  const int64_t groups = groupNumber(config_.layers, 0, 0);
  if (!faults.strikes(Resource::Memory))
    exact_ = reserve(groups * groupStride_);
#if defined(MADV_NOHUGEPAGE)
  if (exact_) // two groups of a sequence would take 4 MB
    madvise(exact_.get(), groups * groupStride_, MADV_NOHUGEPAGE);
#endif
  if (exact_)
    held_.reset(static_cast<uint8_t *>(std::calloc(groups, 1)));
  if (held_)
    return Status();
  return Status::error(LLM_OUT_OF_MEMORY, groups * groupStride_, 0,
                       "cannot reserve %lld bytes for exact groups of K",
                       static_cast<long long>(groups * groupStride_));
}

int64_t KVPool::groupNumber(int32_t layer, int32_t block, int32_t group) const {
  const int64_t blocks = config_.num_blocks + int64_t(1);
  return (layer * blocks + block) * (config_.block_size / kGroupSize) + group;
}

void KVPool::makeExact(int32_t layer, int32_t block, int32_t group) noexcept {
  bringBack(layer, block, group);
  if (config_.poison)
    std::memset(exact_.get() + groupNumber(layer, block, group) * groupStride_,
                0xff, groupStride_);
}

void KVPool::bringBack(int32_t layer, int32_t block, int32_t group) noexcept {
  held_[groupNumber(layer, block, group)] = 1;
}

void KVPool::endExact(int32_t layer, int32_t block, int32_t group) noexcept {
  held_[groupNumber(layer, block, group)] = 0;
}

void KVPool::giveBack(int32_t layer, int32_t block, int32_t group) noexcept {
  madvise(exact_.get() + groupNumber(layer, block, group) * groupStride_,
          groupStride_, MADV_DONTNEED);
}

void KVPool::copyGroups(int32_t layer, int32_t from, int32_t to, int32_t rows) {
  const KVPlane k = pages(layer).k;
  for (int32_t group = 0; group * kGroupSize < rows; ++group) {
    if (isExact(layer, from, group)) {
      makeExact(layer, to, group);
      const int64_t held =
          std::min<int64_t>(rows - group * kGroupSize, kGroupSize);
      const int64_t bytes = held * config_.head_dim * sizeof(float);
      for (int32_t head = 0; head < config_.kv_heads; ++head)
        std::memcpy(k.exactRow(to, head, group, 0, config_.head_dim),
                    k.exactRow(from, head, group, 0, config_.head_dim), bytes);
      history.copied_bytes += bytes * config_.kv_heads;
      continue;
    }
    for (int32_t head = 0; head < config_.kv_heads; ++head)
      std::memcpy(k.groupAt(to, head, group), k.groupAt(from, head, group),
                  k.groupStride);
    history.copied_bytes += k.groupStride * config_.kv_heads;
  }
}

Status KVPool::checkExact() const {
  for (int32_t layer = 0; exact_ && layer < config_.layers; ++layer)
    for (int32_t block = 0; block <= config_.num_blocks; ++block)
      for (int32_t group = 0; group < config_.block_size / kGroupSize; ++group)
        if (isExact(layer, block, group) && !blocks_.references(block) &&
            !blocks_.pins(block))
          return Status::error(LLM_INTERNAL, 0, 1,
                               "group %d of block %d, which is free, is exact "
                               "at layer %d",
                               group, block, layer)
              .atLayer(layer);
  return Status();
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
