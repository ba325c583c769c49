//===- OperationsTest.cpp - Millions of operations against a model --------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Hosts and calls use caches at random, one operation of a version at a time:
// also in the middle of a step, also what has to be refused, and sometimes a
// block is refused although there is room. The model of a version is a vector
// of tokens per sequence. After each operation its code is what the model says,
// so are the lengths and one sequence at one layer, bit for bit, and every
// invariant holds; now and then everything is compared.
//
//   LLM_OPERATIONS  operations on caches, and as many on the allocator
//   LLM_SEED        the first seed
//
//===----------------------------------------------------------------------===//

#include "HostCache.h"
#include "Testing.h"

#include <algorithm>
#include <cstdlib>
#include <random>

using namespace llm;
using namespace llm::testing;

namespace {

int64_t fromEnvironment(const char *name, int64_t otherwise) {
  const char *text = std::getenv(name);
  return text ? std::atoll(text) : otherwise;
}

int64_t operations() { return fromEnvironment("LLM_OPERATIONS", 1000000); }
uint64_t firstSeed() { return fromEnvironment("LLM_SEED", 1); }

//===----------------------------------------------------------------------===//
// The model of a version
//===----------------------------------------------------------------------===//

struct Sequence {
  std::vector<int64_t> tokens; ///< at the layers appended in the running step
  size_t start = 0;            ///< so many of them at the others
  bool inStep = false;
};

struct Model {
  Model(int32_t sequences, int32_t layers)
      : sequences(sequences), ever(layers), appended(layers) {}

  size_t held(int32_t layer, const Sequence &s) const {
    if (!ever[layer])
      return 0;
    return appended[layer] ? s.tokens.size() : s.start;
  }
  int32_t row(int32_t id) const {
    return int32_t(std::find(ids.begin(), ids.end(), id) - ids.begin());
  }
  /// Has it blocks?
  bool empty(int32_t id) const {
    const Sequence &s = sequences[id];
    return s.tokens.empty() && !(s.inStep && !tokens[row(id)].empty());
  }
  bool disturbed() const {
    return std::any_of(ids.begin(), ids.end(),
                       [&](int32_t id) { return !sequences[id].inStep; });
  }

  llm_code codeOfEnd() const {
    for (size_t layer = 0; running && layer < ever.size(); ++layer)
      for (size_t i = 0; ever[layer] && !appended[layer] && i < ids.size();
           ++i) {
        const Sequence &s = sequences[ids[i]];
        const size_t end =
            s.inStep ? starts[i] + tokens[i].size() : s.tokens.size();
        if (s.start < end)
          return LLM_WRONG_STATE;
      }
    return LLM_OK;
  }
  void end() {
    for (int32_t id : ids)
      sequences[id].start = sequences[id].tokens.size();
    for (Sequence &s : sequences)
      s.inStep = false;
    appended.assign(appended.size(), false);
    running = shared = false;
    ids.clear();
    starts.clear();
    tokens.clear();
  }

  llm_code codeOfAppend(int32_t layer) const {
    if (!running || disturbed() || appended[layer])
      return LLM_WRONG_STATE;
    for (const Sequence &s : sequences)
      if (!ever[layer] && (s.inStep ? s.start : s.tokens.size()))
        return LLM_WRONG_STATE;
    return LLM_OK;
  }
  void append(int32_t layer) {
    ever[layer] = appended[layer] = true;
    for (size_t i = 0; i < ids.size(); ++i) {
      auto &all = sequences[ids[i]].tokens;
      all.resize(starts[i]);
      all.insert(all.end(), tokens[i].begin(), tokens[i].end());
    }
  }

  llm_code codeOfFork(int32_t parent, int32_t child, size_t length) const {
    if (!empty(child))
      return LLM_WRONG_STATE;
    const Sequence &from = sequences[parent];
    if (length > from.tokens.size())
      return LLM_INVALID_ARGUMENT;
    for (size_t layer = 0; layer < ever.size(); ++layer)
      if (ever[layer] && held(int32_t(layer), from) < length)
        return LLM_WRONG_STATE;
    return LLM_OK;
  }
  void fork(int32_t parent, int32_t child, size_t length) {
    std::vector<int64_t> copy = sequences[parent].tokens;
    copy.resize(length);
    sequences[child] = {std::move(copy), length, false};
  }

  void cut(int32_t id, size_t length) {
    Sequence &s = sequences[id];
    s.tokens.resize(length);
    s.start = std::min(s.start, length);
    s.inStep = false;
  }

