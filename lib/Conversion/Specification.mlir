// The specification: what every op of the llm dialect means, over plain tensors
// and in upstream dialects. `convert-llm-to-linalg` turns an op into a call of
// the function that is named like it; the runtime must agree with these lines.
//
// A version of a cache is
//
//   K, V      [L, S, C, H, D]  f32, as rounded to the cache's element type;
//                              zero where nothing was written
//   cur       [L, S]           tokens that a layer holds of a sequence
//   next      [S]              position that the next step's first token gets
//   pos       [L, S, C]        position of each slot
//   appended  [L]              number of the step that last appended; 0: none
//   members   [S]              number of the step that the sequence takes part
//                              in and was not cut or forked onto in; 0: none
//   running                    number of the running step; 0: none
//   dtype, block_size, window  0: f32, 1: f16, 2: bf16; 0: no window
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
!dense = tensor<?x?x?x?xf32>
!table = tensor<?x?xi32>
!lse = tensor<?x?xf32>
!scores = tensor<?x?x?xf64>
!sums = tensor<?x?xf64>

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

// The one definition of rounding: to nearest even, subnormals kept, a NaN stays
// one.
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

func.func private @llm_spec.append_kv(
    %K: !kv, %V: !kv, %cur: !len, %pos: !pos, %appended: !steps,
    %members: !steps, %running: i64, %dtype: i32, %ids: !ids, %cu: !ids,
    %starts: !ids, %number: i64, %layers: index, %step_layer: index, %k: !rows,
    %v: !rows) -> (!kv, !kv, !len, !pos, !steps) {
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
      %KV1:2 = scf.for %d = %c0 to %D step %c1 iter_args(%K2 = %K1, %V2 = %V1)
          -> (!kv, !kv) {
        %x = tensor.extract %k[%t, %h, %d] : !rows
        %y = tensor.extract %v[%t, %h, %d] : !rows
        %rx = func.call @llm_spec.round(%x, %dtype) : (f32, i32) -> f32
        %ry = func.call @llm_spec.round(%y, %dtype) : (f32, i32) -> f32
        %K3 = tensor.insert %rx into %K2[%layer, %s, %p, %h, %d] : !kv
        %V3 = tensor.insert %ry into %V2[%layer, %s, %p, %h, %d] : !kv
        scf.yield %K3, %V3 : !kv, !kv
      }
      scf.yield %KV1#0, %KV1#1 : !kv, !kv
    }
    %pos1 = tensor.insert %position into %pos0[%layer, %s, %p] : !pos
    scf.yield %KV#0, %KV#1, %pos1 : !kv, !kv, !pos
  }
  %held = scf.for %i = %c0 to %B step %c1 iter_args(%c = %cur) -> (!len) {
    %after = arith.addi %i, %c1 : index
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %first = tensor.extract %cu[%i] : !ids
    %last = tensor.extract %cu[%after] : !ids
    %new = arith.subi %last, %first : i32
    %start = tensor.extract %starts[%i] : !ids
    %end = arith.addi %start, %new : i32
    %more = tensor.insert %end into %c[%layer, %s] : !len
    scf.yield %more : !len
  }
  %appended1 = tensor.insert %number into %appended[%layer] : !steps
  return %r#0, %r#1, %held, %r#2, %appended1 : !kv, !kv, !len, !pos, !steps
}

//===----------------------------------------------------------------------===//
// Block tables
//===----------------------------------------------------------------------===//

