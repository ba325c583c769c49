//===- MemoryNeedTest.cpp - Memory that there is, in files made up --------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"
#include "ScratchFolder.h"

#include "llm/Driver/MemoryNeed.h"

#include "llvm/Support/raw_ostream.h"
#include <gtest/gtest.h>

using namespace mlir::llm;

namespace {

/// A system whose /proc and /sys hold what a test says.
class MemoryNeedTest : public ::testing::Test {
protected:
  void write(llvm::StringRef path, llvm::StringRef text) {
    const std::string file = root.path(path);
    llvm::sys::fs::create_directories(llvm::sys::path::parent_path(file));
    std::error_code code;
    llvm::raw_fd_ostream(file, code) << text;
    ASSERT_FALSE(code) << file;
  }

  void SetUp() override {
    write("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:   5000 kB\n");
  }

  /// A group of version 2 with a limit and what is used of it.
  void writeGroup(const std::string &path, llvm::StringRef limit,
                  llvm::StringRef usage, llvm::StringRef statistics = "") {
    write("sys/fs/cgroup" + path + "/memory.max", limit);
    write("sys/fs/cgroup" + path + "/memory.current", usage);
    write("sys/fs/cgroup" + path + "/memory.stat", statistics);
  }

  std::optional<int64_t> available() { return availableMemory(root.path()); }

  ScratchFolder root;
};

constexpr int64_t kKernel = 5000 * 1024;

} // namespace

TEST_F(MemoryNeedTest, isWhatTheKernelHas) { EXPECT_EQ(available(), kKernel); }

TEST_F(MemoryNeedTest, isUnknownWithoutTheKernelsWord) {
  ScratchFolder empty;
  EXPECT_EQ(availableMemory(empty.path()), std::nullopt);
}

TEST_F(MemoryNeedTest, isAtMostWhatTheGroupLeaves) {
  write("proc/self/cgroup", "0::/a/b\n");
  writeGroup("/a/b", "3000000\n", "1000000\n",
             "anon 700000\ninactive_file 200000\nactive_file 100000\n");
  EXPECT_EQ(available(), 2300000);
  writeGroup("/a/b", "max\n", "1000000\n");
  EXPECT_EQ(available(), kKernel);
  writeGroup("/a/b", "99000000\n", "1000000\n");
  EXPECT_EQ(available(), kKernel);
}

TEST_F(MemoryNeedTest, groupsAroundCountToo) {
  write("proc/self/cgroup", "0::/a/b\n");
  writeGroup("/a/b", "3000000\n", "1000000\n");
  writeGroup("/a", "2000000\n", "1500000\n");
  EXPECT_EQ(available(), 500000);
  // In a container the path is often that of the host.
  writeGroup("", "1000000\n", "900000\n");
  EXPECT_EQ(available(), 100000);
}

TEST_F(MemoryNeedTest, isNeverBelowZero) {
  write("proc/self/cgroup", "0::/\n");
  writeGroup("", "1000\n", "5000\n");
  EXPECT_EQ(available(), 0);
}

TEST_F(MemoryNeedTest, readsGroupsOfVersion1) {
  write("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/x\n");
  write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "4000000\n");
  write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "3000000\n");
  write("sys/fs/cgroup/memory/x/memory.stat", "inactive_file 500000\n");
  EXPECT_EQ(available(), 1500000);
}

TEST_F(MemoryNeedTest, thisMachineHasSome) {
  EXPECT_GT(availableMemory().value_or(0), 1 << 20);
}

TEST_F(MemoryNeedTest, moreThanThereIsIsRefused) {
  const MemoryNeed need = {1 << 20, 3 << 20, 2 << 20};
  EXPECT_EQ(describe(need), "6.0 MiB: weights 1.0 MiB, cache at most 3.0 MiB, "
                            "workspace about 2.0 MiB");
  EXPECT_FALSE(checkMemory(need, 6 << 20));
  EXPECT_FALSE(checkMemory(need, std::nullopt));
  EXPECT_EQ(messageOf(checkMemory(need, (6 << 20) - 1)),
            "not enough memory: expected to need " + describe(need) +
                ", but 6.0 MiB are available (try a smaller --ctx or -n, fewer "
                "--pool-blocks, or --cache-dtype i8)");
  EXPECT_EQ(messageOf(checkMemory(need, 2 << 20)),
            "not enough memory: expected to need " + describe(need) +
                ", but 2.0 MiB are available (a smaller cache does not help: "
                "try a smaller model, or --weights-as native)");
}
