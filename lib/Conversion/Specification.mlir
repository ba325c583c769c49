// The specification: what every op of the llm dialect means, over plain tensors
// and in upstream dialects. `convert-llm-to-linalg` turns an op into a call of
// the function that is named like it; the runtime must agree with these lines.
// This part is about what changes a version, SpecificationReads.mlir about what
// is read of one.
//
// A version of a cache is
//
//   K, V      [L, S, C, H, D]  f32, what the storage reads as: rounded to the
//                              cache's element type, or quantized; zero where
//                              nothing was written
//   cur       [L, S]           tokens that a layer holds of a sequence
//   next      [S]              position that the next step's first token gets
//   pos       [L, S, C]        position of each slot
//   appended  [L]              number of the step that last appended; 0: none
//   members   [S]              number of the step that the sequence takes part
//                              in and was not cut or forked onto in; 0: none
//   running                    number of the running step; 0: none
//   dtype                      0: f32, 1: f16, 2: bf16
//   k_storage, v_storage       0: dtype, 1: f8E4M3FN, 2: i8, 3: i4
//   block_size                 tokens of one block
//   window, sinks              0: none
//
// with max_sequences S and max_seq_len C. Inside a step `next` counts the tokens
// that the step will append. Blocks exist as numbers only: sequence s owns
// s * MB .. s * MB + MB - 1, where MB = ceil(C / block_size). A step is
//
//   ids, cu_seqlens, starts    as given, and the length of each id at its begin
//   number, layers, layer      layers of its cache; layer -1: none chosen
//
// A precondition that does not hold is a `cf.assert`, whose text begins with the
// name of the runtime's status code. How many blocks a pool has is not part of
// the meaning.

!kv = tensor<?x?x?x?x?xf32>
!len = tensor<?x?xi32>
!pos = tensor<?x?x?xi32>
!steps = tensor<?xi64>
!ids = tensor<?xi32>
!rows = tensor<?x?x?xf32>
!angles = tensor<?x?xf32>
!dense = tensor<?x?x?x?xf32>
!table = tensor<?x?xi32>

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

func.func private @llm_spec.no_content(
    %L: index, %S: index, %C: index, %H: index, %D: index) -> !kv {
  %zero = arith.constant 0.0 : f32
  %content = tensor.splat %zero[%L, %S, %C, %H, %D] : !kv
  return %content : !kv
}

// K and V by two calls, which no pass makes one: where an op writes both, One-
// Shot Bufferize does not see that they might be one buffer.
func.func private @llm_spec.create_kv_cache(
    %L: index, %S: index, %C: index, %H: index, %D: index)
    -> (!kv, !kv, !len, !ids, !pos, !steps, !steps) {
  %zero_i32 = arith.constant 0 : i32
  %zero_i64 = arith.constant 0 : i64
  %k = func.call @llm_spec.no_content(%L, %S, %C, %H, %D)
      : (index, index, index, index, index) -> !kv
  %v = func.call @llm_spec.no_content(%L, %S, %C, %H, %D)
      : (index, index, index, index, index) -> !kv
  %cur = tensor.splat %zero_i32[%L, %S] : !len
  %next = tensor.splat %zero_i32[%S] : !ids
  %pos = tensor.splat %zero_i32[%L, %S, %C] : !pos
  %appended = tensor.splat %zero_i64[%L] : !steps
  %members = tensor.splat %zero_i64[%S] : !steps
  return %k, %v, %cur, %next, %pos, %appended, %members
      : !kv, !kv, !len, !ids, !pos, !steps, !steps
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

// The length of a sequence: that of the layer which is furthest.
func.func private @llm_spec.length(%cur: !len, %id: i32) -> i32 {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %L = tensor.dim %cur, %c0 : !len
  %s = arith.index_cast %id : i32 to index
  %length = scf.for %l = %c0 to %L step %c1 iter_args(%longest = %zero) -> (i32) {
    %held = tensor.extract %cur[%l, %s] : !len
    %longer = arith.maxsi %longest, %held : i32
    scf.yield %longer : i32
  }
  return %length : i32
}

func.func private @llm_spec.check_sequences(%ids: !ids, %S: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %B = tensor.dim %ids, %c0 : !ids
  scf.for %i = %c0 to %B step %c1 {
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %known = arith.cmpi ult, %s, %S : index // a negative one is a large one
    cf.assert %known, "invalid argument: expected a sequence id below max_sequences"
  }
  return
}

func.func private @llm_spec.check_distinct(%ids: !ids, %S: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %B = tensor.dim %ids, %c0 : !ids
  func.call @llm_spec.check_sequences(%ids, %S) : (!ids, index) -> ()
  scf.for %i = %c0 to %B step %c1 {
    %id = tensor.extract %ids[%i] : !ids
    scf.for %j = %c0 to %i step %c1 {
      %other = tensor.extract %ids[%j] : !ids
      %distinct = arith.cmpi ne, %id, %other : i32
      cf.assert %distinct, "invalid argument: expected a sequence once"
    }
  }
  return
}

func.func private @llm_spec.check_size(%actual: index, %expected: index) {
  %equal = arith.cmpi eq, %actual, %expected : index
  cf.assert %equal, "invalid argument: expected a dimension of another size"
  return
}

func.func private @llm_spec.seq_lens(%cur: !len, %ids: !ids) -> !ids {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %S = tensor.dim %cur, %c1 : !len
  %B = tensor.dim %ids, %c0 : !ids
  func.call @llm_spec.check_sequences(%ids, %S) : (!ids, index) -> ()
  %none = tensor.splat %zero[%B] : !ids
  %lengths = scf.for %i = %c0 to %B step %c1 iter_args(%some = %none) -> (!ids) {
    %id = tensor.extract %ids[%i] : !ids
    %length = func.call @llm_spec.length(%cur, %id) : (!len, i32) -> i32
    %more = tensor.insert %length into %some[%i] : !ids
    scf.yield %more : !ids
  }
  return %lengths : !ids
}

// Layers hold at most `length` tokens of a sequence, which leaves its step.
func.func private @llm_spec.cut(
    %cur: !len, %next: !ids, %members: !steps, %id: i32, %length: i32)
    -> (!len, !ids, !steps) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %no_step = arith.constant 0 : i64
  %L = tensor.dim %cur, %c0 : !len
  %s = arith.index_cast %id : i32 to index
  %cur1 = scf.for %l = %c0 to %L step %c1 iter_args(%c = %cur) -> (!len) {
    %held = tensor.extract %c[%l, %s] : !len
    %kept = arith.minsi %held, %length : i32
    %more = tensor.insert %kept into %c[%l, %s] : !len
    scf.yield %more : !len
  }
  %next1 = tensor.insert %length into %next[%s] : !ids
  %members1 = tensor.insert %no_step into %members[%s] : !steps
  return %cur1, %next1, %members1 : !len, !ids, !steps
}