// `width` is the table's, or -1 for that of the longest row.
func.func private @llm_spec.block_table(
    %cur: !len, %C: index, %block_size: i32, %ids: !ids, %width: index) -> !table {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %size = arith.index_cast %block_size : i32 to index
  %blocks = arith.ceildivui %C, %size : index
  %B = tensor.dim %ids, %c0 : !ids
  %lengths = func.call @llm_spec.seq_lens(%cur, %ids) : (!len, !ids) -> !ids
  %longest = scf.for %i = %c0 to %B step %c1 iter_args(%most = %c0) -> (index) {
    %length = tensor.extract %lengths[%i] : !ids
    %tokens = arith.index_cast %length : i32 to index
    %some = arith.ceildivui %tokens, %size : index
    %more = arith.maxui %most, %some : index
    scf.yield %more : index
  }
  %any = arith.cmpi slt, %width, %c0 : index
  %W = arith.select %any, %longest, %width : index
  %fits = arith.cmpi ule, %longest, %W : index
  cf.assert %fits, "invalid argument: expected a table that holds every block"
  %table = tensor.generate %B, %W {
  ^bb0(%i: index, %j: index):
    %none = arith.constant -1 : i32
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %length = tensor.extract %lengths[%i] : !ids
    %tokens = arith.index_cast %length : i32 to index
    %begin = arith.muli %j, %size : index
    %held = arith.cmpi ult, %begin, %tokens : index
    %first = arith.muli %s, %blocks : index
    %block = arith.addi %first, %j : index
    %number = arith.index_cast %block : index to i32
    %entry = arith.select %held, %number, %none : i32
    tensor.yield %entry : i32
  } : !table
  return %table : !table
}

// The table that reads each row's own blocks.
func.func private @llm_spec.own_table(%C: index, %block_size: i32, %ids: !ids)
    -> !table {
  %c0 = arith.constant 0 : index
  %size = arith.index_cast %block_size : i32 to index
  %blocks = arith.ceildivui %C, %size : index
  %B = tensor.dim %ids, %c0 : !ids
  %table = tensor.generate %B, %blocks {
  ^bb0(%i: index, %j: index):
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %first = arith.muli %s, %blocks : index
    %block = arith.addi %first, %j : index
    %number = arith.index_cast %block : index to i32
    tensor.yield %number : i32
  } : !table
  return %table : !table
}

// A row of a given table reaches what is read of it, and names live blocks.
func.func private @llm_spec.check_table(
    %next: !ids, %C: index, %block_size: i32, %table: !table, %held: !ids) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %size = arith.index_cast %block_size : i32 to index
  %blocks = arith.ceildivui %C, %size : index
  %S = tensor.dim %next, %c0 : !ids
  %B = tensor.dim %held, %c0 : !ids
  %rows = tensor.dim %table, %c0 : !table
  %W = tensor.dim %table, %c1 : !table
  func.call @llm_spec.check_size(%rows, %B) : (index, index) -> ()
  %all = arith.muli %S, %blocks : index
  scf.for %i = %c0 to %B step %c1 {
    %length = tensor.extract %held[%i] : !ids
    %tokens = arith.index_cast %length : i32 to index
    %needed = arith.ceildivui %tokens, %size : index
    %reaches = arith.cmpi ule, %needed, %W : index
    cf.assert %reaches, "invalid argument: expected a row of block_indices that reaches what is read"
    scf.for %j = %c0 to %needed step %c1 {
      %entry = tensor.extract %table[%i, %j] : !table
      %block = arith.index_cast %entry : i32 to index
      %known = arith.cmpi ult, %block, %all : index
      cf.assert %known, "invalid argument: expected a block of this version"
      %s = arith.divui %block, %blocks : index
      %index = arith.remui %block, %blocks : index
      %end = tensor.extract %next[%s] : !ids
      %slots = arith.index_cast %end : i32 to index
      %begin = arith.muli %index, %size : index
      %live = arith.cmpi ult, %begin, %slots : index
      cf.assert %live, "invalid argument: expected a live block of this version"
    }
  }
  return
}

//===----------------------------------------------------------------------===//
// Reads
//===----------------------------------------------------------------------===//

// Tokens that the layer holds of each row, `bound` at most.
func.func private @llm_spec.held(
    %cur: !len, %layer: index, %ids: !ids, %bound: index) -> !ids {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %S = tensor.dim %cur, %c1 : !len
  %B = tensor.dim %ids, %c0 : !ids
  %most = arith.index_cast %bound : index to i32
  func.call @llm_spec.check_sequences(%ids, %S) : (!ids, index) -> ()
  %held = tensor.generate %B {
  ^bb0(%i: index):
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %tokens = tensor.extract %cur[%layer, %s] : !len
    %some = arith.minsi %tokens, %most : i32
    tensor.yield %some : i32
  } : !ids
  return %held : !ids
}

