//===- CacheModelTest.cpp - Random use of caches against plain vectors ----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The model of a version is a vector of tokens per sequence: no blocks, no
// sharing. After every operation the touched version holds what its model says,
// at every layer and bit for bit, and every invariant holds; now and then all
// versions are compared. Free blocks are NaN.
//
//===----------------------------------------------------------------------===//

#include "Testing.h"

#include <algorithm>
#include <random>

using namespace llm;
using namespace llm::testing;

namespace {

using Model = std::vector<std::vector<int64_t>>;

struct Version {
  std::unique_ptr<PagedKVCache> cache;
  Model model;
};

struct Shape {
  int32_t layers, blockSize;
  int64_t blocks;
  llm_dtype dtype;
};

class World {
public:
  World(const Shape &shape, unsigned seed)
      : random_(seed), config_(configOf(shape.layers, shape.blockSize,
                                        shape.blocks, 6, 150, shape.dtype)) {
    versions_.push_back({make(config_), Model(config_.max_sequences)});
  }

  void run(int operations) {
    for (int i = 0; i < operations && !::testing::Test::HasFailure(); ++i) {
      operate();
      if (i % 32 == 0)
        for (Version &version : versions_)
          compare(version);
    }
    EXPECT_GT(appended_, operations / 10);
    EXPECT_GT(refused_, 0) << "the pool is too large to run out of blocks";
  }

private:
  int pick(int n) { return static_cast<int>(random_() % n); }

  void operate() {
    Version &version = versions_[pick(int(versions_.size()))];
    switch (pick(12)) {
    case 0:
      return take(version);
    case 1:
      return drop();
    case 2:
      return transaction();
    default:
      change(version);
    }
    compare(version);
    EXPECT_OK(version.cache->checkInvariants());
  }

  void change(Version &version) {
    switch (pick(8)) {
    case 0:
      return trim(version);
    case 1:
      return release(version);
    case 2:
      return fork(version);
    default:
      step(version);
    }
  }

  void take(Version &version) {
    if (versions_.size() < 4)
      versions_.push_back({version.cache->snapshot(), version.model});
  }

  /// The first version is the host's: transactions are its privilege.
  void drop() {
    if (versions_.size() > 1)
      versions_.erase(versions_.begin() + 1 + pick(int(versions_.size()) - 1));
  }

  void transaction() {
    Version &host = versions_[0];
    const Model before = host.model;
    host.cache->beginTransaction();
    for (int i = pick(12); i >= 0; --i) {
      change(host);
      compare(host);
      EXPECT_OK(host.cache->checkInvariants());
    }
    if (pick(2)) {
      EXPECT_OK(host.cache->endStep());
      host.cache->commitTransaction();
    } else {
      host.cache->abortTransaction();
      host.model = before;
    }
    EXPECT_EQ(host.cache->stats().pending_blocks, 0);
    EXPECT_OK(host.cache->checkInvariants());
    compare(host);
  }

  Batch randomBatch(const Version &version) {
    std::vector<int32_t> ids(config_.max_sequences);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random_);
    Batch batch;
    for (int i = pick(3); i >= 0; --i) {
      const int64_t room =
          config_.max_seq_len - int64_t(version.model[ids[i]].size());
      const int64_t n = std::min<int64_t>(
          room, pick(4) ? pick(4) : pick(2 * config_.block_size + 2));
      batch.ids.push_back(ids[i]);
      batch.tokens.push_back(range(nextToken_, n));
      nextToken_ += n;
    }
    return batch;
  }

  void step(Version &version) {
    const Batch batch = randomBatch(version);
    KVStep step;
    if (!accepted(begin(*version.cache, batch, step)))
      return;
    std::vector<int32_t> layers(config_.layers);
    std::iota(layers.begin(), layers.end(), 0);
    std::shuffle(layers.begin(), layers.end(), random_);
    const int branch = pick(4) ? -1 : pick(config_.layers);
    std::unique_ptr<PagedKVCache> twin;
    for (int i = 0; i < config_.layers; ++i) {
      if (i == branch)
        twin = version.cache->snapshot();
      const auto dtype = static_cast<llm_dtype>(pick(3));
      const Status status =
          appendLayer(*version.cache, step, batch, layers[i], dtype);
      // A copy of a block that came to be shared inside the step may lack room;
      // the twin still has the state of before, which is complete for none.
      if (!accepted(status))
        return giveUp(version);
    }
    EXPECT_OK(version.cache->endStep());
    for (size_t row = 0; row < batch.ids.size(); ++row) {
      auto &tokens = version.model[batch.ids[row]];
      tokens.insert(tokens.end(), batch.tokens[row].begin(),
                    batch.tokens[row].end());
    }
    ++appended_;
    if (twin)
      finishTwin(*twin, step, batch, layers, branch, version.model);
  }