func.func private @llm_spec.release_kv(
    %cur: !len, %next: !ids, %members: !steps, %ids: !ids)
    -> (!len, !ids, !steps) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %S = tensor.dim %next, %c0 : !ids
  %B = tensor.dim %ids, %c0 : !ids
  func.call @llm_spec.check_sequences(%ids, %S) : (!ids, index) -> ()
  %r:3 = scf.for %i = %c0 to %B step %c1
      iter_args(%c = %cur, %n = %next, %m = %members) -> (!len, !ids, !steps) {
    %id = tensor.extract %ids[%i] : !ids
    %cut:3 = func.call @llm_spec.cut(%c, %n, %m, %id, %zero)
        : (!len, !ids, !steps, i32, i32) -> (!len, !ids, !steps)
    scf.yield %cut#0, %cut#1, %cut#2 : !len, !ids, !steps
  }
  return %r#0, %r#1, %r#2 : !len, !ids, !steps
}

func.func private @llm_spec.trim_kv(
    %cur: !len, %next: !ids, %members: !steps, %ids: !ids, %lengths: !ids)
    -> (!len, !ids, !steps) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %S = tensor.dim %next, %c0 : !ids
  %B = tensor.dim %ids, %c0 : !ids
  %given = tensor.dim %lengths, %c0 : !ids
  func.call @llm_spec.check_size(%given, %B) : (index, index) -> ()
  func.call @llm_spec.check_distinct(%ids, %S) : (!ids, index) -> ()
  scf.for %i = %c0 to %B step %c1 {
    %id = tensor.extract %ids[%i] : !ids
    %kept = tensor.extract %lengths[%i] : !ids
    %length = func.call @llm_spec.length(%cur, %id) : (!len, i32) -> i32
    %fits = arith.cmpi ule, %kept, %length : i32
    cf.assert %fits, "invalid argument: expected at most the tokens of the sequence"
  }
  %r:3 = scf.for %i = %c0 to %B step %c1
      iter_args(%c = %cur, %n = %next, %m = %members) -> (!len, !ids, !steps) {
    %id = tensor.extract %ids[%i] : !ids
    %kept = tensor.extract %lengths[%i] : !ids
    %length = func.call @llm_spec.length(%c, %id) : (!len, i32) -> i32
    %shorter = arith.cmpi slt, %kept, %length : i32
    %cut:3 = scf.if %shorter -> (!len, !ids, !steps) {
      %some:3 = func.call @llm_spec.cut(%c, %n, %m, %id, %kept)
          : (!len, !ids, !steps, i32, i32) -> (!len, !ids, !steps)
      scf.yield %some#0, %some#1, %some#2 : !len, !ids, !steps
    } else {
      scf.yield %c, %n, %m : !len, !ids, !steps
    }
    scf.yield %cut#0, %cut#1, %cut#2 : !len, !ids, !steps
  }
  return %r#0, %r#1, %r#2 : !len, !ids, !steps
}

// Every layer that was ever appended to holds the parent's first `length`
// tokens, and the child is empty.
func.func private @llm_spec.check_fork(
    %cur: !len, %next: !ids, %appended: !steps, %parent: i32, %child: i32,
    %length: i32) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %never = arith.constant 0 : i64
  %L = tensor.dim %cur, %c0 : !len
  %from = arith.index_cast %parent : i32 to index
  %to = arith.index_cast %child : i32 to index
  %end = tensor.extract %next[%to] : !ids
  %empty = arith.cmpi eq, %end, %zero : i32
  cf.assert %empty, "wrong state: expected the child to be empty"
  %tokens = func.call @llm_spec.length(%cur, %parent) : (!len, i32) -> i32
  %enough = arith.cmpi ule, %length, %tokens : i32
  cf.assert %enough, "invalid argument: expected at most the tokens of the parent"
  scf.for %l = %c0 to %L step %c1 {
    %step = tensor.extract %appended[%l] : !steps
    %unused = arith.cmpi eq, %step, %never : i64
    %held = tensor.extract %cur[%l, %from] : !len
    %holds = arith.cmpi sle, %length, %held : i32
    %ready = arith.ori %unused, %holds : i1
    cf.assert %ready, "wrong state: expected the parent's tokens at every layer"
  }
  return
}

