//===- ObjectCacheTest.cpp - Entries, sound and otherwise ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"
#include "ScratchFolder.h"

#include "llm/Driver/ObjectCache.h"
#include "llm/Driver/TextFile.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include <gtest/gtest.h>

#include <optional>
#include <thread>

using namespace mlir::llm;
namespace fs = llvm::sys::fs;

static const std::string key = ObjectCache::keyOf("this");
static const std::string other = ObjectCache::keyOf("that");

/// What is kept under the key, if anything.
static std::optional<std::string> find(const ObjectCache &cache,
                                       llvm::StringRef key) {
  auto object = cache.read(key);
  if (!object)
    return std::nullopt;
  return object->getBuffer().str();
}

static void writeBytes(llvm::StringRef path, llvm::StringRef bytes) {
  EXPECT_EQ(messageOf(writeFile(path,
                                [&](llvm::raw_ostream &os) {
                                  os << bytes;
                                  return llvm::Error::success();
                                })),
            "");
}

//===----------------------------------------------------------------------===//
// Keys and folders
//===----------------------------------------------------------------------===//

TEST(ObjectCacheTest, keysAreDigests) {
  EXPECT_EQ(ObjectCache::keyOf(""), "af1349b9f5f9a1a6a0404dea36dcc949"
                                    "9bcb25c9adc112b7cc9a93cae41f3262");
  EXPECT_NE(key, other);
}

/// The user's folder with these variables, null for unset ones.
static std::string folderWith(const char *caches, const char *home) {
  auto set = [](const char *name, const char *value) {
    value ? setenv(name, value, 1) : unsetenv(name);
  };
  const char *before = std::getenv("HOME");
  const std::string kept = before ? before : "";
  set("XDG_CACHE_HOME", caches);
  set("HOME", home);
  auto folder = ObjectCache::userFolder();
  set("HOME", before ? kept.c_str() : nullptr);
  unsetenv("XDG_CACHE_HOME");
  return folder ? *folder : messageOf(folder.takeError());
}

TEST(ObjectCacheTest, folderOfTheUser) {
  EXPECT_EQ(folderWith("/caches", "/home/x"), "/caches/llm");
  EXPECT_EQ(folderWith(nullptr, "/home/x"), "/home/x/.cache/llm");
  EXPECT_EQ(folderWith("", "/home/x"), "/home/x/.cache/llm");
  EXPECT_EQ(folderWith("relative", "/home/x"), "/home/x/.cache/llm");
  const char *none = "neither XDG_CACHE_HOME nor HOME is an absolute path";
  EXPECT_EQ(folderWith(nullptr, nullptr), none);
  EXPECT_EQ(folderWith("", "relative"), none);
}

//===----------------------------------------------------------------------===//
// Sound entries
//===----------------------------------------------------------------------===//

TEST(ObjectCacheTest, readsWhatWasWritten) {
  ScratchFolder scratch;
  const ObjectCache cache(scratch.path("of/the/user"));
  EXPECT_EQ(find(cache, key), std::nullopt);
  EXPECT_EQ(messageOf(cache.write(key, "object")), "");
  EXPECT_EQ(find(cache, key), "object");
  EXPECT_EQ(find(cache, other), std::nullopt);
  EXPECT_EQ(messageOf(cache.write(key, "newer object")), "");
  EXPECT_EQ(find(cache, key), "newer object");
  EXPECT_EQ(scratch.names(), std::vector<std::string>{"of"});
}

TEST(ObjectCacheTest, namesEntriesByTheirKeys) {
  ScratchFolder scratch;
  const ObjectCache cache(scratch.path());
  EXPECT_EQ(messageOf(cache.write(key, "object")), "");
  EXPECT_EQ(scratch.names(), std::vector<std::string>{key + ".o"});
  EXPECT_EQ(cache.pathOf(key), scratch.path(key + ".o"));
}

//===----------------------------------------------------------------------===//
// Others
//===----------------------------------------------------------------------===//

TEST(ObjectCacheTest, noLengthButTheWholeIsSound) {
  ScratchFolder scratch;
  const ObjectCache cache(scratch.path());
  EXPECT_EQ(messageOf(cache.write(key, "object")), "");
  const std::string entry = *readFile(cache.pathOf(key));
  for (size_t size = 0; size < entry.size(); ++size) {
    writeBytes(cache.pathOf(key), entry.substr(0, size));
    EXPECT_EQ(find(cache, key), std::nullopt) << size;
  }
  writeBytes(cache.pathOf(key), entry + "x");
  EXPECT_EQ(find(cache, key), std::nullopt);
}