  /// A snapshot in the middle of a step goes on by itself, with other tokens:
  /// neither of the two may see the other's.
  void finishTwin(PagedKVCache &twin, const KVStep &step, Batch batch,
                  const std::vector<int32_t> &layers, int branch,
                  const Model &model) {
    constexpr int64_t other = 1 << 30;
    Model changed = model;
    for (size_t row = 0; row < batch.ids.size(); ++row) {
      auto &tokens = changed[batch.ids[row]];
      for (size_t i = 0; i < batch.tokens[row].size(); ++i)
        tokens[tokens.size() - 1 - i] += other;
      for (int64_t &token : batch.tokens[row])
        token += other;
    }
    for (int i = branch; i < config_.layers; ++i)
      if (!accepted(appendLayer(twin, step, batch, layers[i])))
        return;
    EXPECT_OK(twin.endStep());
    for (int i = 0; i < config_.layers; ++i)
      for (int32_t id = 0; id < config_.max_sequences; ++id)
        EXPECT_TRUE(
            holds(twin, id, (i < branch ? model : changed)[id], layers[i]))
            << "in the twin";
    EXPECT_OK(twin.checkInvariants());
  }

  /// A step that cannot go on: its sequences are released.
  void giveUp(Version &version) {
    for (int32_t id = 0; id < config_.max_sequences; ++id) {
      EXPECT_OK(version.cache->release({&id, 1}));
      version.model[id].clear();
    }
    EXPECT_OK(version.cache->endStep());
  }

  void trim(Version &version) {
    const int32_t id = pick(config_.max_sequences);
    auto &tokens = version.model[id];
    const int64_t n = pick(int(tokens.size()) + 1);
    EXPECT_OK(version.cache->trim({&id, 1}, {&n, 1}));
    tokens.resize(n);
  }

  void release(Version &version) {
    const int32_t id = pick(config_.max_sequences);
    EXPECT_OK(version.cache->release({&id, 1}));
    version.model[id].clear();
  }

  void fork(Version &version) {
    const int32_t parent = pick(config_.max_sequences);
    const int32_t child = pick(config_.max_sequences);
    const auto &tokens = version.model[parent];
    const int64_t n = pick(int(tokens.size()) + 1);
    const Status status =
        version.cache->fork({&parent, 1}, {&child, 1}, {&n, 1});
    if (!version.model[child].empty()) {
      EXPECT_EQ(status.code(), LLM_WRONG_STATE) << status.message();
      return;
    }
    EXPECT_OK(status);
    version.model[child].assign(tokens.begin(), tokens.begin() + n);
  }

  bool accepted(const Status &status) {
    if (status.ok())
      return true;
    ++refused_;
    EXPECT_TRUE(status.code() == LLM_OUT_OF_BLOCKS ||
                status.code() == LLM_NEVER_FITS)
        << status.message();
    return false;
  }

  void compare(Version &version) {
    for (int32_t id = 0; id < config_.max_sequences; ++id)
      EXPECT_TRUE(holds(*version.cache, id, version.model[id]));
  }

  std::mt19937 random_;
  llm_kv_config config_;
  std::vector<Version> versions_;
  int64_t nextToken_ = 1;
  int appended_ = 0, refused_ = 0;
};

class CacheModel : public ::testing::TestWithParam<Shape> {};

} // namespace

// peers: llmir/element-size
TEST_P(CacheModel, RandomOperationsAgree) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    World(GetParam(), seed).run(4000);
  }
}

INSTANTIATE_TEST_SUITE_P(
    , CacheModel,
    ::testing::Values(Shape{1, 1, 160, LLM_F32}, Shape{1, 3, 60, LLM_F16},
                      Shape{2, 3, 70, LLM_BF16}, Shape{3, 3, 60, LLM_F32},
                      Shape{2, 16, 16, LLM_F32}, Shape{3, 16, 14, LLM_F16},
                      Shape{1, 64, 6, LLM_BF16}, Shape{3, 64, 6, LLM_F32}),
    [](const auto &info) {
      const Shape &s = info.param;
      return std::to_string(s.layers) + "LayersBlock" +
             std::to_string(s.blockSize) + "Dtype" + std::to_string(s.dtype);
    });