  std::vector<Sequence> sequences;
  std::vector<char> ever, appended; ///< by layer
  bool running = false;
  bool shared = false; ///< since the step began: appending may take blocks
  // The rows of the running step.
  std::vector<int32_t> ids;
  std::vector<size_t> starts;
  std::vector<std::vector<int64_t>> tokens;
};

//===----------------------------------------------------------------------===//
// Hosts and a call
//===----------------------------------------------------------------------===//

/// A version of the call, or the one of a host.
struct Version {
  PagedKVCache &cache() const { return host ? *host->version : *own; }

  std::unique_ptr<PagedKVCache> own;
  HostCache *host = nullptr;
  Model model;
  KVStep step;
};

struct Host {
  std::unique_ptr<HostCache> cache;
  Model model;
};

struct Shape {
  int32_t layers, blockSize;
  int64_t blocks;
};

class World {
public:
  World(const Shape &shape, uint64_t seed) : random_(seed) {
    config_ = configOf(shape.layers, shape.blockSize, shape.blocks, 4, 20);
    config_.kv_heads = 1;
    config_.head_dim = 2;
    auto host = std::make_unique<HostCache>();
    EXPECT_OK(PagedKVCache::create(config_, host->version, faults_));
    hosts_.push_back(
        {std::move(host), Model(config_.max_sequences, config_.layers)});
  }

  void run(int64_t count) {
    for (int64_t i = 0; i < count && !::testing::Test::HasFailure(); ++i) {
      operate();
      if (i % 256 == 0)
        compareAll();
    }
    if (inCall_)
      endCall();
    for (Host &host : hosts_)
      for (int32_t id = 0; id < config_.max_sequences; ++id)
        EXPECT_OK(host.cache->version->release({&id, 1}));
    const llm_kv_stats stats = hosts_[0].cache->version->stats();
    EXPECT_EQ(stats.free_blocks, stats.total_blocks);
    EXPECT_EQ(stats.versions, int64_t(hosts_.size()));
  }

  int64_t appends = 0, refused = 0, aborts = 0, replacements = 0, strikes = 0;

private:
  int pick(size_t n) { return static_cast<int>(random_() % n); }
  int32_t pickId() { return pick(config_.max_sequences); }

  void operate() {
    if (!inCall_)
      return betweenCalls();
    if (pick(40) == 0)
      return endCall();
    Version &version = versions_[pick(versions_.size())];
    operate(version);
  }

  void operate(Version &version) {
    switch (pick(32)) {
    case 0:
      return snapshot(version);
    case 1:
      return drop();
    case 2:
      return replace();
    case 3:
    case 4:
      trim(version);
      break;
    case 5:
      release(version);
      break;
    case 6:
    case 7:
    case 8:
      fork(version);
      break;
    case 9:
    case 10:
      misuse(version);
      break;
    case 11:
    case 12:
      end(version);
      break;
    default:
      if (version.model.running && pick(8))
        append(version);
      else
        begin(version);
    }
    check(version);
  }

  //===--- Hosts and calls ------------------------------------------------===//

  void betweenCalls() {
    switch (pick(12)) {
    case 0:
      if (hosts_.size() < 3) {
        const Host &from = hosts_[pick(hosts_.size())];
        auto copy = std::make_unique<HostCache>();
        copy->version = from.cache->version->snapshot();
        hosts_.push_back({std::move(copy), from.model});
      }
      break;
    case 1:
      if (hosts_.size() > 1)
        hosts_.erase(hosts_.begin() + pick(hosts_.size()));
      break;
    default:
      beginCall();
    }
    EXPECT_OK(hosts_[0].cache->version->checkInvariants());
    EXPECT_EQ(hosts_[0].cache->version->stats().pending_blocks, 0);
  }

  void beginCall() {
    for (Host &host : hosts_)
      if (versions_.empty() || pick(2)) {
        host.cache->begin();
        versions_.push_back({nullptr, host.cache.get(), host.model, {}});
      }
    inCall_ = true;
  }

  /// As llm_model_invoke does.
  void endCall() {
    llm_code code = pick(3) ? LLM_OK : LLM_UNSUPPORTED;
    for (Version &version : versions_)
      if (version.host && code == LLM_OK) {
        code = version.model.codeOfEnd();
        EXPECT_EQ(version.cache().endStep().code(), code);
        if (code == LLM_OK)
          version.model.end();
      }
    std::vector<Version> ended = std::move(versions_);
    versions_.clear();
    inCall_ = false;
    code == LLM_OK ? commit(ended) : abort(ended);
    EXPECT_OK(hosts_[0].cache->version->checkInvariants());
    EXPECT_EQ(hosts_[0].cache->version->stats().pending_blocks, 0);
    compareAll();
  }

