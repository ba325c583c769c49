//===- BuildIds.cpp - Which build of the code is running ------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/BuildIds.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/MathExtras.h"

#include <link.h>

using llvm::StringRef;

namespace {

struct Ids {
  std::string all;
  bool ours = false; ///< whether one is of the file with this code
};

} // namespace

/// The bytes of a segment in memory.
static StringRef bytesOf(const dl_phdr_info &file, const ElfW(Phdr) & segment) {
  return {reinterpret_cast<const char *>(file.dlpi_addr + segment.p_vaddr),
          segment.p_memsz};
}

/// The build id among the notes of a segment, or nothing.
static StringRef buildIdIn(StringRef notes, uint64_t alignment) {
  while (notes.size() > sizeof(ElfW(Nhdr))) {
    const auto *note = reinterpret_cast<const ElfW(Nhdr) *>(notes.data());
    const StringRef name = notes.substr(sizeof(*note), note->n_namesz);
    const uint64_t start =
        llvm::alignTo(sizeof(*note) + note->n_namesz, alignment);
    if (note->n_type == NT_GNU_BUILD_ID && name == StringRef("GNU", 4))
      return notes.substr(start, note->n_descsz);
    notes = notes.substr(llvm::alignTo(start + note->n_descsz, alignment));
  }
  return {};
}

static int addBuildId(dl_phdr_info *file, size_t, void *data) {
  Ids &ids = *static_cast<Ids *>(data);
  StringRef id;
  bool ours = false;
  for (const ElfW(Phdr) & segment :
       llvm::ArrayRef(file->dlpi_phdr, file->dlpi_phnum)) {
    const StringRef bytes = bytesOf(*file, segment);
    if (segment.p_type == PT_NOTE && id.empty())
      id = buildIdIn(bytes, std::max<uint64_t>(segment.p_align, 4));
    const auto *code = reinterpret_cast<const char *>(addBuildId);
    ours |= segment.p_type == PT_LOAD && code >= bytes.begin() &&
            code < bytes.end();
  }
  ids.all += id;
  ids.ours |= ours && !id.empty();
  return 0;
}

std::string mlir::llm::loadedBuildIds() {
  Ids ids;
  dl_iterate_phdr(addBuildId, &ids);
  return ids.ours ? ids.all : "";
}
