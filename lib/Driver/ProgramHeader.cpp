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

namespace {

/// Names of the parameters of a function, each of which is another one.
class Parameters {
public:
  std::string add(StringRef name) {
    const std::string wanted = identifierOf(name);
    std::string unique = wanted;
    for (int i = 2; !taken.insert(unique).second; ++i)
      unique = wanted + "_" + std::to_string(i);
    return unique;
  }

private:
  // What the function uses itself, and what is no name in C or in C++.
  llvm::StringSet<> taken = {
      "model",     "error",    "caches",    "inputs",   "outputs",  "code",
      "auto",      "bool",     "break",     "case",     "char",     "class",
      "const",     "continue", "default",   "delete",   "do",       "double",
      "else",      "enum",     "export",    "extern",   "false",    "float",
      "for",       "friend",   "goto",      "if",       "inline",   "int",
      "long",      "mutable",  "namespace", "new",      "operator", "private",
      "protected", "public",   "register",  "restrict", "return",   "short",
      "signed",    "sizeof",   "static",    "struct",   "switch",   "template",
      "this",      "throw",    "true",      "try",      "typedef",  "typename",
      "union",     "unsigned", "using",     "virtual",  "void",     "volatile",
      "while"};
};

} // namespace

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
  EntryWriter(llvm::raw_ostream &os, StringRef program, ArrayAttr caches,
              DictionaryAttr entry)
      : os(os), program(program), entry(entry) {
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
    os << formatv("static inline llm_code {0}_{1}(llm_model *model",
                  identifierOf(program), identifierOf(name));
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
    os << "\n/* The entry \"" << name << "\" as one transaction.\n";
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
                  name, caches, inputs, outputs);
    if (numFresh == 0)
      return;
    for (auto [i, cache] : llvm::enumerate(cacheNames))
      if (isFresh(i))
        os << formatv("  if (code == LLM_OK)\n    *{0} = caches[{1}];\n", cache,
                      i);
    os << "  return code;\n";
  }

  llvm::raw_ostream &os;
  StringRef program;
  DictionaryAttr entry;
  int64_t numFresh;
  Parameters parameters;
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
                name, guard, identifier);
  auto caches = program.getAs<ArrayAttr>("caches");
  for (auto entry :
       program.getAs<ArrayAttr>("entries").getAsRange<DictionaryAttr>())
    EntryWriter(os, name, caches, entry).write();
  os << formatv("\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* {0} */\n", guard);
  return text;
}