func.func private @llm_spec.fork_kv(
    %K: !kv, %V: !kv, %cur: !len, %next: !ids, %pos: !pos, %appended: !steps,
    %members: !steps, %parents: !ids, %children: !ids, %lengths: !ids)
    -> (!kv, !kv, !len, !ids, !pos, !steps) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %c3 = arith.constant 3 : index
  %c4 = arith.constant 4 : index
  %no_step = arith.constant 0 : i64
  %L = tensor.dim %K, %c0 : !kv
  %S = tensor.dim %K, %c1 : !kv
  %C = tensor.dim %K, %c2 : !kv
  %H = tensor.dim %K, %c3 : !kv
  %D = tensor.dim %K, %c4 : !kv
  %B = tensor.dim %parents, %c0 : !ids
  %num_children = tensor.dim %children, %c0 : !ids
  %num_lengths = tensor.dim %lengths, %c0 : !ids
  func.call @llm_spec.check_size(%num_children, %B) : (index, index) -> ()
  func.call @llm_spec.check_size(%num_lengths, %B) : (index, index) -> ()
  func.call @llm_spec.check_distinct(%children, %S) : (!ids, index) -> ()
  scf.for %i = %c0 to %B step %c1 {
    %parent = tensor.extract %parents[%i] : !ids
    %child = tensor.extract %children[%i] : !ids
    %length = tensor.extract %lengths[%i] : !ids
    %from = arith.index_cast %parent : i32 to index
    %known = arith.cmpi ult, %from, %S : index
    cf.assert %known, "invalid argument: expected a parent below max_sequences"
    func.call @llm_spec.check_fork(%cur, %next, %appended, %parent, %child,
                                   %length)
        : (!len, !ids, !steps, i32, i32, i32) -> ()
  }
  // A child was empty: it is nobody's parent but for no tokens.
  %r:6 = scf.for %i = %c0 to %B step %c1
      iter_args(%K0 = %K, %V0 = %V, %cur0 = %cur, %next0 = %next, %pos0 = %pos,
                %members0 = %members) -> (!kv, !kv, !len, !ids, !pos, !steps) {
    %parent = tensor.extract %parents[%i] : !ids
    %child = tensor.extract %children[%i] : !ids
    %length = tensor.extract %lengths[%i] : !ids
    %from = arith.index_cast %parent : i32 to index
    %to = arith.index_cast %child : i32 to index
    %k = tensor.extract_slice %K0[0, %from, 0, 0, 0] [%L, 1, %C, %H, %D] [1, 1, 1, 1, 1] : !kv to !dense
    %v = tensor.extract_slice %V0[0, %from, 0, 0, 0] [%L, 1, %C, %H, %D] [1, 1, 1, 1, 1] : !kv to !dense
    %p = tensor.extract_slice %pos0[0, %from, 0] [%L, 1, %C] [1, 1, 1] : !pos to !table
    %K1 = tensor.insert_slice %k into %K0[0, %to, 0, 0, 0] [%L, 1, %C, %H, %D] [1, 1, 1, 1, 1] : !dense into !kv
    %V1 = tensor.insert_slice %v into %V0[0, %to, 0, 0, 0] [%L, 1, %C, %H, %D] [1, 1, 1, 1, 1] : !dense into !kv
    %pos1 = tensor.insert_slice %p into %pos0[0, %to, 0] [%L, 1, %C] [1, 1, 1] : !table into !pos
    %cur1 = scf.for %l = %c0 to %L step %c1 iter_args(%c = %cur0) -> (!len) {
      %held = tensor.extract %c[%l, %from] : !len
      %shared = arith.minsi %held, %length : i32
      %more = tensor.insert %shared into %c[%l, %to] : !len
      scf.yield %more : !len
    }
    %next1 = tensor.insert %length into %next0[%to] : !ids
    %members1 = tensor.insert %no_step into %members0[%to] : !steps
    scf.yield %K1, %V1, %cur1, %next1, %pos1, %members1
        : !kv, !kv, !len, !ids, !pos, !steps
  }
  return %r#0, %r#1, %r#2, %r#3, %r#4, %r#5
      : !kv, !kv, !len, !ids, !pos, !steps
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

// Steps have numbers so that one of another version can be told.
memref.global "private" @llm_spec.steps : memref<i64> = dense<0>

func.func private @llm_spec.new_number() -> i64 {
  %one = arith.constant 1 : i64
  %steps = memref.get_global @llm_spec.steps : memref<i64>
  %last = memref.load %steps[] : memref<i64>
  %number = arith.addi %last, %one : i64
  memref.store %number, %steps[] : memref<i64>
  return %number : i64
}

// Every layer that was ever appended to has got all tokens of the running step.
// Gives the positions at which new tokens go on.
func.func private @llm_spec.end_step(%cur: !len, %next: !ids, %appended: !steps)
    -> !ids {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %never = arith.constant 0 : i64
  %L = tensor.dim %cur, %c0 : !len
  %S = tensor.dim %cur, %c1 : !len
  scf.for %l = %c0 to %L step %c1 {
    %step = tensor.extract %appended[%l] : !steps
    %unused = arith.cmpi eq, %step, %never : i64
    scf.for %s = %c0 to %S step %c1 {
      %held = tensor.extract %cur[%l, %s] : !len
      %expected = tensor.extract %next[%s] : !ids
      %equal = arith.cmpi eq, %held, %expected : i32
      %done = arith.ori %unused, %equal : i1
      cf.assert %done, "wrong state: expected the step's tokens at every layer at its end"
    }
  }
  %ends = scf.for %s = %c0 to %S step %c1 iter_args(%some = %next) -> (!ids) {
    %id = arith.index_cast %s : index to i32
    %length = func.call @llm_spec.length(%cur, %id) : (!len, i32) -> i32
    %more = tensor.insert %length into %some[%s] : !ids
    scf.yield %more : !ids
  }
  return %ends : !ids
}

func.func private @llm_spec.check_batch(%ids: !ids, %cu: !ids, %S: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %B = tensor.dim %ids, %c0 : !ids
  %bounds = tensor.dim %cu, %c0 : !ids
  %expected = arith.addi %B, %c1 : index
  func.call @llm_spec.check_size(%bounds, %expected) : (index, index) -> ()
  %first = tensor.extract %cu[%c0] : !ids
  %starts = arith.cmpi eq, %first, %zero : i32
  cf.assert %starts, "invalid argument: expected cu_seqlens to start with 0"
  scf.for %i = %c0 to %B step %c1 {
    %after = arith.addi %i, %c1 : index
    %begin = tensor.extract %cu[%i] : !ids
    %end = tensor.extract %cu[%after] : !ids
    %ordered = arith.cmpi sle, %begin, %end : i32
    cf.assert %ordered, "invalid argument: expected cu_seqlens not to decrease"
  }
  func.call @llm_spec.check_distinct(%ids, %S) : (!ids, index) -> ()
  return
}