// The first `held` tokens of each row by way of a table, then zeros.
func.func private @llm_spec.gather(
    %content: !kv, %layer: index, %block_size: i32, %table: !table, %held: !ids,
    %bound: index) -> !dense {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c3 = arith.constant 3 : index
  %c4 = arith.constant 4 : index
  %C = tensor.dim %content, %c2 : !kv
  %H = tensor.dim %content, %c3 : !kv
  %D = tensor.dim %content, %c4 : !kv
  %B = tensor.dim %held, %c0 : !ids
  %size = arith.index_cast %block_size : i32 to index
  %blocks = arith.ceildivui %C, %size : index
  %rows = tensor.generate %B, %bound, %H, %D {
  ^bb0(%i: index, %j: index, %h: index, %d: index):
    %zero = arith.constant 0.0 : f32
    %length = tensor.extract %held[%i] : !ids
    %tokens = arith.index_cast %length : i32 to index
    %real = arith.cmpi ult, %j, %tokens : index
    %x = scf.if %real -> (f32) {
      %column = arith.divui %j, %size : index
      %offset = arith.remui %j, %size : index
      %entry = tensor.extract %table[%i, %column] : !table
      %block = arith.index_cast %entry : i32 to index
      %s = arith.divui %block, %blocks : index
      %index = arith.remui %block, %blocks : index
      %begin = arith.muli %index, %size : index
      %slot = arith.addi %begin, %offset : index
      // The last block may reach beyond the capacity.
      %inside = arith.cmpi ult, %slot, %C : index
      %y = scf.if %inside -> (f32) {
        %z = tensor.extract %content[%layer, %s, %slot, %h, %d] : !kv
        scf.yield %z : f32
      } else {
        scf.yield %zero : f32
      }
      scf.yield %y : f32
    } else {
      scf.yield %zero : f32
    }
    tensor.yield %x : f32
  } : !dense
  return %rows : !dense
}

func.func private @llm_spec.lookup_kv(
    %K: !kv, %V: !kv, %cur: !len, %next: !ids, %block_size: i32, %ids: !ids,
    %layers: index, %step_layer: index, %given: i1, %table: !table,
    %bound: index) -> (!dense, !dense) {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %L = tensor.dim %K, %c0 : !kv
  %C = tensor.dim %K, %c2 : !kv
  %layer = func.call @llm_spec.layer(%layers, %step_layer, %L)
      : (index, index, index) -> index
  %held = func.call @llm_spec.held(%cur, %layer, %ids, %bound)
      : (!len, index, !ids, index) -> !ids
  %own = scf.if %given -> (!table) {
    func.call @llm_spec.check_table(%next, %C, %block_size, %table, %held)
        : (!ids, index, i32, !table, !ids) -> ()
    scf.yield %table : !table
  } else {
    %t = func.call @llm_spec.own_table(%C, %block_size, %ids)
        : (index, i32, !ids) -> !table
    scf.yield %t : !table
  }
  %k = func.call @llm_spec.gather(%K, %layer, %block_size, %own, %held, %bound)
      : (!kv, index, i32, !table, !ids, index) -> !dense
  %v = func.call @llm_spec.gather(%V, %layer, %block_size, %own, %held, %bound)
      : (!kv, index, i32, !table, !ids, index) -> !dense
  return %k, %v : !dense, !dense
}

// Where the keys of each row stand: a given table renumbers them.
func.func private @llm_spec.key_positions(
    %pos: !pos, %layer: index, %ids: !ids, %given: i1) -> !table {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %C = tensor.dim %pos, %c2 : !pos
  %B = tensor.dim %ids, %c0 : !ids
  %positions = tensor.generate %B, %C {
  ^bb0(%i: index, %j: index):
    %id = tensor.extract %ids[%i] : !ids
    %s = arith.index_cast %id : i32 to index
    %own = tensor.extract %pos[%layer, %s, %j] : !pos
    %place = arith.index_cast %j : index to i32
    %position = arith.select %given, %place, %own : i32
    tensor.yield %position : i32
  } : !table
  return %positions : !table
}

// The narrower of two windows, of which 0 is none.
func.func private @llm_spec.narrower(%a: i32, %b: i32) -> i32 {
  %zero = arith.constant 0 : i32
  %least = arith.minsi %a, %b : i32
  %most = arith.maxsi %a, %b : i32
  %either = arith.cmpi eq, %least, %zero : i32
  %window = arith.select %either, %most, %least : i32
  return %window : i32
}

