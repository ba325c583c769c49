// The second part of the specification: what is read of a version. The words are
// those of Specification.mlir.

!kv = tensor<?x?x?x?x?xf32>
!len = tensor<?x?xi32>
!pos = tensor<?x?x?xi32>
!ids = tensor<?xi32>
!rows = tensor<?x?x?xf32>
!dense = tensor<?x?x?x?xf32>
!table = tensor<?x?xi32>
!lse = tensor<?x?xf32>
!numbers = tensor<?xf32>
!scores = tensor<?x?x?xf64>
!sums = tensor<?x?xf64>

// Of the first part.
func.func private @llm_spec.seq_lens(!len, !ids) -> !ids
func.func private @llm_spec.check_size(index, index)
func.func private @llm_spec.check_sequences(!ids, index)
func.func private @llm_spec.layer(index, index, index) -> index
func.func private @llm_spec.check_running(i64, i64)
func.func private @llm_spec.tokens(!ids, !ids) -> (!ids, !ids)

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

// A row of a given table reaches what is read of it, and names live blocks that
// hold the tokens. (Sequences share no block here: a table that reads behind a
// fork's end, in a block shared with its parent, is refused by this alone.)
func.func private @llm_spec.check_table(
    %cur: !len, %next: !ids, %layer: index, %C: index, %block_size: i32,
    %table: !table, %held: !ids) {
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
      %first = arith.muli %j, %size : index
      %left = arith.subi %tokens, %first : index
      %read = arith.minui %left, %size : index
      %last = arith.addi %begin, %read : index
      %count = tensor.extract %cur[%layer, %s] : !len
      %written = arith.index_cast %count : i32 to index
      %holds = arith.cmpi ule, %last, %written : index
      cf.assert %holds, "invalid argument: expected a block with the tokens that are read"
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
    func.call @llm_spec.check_table(%cur, %next, %layer, %C, %block_size,
                                    %table, %held)
        : (!len, !ids, index, index, i32, !table, !ids) -> ()
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

// A query for sinks is for a cache with some.
func.func private @llm_spec.check_sinks(%sinks: i32) {
  %zero = arith.constant 0 : i32
  %some = arith.cmpi ne, %sinks, %zero : i32
  cf.assert %some, "invalid argument: expected a cache with sinks for sink_query"
  return
}

// Modifiers: a query for the sinks like q, and numbers of each query head.
func.func private @llm_spec.check_modifiers(
    %q: !rows, %nearer: !rows, %alibi: !numbers, %head_sink: !numbers) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %T = tensor.dim %q, %c0 : !rows
  %Hq = tensor.dim %q, %c1 : !rows
  %D = tensor.dim %q, %c2 : !rows
  %nearer_T = tensor.dim %nearer, %c0 : !rows
  %nearer_Hq = tensor.dim %nearer, %c1 : !rows
  %nearer_D = tensor.dim %nearer, %c2 : !rows
  %slopes = tensor.dim %alibi, %c0 : !numbers
  %logits = tensor.dim %head_sink, %c0 : !numbers
  func.call @llm_spec.check_size(%nearer_T, %T) : (index, index) -> ()
  func.call @llm_spec.check_size(%nearer_Hq, %Hq) : (index, index) -> ()
  func.call @llm_spec.check_size(%nearer_D, %D) : (index, index) -> ()
  func.call @llm_spec.check_size(%slopes, %Hq) : (index, index) -> ()
  func.call @llm_spec.check_size(%logits, %Hq) : (index, index) -> ()
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

// A query at position p sees the keys at positions up to p (if causal), of these
// those above p - window and the first `sinks`. Scale NaN stands for 1 / sqrt(D),
// softcap and window 0 for none; `nearer` is q, slopes are 0 and a head's logit
// is -inf where the op has none.
func.func private @llm_spec.paged_attention(
    %K: !kv, %V: !kv, %cur: !len, %next: !ids, %pos: !pos, %running: i64,
    %block_size: i32, %cache_window: i32, %sinks: i32, %ids: !ids, %cu: !ids,
    %starts: !ids, %number: i64, %layers: index, %step_layer: index, %q: !rows,
    %nearer: !rows, %alibi: !numbers, %head_sink: !numbers, %scale: f32,
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
  func.call @llm_spec.check_modifiers(%q, %nearer, %alibi, %head_sink)
      : (!rows, !rows, !numbers, !numbers) -> ()
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
      %q, %nearer, %keys#0, %keys#1, %held, %places, %tokens#0, %tokens#1,
      %alibi, %head_sink, %scale, %softcap, %window, %sinks, %causal)
      : (!rows, !rows, !dense, !dense, !ids, !table, !ids, !ids, !numbers,
         !numbers, f32, f32, i32, i32, i1) -> (!rows, !lse)
  return %out#0, %out#1 : !rows, !lse
}