  void commit(std::vector<Version> &ended) {
    for (Version &version : ended)
      if (version.host) {
        version.host->commit();
        for (Host &host : hosts_)
          if (host.cache.get() == version.host)
            host.model = version.model;
      }
  }

  void abort(std::vector<Version> &ended) {
    ++aborts;
    for (Version &version : ended)
      if (version.host)
        version.host->revert();
    for (Version &version : ended)
      version.own.reset();
    for (Version &version : ended)
      if (version.host)
        version.host->abort();
  }

  void snapshot(Version &of) {
    if (versions_.size() >= 5)
      return;
    of.model.shared = true;
    Version copy = {of.cache().snapshot(), nullptr, of.model, of.step};
    versions_.push_back(std::move(copy));
  }

  /// The place of a version that is the call's, or -1.
  int pickOwn() {
    const int at = pick(versions_.size());
    return versions_[at].own ? at : -1;
  }

  void drop() {
    if (const int at = pickOwn(); at >= 0)
      versions_.erase(versions_.begin() + at);
  }

  void replace() {
    const int at = pickOwn();
    if (at < 0)
      return;
    Version with = std::move(versions_[at]);
    versions_.erase(versions_.begin() + at);
    for (Version &version : versions_)
      if (version.host && (pick(2) || &version == &versions_.front())) {
        version.host->replace(std::move(with.own));
        version.model = std::move(with.model);
        version.step = with.step;
        ++replacements;
        return check(version);
      }
  }

  //===--- Operations of a version ----------------------------------------===//

  void begin(Version &version) {
    Batch batch = randomBatch(version.model);
    const llm_code ended = version.model.codeOfEnd();
    const bool armed = pick(64) == 0;
    faults_->arm(Resource::Blocks, armed ? 0 : -1);
    KVStep step;
    const Status status = llm::testing::begin(version.cache(), batch, step);
    const bool struck = armed && !faults_->armed(Resource::Blocks);
    faults_->arm(Resource::Blocks, -1);
    strikes += struck;
    if (ended != LLM_OK) {
      EXPECT_EQ(status.code(), ended) << status.message();
      return;
    }
    version.model.end();
    if (!status.ok()) {
      ++refused;
      EXPECT_EQ(status.code(), LLM_OUT_OF_BLOCKS) << status.message();
      EXPECT_TRUE(struck || mostBlocks(version.model, batch) >
                                version.cache().stats().free_blocks)
          << status.message();
      return;
    }
    EXPECT_FALSE(struck);
    for (size_t i = 0; i < batch.ids.size(); ++i) {
      Sequence &s = version.model.sequences[batch.ids[i]];
      s.inStep = true;
      version.model.starts.push_back(s.tokens.size());
      EXPECT_EQ(step.starts[i], int64_t(s.tokens.size()));
    }
    version.model.ids = batch.ids;
    version.model.tokens = batch.tokens;
    version.model.running = true;
    version.step = step;
  }

  Batch randomBatch(const Model &model) {
    std::vector<int32_t> ids(config_.max_sequences);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random_);
    Batch batch;
    for (int i = pick(3); i >= 0; --i) {
      const int64_t room =
          config_.max_seq_len - int64_t(model.sequences[ids[i]].tokens.size());
      const int64_t n = std::min<int64_t>(room, pick(4) ? pick(4) : pick(10));
      batch.ids.push_back(ids[i]);
      batch.tokens.push_back(range(nextToken_, n));
      nextToken_ += n;
    }
    return batch;
  }

  /// What a step needs at most: with a copy of each partial block.
  int64_t mostBlocks(const Model &model, const Batch &batch) const {
    const int64_t size = config_.block_size;
    int64_t blocks = 0;
    for (size_t i = 0; i < batch.ids.size(); ++i) {
      const int64_t now = model.sequences[batch.ids[i]].tokens.size();
      const int64_t then = now + int64_t(batch.tokens[i].size());
      blocks += (then + size - 1) / size - now / size;
    }
    return blocks;
  }

  void append(Version &version) {
    Model &model = version.model;
    int32_t layer = pick(config_.layers);
    for (int i = 0; i < config_.layers && model.appended[layer] && pick(9); ++i)
      layer = (layer + 1) % config_.layers;
    const llm_code code = model.codeOfAppend(layer);
    const Status status = appendLayer(version.cache(), version.step,
                                      {model.ids, model.tokens}, layer);
    if (code == LLM_OK && model.shared && status.code() == LLM_OUT_OF_BLOCKS) {
      ++refused;
      return;
    }
    EXPECT_EQ(status.code(), code) << status.message();
    if (status.ok()) {
      model.append(layer);
      ++appends;
    }
  }

