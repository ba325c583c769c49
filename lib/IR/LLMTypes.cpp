//===- LLMTypes.cpp - Types of the llm dialect ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/IR/LLM.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::llm;

#define GET_TYPEDEF_CLASSES
#include "llm/IR/LLMTypes.cpp.inc"

void LLMDialect::registerTypes() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "llm/IR/LLMTypes.cpp.inc"
      >();
}

//===----------------------------------------------------------------------===//
// PagedKVCacheType
//===----------------------------------------------------------------------===//

bool PagedKVCacheType::isFullyStatic() const {
  return !isBare() &&
         llvm::none_of(ArrayRef<int64_t>{getLayers(), getKvHeads(),
                                         getHeadDim(), getBlockSize(),
                                         getMaxSeqLen(), getMaxSequences()},
                       ShapedType::isDynamic);
}

Type PagedKVCacheType::getKFormat() const {
  return getStorage() ? getStorage().getK() : Type();
}

Type PagedKVCacheType::getVFormat() const {
  return getStorage() ? getStorage().getV() : Type();
}

bool PagedKVCacheType::canHaveBlocksOf(KVStorageAttr storage, int64_t size) {
  const bool groups = storage && storage.getK() && storage.getK().isInteger(4);
  return !groups || ShapedType::isDynamic(size) || size % 32 == 0;
}

bool PagedKVCacheType::isCompatibleWith(PagedKVCacheType other) const {
  auto agree = [](int64_t a, int64_t b) {
    return a == b || ShapedType::isDynamic(a) || ShapedType::isDynamic(b);
  };
  if (isBare() || other.isBare())
    return true;
  return getElementType() == other.getElementType() &&
         agree(getLayers(), other.getLayers()) &&
         agree(getKvHeads(), other.getKvHeads()) &&
         agree(getHeadDim(), other.getHeadDim()) &&
         agree(getBlockSize(), other.getBlockSize()) &&
         agree(getMaxSeqLen(), other.getMaxSeqLen()) &&
         agree(getMaxSequences(), other.getMaxSequences()) &&
         getWindow() == other.getWindow() && getSinks() == other.getSinks() &&
         getStorage() == other.getStorage();
}

LogicalResult
PagedKVCacheType::verify(function_ref<InFlightDiagnostic()> emitError,
                         int64_t layers, int64_t kvHeads, int64_t headDim,
                         Type elementType, int64_t blockSize, int64_t maxSeqLen,
                         int64_t maxSequences, int64_t window, int64_t sinks,
                         KVStorageAttr storage) {
  std::pair<StringRef, int64_t> parameters[] = {
      {"layers", layers},         {"kv_heads", kvHeads},
      {"head_dim", headDim},      {"block_size", blockSize},
      {"max_seq_len", maxSeqLen}, {"max_sequences", maxSequences}};
  for (auto [name, value] : parameters)
    if (!ShapedType::isDynamic(value) &&
        (value < 1 || value > std::numeric_limits<int32_t>::max()))
      return emitError() << "expected " << name
                         << " to be between 1 and 2147483647, got " << value;
  if (window < 0 || window > std::numeric_limits<int32_t>::max())
    return emitError() << "expected window to be between 1 and 2147483647, got "
                       << window;
  if (sinks < 0 || sinks > std::numeric_limits<int32_t>::max())
    return emitError() << "expected sinks to be between 1 and 2147483647, got "
                       << sinks;
  if (sinks && !window)
    return emitError() << "expected a window beside sinks = " << sinks;
  if (elementType && !isa<Float32Type, Float16Type, BFloat16Type>(elementType))
    return emitError() << "expected element type f32, f16 or bf16, got "
                       << elementType;
  if (!canHaveBlocksOf(storage, blockSize))
    return emitError() << "expected block_size to be a multiple of 32 where K "
                          "is stored as i4, got "
                       << blockSize;
  return success();
}

namespace {
/// The parameters between `<` and `>`, shared by value and handle.
struct CacheParameters {
  SmallVector<int64_t> shape;
  Type elementType;
  int64_t blockSize = ShapedType::kDynamic;
  int64_t maxSeqLen = ShapedType::kDynamic;
  int64_t maxSequences = ShapedType::kDynamic;
  int64_t window = 0;
  int64_t sinks = 0;
  KVStorageAttr storage;

