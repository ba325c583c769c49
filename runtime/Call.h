//===- Call.h - What a running call of compiled code owns ----- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CALL_H
#define LLM_RUNTIME_CALL_H

#include "Arena.h"
#include "HostCache.h"

namespace llm {

/// Versions by handle: (generation << 32 | index). A generation ends with its
/// version, so that a stale handle is found out in O(1).
class VersionTable {
public:
  uint64_t addHost(HostCache *host);
  uint64_t add(std::unique_ptr<PagedKVCache> version);
  /// Null for a handle that is not (any more) one.
  PagedKVCache *find(uint64_t handle) const;
  /// The host's object behind a handle, null if there is none.
  HostCache *findHost(uint64_t handle) const;
  /// Ends a valid handle and passes on what it owned (null for a host's).
  std::unique_ptr<PagedKVCache> remove(uint64_t handle);
  /// Ends all handles; returns how many versions that were not the host's.
  int64_t clear();

private:
  struct Slot {
    uint32_t generation = 0; ///< odd while in use
    HostCache *host = nullptr;
    std::unique_ptr<PagedKVCache> version;
  };
  const Slot *slot(uint64_t handle) const;
  uint64_t take(HostCache *host, std::unique_ptr<PagedKVCache> version);

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
};

/// The steps of a call: plain data that lives until the call ends.
class StepTable {
public:
  struct Entry {
    KVStep step;
    int32_t layers;
  };

  /// Begins the time of another call: handles of before are stale.
  void reset();
  /// Room for one more step. It has a handle once it is accepted.
  Entry &next();
  uint64_t accept();
  /// Null for a handle that is no step of this call.
  const Entry *find(uint64_t handle) const;

private:
  static constexpr uint32_t serials = 0xffff;
  std::vector<std::unique_ptr<Entry>> entries_;
  uint64_t used_ = 0;
  uint32_t serial_ = 0; ///< 1 .. serials
};

/// An llm_call with what the runtime keeps behind it.
class Call : public llm_call {
public:
  Call(const llm_program *program, std::shared_ptr<Faults> faults);

  static Call &of(llm_call *call) { return static_cast<Call &>(*call); }

  /// Sets the error of the call unless there is one.
  llm_code fail(int32_t site, const Status &status);

  /// LLM_CANCELLED once the host has cancelled the call.
  Status checkCancelled() const;

  /// The version behind a handle, or LLM_WRONG_STATE.
  Status find(uint64_t kv, PagedKVCache *&version) const;
  Status findStep(uint64_t step, const StepTable::Entry *&entry) const;

  /// Whether a version may become the host's object behind a handle: it must
  /// be of the type of the argument.
  Status checkReplacement(uint64_t host, const PagedKVCache &version) const;

  const llm_program *const program;
  const std::shared_ptr<Faults> faults;
  const llm_entry_desc *entry = nullptr; ///< the running one
  std::vector<HostCache *> hosts;        ///< its arguments
  VersionTable versions;
  StepTable steps;
  Arena arena;
  Status status;            ///< the first error
  int32_t site = -1;        ///< of the first error
  int64_t dropped = 0;      ///< versions that the last call left behind
  llm_model_work work = {}; ///< of this call, until the model takes it

  // Scratch, kept so that a call allocates nothing once it is warm.
  std::vector<uint64_t> handles;
  std::vector<int64_t> symbols;
  std::vector<int32_t> ids, others;
  std::vector<int64_t> lengths;
  std::vector<float> factors;
};

/// LLM_INVALID_ARGUMENT unless everything that the type fixes is so in the
/// cache.
Status checkType(const llm_kv_group_desc &type, const llm_kv_config &config);

} // namespace llm

#endif // LLM_RUNTIME_CALL_H