  void end(Version &version) {
    const llm_code code = version.model.codeOfEnd();
    const Status status = version.cache().endStep();
    EXPECT_EQ(status.code(), code) << status.message();
    if (status.ok())
      version.model.end();
  }

  void fork(Version &version) {
    const int32_t parent = pickId(), child = pickId();
    const auto tokens = version.model.sequences[parent].tokens.size();
    const int64_t n = pick(4) ? tokens : pick(tokens + 2);
    const llm_code code = version.model.codeOfFork(parent, child, n);
    const Status status =
        version.cache().fork({&parent, 1}, {&child, 1}, {&n, 1});
    EXPECT_EQ(status.code(), code) << status.message();
    if (status.ok()) {
      version.model.fork(parent, child, n);
      version.model.shared = true;
    }
  }

  void trim(Version &version) {
    const int32_t id = pickId();
    const size_t tokens = version.model.sequences[id].tokens.size();
    const int64_t n = pick(tokens + 2);
    const Status status = version.cache().trim({&id, 1}, {&n, 1});
    EXPECT_EQ(status.ok(), n <= int64_t(tokens)) << status.message();
    if (n < int64_t(tokens))
      version.model.cut(id, n);
  }

  void release(Version &version) {
    const int32_t id = pickId();
    EXPECT_OK(version.cache().release({&id, 1}));
    version.model.cut(id, 0);
  }

  /// What is always refused, and changes nothing.
  void misuse(Version &version) {
    PagedKVCache &cache = version.cache();
    const int32_t id = pickId(), far = config_.max_sequences + pick(9);
    const int64_t negative = -1 - pick(5), none = 0;
    const int32_t twice[] = {id, id}, ends[] = {0, 1, 2}, falls[] = {0, -1};
    KVStep step = version.step;
    llm_code code = LLM_INVALID_ARGUMENT;
    Status status;
    switch (pick(9)) {
    case 0:
      status = cache.release({&far, 1});
      break;
    case 1:
      status = cache.trim({&id, 1}, {&negative, 1});
      break;
    case 2:
      status = cache.fork({&far, 1}, {&id, 1}, {&none, 1});
      break;
    case 3:
      status = cache.beginStep(twice, ends, step);
      break;
    case 4:
      status = cache.beginStep({&id, 1}, falls, step);
      break;
    case 5:
      status = cache.beginStep({&id, 1}, {ends + 1, 2}, step);
      break;
    case 6:
      status = cache.checkRoom({&id, 1}, {&negative, 1});
      break;
    case 7: {
      const Tensor k(LLM_F32, {1, 1, 1, 2});
      status = cache.lookup({&id, 1}, config_.layers, k, k);
      break;
    }
    default: {
      code = LLM_WRONG_STATE;
      --step.id;
      const Tensor k(LLM_F32, {int64_t(version.step.numTokens()), 1, 2});
      status = cache.append(step, 0, k, k);
    }
    }
    // The end of the running step is checked before the next one's batch.
    if (status.code() != version.model.codeOfEnd()) {
      EXPECT_EQ(status.code(), code) << status.message();
    }
    EXPECT_FALSE(status.ok());
  }

  //===--- Agreement ------------------------------------------------------===//

  void check(Version &version) {
    EXPECT_OK(version.cache().checkInvariants());
    for (int32_t id = 0; id < config_.max_sequences; ++id)
      EXPECT_EQ(size_t(version.cache().length(id)),
                version.model.sequences[id].tokens.size());
    compare(version.cache(), version.model, pickId(), pick(config_.layers));
  }

  void compareAll() {
    for (Version &version : versions_)
      compare(version.cache(), version.model);
    for (Host &host : hosts_)
      if (!inCall_)
        compare(*host.cache->version, host.model);
  }

  void compare(PagedKVCache &cache, const Model &model) {
    for (int32_t id = 0; id < config_.max_sequences; ++id)
      for (int32_t layer = 0; layer < config_.layers; ++layer)
        compare(cache, model, id, layer);
  }

  void compare(PagedKVCache &cache, const Model &model, int32_t id,
               int32_t layer) {
    const Sequence &sequence = model.sequences[id];
    std::vector<int64_t> tokens = sequence.tokens;
    tokens.resize(model.held(layer, sequence));
    EXPECT_TRUE(holds(cache, id, tokens, layer));
  }