  int64_t *find(StringRef name) {
    return llvm::StringSwitch<int64_t *>(name)
        .Case("block_size", &blockSize)
        .Case("max_seq_len", &maxSeqLen)
        .Case("max_sequences", &maxSequences)
        .Case("window", &window)
        .Case("sinks", &sinks)
        .Default(nullptr);
  }
};
} // namespace

static ParseResult parseNumber(AsmParser &parser, StringRef name,
                               int64_t &value) {
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseInteger(value))
    return failure();
  if (value < 1)
    return parser.emitError(loc)
           << "expected " << name << " to be at least 1, got " << value;
  return success();
}

static ParseResult parseNamedParameter(AsmParser &parser,
                                       CacheParameters &parameters,
                                       SmallVectorImpl<StringRef> &seen) {
  SMLoc loc = parser.getCurrentLocation();
  StringRef name;
  if (parser.parseKeyword(&name))
    return failure();
  int64_t *number = parameters.find(name);
  if (!number && name != "storage")
    return parser.emitError(loc)
           << "unknown parameter '" << name
           << "', expected block_size, max_seq_len, max_sequences, window, "
              "sinks or storage";
  if (llvm::is_contained(seen, name))
    return parser.emitError(loc) << "parameter '" << name << "' given twice";
  seen.push_back(name);
  if (parser.parseEqual())
    return failure();
  return number ? parseNumber(parser, name, *number)
                : parser.parseAttribute(parameters.storage);
}

static PagedKVCacheType parseCacheBody(AsmParser &parser) {
  SMLoc loc = parser.getCurrentLocation();
  MLIRContext *context = parser.getContext();
  if (failed(parser.parseOptionalLess()))
    return PagedKVCacheType::get(context);
  CacheParameters parameters;
  SmallVector<StringRef> seen;
  if (parser.parseDimensionList(parameters.shape))
    return {};
  if (parameters.shape.size() != 3) {
    parser.emitError(loc)
        << "expected layers x kv_heads x head_dim x element type, got "
        << parameters.shape.size() << " dimensions";
    return {};
  }
  if (parser.parseType(parameters.elementType))
    return {};
  while (succeeded(parser.parseOptionalComma()))
    if (parseNamedParameter(parser, parameters, seen))
      return {};
  if (parser.parseGreater())
    return {};
  return PagedKVCacheType::getChecked(
      [&] { return parser.emitError(loc); }, context, parameters.shape[0],
      parameters.shape[1], parameters.shape[2], parameters.elementType,
      parameters.blockSize, parameters.maxSeqLen, parameters.maxSequences,
      parameters.window, parameters.sinks, parameters.storage);
}

static void printCacheBody(AsmPrinter &printer, PagedKVCacheType type) {
  if (type.isBare())
    return;
  printer << '<';
  printer.printDimensionList(
      {type.getLayers(), type.getKvHeads(), type.getHeadDim()});
  printer << 'x' << type.getElementType();
  auto print = [&](StringRef name, int64_t value, int64_t absent) {
    if (value != absent)
      printer << ", " << name << " = " << value;
  };
  print("block_size", type.getBlockSize(), ShapedType::kDynamic);
  print("max_seq_len", type.getMaxSeqLen(), ShapedType::kDynamic);
  print("max_sequences", type.getMaxSequences(), ShapedType::kDynamic);
  print("window", type.getWindow(), 0);
  print("sinks", type.getSinks(), 0);
  if (type.getStorage())
    printer << ", storage = " << type.getStorage();
  printer << '>';
}

Type PagedKVCacheType::parse(AsmParser &parser) {
  return parseCacheBody(parser);
}

void PagedKVCacheType::print(AsmPrinter &printer) const {
  printCacheBody(printer, *this);
}

//===----------------------------------------------------------------------===//
// KVHandleType
//===----------------------------------------------------------------------===//

Type KVHandleType::parse(AsmParser &parser) {
  PagedKVCacheType cache = parseCacheBody(parser);
  return cache ? KVHandleType::get(cache) : KVHandleType();
}

void KVHandleType::print(AsmPrinter &printer) const {
  printCacheBody(printer, getCache());
}
