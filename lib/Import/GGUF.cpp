//===- GGUF.cpp - The container of llama.cpp's models ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GGUF.h"
#include "TensorLayout.h"

#include "llvm/Support/CheckedArithmetic.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MathExtras.h"

#include <bit>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

namespace {

/// Of metadata, by its number in the file.
enum class ValueType : uint32_t {
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  F32,
  Bool,
  String,
  Array,
  U64,
  I64,
  F64,
};

} // namespace

/// Bytes of one value; at least that many for a string; 0 for no such type.
static size_t smallestSize(ValueType type) {
  static constexpr size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  size_t index = static_cast<size_t>(type);
  return index < std::size(sizes) ? sizes[index] : 0;
}

/// Of tensors, by ggml's number; null for what ggml has no more, or not yet.
static const char *ggmlTypeName(uint32_t type) {
  static constexpr const char *names[] = {
      "f32",   "f16",   "q4_0",    "q4_1",   nullptr,   nullptr, "q5_0",
      "q5_1",  "q8_0",  "q8_1",    "q2_K",   "q3_K",    "q4_K",  "q5_K",
      "q6_K",  "q8_K",  "iq2_xxs", "iq2_xs", "iq3_xxs", "iq1_s", "iq4_nl",
      "iq3_s", "iq2_s", "iq4_xs",  "i8",     "i16",     "i32",   "i64",
      "f64",   "iq1_m", "bf16",    nullptr,  nullptr,   nullptr, "tq1_0",
      "tq2_0", nullptr, nullptr,   nullptr,  "mxfp4",
  };
  return type < std::size(names) ? names[type] : nullptr;
}

static std::optional<llm_file_format> formatOf(uint32_t ggmlType) {
  switch (ggmlType) {
  case 0:
    return LLM_FILE_F32;
  case 1:
    return LLM_FILE_F16;
  case 2:
    return LLM_FILE_Q4_0;
  case 3:
    return LLM_FILE_Q4_1;
  case 6:
    return LLM_FILE_Q5_0;
  case 7:
    return LLM_FILE_Q5_1;
  case 8:
    return LLM_FILE_Q8_0;
  case 12:
    return LLM_FILE_Q4_K;
  case 13:
    return LLM_FILE_Q5_K;
  case 14:
    return LLM_FILE_Q6_K;
  case 30:
    return LLM_FILE_BF16;
  default:
    return std::nullopt;
  }
}

//===----------------------------------------------------------------------===//
// Parser
//===----------------------------------------------------------------------===//

namespace {

/// Reads a header from front to back. After a problem all reads give zeros.
class Parser : public FirstProblem {
public:
  Parser(StringRef path, StringRef file)
      : FirstProblem(path), file(file), rest(file) {}

  Expected<GGUF> parse();

private:
  template <typename T>
  T number();
  StringRef string();
  template <typename T>
  std::vector<T> arrayOf(uint64_t count, ValueType type);

  int64_t integer(ValueType type);
  double real(ValueType type);
  GGUFValue array();
  GGUFValue value(ValueType type);

  uint64_t count(const char *what, size_t smallest);
  void checkMagic();
  void readMetadata(uint64_t entries);
  void readTensor();
  llvm::SmallVector<int64_t, 2> shape(StringRef tensor);
  size_t alignment();
  void placeTensors();

  StringRef file;
  StringRef rest; ///< not yet read
  GGUF result;
  std::vector<uint64_t> offsets; ///< of the tensors, in the data
};

} // namespace

template <typename T>
T Parser::number() {
  if (rest.size() < sizeof(T)) {
    fail("the header ends at byte {0}, in the middle of a field", file.size());
    rest = "";
    return T();
  }
  T value =
      llvm::support::endian::read<T, llvm::endianness::little>(rest.data());
  rest = rest.drop_front(sizeof(T));
  return value;
}

StringRef Parser::string() {
  uint64_t size = number<uint64_t>();
  if (size > rest.size()) {
    fail("a string of {0} bytes ends beyond the file of {1}", size,
         file.size());
    size = rest.size();
  }
  StringRef text = rest.take_front(size);
  rest = rest.drop_front(size);
  return text;
}

/// A number of things, each of which takes `smallest` bytes or more: refused
/// before anything is allocated for them.
uint64_t Parser::count(const char *what, size_t smallest) {
  uint64_t count = number<uint64_t>();
  if (count <= rest.size() / smallest)
    return count;
  fail("{0} {1} cannot be in the {2} bytes left of the header", count, what,
       rest.size());
  return 0;
}

//===----------------------------------------------------------------------===//
// Metadata
//===----------------------------------------------------------------------===//

int64_t Parser::integer(ValueType type) {
  switch (type) {
  case ValueType::U8:
    return number<uint8_t>();
  case ValueType::I8:
    return number<int8_t>();
  case ValueType::U16:
    return number<uint16_t>();
  case ValueType::I16:
    return number<int16_t>();
  case ValueType::U32:
    return number<uint32_t>();
  case ValueType::I32:
    return number<int32_t>();
  case ValueType::Bool:
    return number<uint8_t>() != 0;
  default:
    return number<int64_t>();
  }
}

double Parser::real(ValueType type) {
  if (type == ValueType::F32)
    return std::bit_cast<float>(number<uint32_t>());
  return std::bit_cast<double>(number<uint64_t>());
}

template <typename T>
std::vector<T> Parser::arrayOf(uint64_t count, ValueType type) {
  std::vector<T> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count && !failed(); ++i)
    values.push_back(std::get<T>(value(type)));
  return values;
}

