//===- ProgramHeader.cpp - C headers of compiled models -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/ProgramHeader.h"

#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using llvm::formatv;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

static std::string identifierOf(StringRef name) {
  std::string result = name.str();
  for (char &c : result)
    if (!llvm::isAlnum(c))
      c = '_';
  if (result.empty() || llvm::isDigit(result.front()))
    result.insert(0, "_");
  return result;
}

/// What the functions use themselves.
static constexpr StringRef kUsed =
    "model error caches inputs outputs code llm_code llm_error llm_kv_cache "
    "llm_model llm_model_invoke llm_program llm_tensor LLM_OK NULL";

/// What is no name in C or in C++.
static constexpr StringRef kKeywords =
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch "
    "char char16_t char32_t char8_t class co_await co_return co_yield compl "
    "concept const const_cast consteval constexpr constinit continue "
    "decltype default delete do double dynamic_cast else enum explicit "
    "export extern false float for friend goto if inline int long mutable "
    "namespace new noexcept not not_eq nullptr operator or or_eq private "
    "protected public register reinterpret_cast requires restrict return "
    "short signed sizeof static static_assert static_cast struct switch "
    "template this thread_local throw true try typedef typeid typename "
    "typeof typeof_unqual union unsigned using virtual void volatile "
    "wchar_t while xor xor_eq";

namespace {

/// Names of functions or of the parameters of one, each another identifier.
class Names {
public:
  Names() {
    for (StringRef words : {kUsed, kKeywords})
      for (StringRef word : llvm::split(words, ' '))
        taken.insert(word);
  }

  std::string add(StringRef name) {
    const std::string wanted = identifierOf(name);
    std::string unique = wanted;
    for (int i = 2; !taken.insert(unique).second; ++i)
      unique = wanted + "_" + std::to_string(i);
    return unique;
  }

private:
  llvm::StringSet<> taken;
};

} // namespace

/// The name as text of a string literal.
static std::string literalOf(StringRef name) {
  std::string text;
  llvm::raw_string_ostream(text).write_escaped(name);
  return text;
}

/// The name as text of a comment, which it does not end.
static std::string commentOf(StringRef name) {
  std::string text = literalOf(name);
  llvm::replace(text, '*', '?');
  return text;
}

//===----------------------------------------------------------------------===//
// Entries
//===----------------------------------------------------------------------===//

/// "f32 [n0, 64]", with a letter and a number for each symbol.
static std::string describeType(DictionaryAttr value) {
  auto type = cast<RankedTensorType>(value.getAs<TypeAttr>("type").getValue());
  ArrayRef<int32_t> symbols = value.getAs<DenseI32ArrayAttr>("symbols");
  ArrayRef<int32_t> adds = value.getAs<DenseI32ArrayAttr>("adds");
  std::string sizes;
  llvm::raw_string_ostream os(sizes);
  type.getElementType().print(os);
  os << " [";
  llvm::interleaveComma(llvm::seq<int64_t>(type.getRank()), os, [&](int64_t i) {
    if (!type.isDynamicDim(i))
      os << type.getDimSize(i);
    else if (symbols[i] < 0)
      os << "any";
    else if (adds[i] == 0)
      os << "n" << symbols[i];
    else
      os << "n" << symbols[i] << (adds[i] < 0 ? " - " : " + ")
         << std::abs(adds[i]);
  });
  os << "]";
  return sizes;
}

namespace {

/// The function that calls an entry.
class EntryWriter {
public:
  EntryWriter(llvm::raw_ostream &os, std::string function, ArrayAttr caches,
              DictionaryAttr entry)
      : os(os), function(std::move(function)), entry(entry) {
    ArrayRef<int32_t> groups = entry.getAs<DenseI32ArrayAttr>("caches");
    numFresh = entry.getAs<IntegerAttr>("fresh").getInt();
    for (int32_t group : groups)
      cacheNames.push_back(
          parameters.add(cast<StringAttr>(caches[group]).getValue()));
    inputNames = nameAll("inputs");
    outputNames = nameAll("outputs");
  }

  void write() {
    const StringRef name = entry.getAs<StringAttr>("name").getValue();
    writeComment(name);
    os << "static inline llm_code " << function << "(llm_model *model";
    for (auto [i, cache] : llvm::enumerate(cacheNames))
      os << ",\n    llm_kv_cache *" << (isFresh(i) ? "*" : "") << cache;
    for (const std::string &value :
         llvm::concat<std::string>(inputNames, outputNames))
      os << ",\n    const llm_tensor *" << value;
    os << ",\n    llm_error *error) {\n";
    writeBody(name);
    os << "}\n";
  }

private:
  bool isFresh(size_t cache) const {
    return int64_t(cache) >= int64_t(cacheNames.size()) - numFresh;
  }