func.func private @llm_spec.begin_step(
    %cur: !len, %next: !ids, %appended: !steps, %C: index, %ids: !ids,
    %cu: !ids) -> (!ids, !steps, !ids, i64) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %no_step = arith.constant 0 : i64
  %S = tensor.dim %cur, %c1 : !len
  %B = tensor.dim %ids, %c0 : !ids
  %capacity = arith.index_cast %C : index to i64
  %ends = func.call @llm_spec.end_step(%cur, %next, %appended)
      : (!len, !ids, !steps) -> !ids
  func.call @llm_spec.check_batch(%ids, %cu, %S) : (!ids, !ids, index) -> ()
  %number = func.call @llm_spec.new_number() : () -> i64
  %nobody = tensor.splat %no_step[%S] : !steps
  %unknown = tensor.splat %zero[%B] : !ids
  %r:3 = scf.for %i = %c0 to %B step %c1
      iter_args(%n = %ends, %m = %nobody, %starts = %unknown)
      -> (!ids, !steps, !ids) {
    %after = arith.addi %i, %c1 : index
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %first = tensor.extract %cu[%i] : !ids
    %last = tensor.extract %cu[%after] : !ids
    %tokens = arith.subi %last, %first : i32
    %start = tensor.extract %n[%s] : !ids
    %start_i64 = arith.extsi %start : i32 to i64
    %tokens_i64 = arith.extsi %tokens : i32 to i64
    %end_i64 = arith.addi %start_i64, %tokens_i64 : i64
    %fits = arith.cmpi sle, %end_i64, %capacity : i64
    cf.assert %fits, "never fits: expected at most max_seq_len tokens"
    %end = arith.trunci %end_i64 : i64 to i32
    %n1 = tensor.insert %end into %n[%s] : !ids
    %m1 = tensor.insert %number into %m[%s] : !steps
    %starts1 = tensor.insert %start into %starts[%i] : !ids
    scf.yield %n1, %m1, %starts1 : !ids, !steps, !ids
  }
  return %r#0, %r#1, %r#2, %number : !ids, !steps, !ids, i64
}

// Rows 0 .. B - 1 of S tokens each: what an op without a step works on.
func.func private @llm_spec.even_batch(%B: index, %S: index) -> (!ids, !ids) {
  %c1 = arith.constant 1 : index
  %bounds = arith.addi %B, %c1 : index
  %ids = tensor.generate %B {
  ^bb0(%i: index):
    %id = arith.index_cast %i : index to i32
    tensor.yield %id : i32
  } : !ids
  %cu = tensor.generate %bounds {
  ^bb0(%i: index):
    %tokens = arith.muli %i, %S : index
    %bound = arith.index_cast %tokens : index to i32
    tensor.yield %bound : i32
  } : !ids
  return %ids, %cu : !ids, !ids
}

// The row of each token, and its position.
func.func private @llm_spec.tokens(%cu: !ids, %starts: !ids) -> (!ids, !ids) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %bounds = tensor.dim %cu, %c0 : !ids
  %B = arith.subi %bounds, %c1 : index
  %total = tensor.extract %cu[%B] : !ids
  %T = arith.index_cast %total : i32 to index
  %none = tensor.splat %zero[%T] : !ids
  %r:2 = scf.for %i = %c0 to %B step %c1 iter_args(%rows = %none, %at = %none)
      -> (!ids, !ids) {
    %after = arith.addi %i, %c1 : index
    %first = tensor.extract %cu[%i] : !ids
    %last = tensor.extract %cu[%after] : !ids
    %begin = arith.index_cast %first : i32 to index
    %end = arith.index_cast %last : i32 to index
    %start = tensor.extract %starts[%i] : !ids
    %row = arith.index_cast %i : index to i32
    %filled:2 = scf.for %t = %begin to %end step %c1
        iter_args(%rows0 = %rows, %at0 = %at) -> (!ids, !ids) {
      %token = arith.index_cast %t : index to i32
      %offset = arith.subi %token, %first : i32
      %position = arith.addi %start, %offset : i32
      %rows1 = tensor.insert %row into %rows0[%t] : !ids
      %at1 = tensor.insert %position into %at0[%t] : !ids
      scf.yield %rows1, %at1 : !ids, !ids
    }
    scf.yield %filled#0, %filled#1 : !ids, !ids
  }
  return %r#0, %r#1 : !ids, !ids
}

func.func private @llm_spec.positions(%cu: !ids, %starts: !ids) -> !ids {
  %tokens:2 = func.call @llm_spec.tokens(%cu, %starts)
      : (!ids, !ids) -> (!ids, !ids)
  return %tokens#1 : !ids
}

func.func private @llm_spec.at_layer(%layers: index, %layer: index) {
  %known = arith.cmpi ult, %layer, %layers : index
  cf.assert %known, "invalid argument: expected a layer of the step's cache"
  return
}

// The layer that an op works on: the step's, or the only one.
func.func private @llm_spec.layer(%layers: index, %layer: index, %L: index)
    -> index {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %chosen = arith.cmpi sge, %layer, %c0 : index
  %only = arith.cmpi eq, %layers, %c1 : index
  %some = arith.ori %chosen, %only : i1
  cf.assert %some, "invalid argument: expected a layer with the step"
  %l = arith.maxsi %layer, %c0 : index
  %known = arith.cmpi ult, %l, %L : index
  cf.assert %known, "invalid argument: expected a layer of the cache"
  return %l : index
}

func.func private @llm_spec.check_running(%number: i64, %running: i64) {
  %same = arith.cmpi eq, %number, %running : i64
  cf.assert %same, "wrong state: expected the running step of this version"
  return
}