// softmax(scale q k^T + masks) v for query t of row row[t] at position at[t];
// query heads h * G .. h * G + G - 1 read KV head h. In f64: the error is all
// the product's. A query that sees no key gets 0, and its head's logit as lse.
func.func private @llm_spec.attend(
    %q: !rows, %nearer: !rows, %k: !dense, %v: !dense, %held: !ids,
    %places: !table, %row: !ids, %at: !ids, %alibi: !numbers,
    %head_sink: !numbers, %scale: f32, %softcap: f32, %window: i32, %sinks: i32,
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
                       affine_map<(t, h, j, d) -> (t, h, d)>,
                       affine_map<(t, h, j, d) -> (t)>,
                       affine_map<(t, h, j, d) -> (t, h, j)>],
      iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%q, %nearer, %row : !rows, !rows, !ids) outs(%no_dot : !scores) {
  ^bb0(%far_x: f32, %near_x: f32, %r: i32, %sum: f64):
    %i = arith.index_cast %r : i32 to index
    %head = linalg.index 1 : index
    %h = arith.divui %head, %G : index
    %j = linalg.index 2 : index
    %d = linalg.index 3 : index
    %key = arith.index_cast %j : index to i32
    %sink = arith.cmpi slt, %key, %sinks : i32
    %x = arith.select %sink, %near_x, %far_x : f32
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
                       affine_map<(t, h, j) -> (h)>,
                       affine_map<(t, h, j) -> (t, h, j)>],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%row, %at, %alibi : !ids, !ids, !numbers) outs(%dot : !scores) {
  ^bb0(%r: i32, %p: i32, %slope: f32, %x: f64):
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
    %sink = arith.cmpi slt, %key, %sinks : i32
    %kept = arith.ori %recent, %sink : i1
    %near = arith.ori %anywhere, %kept : i1
    %masked = arith.andi %seen, %near : i1
    %visible = arith.andi %real, %masked : i1
    %scaled = arith.mulf %x, %factor : f64
    %ratio = arith.divf %scaled, %divisor : f64
    %tanh = math.tanh %ratio : f64
    %limited = arith.mulf %tanh, %cap : f64
    %soft = arith.select %capped, %limited, %scaled : f64
    %wide_slope = arith.extf %slope : f32 to f64
    %ahead = arith.subi %place, %p : i32
    %distance = arith.sitofp %ahead : i32 to f64
    %bias = arith.mulf %wide_slope, %distance : f64
    %moved = arith.addf %soft, %bias : f64
    %s = arith.select %visible, %moved, %lowest : f64
    linalg.yield %s : f64
  } -> !scores

  %no_max = tensor.generate %T, %Hq {
  ^bb0(%t: index, %h: index):
    %logit = tensor.extract %head_sink[%h] : !numbers
    %wide_logit = arith.extf %logit : f32 to f64
    tensor.yield %wide_logit : f64
  } : !sums
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

  %no_sum = linalg.generic {
      indexing_maps = [affine_map<(t, h) -> (h)>,
                       affine_map<(t, h) -> (t, h)>],
      iterator_types = ["parallel", "parallel"]}
      ins(%head_sink : !numbers) outs(%max : !sums) {
  ^bb0(%logit: f32, %m: f64):
    %s = arith.extf %logit : f32 to f64
    %hidden = arith.cmpf oeq, %s, %lowest : f64
    %below = arith.subf %s, %m : f64
    %e = math.exp %below : f64
    %w = arith.select %hidden, %zero, %e : f64
    linalg.yield %w : f64
  } -> !sums
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
