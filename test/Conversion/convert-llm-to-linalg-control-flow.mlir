// RUN: %llm-opt %s --llm-to-spec | %mlir-runner -e main | FileCheck %s

// Caches and steps through every form of control flow. `add` appends a token to
// the only sequence, and `show` prints what it holds.

!kv = !llm.paged_kv_cache<1x1x1xf32, block_size = 2, max_seq_len = 8, max_sequences = 1>
!one = tensor<1xi32>
!row = tensor<1x1x1xf32>

func.func private @printMemrefF32(tensor<*xf32>) attributes {llvm.emit_c_interface}

func.func private @show(%c: !kv) {
  %k, %v = llm.lookup_kv %c : !kv -> tensor<1x8x1x1xf32>, tensor<1x8x1x1xf32>
  %row = tensor.collapse_shape %k [[0], [1, 2, 3]] : tensor<1x8x1x1xf32> into tensor<1x8xf32>
  %any = tensor.cast %row : tensor<1x8xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  return
}

func.func private @begin(%c: !kv) -> (!kv, !llm.kv_step) {
  %ids = arith.constant dense<0> : !one
  %cu = arith.constant dense<[0, 1]> : tensor<2xi32>
  %c0, %step = llm.begin_step %c, %ids, %cu : !kv, !one, tensor<2xi32> -> !kv
  return %c0, %step : !kv, !llm.kv_step
}

func.func private @append(%c: !kv, %step: !llm.kv_step, %x: f32) -> !kv {
  %k = tensor.from_elements %x : !row
  %c1 = llm.append_kv %c, %k, %k at %step : !kv, !row, !row -> !kv
  return %c1 : !kv
}

func.func private @add(%c: !kv, %x: f32) -> !kv {
  %c0, %step = call @begin(%c) : (!kv) -> (!kv, !llm.kv_step)
  %c1 = call @append(%c0, %step, %x) : (!kv, !llm.kv_step, f32) -> !kv
  return %c1 : !kv
}

func.func private @length(%c: !kv) -> i32 {
  %zero = arith.constant 0 : index
  %ids = arith.constant dense<0> : !one
  %lengths = llm.seq_lens %c, %ids : !kv, !one -> !one
  %length = tensor.extract %lengths[%zero] : !one
  return %length : i32
}

func.func private @loops(%c: !kv, %one: f32, %two: f32) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %full = arith.constant 5 : i32
  // The version of before the loop is still wanted in it.
  %a = scf.for %i = %c0 to %c2 step %c1 iter_args(%x = %c) -> (!kv) {
    %y = func.call @add(%x, %one) : (!kv, f32) -> !kv
    %z = func.call @add(%c, %two) : (!kv, f32) -> !kv
    %first = arith.cmpi eq, %i, %c0 : index
    %w = arith.select %first, %z, %y : !kv
    scf.yield %w : !kv
  }
  %b = scf.while (%x = %a) : (!kv) -> (!kv) {
    %n = func.call @length(%x) : (!kv) -> i32
    %more = arith.cmpi slt, %n, %full : i32
    scf.condition(%more) %x : !kv
  } do {
  ^bb0(%x: !kv):
    %y = func.call @add(%x, %two) : (!kv, f32) -> !kv
    scf.yield %y : !kv
  }
  return %b : !kv
}

func.func private @choices(%c: !kv, %flag: i1, %which: index, %x: f32) -> !kv {
  %a = scf.if %flag -> (!kv) {
    %y = func.call @add(%c, %x) : (!kv, f32) -> !kv
    scf.yield %y : !kv
  } else {
    scf.yield %c : !kv
  }
  %b = scf.index_switch %which -> !kv
  case 0 {
    scf.yield %a : !kv
  }
  case 1 {
    %y = func.call @add(%a, %x) : (!kv, f32) -> !kv
    scf.yield %y : !kv
  }
  default {
    %nothing = ub.poison : !kv
    scf.yield %nothing : !kv
  }
  %d = scf.execute_region -> !kv {
    cf.cond_br %flag, ^yes(%b : !kv), ^no(%b : !kv)
  ^yes(%v: !kv):
    %y = func.call @add(%v, %x) : (!kv, f32) -> !kv
    scf.yield %y : !kv
  ^no(%w: !kv):
    scf.yield %w : !kv
  }
  return %d : !kv
}

// A step chosen by a branch, and one destination with two lists of operands.
func.func private @branches(%c: !kv, %flag: i1, %x: f32, %y: f32) -> !kv {
  cf.cond_br %flag, ^join(%c, %x : !kv, f32), ^join(%c, %y : !kv, f32)
^join(%d: !kv, %z: f32):
  %old, %first = call @begin(%d) : (!kv) -> (!kv, !llm.kv_step)
  %e = call @append(%old, %first, %z) : (!kv, !llm.kv_step, f32) -> !kv
  %f, %second = call @begin(%e) : (!kv) -> (!kv, !llm.kv_step)
  %step = arith.select %flag, %second, %first : !llm.kv_step
  %g = call @append(%f, %step, %x) : (!kv, !llm.kv_step, f32) -> !kv
  return %g : !kv
}

func.func private @recurse(%c: !kv, %depth: index, %x: f32) -> !kv {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %deeper = arith.cmpi ne, %depth, %zero : index
  %r = scf.if %deeper -> (!kv) {
    %y = func.call @add(%c, %x) : (!kv, f32) -> !kv
    %less = arith.subi %depth, %one : index
    %z = func.call @recurse(%y, %less, %x) : (!kv, index, f32) -> !kv
    scf.yield %z : !kv
  } else {
    scf.yield %c : !kv
  }
  return %r : !kv
}

func.func @main() {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c3 = arith.constant 3 : index
  %blocks = arith.constant 8 : index
  %yes = arith.constant true
  %no = arith.constant false
  %one = arith.constant 1.0 : f32
  %two = arith.constant 2.0 : f32
  %three = arith.constant 3.0 : f32
  %empty = llm.create_kv_cache blocks(%blocks) : !kv
  %c = call @add(%empty, %three) : (!kv, f32) -> !kv

  // CHECK: [3, 2, 1, 2, 2, 0, 0, 0]
  %a = call @loops(%c, %one, %two) : (!kv, f32, f32) -> !kv
  call @show(%a) : (!kv) -> ()

  // CHECK: [3, 2, 2, 2, 0, 0, 0, 0]
  // CHECK: [3, 0, 0, 0, 0, 0, 0, 0]
  %b = call @choices(%c, %yes, %c1, %two) : (!kv, i1, index, f32) -> !kv
  call @show(%b) : (!kv) -> ()
  %d = call @choices(%c, %no, %c0, %two) : (!kv, i1, index, f32) -> !kv
  call @show(%d) : (!kv) -> ()

  // CHECK: [3, 1, 1, 0, 0, 0, 0, 0]
  %e = call @branches(%c, %yes, %one, %two) : (!kv, i1, f32, f32) -> !kv
  call @show(%e) : (!kv) -> ()

  // CHECK: [3, 2, 2, 2, 0, 0, 0, 0]
  // CHECK: [3, 0, 0, 0, 0, 0, 0, 0]
  %f = call @recurse(%c, %c3, %two) : (!kv, index, f32) -> !kv
  call @show(%f) : (!kv) -> ()
  call @show(%c) : (!kv) -> ()
  return
}