TEST(ObjectCacheTest, noByteMayChange) {
  ScratchFolder scratch;
  const ObjectCache cache(scratch.path());
  EXPECT_EQ(messageOf(cache.write(key, "object")), "");
  const std::string entry = *readFile(cache.pathOf(key));
  for (size_t at = 0; at < entry.size(); ++at) {
    std::string damaged = entry;
    damaged[at] ^= 1;
    writeBytes(cache.pathOf(key), damaged);
    EXPECT_EQ(find(cache, key), std::nullopt) << at;
  }
  EXPECT_EQ(messageOf(cache.write(key, "object")), "");
  EXPECT_EQ(find(cache, key), "object");
}

TEST(ObjectCacheTest, entriesOfOtherKeys) {
  ScratchFolder scratch;
  const ObjectCache cache(scratch.path());
  EXPECT_EQ(messageOf(cache.write(other, "object")), "");
  fs::rename(cache.pathOf(other), cache.pathOf(key));
  EXPECT_EQ(find(cache, key), std::nullopt);
}

TEST(ObjectCacheTest, folderInPlaceOfAnEntry) {
  ScratchFolder scratch;
  const ObjectCache cache(scratch.path());
  fs::create_directory(cache.pathOf(key));
  EXPECT_EQ(find(cache, key), std::nullopt);
  EXPECT_EQ(messageOf(cache.write(key, "object")),
            cache.pathOf(key) + ": is a directory");
  EXPECT_EQ(scratch.names(), std::vector<std::string>{key + ".o"});
}

TEST(ObjectCacheTest, foldersThatCannotBe) {
  ScratchFolder scratch;
  writeBytes(scratch.path("file"), "");
  const ObjectCache cache(scratch.path("file/llm"));
  EXPECT_EQ(find(cache, key), std::nullopt);
  EXPECT_EQ(messageOf(cache.write(key, "object")),
            scratch.path("file/llm") + ": not a directory");
  const ObjectCache readOnly("/proc");
  EXPECT_EQ(messageOf(readOnly.write(key, "object")),
            "/proc/" + key + ".o: no such file or directory");
}

//===----------------------------------------------------------------------===//
// Age
//===----------------------------------------------------------------------===//

/// Makes a file look as old as that.
static void age(const std::string &path, std::chrono::hours hours) {
  auto file = fs::openNativeFileForRead(path);
  ASSERT_TRUE(bool(file));
  fs::setLastAccessAndModificationTime(*file, std::chrono::system_clock::now() -
                                                  hours);
  fs::closeFile(*file);
}

TEST(ObjectCacheTest, removesWhatWentUnusedForLongest) {
  ScratchFolder scratch;
  const ObjectCache cache(scratch.path());
  auto keyAt = [](size_t i) { return ObjectCache::keyOf(std::to_string(i)); };
  for (size_t i = 0; i < ObjectCache::mostEntries; ++i) {
    EXPECT_EQ(messageOf(cache.write(keyAt(i), "object")), "");
    age(cache.pathOf(keyAt(i)), std::chrono::hours(100 - i));
  }
  const std::string rest = cache.pathOf(keyAt(2)) + "-aBcDeF";
  writeBytes(rest, "of an interrupted write");
  age(rest, std::chrono::hours(1000));
  writeBytes(scratch.path("notes.o"), "of somebody else");
  age(scratch.path("notes.o"), std::chrono::hours(1000));
  EXPECT_EQ(find(cache, keyAt(0)), "object"); // as good as new

  EXPECT_EQ(messageOf(cache.write(key, "object")), "");
  EXPECT_FALSE(fs::exists(rest));
  EXPECT_EQ(find(cache, keyAt(1)), std::nullopt);
  for (size_t i : {0, 2, 31})
    EXPECT_EQ(find(cache, keyAt(i)), "object") << i;
  EXPECT_EQ(find(cache, key), "object");
  EXPECT_TRUE(fs::exists(scratch.path("notes.o")));
  EXPECT_EQ(scratch.names().size(), ObjectCache::mostEntries + 1);
}

//===----------------------------------------------------------------------===//
// Several at once
//===----------------------------------------------------------------------===//

TEST(ObjectCacheTest, readersSeeWholeEntries) {
  ScratchFolder scratch;
  const ObjectCache cache(scratch.path());
  const std::string objects[] = {std::string(100'000, 'a'),
                                 std::string(200'000, 'b')};
  EXPECT_EQ(messageOf(cache.write(key, objects[0])), "");
  auto write = [&](const std::string &object) {
    for (int i = 0; i < 100; ++i)
      EXPECT_EQ(messageOf(cache.write(key, object)), "");
  };
  std::thread first(write, objects[0]), second(write, objects[1]);
  for (int i = 0; i < 100; ++i) {
    auto found = find(cache, key);
    EXPECT_TRUE(found == objects[0] || found == objects[1]);
  }
  first.join();
  second.join();
  EXPECT_EQ(scratch.names(), std::vector<std::string>{key + ".o"});
}