  std::vector<std::string> nameAll(StringRef list) {
    std::vector<std::string> names;
    for (auto value : entry.getAs<ArrayAttr>(list).getAsRange<DictionaryAttr>())
      names.push_back(
          parameters.add(value.getAs<StringAttr>("name").getValue()));
    return names;
  }

  void writeComment(StringRef name) {
    os << "\n/* The entry \"" << commentOf(name) << "\" as one transaction.\n";
    auto describe = [&](StringRef list, ArrayRef<std::string> names) {
      auto values = entry.getAs<ArrayAttr>(list).getAsRange<DictionaryAttr>();
      for (auto [value, parameter] : llvm::zip_equal(values, names))
        os << " *   " << parameter << ": " << describeType(value)
           << (list == "outputs" ? ", written" : "") << "\n";
    };
    for (auto [i, cache] : llvm::enumerate(cacheNames))
      os << " *   " << cache
         << (isFresh(i) ? ": a new cache, which the caller destroys\n"
                        : ": a cache of its group\n");
    describe("inputs", inputNames);
    describe("outputs", outputNames);
    os << " */\n";
  }

  /// An array of what the parameters point to, no element of which is null.
  std::string writeArray(StringRef type, StringRef array,
                         ArrayRef<std::string> names, StringRef prefix) {
    if (names.empty())
      return "NULL, 0";
    os << "  " << type << array << "[" << names.size() << "];\n";
    for (auto [i, name] : llvm::enumerate(names))
      os << "  " << array << "[" << i << "] = "
         << (array == "caches" && isFresh(i) ? "NULL" : (prefix + name).str())
         << ";\n";
    return (array + ", " + llvm::Twine(names.size())).str();
  }

  void writeBody(StringRef name) {
    if (numFresh > 0)
      os << "  llm_code code;\n";
    const std::string caches =
        writeArray("llm_kv_cache *", "caches", cacheNames, "");
    const std::string inputs =
        writeArray("llm_tensor ", "inputs", inputNames, "*");
    const std::string outputs =
        writeArray("llm_tensor ", "outputs", outputNames, "*");
    os << (numFresh > 0 ? "  code = " : "  return ")
       << formatv("llm_model_invoke(model, \"{0}\", {1},\n      {2}, {3}, "
                  "error);\n",
                  literalOf(name), caches, inputs, outputs);
    if (numFresh == 0)
      return;
    for (auto [i, cache] : llvm::enumerate(cacheNames))
      if (isFresh(i))
        os << formatv("  if (code == LLM_OK)\n    *{0} = caches[{1}];\n", cache,
                      i);
    os << "  return code;\n";
  }

  llvm::raw_ostream &os;
  std::string function;
  DictionaryAttr entry;
  int64_t numFresh;
  Names parameters;
  std::vector<std::string> cacheNames, inputNames, outputNames;
};

} // namespace

//===----------------------------------------------------------------------===//
// The header
//===----------------------------------------------------------------------===//

std::string mlir::llm::headerOf(DictionaryAttr program) {
  const StringRef name = program.getAs<StringAttr>("name").getValue();
  const std::string identifier = identifierOf(name);
  const std::string guard = StringRef(identifier).upper() + "_PROGRAM_H";
  std::string text;
  llvm::raw_string_ostream os(text);
  os << formatv("/* The model {0}, made by llm-compile. Link it and "
                "libllm_runtime. */\n\n"
                "#ifndef {1}\n#define {1}\n\n"
                "#include \"llm/Runtime/CAPI.h\"\n\n#include <stddef.h>\n\n"
                "#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n"
                "/* What llm_model_create takes. */\n"
                "const llm_program *{2}_program(void);\n",
                commentOf(name), guard, identifier);
  Names functions;
  functions.add(identifier + "_program");
  auto caches = program.getAs<ArrayAttr>("caches");
  for (auto entry :
       program.getAs<ArrayAttr>("entries").getAsRange<DictionaryAttr>()) {
    const StringRef entryName = entry.getAs<StringAttr>("name").getValue();
    EntryWriter(os, functions.add((identifier + "_" + entryName).str()), caches,
                entry)
        .write();
  }
  os << formatv("\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* {0} */\n", guard);
  return text;
}
