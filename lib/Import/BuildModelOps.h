//===- BuildModelOps.h - What layers are made of ----------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_BUILDMODELOPS_H
#define LLM_LIB_IMPORT_BUILDMODELOPS_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::llm {

/// Builds the body of one function out of the parts of a transformer.
///
/// Activations are f32 tensors [rows, ...] with a dynamic number of rows; the
/// number is that of the tensor named last in `setRowsOf`.
class ActivationBuilder : public ImplicitLocOpBuilder {
public:
  /// Builds at the end of the entry block of `function`.
  explicit ActivationBuilder(func::FuncOp function);

  /// All locations are names, which errors at run time show.
  void setPlace(StringRef name);

  /// The first dimension of `tensor`.
  Value sizeOf(Value tensor);
  void setRowsOf(Value tensor) { rows = sizeOf(tensor); }

  /// Row `indices[i]` of `table`, [n, columns], as row i.
  Value gatherRows(Value table, Value indices);

  /// x / sqrt(mean(x^2) + epsilon) * weight, over the last dimension.
  Value rmsNorm(Value x, Value weight, double epsilon);

  /// x times the transpose of `weight`, [n, columns of x].
  Value linear(Value x, Value weight);

  /// x with `bias`, [columns of x], added to each row in place.
  Value addToRows(Value x, Value bias);

  /// stream + update, written to the stream's buffer.
  Value addTo(Value stream, Value update);

  /// silu(gate) * up, where each row is gate, then up.
  Value gatedSilu(Value gateUp);

  /// [rows, heads * headDim] of the columns from `offset` on as
  /// [rows, heads, headDim].
  Value heads(Value x, int64_t offset, int64_t heads, int64_t headDim);

  /// [rows, heads, headDim] as [rows, heads * headDim].
  Value joinHeads(Value x);

  /// [rows, shape...]
  RankedTensorType activationType(ArrayRef<int64_t> shape);

private:
  using ScalarBody = function_ref<Value(ValueRange)>;

  Value empty(ArrayRef<int64_t> shape);
  Value zeros(ArrayRef<int64_t> shape);
  Value constant(double value);
  Value columns(Value x, int64_t offset, int64_t size);
  Value inverseRootMeanSquare(Value x, double epsilon);

  /// Loops over [rows, ..., columns] and computes the elements of `init` from
  /// those of `inputs` and its own, which come last. What lacks the columns has
  /// one value for all of them, a vector of static size one per column. Without
  /// columns in `init`, those of the inputs are reduced.
  Value loops(ValueRange inputs, Value init, ScalarBody body);

  Value zeroIndex, zero, rows;
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_BUILDMODELOPS_H