GGUFValue Parser::array() {
  ValueType type = ValueType(number<uint32_t>());
  if (type == ValueType::Array || smallestSize(type) == 0) {
    fail("arrays of metadata type {0} are not supported", uint32_t(type));
    return int64_t(0);
  }
  uint64_t size = count("array elements", smallestSize(type));
  if (type == ValueType::String)
    return arrayOf<StringRef>(size, type);
  if (type == ValueType::F32 || type == ValueType::F64)
    return arrayOf<double>(size, type);
  std::vector<int64_t> values;
  values.reserve(size);
  for (uint64_t i = 0; i < size; ++i)
    values.push_back(integer(type));
  return values;
}

GGUFValue Parser::value(ValueType type) {
  switch (type) {
  case ValueType::String:
    return string();
  case ValueType::Array:
    return array();
  case ValueType::Bool:
    return integer(type) != 0;
  case ValueType::F32:
  case ValueType::F64:
    return real(type);
  case ValueType::U64: {
    uint64_t wide = number<uint64_t>();
    if (wide > INT64_MAX)
      return double(wide);
    return int64_t(wide);
  }
  default:
    if (smallestSize(type) == 0) {
      fail("metadata type {0} is not supported", uint32_t(type));
      return int64_t(0);
    }
    return integer(type);
  }
}

void Parser::readMetadata(uint64_t entries) {
  for (uint64_t i = 0; i < entries && !failed(); ++i) {
    StringRef key = string();
    ValueType type = ValueType(number<uint32_t>());
    if (!result.metadata.try_emplace(key, value(type)).second)
      fail("metadata '{0}' is given twice", key);
  }
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

llvm::SmallVector<int64_t, 2> Parser::shape(StringRef tensor) {
  constexpr uint32_t highestRank = 4;
  uint32_t rank = number<uint32_t>();
  if (rank > highestRank)
    fail("tensor '{0}' has {1} dimensions, more than {2}", tensor, rank,
         highestRank);
  llvm::SmallVector<int64_t, 2> shape(std::min(rank, highestRank));
  for (int64_t &size : llvm::reverse(shape))
    size = number<int64_t>();
  return shape;
}

void Parser::readTensor() {
  TensorInfo tensor{string().str(), LLM_FILE_F32, {}, nullptr, 0};
  tensor.shape = shape(tensor.name);
  uint32_t type = number<uint32_t>();
  offsets.push_back(number<uint64_t>());
  if (std::optional<llm_file_format> format = formatOf(type))
    tensor.format = *format;
  else
    fail(
        "tensor '{0}' has unsupported type {1} ({2}), expected f32, f16, bf16, "
        "q8_0, q4_0, q4_1, q5_0, q5_1, q4_K, q5_K or q6_K",
        tensor.name, ggmlTypeName(type) ? ggmlTypeName(type) : "unknown", type);
  if (auto bytes = tensorBytes(tensor.format, tensor.shape))
    tensor.bytes = *bytes;
  else
    fail("tensor '{0}' cannot have shape {1} in {2}", tensor.name,
         toString(tensor.shape), llm_file_format_name(tensor.format));
  result.tensors.push_back(std::move(tensor));
}

size_t Parser::alignment() {
  GGUFReader reader(result);
  int64_t alignment = reader.integer("general.alignment").value_or(32);
  fail(reader.takeError());
  if (alignment > 0 && alignment <= (1 << 20) && llvm::isPowerOf2_64(alignment))
    return alignment;
  fail("expected a power of two for general.alignment, got {0}", alignment);
  return 1;
}

void Parser::placeTensors() {
  uint64_t align = alignment();
  uint64_t begin = llvm::alignTo(file.size() - rest.size(), align);
  StringRef data = file.drop_front(std::min<uint64_t>(begin, file.size()));
  for (auto [tensor, offset] : llvm::zip_equal(result.tensors, offsets)) {
    if (offset % align != 0)
      fail("tensor '{0}' at {1} is not aligned to {2}", tensor.name, offset,
           align);
    if (offset > data.size() || tensor.bytes > data.size() - offset)
      return fail("tensor '{0}' of {1} bytes at {2} lies outside the {3} bytes "
                  "of data",
                  tensor.name, tensor.bytes, offset, data.size());
    tensor.data = data.data() + offset;
  }
}

//===----------------------------------------------------------------------===//
// The file
//===----------------------------------------------------------------------===//

void Parser::checkMagic() {
  if (!rest.consume_front("GGUF"))
    return fail("neither a GGUF file nor a directory");
  uint32_t version = number<uint32_t>();
  if (version && (version & 0xffff) == 0)
    fail("big-endian GGUF files are not supported");
  else if (version != 2 && version != 3)
    fail("unsupported GGUF version {0}, expected 2 or 3", version);
}

Expected<GGUF> Parser::parse() {
  constexpr size_t smallestTensor = 24, smallestEntry = 13;
  result.path = path();
  checkMagic();
  uint64_t tensors = failed() ? 0 : count("tensors", smallestTensor);
  uint64_t entries = failed() ? 0 : count("metadata entries", smallestEntry);
  readMetadata(entries);
  for (uint64_t i = 0; i < tensors && !failed(); ++i)
    readTensor();
  if (!failed())
    placeTensors();
  if (!failed())
    fail(checkNames(path(), result.tensors));
  if (!failed())
    fail(checkOverlaps(path(), result.tensors));
  if (Error error = takeError())
    return error;
  return std::move(result);
}

Expected<GGUF> mlir::llm::readGGUF(StringRef path, StringRef file) {
  return Parser(path, file).parse();
}