func.func private @llm_spec.check_one_layer(%L: index) {
  %c1 = arith.constant 1 : index
  %one = arith.cmpi eq, %L, %c1 : index
  cf.assert %one, "invalid argument: expected a cache of 1 layer without a step"
  return
}

//===----------------------------------------------------------------------===//
// Append
//===----------------------------------------------------------------------===//

// The one definition of rounding to an element type: to nearest even, subnormals
// kept, a NaN stays one.
func.func private @llm_spec.round(%x: f32, %dtype: i32) -> f32 {
  %f16 = arith.constant 1 : i32
  %bf16 = arith.constant 2 : i32
  %upper = arith.constant 16 : i32
  %one = arith.constant 1 : i32
  %half = arith.constant 0x7fff : i32
  %mask = arith.constant 0xffff0000 : i32
  %quiet = arith.constant 0x400000 : i32
  %short = arith.truncf %x : f32 to f16
  %as_f16 = arith.extf %short : f16 to f32
  %bits = arith.bitcast %x : f32 to i32
  %shifted = arith.shrui %bits, %upper : i32
  %odd = arith.andi %shifted, %one : i32
  %bias = arith.addi %half, %odd : i32
  %up = arith.addi %bits, %bias : i32
  %is_nan = arith.cmpf uno, %x, %x : f32
  %nan = arith.ori %bits, %quiet : i32
  %wide = arith.select %is_nan, %nan, %up : i32
  %rounded = arith.andi %wide, %mask : i32
  %as_bf16 = arith.bitcast %rounded : i32 to f32
  %is_f16 = arith.cmpi eq, %dtype, %f16 : i32
  %is_bf16 = arith.cmpi eq, %dtype, %bf16 : i32
  %not_f32 = arith.select %is_f16, %as_f16, %as_bf16 : f32
  %any = arith.ori %is_f16, %is_bf16 : i1
  %result = arith.select %any, %not_f32, %x : f32
  return %result : f32
}

// The scale of a row of head_dim numbers, and what is read of one of them: as
// #llm.kv_storage says.
func.func private @llm_spec.scale(
    %rows: !rows, %t: index, %h: index, %storage: i32) -> f32 {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %f8 = arith.constant 1 : i32
  %zero = arith.constant 0.0 : f32
  %f8_most = arith.constant 448.0 : f32
  %i8_most = arith.constant 127.0 : f32
  %infinity = arith.constant 0x7F800000 : f32
  %nan = arith.constant 0x7FC00000 : f32
  %D = tensor.dim %rows, %c2 : !rows
  %m = scf.for %d = %c0 to %D step %c1 iter_args(%most = %zero) -> (f32) {
    %x = tensor.extract %rows[%t, %h, %d] : !rows
    %magnitude = math.absf %x : f32
    %more = arith.maximumf %most, %magnitude : f32 // NaN if either is
    scf.yield %more : f32
  }
  %is_f8 = arith.cmpi eq, %storage, %f8 : i32
  %largest = arith.select %is_f8, %f8_most, %i8_most : f32
  %s = arith.divf %m, %largest : f32
  %finite = arith.cmpf olt, %s, %infinity : f32
  %scale = arith.select %finite, %s, %nan : f32
  return %scale : f32
}

func.func private @llm_spec.quantize(%x: f32, %s: f32, %storage: i32) -> f32 {
  %f8 = arith.constant 1 : i32
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  %f8_most = arith.constant 448.0 : f32
  %i8_most = arith.constant 127.0 : f32
  %exponent = arith.constant 0x7f800000 : i32
  %sign_bit = arith.constant 0x80000000 : i32
  %least_normal = arith.constant 0x3c800000 : i32 // 2^-6
  %eighth = arith.constant 0.125 : f32
  %is_f8 = arith.cmpi eq, %storage, %f8 : i32
  %largest = arith.select %is_f8, %f8_most, %i8_most : f32
  %usable = arith.cmpf one, %s, %zero : f32
  %ratio = arith.divf %x, %s : f32
  %y = arith.select %usable, %ratio, %zero : f32
  %magnitude = math.absf %y : f32
  %a = arith.minimumf %magnitude, %largest : f32
  // Neighbours in f8 are 1/8 of the power of two apart that is not above them.
  %bits = arith.bitcast %a : f32 to i32
  %binade = arith.andi %bits, %exponent : i32
  %normal = arith.maxsi %binade, %least_normal : i32
  %power = arith.bitcast %normal : i32 to f32
  %f8_gap = arith.mulf %power, %eighth : f32
  %gap = arith.select %is_f8, %f8_gap, %one : f32
  %gaps = arith.divf %a, %gap : f32
  %whole = math.roundeven %gaps : f32
  %q = arith.mulf %whole, %gap : f32
  %y_bits = arith.bitcast %y : f32 to i32
  %sign = arith.andi %y_bits, %sign_bit : i32
  %q_bits = arith.bitcast %q : f32 to i32
  %signed_bits = arith.ori %q_bits, %sign : i32
  %signed = arith.bitcast %signed_bits : i32 to f32
  // There is no -0 in i8.
  %no_minus = arith.addf %signed, %zero : f32
  %number = arith.select %is_f8, %signed, %no_minus : f32
  return %number : f32
}

// What is stored as i4 is held as it is until its group is quantized.
func.func private @llm_spec.hold(
    %x: f32, %s: f32, %storage: i32, %dtype: i32) -> f32 {
  %own = arith.constant 0 : i32
  %i4 = arith.constant 3 : i32
  %plain = arith.cmpi eq, %storage, %own : i32
  %groups = arith.cmpi eq, %storage, %i4 : i32
  %held = scf.if %plain -> (f32) {
    %rounded = func.call @llm_spec.round(%x, %dtype) : (f32, i32) -> f32
    scf.yield %rounded : f32
  } else {
    %q = func.call @llm_spec.quantize(%x, %s, %storage) : (f32, f32, i32) -> f32
    %product = arith.mulf %q, %s : f32
    %read = arith.select %groups, %x, %product : f32
    scf.yield %read : f32
  }
  return %held : f32
}

