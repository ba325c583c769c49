//===- EmitProgram.cpp - The module as a program for the host ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Constants.h"
#include "llm/Transforms/Passes.h"
#include "llm/Transforms/RuntimeCall.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/TargetParser/Host.h"

namespace mlir::llm {
#define GEN_PASS_DEF_EMITPROGRAM
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

static constexpr int32_t kABIVersion = 8; // LLM_ABI_VERSION
static constexpr int32_t kMaxRank = 6;    // LLM_MAX_RANK

//===----------------------------------------------------------------------===//
// Sites
//===----------------------------------------------------------------------===//

/// {op, file, line, column} of llm_site: the first file position, or the first
/// name, that a location holds.
static CData describeSite(StringRef op, Location loc) {
  std::string file;
  int32_t line = 0, column = 0;
  loc->walk([&](Location inner) {
    if (auto position = dyn_cast<FileLineColLoc>(inner)) {
      file = position.getFilename().str();
      line = position.getLine();
      column = position.getColumn();
      return WalkResult::interrupt();
    }
    if (auto name = dyn_cast<NameLoc>(inner)) {
      file = name.getName().str();
      return WalkResult::interrupt();
    }
    return WalkResult::advance();
  });
  return CData::structure({CData::string(op),
                           file.empty() ? CData::null() : CData::string(file),
                           CData::i32(line), CData::i32(column)});
}

/// Numbers the runtime calls; equal ops at equal places share a number.
static std::vector<CData> numberSites(ModuleOp module) {
  std::vector<CData> sites;
  llvm::DenseMap<std::pair<StringAttr, Location>, int32_t> numbers;
  module.walk([&](LLVM::CallOp call) {
    auto op = call->getAttrOfType<StringAttr>(kOpAttr);
    if (!op)
      return;
    auto [entry, isNew] =
        numbers.try_emplace({op, call.getLoc()}, int32_t(sites.size()));
    if (isNew)
      sites.push_back(describeSite(op, call.getLoc()));
    OpBuilder b(call);
    call.setOperand(
        1, LLVM::ConstantOp::create(b, call.getLoc(), b.getI32Type(),
                                    b.getI32IntegerAttr(entry->second)));
    call->removeAttr(kOpAttr);
  });
  return sites;
}

//===----------------------------------------------------------------------===//
// Weights, groups, entries
//===----------------------------------------------------------------------===//

/// llm_weight_desc of {#llm.weight, type}.
static CData describeWeight(ArrayAttr entry) {
  auto weight = cast<WeightAttr>(entry[0]);
  auto type = cast<RankedTensorType>(cast<TypeAttr>(entry[1]).getValue());
  std::vector<CData> names;
  for (StringAttr name : weight.getNames())
    names.push_back(CData::string(name.getValue()));
  PackedLayout layout = weight.getLayout(type);
  int64_t rows = layout == PackedLayout::Plain ? type.getDimSize(0)
                                               : weight.getPanelRows();
  int64_t columns = type.getRank() > 1 ? type.getDimSize(1) : 0;
  if (layout == PackedLayout::Tiles32 || layout == PackedLayout::Blocks32)
    columns *= kTileDepth;
  bool inBlocks = layout == PackedLayout::Blocks32;
  int32_t format = inBlocks ? int32_t(*weight.getFormat()) : 0;
  int32_t numNames = names.size();
  return CData::structure(
      {CData::pointerTo(CData::array(std::move(names))), CData::i32(numNames),
       CData::i32(int32_t(weight.getAxis())),
       CData::i32(getDTypeNumber(type.getElementType())),
       CData::i32(int32_t(layout)), CData::i32(type.getRank() > 1 ? 2 : 1),
       CData::i32(format),
       CData::array({CData::i64(rows), CData::i64(columns)})});
}

/// llm_kv_group_desc of {name, type, #llm.kv_cache_config}.
static CData describeGroup(ArrayAttr entry) {
  return describeCacheType(
      cast<StringAttr>(entry[0]).getValue(),
      cast<PagedKVCacheType>(cast<TypeAttr>(entry[1]).getValue()),
      cast<KVCacheConfigAttr>(entry[2]));
}

/// An array of llm_value_desc's fixed length.
template <typename FnT>
static CData describeDims(FnT describe) {
  std::vector<CData> dims;
  for (int32_t i = 0; i < kMaxRank; ++i)
    dims.push_back(describe(i));
  return CData::array(std::move(dims));
}

/// llm_value_desc, see ValueDescriber in ExportEntry.cpp.
static CData describeValue(DictionaryAttr value) {
  auto type = cast<RankedTensorType>(value.getAs<TypeAttr>("type").getValue());
  ArrayRef<int32_t> symbols = value.getAs<DenseI32ArrayAttr>("symbols");
  ArrayRef<int32_t> adds = value.getAs<DenseI32ArrayAttr>("adds");
  auto within = [&](int32_t i) { return i < type.getRank(); };
  return CData::structure(
      {CData::string(value.getAs<StringAttr>("name").getValue()),
       CData::i32(getDTypeNumber(type.getElementType())),
       CData::i32(int32_t(type.getRank())), describeDims([&](int32_t i) {
         bool isStatic = within(i) && !type.isDynamicDim(i);
         return CData::i64(isStatic ? type.getDimSize(i) : -1);
       }),
       describeDims(
           [&](int32_t i) { return CData::i32(within(i) ? symbols[i] : -1); }),
       describeDims(
           [&](int32_t i) { return CData::i32(within(i) ? adds[i] : 0); }),
       CData::i64(value.getAs<IntegerAttr>("below").getInt()),
       CData::i32(int32_t(value.getAs<IntegerAttr>("below_symbol").getInt())),
       CData::i32(0)});
}

static CData describeValues(ArrayAttr values) {
  std::vector<CData> result;
  for (auto value : values.getAsRange<DictionaryAttr>())
    result.push_back(describeValue(value));
  return CData::pointerTo(CData::array(std::move(result)));
}

/// llm_entry_desc of a function with `llm.entry`.
static CData describeEntry(LLVM::LLVMFuncOp function, DictionaryAttr entry) {
  auto inputs = entry.getAs<ArrayAttr>("inputs");
  auto outputs = entry.getAs<ArrayAttr>("outputs");
  ArrayRef<int32_t> groups = entry.getAs<DenseI32ArrayAttr>("caches");
  std::vector<CData> groupNumbers;
  for (int32_t group : groups)
    groupNumbers.push_back(CData::i32(group));
  return CData::structure(
      {CData::string(function.getName()), CData::symbol(function.getName()),
       describeValues(inputs), describeValues(outputs),
       CData::pointerTo(CData::array(std::move(groupNumbers))),
       CData::i32(int32_t(inputs.size())), CData::i32(int32_t(outputs.size())),
       CData::i32(int32_t(groups.size())),
       CData::i32(int32_t(entry.getAs<IntegerAttr>("symbols").getInt())),
       CData::i32(int32_t(entry.getAs<IntegerAttr>("fresh").getInt())),
       CData::i32(0)});
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {
struct EmitProgram : llm::impl::EmitProgramBase<EmitProgram> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    module->setAttr("llm.program", describeForHeader(module));
    std::vector<CData> sites = numberSites(module);
    std::vector<CData> entries = describeEntries(module);
    hideFunctions(module);
    ConstantEmitter constants(module);
    StringAttr program = constants.emit(
        describeProgram(module, std::move(entries), std::move(sites)),
        "llm_program");
    emitGetter(module, program);
    module->removeAttr("llm.weights");
    module->removeAttr("llm.groups");
  }

private:
  std::string getProgramName(ModuleOp module) {
    if (!programName.empty())
      return programName;
    return module.getSymName() ? module.getSymName()->str() : "model";
  }

  /// Name, caches and entries, as attributes.
  DictionaryAttr describeForHeader(ModuleOp module) {
    Builder b(&getContext());
    SmallVector<Attribute> caches, entries;
    if (auto groups = module->getAttrOfType<ArrayAttr>("llm.groups"))
      for (auto group : groups.getAsRange<ArrayAttr>())
        caches.push_back(group[0]);
    for (auto function : module.getOps<LLVM::LLVMFuncOp>())
      if (auto entry = function->getAttrOfType<DictionaryAttr>("llm.entry")) {
        NamedAttrList named(entry);
        named.set("name", b.getStringAttr(function.getName()));
        entries.push_back(named.getDictionary(&getContext()));
      }
    return b.getDictionaryAttr(
        {b.getNamedAttr("name", b.getStringAttr(getProgramName(module))),
         b.getNamedAttr("caches", b.getArrayAttr(caches)),
         b.getNamedAttr("entries", b.getArrayAttr(entries))});
  }

  std::vector<CData> describeEntries(ModuleOp module) {
    std::vector<CData> entries;
    for (auto function : module.getOps<LLVM::LLVMFuncOp>())
      if (auto entry = function->getAttrOfType<DictionaryAttr>("llm.entry")) {
        entries.push_back(describeEntry(function, entry));
        function->removeAttr("llm.entry");
      }
    return entries;
  }

  void hideFunctions(ModuleOp module) {
    for (auto function : module.getOps<LLVM::LLVMFuncOp>())
      if (!function.isExternal())
        function.setLinkage(LLVM::Linkage::Internal);
  }

  template <typename DescribeT>
  static std::vector<CData> describeTable(ModuleOp module, StringRef name,
                                          DescribeT describe) {
    std::vector<CData> table;
    if (auto entries = module->getAttrOfType<ArrayAttr>(name))
      for (auto entry : entries.getAsRange<ArrayAttr>())
        table.push_back(describe(entry));
    return table;
  }

  CData describeProgram(ModuleOp module, std::vector<CData> entries,
                        std::vector<CData> sites) {
    auto metadata =
        module->getAttrOfType<StringAttr>(LLMDialect::kMetadataAttr);
    std::string target =
        triple.empty() ? ::llvm::sys::getDefaultTargetTriple() : triple;
    std::vector<CData> weights =
        describeTable(module, "llm.weights", describeWeight);
    std::vector<CData> groups =
        describeTable(module, "llm.groups", describeGroup);
    std::vector<CData> *tables[] = {&groups, &weights, &entries, &sites};
    constexpr int32_t kProgramBytes = 2 * 4 + 9 * 8 + 4 * 4;
    std::vector<CData> fields = {
        CData::i32(kProgramBytes),
        CData::i32(kABIVersion),
        CData::string(getProgramName(module)),
        CData::string(target),
        CData::string(cpu),
        CData::string(cpuFeatures),
        CData::string(metadata ? metadata.getValue() : "{}")};
    std::vector<CData> counts;
    for (std::vector<CData> *table : tables) {
      counts.push_back(CData::i32(int32_t(table->size())));
      fields.push_back(CData::pointerTo(CData::array(std::move(*table))));
    }
    fields.insert(fields.end(), counts.begin(), counts.end());
    return CData::structure(std::move(fields));
  }

  /// const llm_program *NAME_program(void)
  void emitGetter(ModuleOp module, StringAttr program) {
    std::string name = getProgramName(module);
    for (char &c : name)
      if (!::llvm::isAlnum(c))
        c = '_';
    OpBuilder b = OpBuilder::atBlockEnd(module.getBody());
    Location loc = b.getUnknownLoc();
    Type pointer = LLVM::LLVMPointerType::get(&getContext());
    auto getter = LLVM::LLVMFuncOp::create(
        b, loc, name + "_program", LLVM::LLVMFunctionType::get(pointer, {}));
    b.setInsertionPointToStart(getter.addEntryBlock(b));
    LLVM::ReturnOp::create(b, loc,
                           ConstantEmitter::getAddress(b, loc, program));
  }
};
} // namespace
