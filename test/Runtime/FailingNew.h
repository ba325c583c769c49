//===- FailingNew.h - Host memory that runs out -----------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Replaces operator new of a test program; one of its files includes this.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_RUNTIME_FAILINGNEW_H
#define LLM_TEST_RUNTIME_FAILINGNEW_H

#include <cstdint>
#include <cstdlib>
#include <new>

/// What this thread may still allocate before it fails; -1: no limit.
static thread_local int64_t allocationsLeft = -1;

static void *allocate(std::size_t bytes, std::size_t alignment) {
  if (allocationsLeft == 0)
    throw std::bad_alloc();
  if (allocationsLeft > 0)
    --allocationsLeft;
  const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
  if (void *memory = std::aligned_alloc(alignment, size ? size : alignment))
    return memory;
  throw std::bad_alloc();
}

void *operator new(std::size_t bytes) { return allocate(bytes, 16); }
void *operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
// Those of libstdc++ call the ones above; a sanitizer's would not.
void *operator new(std::size_t bytes, const std::nothrow_t &) noexcept try {
  return operator new(bytes);
} catch (const std::bad_alloc &) {
  return nullptr;
}
void *operator new(std::size_t bytes, std::align_val_t alignment,
                   const std::nothrow_t &) noexcept try {
  return operator new(bytes, alignment);
} catch (const std::bad_alloc &) {
  return nullptr;
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

#endif // LLM_TEST_RUNTIME_FAILINGNEW_H