// The minimum and the step of a group of numbers between two bounds, NaN if one
// of them is.
func.func private @llm_spec.group(%least: f32, %most: f32) -> (f32, f32) {
  %zero = arith.constant 0.0 : f32
  %fifteen = arith.constant 15.0 : f32
  %infinity = arith.constant 0x7F800000 : f32
  %nan = arith.constant 0x7FC00000 : f32
  %none = arith.constant 0 : i32
  %lower = arith.constant 0xffff : i32
  %upper = arith.constant 0xffff0000 : i32
  %plus = arith.addf %least, %zero : f32
  %bits = arith.bitcast %plus : f32 to i32
  %negative = arith.cmpi slt, %bits, %none : i32
  %away = arith.select %negative, %lower, %none : i32
  %down = arith.addi %bits, %away : i32
  %low_bits = arith.andi %down, %upper : i32
  %low = arith.bitcast %low_bits : i32 to f32
  %range = arith.subf %most, %low : f32
  %exact = arith.divf %range, %fifteen : f32
  %exact_bits = arith.bitcast %exact : f32 to i32
  %up = arith.addi %exact_bits, %lower : i32
  %step_bits = arith.andi %up, %upper : i32
  %step = arith.bitcast %step_bits : i32 to f32
  %longest = arith.mulf %step, %fifteen : f32
  %finite = arith.cmpf olt, %exact, %infinity : f32
  %reaches = arith.cmpf olt, %longest, %infinity : f32
  %usable = arith.andi %finite, %reaches : i1
  %minimum = arith.select %usable, %low, %nan : f32
  %used = arith.select %usable, %step, %zero : f32
  return %minimum, %used : f32, f32
}

func.func private @llm_spec.of_group(%x: f32, %minimum: f32, %step: f32) -> f32 {
  %zero = arith.constant 0.0 : f32
  %fifteen = arith.constant 15.0 : f32
  %above = arith.subf %x, %minimum : f32
  %steps = arith.divf %above, %step : f32
  %whole = math.roundeven %steps : f32
  %at_least = arith.maximumf %whole, %zero : f32
  %at_most = arith.minimumf %at_least, %fifteen : f32
  %has_step = arith.cmpf ogt, %step, %zero : f32
  %q = arith.select %has_step, %at_most, %zero : f32
  %product = arith.mulf %q, %step : f32
  %read = arith.addf %product, %minimum : f32
  return %read : f32
}