  std::mt19937_64 random_;
  llm_kv_config config_;
  std::shared_ptr<Faults> faults_ = std::make_shared<Faults>();
  std::vector<Host> hosts_;
  bool inCall_ = false;
  std::vector<Version> versions_; ///< of the call
  int64_t nextToken_ = 1;
};

class CacheOperations : public ::testing::TestWithParam<Shape> {};

} // namespace

TEST_P(CacheOperations, AgreeWithTheModel) {
  constexpr int64_t shapes = 4, each = 5000;
  const int64_t worlds = (operations() / shapes + each - 1) / each;
  World total(GetParam(), 0);
  for (int64_t i = 0; i < worlds && !HasFailure(); ++i) {
    const uint64_t seed = firstSeed() + i;
    SCOPED_TRACE(seed);
    World world(GetParam(), seed);
    world.run(each);
    total.appends += world.appends;
    total.refused += world.refused;
    total.aborts += world.aborts;
    total.replacements += world.replacements;
    total.strikes += world.strikes;
  }
  // None of this may become rare.
  EXPECT_GT(total.appends, worlds * each / 20);
  EXPECT_GT(total.refused, worlds * each / 1000);
  EXPECT_GT(total.aborts, worlds * each / 1000);
  EXPECT_GT(total.replacements, worlds * each / 1000);
  EXPECT_GT(total.strikes, worlds);
}

INSTANTIATE_TEST_SUITE_P(, CacheOperations,
                         ::testing::Values(Shape{1, 1, 30}, Shape{2, 3, 16},
                                           Shape{3, 4, 12}, Shape{2, 16, 5}),
                         [](const auto &info) {
                           return std::to_string(info.param.layers) +
                                  "LayersBlock" +
                                  std::to_string(info.param.blockSize);
                         });

//===----------------------------------------------------------------------===//
// The allocator by itself
//===----------------------------------------------------------------------===//

namespace {

/// References and pins of every block, counted by hand.
class Blocks {
public:
  explicit Blocks(uint64_t seed) : random_(seed) {}

  void operate() {
    const int32_t block = 1 + pick(total);
    int32_t &references = references_[block], &pins = pins_[block];
    switch (pick(6)) {
    case 0:
    case 1:
      return allocate(pick(5));
    case 2:
      if ((references || pins) && references < 3) {
        allocator_.retain(block);
        ++references;
      }
      break;
    case 3:
      if (references) {
        --references;
        EXPECT_EQ(allocator_.release(block), !references && !pins);
      }
      break;
    case 4:
      if (references) {
        allocator_.pin(block);
        ++pins;
      }
      break;
    default:
      if (pins) {
        --pins;
        EXPECT_EQ(allocator_.unpin(block), !references && !pins);
      }
    }
    EXPECT_EQ(allocator_.references(block), references);
    EXPECT_EQ(allocator_.pins(block), pins);
  }

  void check() {
    int32_t live = 0, pending = 0;
    for (int32_t block = 1; block <= total; ++block) {
      live += references_[block] > 0;
      pending += !references_[block] && pins_[block];
    }
    EXPECT_EQ(allocator_.numLive(), live);
    EXPECT_EQ(allocator_.numPending(), pending);
    EXPECT_EQ(allocator_.numFree(), total - live - pending);
    EXPECT_OK(allocator_.checkInvariants());
  }

private:
  static constexpr int32_t total = 13;

  int pick(int n) { return static_cast<int>(random_() % n); }

  void allocate(int count) {
    int32_t taken[5];
    const bool fits = count <= allocator_.numFree();
    const Status status = allocator_.allocate({taken, size_t(count)});
    EXPECT_EQ(status.code(), fits ? LLM_OK : LLM_OUT_OF_BLOCKS);
    for (int i = 0; fits && i < count; ++i) {
      EXPECT_TRUE(taken[i] >= 1 && taken[i] <= total);
      EXPECT_TRUE(!references_[taken[i]] && !pins_[taken[i]]);
      references_[taken[i]] = 1;
    }
  }

  std::mt19937_64 random_;
  BlockAllocator allocator_{total};
  int32_t references_[total + 1] = {}, pins_[total + 1] = {};
};

} // namespace

TEST(AllocatorOperations, AgreeWithTheModel) {
  constexpr int64_t each = 10000;
  const int64_t worlds = (operations() + each - 1) / each;
  for (int64_t i = 0; i < worlds && !HasFailure(); ++i) {
    SCOPED_TRACE(firstSeed() + i);
    Blocks blocks(firstSeed() + i);
    for (int64_t j = 0; j < each && !HasFailure(); ++j) {
      blocks.operate();
      blocks.check();
    }
  }
}