func.func private @llm_spec.check_queries(%K: !kv, %cu: !ids, %q: !rows) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %c3 = arith.constant 3 : index
  %c4 = arith.constant 4 : index
  %bounds = tensor.dim %cu, %c0 : !ids
  %B = arith.subi %bounds, %c1 : index
  %total = tensor.extract %cu[%B] : !ids
  %tokens = arith.index_cast %total : i32 to index
  %T = tensor.dim %q, %c0 : !rows
  %Hq = tensor.dim %q, %c1 : !rows
  %D = tensor.dim %q, %c2 : !rows
  %H = tensor.dim %K, %c3 : !kv
  %expected_D = tensor.dim %K, %c4 : !kv
  func.call @llm_spec.check_size(%T, %tokens) : (index, index) -> ()
  func.call @llm_spec.check_size(%D, %expected_D) : (index, index) -> ()
  %rest = arith.remui %Hq, %H : index
  %multiple = arith.cmpi eq, %rest, %c0 : index
  %some = arith.cmpi ne, %Hq, %c0 : index
  %grouped = arith.andi %multiple, %some : i1
  cf.assert %grouped, "invalid argument: expected a multiple of the KV heads"
  return
}

// The start of each row whose S queries are its last positions.
func.func private @llm_spec.last_positions(%cur: !len, %ids: !ids, %S: index)
    -> !ids {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %B = tensor.dim %ids, %c0 : !ids
  %queries = arith.index_cast %S : index to i32
  %lengths = func.call @llm_spec.seq_lens(%cur, %ids) : (!len, !ids) -> !ids
  %starts = scf.for %i = %c0 to %B step %c1 iter_args(%some = %lengths) -> (!ids) {
    %length = tensor.extract %some[%i] : !ids
    %fits = arith.cmpi sle, %queries, %length : i32
    cf.assert %fits, "invalid argument: expected at most as many queries as tokens"
    %start = arith.subi %length, %queries : i32
    %more = tensor.insert %start into %some[%i] : !ids
    scf.yield %more : !ids
  }
  return %starts : !ids
}

// A query at position p sees the keys at positions up to p (if causal) and above
// p - window. Scale NaN stands for 1 / sqrt(D), softcap and window 0 for none.
func.func private @llm_spec.paged_attention(
    %K: !kv, %V: !kv, %cur: !len, %next: !ids, %pos: !pos, %running: i64,
    %block_size: i32, %cache_window: i32, %ids: !ids, %cu: !ids, %starts: !ids,
    %number: i64, %layers: index, %step_layer: index, %q: !rows, %scale: f32,
    %softcap: f32, %op_window: i32, %causal: i1, %given: i1, %table: !table)
    -> (!rows, !lse) {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %L = tensor.dim %K, %c0 : !kv
  %C = tensor.dim %K, %c2 : !kv
  %layer = func.call @llm_spec.layer(%layers, %step_layer, %L)
      : (index, index, index) -> index
  func.call @llm_spec.check_running(%number, %running) : (i64, i64) -> ()
  func.call @llm_spec.check_queries(%K, %cu, %q) : (!kv, !ids, !rows) -> ()
  %held = func.call @llm_spec.held(%cur, %layer, %ids, %C)
      : (!len, index, !ids, index) -> !ids
  %keys:2 = func.call @llm_spec.lookup_kv(
      %K, %V, %cur, %next, %block_size, %ids, %layers, %step_layer, %given,
      %table, %C)
      : (!kv, !kv, !len, !ids, i32, !ids, index, index, i1, !table, index)
      -> (!dense, !dense)
  %places = func.call @llm_spec.key_positions(%pos, %layer, %ids, %given)
      : (!pos, index, !ids, i1) -> !table
  %tokens:2 = func.call @llm_spec.tokens(%cu, %starts)
      : (!ids, !ids) -> (!ids, !ids)
  %window = func.call @llm_spec.narrower(%op_window, %cache_window)
      : (i32, i32) -> i32
  %out:2 = func.call @llm_spec.attend(
      %q, %keys#0, %keys#1, %held, %places, %tokens#0, %tokens#1, %scale,
      %softcap, %window, %causal)
      : (!rows, !dense, !dense, !ids, !table, !ids, !ids, f32, f32, i32, i1)
      -> (!rows, !lse)
  return %out#0, %out#1 : !rows, !lse
}