// Quantizes V of token p of sequence s, in groups of channels.
func.func private @llm_spec.group_channels(
    %V: !kv, %layer: index, %s: index, %p: index) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c3 = arith.constant 3 : index
  %c4 = arith.constant 4 : index
  %size = arith.constant 32 : index
  %infinity = arith.constant 0x7F800000 : f32
  %minus_infinity = arith.constant 0xFF800000 : f32
  %H = tensor.dim %V, %c3 : !kv
  %D = tensor.dim %V, %c4 : !kv
  %all = scf.for %h = %c0 to %H step %c1 iter_args(%V0 = %V) -> (!kv) {
    %row = scf.for %first = %c0 to %D step %size iter_args(%V1 = %V0) -> (!kv) {
      %next = arith.addi %first, %size : index
      %end = arith.minui %next, %D : index
      %bounds:2 = scf.for %d = %first to %end step %c1
          iter_args(%low = %infinity, %high = %minus_infinity) -> (f32, f32) {
        %x = tensor.extract %V1[%layer, %s, %p, %h, %d] : !kv
        %least = arith.minimumf %low, %x : f32 // NaN if either is
        %most = arith.maximumf %high, %x : f32
        scf.yield %least, %most : f32, f32
      }
      %group:2 = func.call @llm_spec.group(%bounds#0, %bounds#1)
          : (f32, f32) -> (f32, f32)
      %read = scf.for %d = %first to %end step %c1 iter_args(%V2 = %V1) -> (!kv) {
        %x = tensor.extract %V2[%layer, %s, %p, %h, %d] : !kv
        %y = func.call @llm_spec.of_group(%x, %group#0, %group#1)
            : (f32, f32, f32) -> f32
        %V3 = tensor.insert %y into %V2[%layer, %s, %p, %h, %d] : !kv
        scf.yield %V3 : !kv
      }
      scf.yield %read : !kv
    }
    scf.yield %row : !kv
  }
  return %all : !kv
}

// Quantizes K of the 32 tokens of sequence s from `first` on, channel by channel.
func.func private @llm_spec.group_tokens(
    %K: !kv, %layer: index, %s: index, %first: index) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c3 = arith.constant 3 : index
  %c4 = arith.constant 4 : index
  %size = arith.constant 32 : index
  %infinity = arith.constant 0x7F800000 : f32
  %minus_infinity = arith.constant 0xFF800000 : f32
  %H = tensor.dim %K, %c3 : !kv
  %D = tensor.dim %K, %c4 : !kv
  %end = arith.addi %first, %size : index
  %all = scf.for %h = %c0 to %H step %c1 iter_args(%K0 = %K) -> (!kv) {
    %head = scf.for %d = %c0 to %D step %c1 iter_args(%K1 = %K0) -> (!kv) {
      %bounds:2 = scf.for %p = %first to %end step %c1
          iter_args(%low = %infinity, %high = %minus_infinity) -> (f32, f32) {
        %x = tensor.extract %K1[%layer, %s, %p, %h, %d] : !kv
        %least = arith.minimumf %low, %x : f32 // NaN if either is
        %most = arith.maximumf %high, %x : f32
        scf.yield %least, %most : f32, f32
      }
      %group:2 = func.call @llm_spec.group(%bounds#0, %bounds#1)
          : (f32, f32) -> (f32, f32)
      %read = scf.for %p = %first to %end step %c1 iter_args(%K2 = %K1) -> (!kv) {
        %x = tensor.extract %K2[%layer, %s, %p, %h, %d] : !kv
        %y = func.call @llm_spec.of_group(%x, %group#0, %group#1)
            : (f32, f32, f32) -> f32
        %K3 = tensor.insert %y into %K2[%layer, %s, %p, %h, %d] : !kv
        scf.yield %K3 : !kv
      }
      scf.yield %read : !kv
    }
    scf.yield %head : !kv
  }
  return %all : !kv
}

// Quantizes the groups of V of tokens [start, end) of sequence s, where it is
// stored as i4.
func.func private @llm_spec.quantize_v(
    %V: !kv, %storage: i32, %layer: index, %s: index, %start: index,
    %end: index) -> !kv {
  %c1 = arith.constant 1 : index
  %i4 = arith.constant 3 : i32
  %groups = arith.cmpi eq, %storage, %i4 : i32
  %last = arith.select %groups, %end, %start : index
  %held = scf.for %p = %start to %last step %c1 iter_args(%V0 = %V) -> (!kv) {
    %V1 = func.call @llm_spec.group_channels(%V0, %layer, %s, %p)
        : (!kv, index, index, index) -> !kv
    scf.yield %V1 : !kv
  }
  return %held : !kv
}

// Quantizes the groups of K that tokens [start, end) complete, but for the first
// one of the sequence.
func.func private @llm_spec.quantize_k(
    %K: !kv, %storage: i32, %layer: index, %s: index, %start: index,
    %end: index) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %size = arith.constant 32 : index
  %i4 = arith.constant 3 : i32
  %groups = arith.cmpi eq, %storage, %i4 : i32
  %complete = arith.divui %end, %size : index
  %last = arith.select %groups, %complete, %c0 : index
  %before = arith.divui %start, %size : index
  %first = arith.maxui %before, %c1 : index
  %held = scf.for %g = %first to %last step %c1 iter_args(%K0 = %K) -> (!kv) {
    %p = arith.muli %g, %size : index
    %K1 = func.call @llm_spec.group_tokens(%K0, %layer, %s, %p)
        : (!kv, index, index, index) -> !kv
    scf.yield %K1 : !kv
  }
  return %held : !kv
}

func.func private @llm_spec.check_append(
    %K: !kv, %cur: !len, %appended: !steps, %members: !steps, %ids: !ids,
    %cu: !ids, %starts: !ids, %number: i64, %layer: index, %k: !rows) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %c3 = arith.constant 3 : index
  %c4 = arith.constant 4 : index
  %zero = arith.constant 0 : i32
  %never = arith.constant 0 : i64
  %B = tensor.dim %ids, %c0 : !ids
  scf.for %i = %c0 to %B step %c1 {
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %step = tensor.extract %members[%s] : !steps
    %same = arith.cmpi eq, %step, %number : i64
    cf.assert %same, "wrong state: expected a sequence unchanged inside the step"
  }
  %last = tensor.extract %appended[%layer] : !steps
  %first_time = arith.cmpi ne, %last, %number : i64
  cf.assert %first_time, "wrong state: expected 1 append at a layer in a step"
  %total = tensor.extract %cu[%B] : !ids
  %expected_T = arith.index_cast %total : i32 to index
  %T = tensor.dim %k, %c0 : !rows
  %H = tensor.dim %k, %c1 : !rows
  %D = tensor.dim %k, %c2 : !rows
  %expected_H = tensor.dim %K, %c3 : !kv
  %expected_D = tensor.dim %K, %c4 : !kv
  func.call @llm_spec.check_size(%T, %expected_T) : (index, index) -> ()
  func.call @llm_spec.check_size(%H, %expected_H) : (index, index) -> ()
  func.call @llm_spec.check_size(%D, %expected_D) : (index, index) -> ()
  // A layer that starts late would lack the tokens that others hold.
  %begins = arith.cmpi eq, %last, %never : i64
  scf.if %begins {
    %held = func.call @llm_spec.lengths_at_begin(%cur, %ids, %starts)
        : (!len, !ids, !ids) -> !ids
    %S = tensor.dim %held, %c0 : !ids
    scf.for %s = %c0 to %S step %c1 {
      %tokens = tensor.extract %held[%s] : !ids
      %none = arith.cmpi eq, %tokens, %zero : i32
      cf.assert %none, "wrong state: expected a layer to hold what others hold"
    }
  }
  return
}

// The length of every sequence before the step whose rows start at `starts`.
func.func private @llm_spec.lengths_at_begin(%cur: !len, %ids: !ids, %starts: !ids)
    -> !ids {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %S = tensor.dim %cur, %c1 : !len
  %B = tensor.dim %ids, %c0 : !ids
  %all = tensor.generate %S {
  ^bb0(%s: index):
    %id = arith.index_cast %s : index to i32
    tensor.yield %id : i32
  } : !ids
  %now = func.call @llm_spec.seq_lens(%cur, %all) : (!len, !ids) -> !ids
  %before = scf.for %i = %c0 to %B step %c1 iter_args(%some = %now) -> (!ids) {
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %start = tensor.extract %starts[%i] : !ids
    %more = tensor.insert %start into %some[%s] : !ids
    scf.yield %more : !ids
  }
  return %before : !ids
}

