//===- Digest.h - All that a pool holds, as one number ----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Two digests are equal when the versions of a pool agree, one by one, on block
// tables, lengths (which are the positions of the next tokens) and on every
// byte of K and V that a sequence holds at any layer. A renamed digest counts
// blocks in the order in which they are met: it is the same for pools that
// share in the same way, whatever numbers they were given.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_RUNTIME_DIGEST_H
#define LLM_TEST_RUNTIME_DIGEST_H

#include "HostCache.h"
#include "Testing.h"

#include <map>

namespace llm::testing {

class Digest {
public:
  /// All versions on the pool of this one.
  static uint64_t of(const PagedKVCache &any, bool renamed = false) {
    Digest digest;
    digest.renames = renamed;
    for (PagedKVCache *version : any.pool()->versions)
      digest.addVersion(*version);
    return digest.hash;
  }
  static uint64_t of(const llm_kv_cache *cache) {
    return of(*cache->host->version);
  }
  static uint64_t renamed(const llm_kv_cache *cache) {
    return of(*cache->host->version, true);
  }

private:
  void addVersion(PagedKVCache &version) {
    for (int32_t id = 0; id < version.config().max_sequences; ++id) {
      const std::span<const int32_t> blocks = version.blocks(id);
      const int32_t length = version.length(id);
      add(&length, sizeof(length));
      for (const int32_t block : blocks) {
        const auto met = names.emplace(block, int32_t(names.size()));
        add(renames ? &met.first->second : &block, sizeof(block));
      }
      for (int32_t layer = 0; layer < version.config().layers; ++layer)
        addContent(version, id, layer);
    }
  }

  void addContent(PagedKVCache &version, int32_t id, int32_t layer) {
    const llm_kv_config &c = version.config();
    Tensor k(c.dtype, {1, version.length(id), c.kv_heads, c.head_dim}), v = k;
    const Status status = version.lookup({&id, 1}, layer, k, v);
    EXPECT_TRUE(status.ok()) << status.message();
    add(k.bytes.data(), k.bytes.size());
    add(v.bytes.data(), v.bytes.size());
  }

  /// FNV-1a
  void add(const void *data, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i)
      hash =
          (hash ^ static_cast<const unsigned char *>(data)[i]) * 0x100000001b3u;
  }

  bool renames = false;
  std::map<int32_t, int32_t> names;
  uint64_t hash = 0xcbf29ce484222325u;
};

} // namespace llm::testing

#endif // LLM_TEST_RUNTIME_DIGEST_H