// softmax(scale q k^T + masks) v for query t of row row[t] at position at[t];
// query heads h * G .. h * G + G - 1 read KV head h. In f64: the error is all
// the product's. A query that sees no key gets 0, and -inf as lse.
func.func private @llm_spec.attend(
    %q: !rows, %k: !dense, %v: !dense, %held: !ids, %places: !table,
    %row: !ids, %at: !ids, %scale: f32, %softcap: f32, %window: i32,
    %causal: i1) -> (!rows, !lse) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %zero_i32 = arith.constant 0 : i32
  %zero_f32 = arith.constant 0.0 : f32
  %zero = arith.constant 0.0 : f64
  %one = arith.constant 1.0 : f64
  %lowest = arith.constant 0xFFF0000000000000 : f64
  %T = tensor.dim %q, %c0 : !rows
  %Hq = tensor.dim %q, %c1 : !rows
  %D = tensor.dim %q, %c2 : !rows
  %C = tensor.dim %k, %c1 : !dense
  %H = tensor.dim %k, %c2 : !dense
  %G = arith.divui %Hq, %H : index
  %dim_i32 = arith.index_cast %D : index to i32
  %dim = arith.sitofp %dim_i32 : i32 to f64
  %root = math.sqrt %dim : f64
  %default = arith.divf %one, %root : f64
  %wide_scale = arith.extf %scale : f32 to f64
  %absent = arith.cmpf uno, %scale, %scale : f32
  %factor = arith.select %absent, %default, %wide_scale : f64
  %cap = arith.extf %softcap : f32 to f64
  %capped = arith.cmpf one, %softcap, %zero_f32 : f32
  %divisor = arith.select %capped, %cap, %one : f64
  %anywhere = arith.cmpi eq, %window, %zero_i32 : i32
  %all = arith.constant true
  %open = arith.xori %causal, %all : i1

  %no_dot = tensor.splat %zero[%T, %Hq, %C] : !scores
  %dot = linalg.generic {
      indexing_maps = [affine_map<(t, h, j, d) -> (t, h, d)>,
                       affine_map<(t, h, j, d) -> (t)>,
                       affine_map<(t, h, j, d) -> (t, h, j)>],
      iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%q, %row : !rows, !ids) outs(%no_dot : !scores) {
  ^bb0(%x: f32, %r: i32, %sum: f64):
    %i = arith.index_cast %r : i32 to index
    %head = linalg.index 1 : index
    %h = arith.divui %head, %G : index
    %j = linalg.index 2 : index
    %d = linalg.index 3 : index
    %y = tensor.extract %k[%i, %j, %h, %d] : !dense
    %wide_x = arith.extf %x : f32 to f64
    %wide_y = arith.extf %y : f32 to f64
    %product = arith.mulf %wide_x, %wide_y : f64
    %more = arith.addf %sum, %product : f64
    linalg.yield %more : f64
  } -> !scores

  %score = linalg.generic {
      indexing_maps = [affine_map<(t, h, j) -> (t)>,
                       affine_map<(t, h, j) -> (t)>,
                       affine_map<(t, h, j) -> (t, h, j)>],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%row, %at : !ids, !ids) outs(%dot : !scores) {
  ^bb0(%r: i32, %p: i32, %x: f64):
    %i = arith.index_cast %r : i32 to index
    %j = linalg.index 2 : index
    %length = tensor.extract %held[%i] : !ids
    %place = tensor.extract %places[%i, %j] : !table
    %key = arith.index_cast %j : index to i32
    %real = arith.cmpi slt, %key, %length : i32
    %earlier = arith.cmpi sle, %place, %p : i32
    %seen = arith.ori %open, %earlier : i1
    %age = arith.subi %p, %place : i32
    %recent = arith.cmpi slt, %age, %window : i32
    %near = arith.ori %anywhere, %recent : i1
    %masked = arith.andi %seen, %near : i1
    %visible = arith.andi %real, %masked : i1
    %scaled = arith.mulf %x, %factor : f64
    %ratio = arith.divf %scaled, %divisor : f64
    %tanh = math.tanh %ratio : f64
    %limited = arith.mulf %tanh, %cap : f64
    %soft = arith.select %capped, %limited, %scaled : f64
    %s = arith.select %visible, %soft, %lowest : f64
    linalg.yield %s : f64
  } -> !scores

  %no_max = tensor.splat %lowest[%T, %Hq] : !sums
  %max = linalg.generic {
      indexing_maps = [affine_map<(t, h, j) -> (t, h, j)>,
                       affine_map<(t, h, j) -> (t, h)>],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%score : !scores) outs(%no_max : !sums) {
  ^bb0(%s: f64, %most: f64):
    %more = arith.maximumf %s, %most : f64
    linalg.yield %more : f64
  } -> !sums

  %weight = linalg.generic {
      indexing_maps = [affine_map<(t, h, j) -> (t, h)>,
                       affine_map<(t, h, j) -> (t, h, j)>],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%max : !sums) outs(%score : !scores) {
  ^bb0(%m: f64, %s: f64):
    %hidden = arith.cmpf oeq, %s, %lowest : f64
    %below = arith.subf %s, %m : f64
    %e = math.exp %below : f64
    %w = arith.select %hidden, %zero, %e : f64
    linalg.yield %w : f64
  } -> !scores

  %no_sum = tensor.splat %zero[%T, %Hq] : !sums
  %total = linalg.generic {
      indexing_maps = [affine_map<(t, h, j) -> (t, h, j)>,
                       affine_map<(t, h, j) -> (t, h)>],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%weight : !scores) outs(%no_sum : !sums) {
  ^bb0(%w: f64, %sum: f64):
    %more = arith.addf %sum, %w : f64
    linalg.yield %more : f64
  } -> !sums

  %no_output = tensor.splat %zero[%T, %Hq, %D] : !scores
  %mean = linalg.generic {
      indexing_maps = [affine_map<(t, h, d, j) -> (t, h, j)>,
                       affine_map<(t, h, d, j) -> (t, h)>,
                       affine_map<(t, h, d, j) -> (t)>,
                       affine_map<(t, h, d, j) -> (t, h, d)>],
      iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%weight, %total, %row : !scores, !sums, !ids)
      outs(%no_output : !scores) {
  ^bb0(%w: f64, %sum: f64, %r: i32, %mean0: f64):
    %i = arith.index_cast %r : i32 to index
    %head = linalg.index 1 : index
    %h = arith.divui %head, %G : index
    %d = linalg.index 2 : index
    %j = linalg.index 3 : index
    %y = tensor.extract %v[%i, %j, %h, %d] : !dense
    %wide_y = arith.extf %y : f32 to f64
    %part = arith.divf %w, %sum : f64
    %product = arith.mulf %part, %wide_y : f64
    %more = arith.addf %mean0, %product : f64
    // What is hidden may be anything.
    %hidden = arith.cmpf oeq, %w, %zero : f64
    %mean1 = arith.select %hidden, %mean0, %more : f64
    linalg.yield %mean1 : f64
  } -> !scores

  %no_o = tensor.empty(%T, %Hq, %D) : !rows
  %o = linalg.generic {
      indexing_maps = [affine_map<(t, h, d) -> (t, h, d)>,
                       affine_map<(t, h, d) -> (t, h, d)>],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%mean : !scores) outs(%no_o : !rows) {
  ^bb0(%x: f64, %unused: f32):
    %narrow = arith.truncf %x : f64 to f32
    linalg.yield %narrow : f32
  } -> !rows

  %no_lse = tensor.empty(%T, %Hq) : !lse
  %lse = linalg.generic {
      indexing_maps = [affine_map<(t, h) -> (t, h)>,
                       affine_map<(t, h) -> (t, h)>,
                       affine_map<(t, h) -> (t, h)>],
      iterator_types = ["parallel", "parallel"]}
      ins(%max, %total : !sums, !sums) outs(%no_lse : !lse) {
  ^bb0(%m: f64, %sum: f64, %unused: f32):
    %log = math.log %sum : f64
    %x = arith.addf %m, %log : f64
    %narrow = arith.truncf %x : f64 to f32
    linalg.yield %narrow : f32
  } -> !lse
  return %o, %lse : !rows, !lse
}