func.func private @llm_spec.rotate(%x: !rows, %table: !angles, %adjacent: i1)
    -> !rows {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %T = tensor.dim %x, %c0 : !rows
  %H = tensor.dim %x, %c1 : !rows
  %D = tensor.dim %x, %c2 : !rows
  %rows = tensor.dim %table, %c0 : !angles
  %lanes = tensor.dim %table, %c1 : !angles
  func.call @llm_spec.check_size(%rows, %T) : (index, index) -> ()
  func.call @llm_spec.check_size(%lanes, %D) : (index, index) -> ()
  %half = arith.divui %D, %c2 : index
  // Pairs are `step` apart from each other, the lanes of a pair `apart`.
  %step = arith.select %adjacent, %c2, %c1 : index
  %apart = arith.select %adjacent, %c1, %half : index
  %y = scf.for %t = %c0 to %T step %c1 iter_args(%y0 = %x) -> (!rows) {
    %yt = scf.for %h = %c0 to %H step %c1 iter_args(%y1 = %y0) -> (!rows) {
      %yh = scf.for %i = %c0 to %half step %c1 iter_args(%y2 = %y1) -> (!rows) {
        %sine_lane = arith.addi %half, %i : index
        %cos = tensor.extract %table[%t, %i] : !angles
        %sin = tensor.extract %table[%t, %sine_lane] : !angles
        %first = arith.muli %i, %step : index
        %second = arith.addi %first, %apart : index
        %a = tensor.extract %x[%t, %h, %first] : !rows
        %b = tensor.extract %x[%t, %h, %second] : !rows
        %a_cos = arith.mulf %a, %cos : f32
        %b_sin = arith.mulf %b, %sin : f32
        %a_sin = arith.mulf %a, %sin : f32
        %b_cos = arith.mulf %b, %cos : f32
        %new_a = arith.subf %a_cos, %b_sin : f32
        %new_b = arith.addf %a_sin, %b_cos : f32
        %y3 = tensor.insert %new_a into %y2[%t, %h, %first] : !rows
        %y4 = tensor.insert %new_b into %y3[%t, %h, %second] : !rows
        scf.yield %y4 : !rows
      }
      scf.yield %yh : !rows
    }
    scf.yield %yt : !rows
  }
  return %y : !rows
}

func.func private @llm_spec.append_kv(
    %K: !kv, %V: !kv, %cur: !len, %pos: !pos, %appended: !steps,
    %members: !steps, %running: i64, %dtype: i32, %k_storage: i32,
    %v_storage: i32, %ids: !ids, %cu: !ids, %starts: !ids, %number: i64,
    %layers: index, %step_layer: index, %k: !rows, %v: !rows)
    -> (!kv, !kv, !len, !pos, !steps) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %L = tensor.dim %K, %c0 : !kv
  %B = tensor.dim %ids, %c0 : !ids
  %layer = func.call @llm_spec.layer(%layers, %step_layer, %L)
      : (index, index, index) -> index
  func.call @llm_spec.check_running(%number, %running) : (i64, i64) -> ()
  func.call @llm_spec.check_append(%K, %cur, %appended, %members, %ids, %cu,
                                   %starts, %number, %layer, %k)
      : (!kv, !len, !steps, !steps, !ids, !ids, !ids, i64, index, !rows) -> ()
  %T = tensor.dim %k, %c0 : !rows
  %H = tensor.dim %k, %c1 : !rows
  %D = tensor.dim %k, %c2 : !rows
  %tokens:2 = func.call @llm_spec.tokens(%cu, %starts)
      : (!ids, !ids) -> (!ids, !ids)
  %r:3 = scf.for %t = %c0 to %T step %c1
      iter_args(%K0 = %K, %V0 = %V, %pos0 = %pos) -> (!kv, !kv, !pos) {
    %row = tensor.extract %tokens#0[%t] : !ids
    %i = arith.index_cast %row : i32 to index
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %position = tensor.extract %tokens#1[%t] : !ids
    %p = arith.index_cast %position : i32 to index
    %KV:2 = scf.for %h = %c0 to %H step %c1 iter_args(%K1 = %K0, %V1 = %V0)
        -> (!kv, !kv) {
      %ks = func.call @llm_spec.scale(%k, %t, %h, %k_storage)
          : (!rows, index, index, i32) -> f32
      %vs = func.call @llm_spec.scale(%v, %t, %h, %v_storage)
          : (!rows, index, index, i32) -> f32
      %KV1:2 = scf.for %d = %c0 to %D step %c1 iter_args(%K2 = %K1, %V2 = %V1)
          -> (!kv, !kv) {
        %x = tensor.extract %k[%t, %h, %d] : !rows
        %y = tensor.extract %v[%t, %h, %d] : !rows
        %rx = func.call @llm_spec.hold(%x, %ks, %k_storage, %dtype)
            : (f32, f32, i32, i32) -> f32
        %ry = func.call @llm_spec.hold(%y, %vs, %v_storage, %dtype)
            : (f32, f32, i32, i32) -> f32
        %K3 = tensor.insert %rx into %K2[%layer, %s, %p, %h, %d] : !kv
        %V3 = tensor.insert %ry into %V2[%layer, %s, %p, %h, %d] : !kv
        scf.yield %K3, %V3 : !kv, !kv
      }
      scf.yield %KV1#0, %KV1#1 : !kv, !kv
    }
    %pos1 = tensor.insert %position into %pos0[%layer, %s, %p] : !pos
    scf.yield %KV#0, %KV#1, %pos1 : !kv, !kv, !pos
  }
  %held:3 = scf.for %i = %c0 to %B step %c1
      iter_args(%c = %cur, %K0 = %r#0, %V0 = %r#1) -> (!len, !kv, !kv) {
    %after = arith.addi %i, %c1 : index
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %first = tensor.extract %cu[%i] : !ids
    %last = tensor.extract %cu[%after] : !ids
    %new = arith.subi %last, %first : i32
    %start = tensor.extract %starts[%i] : !ids
    %end = arith.addi %start, %new : i32
    %more = tensor.insert %end into %c[%layer, %s] : !len
    %from = arith.index_cast %start : i32 to index
    %to = arith.index_cast %end : i32 to index
    %K1 = func.call @llm_spec.quantize_k(%K0, %k_storage, %layer, %s, %from, %to)
        : (!kv, i32, index, index, index, index) -> !kv
    %V1 = func.call @llm_spec.quantize_v(%V0, %v_storage, %layer, %s, %from, %to)
        : (!kv, i32, index, index, index, index) -> !kv
    scf.yield %more, %K1, %V1 : !len, !kv, !kv
  }
  %appended1 = tensor.insert %number into %appended[%layer] : !steps
  return %held#1, %held#2, %held#0, %r#2, %appended1
      : !kv, !kv, !len, !pos, !steps
}
