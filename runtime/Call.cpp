//===- Call.cpp - What a running call of compiled code owns ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Call.h"

#include "Tensors.h"

#include <algorithm>
#include <utility>

using namespace llm;

//===----------------------------------------------------------------------===//
// Versions
//===----------------------------------------------------------------------===//

const VersionTable::Slot *VersionTable::slot(uint64_t handle) const {
  const uint64_t index = handle & UINT32_MAX, generation = handle >> 32;
  if (index >= slots_.size() || slots_[index].generation != generation ||
      generation % 2 == 0)
    return nullptr;
  return &slots_[index];
}

uint64_t VersionTable::take(HostCache *host,
                            std::unique_ptr<PagedKVCache> version) {
  if (free_.empty()) {
    // Removing must not need memory.
    free_.reserve(slots_.size() + 1);
    slots_.emplace_back();
    free_.push_back(static_cast<uint32_t>(slots_.size() - 1));
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  Slot &slot = slots_[index];
  ++slot.generation;
  slot.host = host;
  slot.version = std::move(version);
  return uint64_t(slot.generation) << 32 | index;
}

uint64_t VersionTable::addHost(HostCache *host) { return take(host, nullptr); }

uint64_t VersionTable::add(std::unique_ptr<PagedKVCache> version) {
  return take(nullptr, std::move(version));
}

PagedKVCache *VersionTable::find(uint64_t handle) const {
  const Slot *found = slot(handle);
  if (!found)
    return nullptr;
  return found->host ? found->host->version.get() : found->version.get();
}

HostCache *VersionTable::findHost(uint64_t handle) const {
  const Slot *found = slot(handle);
  return found ? found->host : nullptr;
}

std::unique_ptr<PagedKVCache> VersionTable::remove(uint64_t handle) {
  const auto index = static_cast<uint32_t>(handle & UINT32_MAX);
  Slot &slot = slots_[index];
  ++slot.generation;
  slot.host = nullptr;
  free_.push_back(index);
  return std::move(slot.version);
}

int64_t VersionTable::clear() {
  int64_t versions = 0;
  for (uint64_t index = 0; index < slots_.size(); ++index)
    if (slots_[index].generation % 2)
      versions +=
          remove(uint64_t(slots_[index].generation) << 32 | index) != nullptr;
  return versions;
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

void StepTable::reset() {
  used_ = 0;
  serial_ = serial_ % serials + 1;
}

StepTable::Entry &StepTable::next() {
  if (used_ == entries_.size())
    entries_.push_back(std::make_unique<Entry>());
  return *entries_[used_];
}

uint64_t StepTable::accept() { return uint64_t(serial_) << 32 | used_++; }

const StepTable::Entry *StepTable::find(uint64_t handle) const {
  const uint64_t index = handle & UINT32_MAX;
  const uint64_t serial = handle >> 32 & serials;
  return serial == serial_ && index < used_ ? entries_[index].get() : nullptr;
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

Call::Call(const llm_program *program, std::shared_ptr<Faults> with)
    : llm_call{}, program(program), faults(std::move(with)), arena(*faults) {
  struct_size = sizeof(llm_call);
  abi_version = LLM_ABI_VERSION;
}

llm_code Call::fail(int32_t where, const Status &error) {
  if (status.ok()) {
    status = error;
    site = where;
  }
  return error.code();
}

Status Call::checkCancelled() const {
  for (const HostCache *host : hosts)
    LLM_TRY(host->checkCancelled());
  return Status();
}

Status Call::find(uint64_t kv, PagedKVCache *&version) const {
  version = versions.find(kv);
  if (version)
    return Status();
  return Status::error(LLM_WRONG_STATE, 1, static_cast<int64_t>(kv),
                       "expected the handle of a live cache, got 0x%llx",
                       static_cast<unsigned long long>(kv));
}

Status Call::findStep(uint64_t step, const StepTable::Entry *&entry) const {
  entry = steps.find(step);
  if (entry)
    return Status();
  return Status::error(LLM_WRONG_STATE, 1, static_cast<int64_t>(step),
                       "expected the handle of a step of this call, got 0x%llx",
                       static_cast<unsigned long long>(step));
}

Status Call::checkReplacement(uint64_t host,
                              const PagedKVCache &version) const {
  const auto argument =
      std::find(handles.begin(), handles.end(), host) - handles.begin();
  const int32_t group = entry->kv_groups[argument];
  return checkType(program->groups[group], version.config());
}

static Status checkField(const llm_kv_group_desc &type, const char *field,
                         int64_t expected, int64_t actual) {
  if (!expected || expected == actual)
    return Status();
  const char *name = type.name ? type.name : "the cache";
  return Status::error(LLM_INVALID_ARGUMENT, expected, actual,
                       "expected %s of %s to be %lld, got %lld", field, name,
                       static_cast<long long>(expected),
                       static_cast<long long>(actual));
}

/// A type with a window says how many sinks there are, be it none.
static Status checkSinks(const llm_kv_group_desc &type,
                         const llm_kv_config &config) {
  if (!type.window || type.sinks == config.sinks)
    return Status();
  const char *name = type.name ? type.name : "the cache";
  return Status::error(LLM_INVALID_ARGUMENT, type.sinks, config.sinks,
                       "expected sinks of %s to be %d, got %d", name,
                       type.sinks, config.sinks);
}

static Status checkStorage(const llm_kv_group_desc &type, const char *what,
                           llm_kv_storage expected, llm_kv_storage actual) {
  if (expected == actual)
    return Status();
  const char *name = type.name ? type.name : "the cache";
  return Status::error(LLM_INVALID_ARGUMENT, expected, actual,
                       "expected %s of %s to be stored as %s, got %s", what,
                       name, dtypeName(storedType(type.dtype, expected)),
                       dtypeName(storedType(type.dtype, actual)));
}

Status llm::checkType(const llm_kv_group_desc &type,
                      const llm_kv_config &config) {
  LLM_TRY(checkField(type, "layers", type.layers, config.layers));
  LLM_TRY(checkField(type, "kv_heads", type.kv_heads, config.kv_heads));
  LLM_TRY(checkField(type, "head_dim", type.head_dim, config.head_dim));
  LLM_TRY(checkField(type, "block_size", type.block_size, config.block_size));
  LLM_TRY(checkField(type, "max_sequences", type.max_sequences,
                     config.max_sequences));
  LLM_TRY(
      checkField(type, "max_seq_len", type.max_seq_len, config.max_seq_len));
  LLM_TRY(checkField(type, "window", type.window, config.window));
  LLM_TRY(checkSinks(type, config));
  if (type.dtype < 0)
    return Status();
  const char *name = type.name ? type.name : "the cache";
  if (type.dtype != config.dtype)
    return Status::error(LLM_INVALID_ARGUMENT, type.dtype, config.dtype,
                         "expected %s of type %s, got %s", name,
                         dtypeName(type.dtype), dtypeName(config.dtype));
  LLM_TRY(checkStorage(type, "K", type.k_storage, config.k_storage));
  return checkStorage(type, "V", type.v_storage, config.v_storage);
}
