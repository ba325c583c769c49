//===- BytePairMerges.cpp - Pairs of tokens into longer ones --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The tokens of a piece are a linked list in an array; a queue holds the merges
// that were possible when they were seen. A merge outdates those of both its
// tokens: they are known by a token that has changed since. So a piece of n
// tokens takes O(n log n), however long it is.
//
//===----------------------------------------------------------------------===//

#include "BytePairMerges.h"

#include <queue>
#include <vector>

namespace mlir::llm {

/// The work on one piece.
class MergeQueue {
public:
  MergeQueue(const BytePairMerges &known, ::llvm::ArrayRef<int32_t> tokens);

  void run();
  void copyTo(::llvm::SmallVectorImpl<int32_t> &tokens) const;

private:
  static constexpr int32_t none = -1;

  struct Node {
    int32_t token; ///< none once merged into the one before
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    int32_t rank;
    int32_t left; ///< node
    TokenPair pair;
    int32_t merged;

    /// Orders the queue: the best is its greatest.
    bool operator<(const Candidate &other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  /// Queues the merge of `left` and its successor, if there is one.
  void propose(int32_t left);
  bool isOutdated(const Candidate &candidate) const;
  void merge(const Candidate &candidate);

  const BytePairMerges &known;
  std::vector<Node> nodes;
  std::priority_queue<Candidate> queue;
};

MergeQueue::MergeQueue(const BytePairMerges &known,
                       ::llvm::ArrayRef<int32_t> tokens)
    : known(known) {
  int32_t size = int32_t(tokens.size());
  nodes.reserve(size);
  for (int32_t i = 0; i < size; ++i)
    nodes.push_back({tokens[i], i - 1, i + 1 < size ? i + 1 : none});
  for (int32_t i = 0; i < size; ++i)
    propose(i);
}

void MergeQueue::propose(int32_t left) {
  if (left == none || nodes[left].next == none)
    return;
  TokenPair pair(nodes[left].token, nodes[nodes[left].next].token);
  auto merge = known.merges.find(pair);
  if (merge != known.merges.end())
    queue.push({merge->second.rank, left, pair, merge->second.token});
}

bool MergeQueue::isOutdated(const Candidate &candidate) const {
  const Node &left = nodes[candidate.left];
  return left.token != candidate.pair.first || left.next == none ||
         nodes[left.next].token != candidate.pair.second;
}

void MergeQueue::merge(const Candidate &candidate) {
  Node &left = nodes[candidate.left];
  Node &right = nodes[left.next];
  left.token = candidate.merged;
  right.token = none;
  left.next = right.next;
  if (left.next != none)
    nodes[left.next].previous = candidate.left;
  propose(left.previous);
  propose(candidate.left);
}

void MergeQueue::run() {
  while (!queue.empty()) {
    Candidate best = queue.top();
    queue.pop();
    if (!isOutdated(best))
      merge(best);
  }
}

void MergeQueue::copyTo(::llvm::SmallVectorImpl<int32_t> &tokens) const {
  tokens.clear();
  for (const Node &node : nodes)
    if (node.token != none)
      tokens.push_back(node.token);
}

void BytePairMerges::apply(::llvm::SmallVectorImpl<int32_t> &tokens) const {
  MergeQueue queue(*this, tokens);
  queue.run();
  queue.copyTo(tokens);
}

} // namespace mlir::llm
