//===- CAPI.h - The C ABI between compiled models, hosts and the runtime --===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// This header is law: compiled models, hosts written in C or C++, and the
// runtime agree on what stands here and on nothing else.
//
// Rules
//  * A function that can fail returns `llm_code` and takes a trailing
//    `llm_error *` that may be null. Handles and scalars are written only on
//    LLM_OK; the contents of output tensors are unspecified after an error.
//  * A failing call leaves the cache as it was.
//  * Who creates an object destroys it. Strings inside a program, an error's
//    `op` and `file` among them, belong to the program.
//  * Tensors are borrowed for the duration of the call; strides are in
//    elements. Every tensor lives in host memory.
//  * One writer, many probes, of all caches on one pool (a cache and its
//    snapshots). Probes are llm_kv_get_config, _get_stats, _get_work,
//    _length and _acquire_sequence; they may run at the same time. Everything
//    else that takes a cache or a step is a writer, a running entry to its end.
//    Who meets a writer gets LLM_BUSY at once and has changed nothing; a writer
//    waits for probes. While a step is open, what would change the pool beside
//    it gets LLM_BUSY too.
//  * Caches of different pools never meet: calls on them run in parallel, with
//    one model too. llm_kv_cancel is for any thread at any time.
//  * Contexts may be shared by threads. A model may, once finished: binding and
//    finishing is for one thread alone. What is destroyed is in use nowhere,
//    but for snapshots of a cache and its open step, which live on.
//  * Nothing here prints, aborts, throws or exits.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CAPI_H
#define LLM_RUNTIME_CAPI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Bumped with every change of a struct, a signature or a meaning below.
#define LLM_ABI_VERSION 8u

#if defined(_WIN32)
#define LLM_API
#else
#define LLM_API __attribute__((visibility("default")))
#endif

//===----------------------------------------------------------------------===//
// Codes and errors
//===----------------------------------------------------------------------===//

typedef int32_t llm_code;
enum {
  LLM_OK = 0,
  /// The arguments are wrong whatever the state of the cache is.
  LLM_INVALID_ARGUMENT = 1,
  /// A name (entry, weight) that does not exist or was not bound.
  LLM_NOT_FOUND = 2,
  /// Not enough free blocks now; releasing or trimming sequences may help.
  LLM_OUT_OF_BLOCKS = 3,
  /// Does not fit even into an empty pool, or exceeds max_seq_len.
  LLM_NEVER_FITS = 4,
  /// The host's memory is exhausted (workspace, metadata, pool).
  LLM_OUT_OF_MEMORY = 5,
  /// Valid arguments at the wrong moment: a stale step or handle, a double
  /// append at a layer, a layer that was not appended, a fork onto a live
  /// sequence.
  LLM_WRONG_STATE = 6,
  /// Another call is using this cache.
  LLM_BUSY = 7,
  /// This build, CPU or kernel set cannot do it.
  LLM_UNSUPPORTED = 8,
  /// The program was compiled for another version of this header.
  LLM_ABI_MISMATCH = 9,
  /// An invariant is broken: a bug in this library. The cache is poisoned.
  LLM_INTERNAL = 10,
  /// A kernel failed on its device, and nobody knows what it wrote. The cache
  /// is poisoned.
  LLM_DEVICE = 11,
  /// The host does not want the call any more (llm_kv_cancel).
  LLM_CANCELLED = 12,
};

/// `llm_error` of the caller; set `struct_size` or use LLM_ERROR_INIT.
typedef struct llm_error {
  uint32_t struct_size;
  llm_code code;
  int32_t site;      ///< index into the program's sites, -1 outside a program
  int32_t layer;     ///< layer concerned, -1 if none
  int32_t sequence;  ///< sequence id concerned, -1 if none
  int32_t line;      ///< source line of the op, 0 if unknown
  int32_t column;    ///< source column of the op, 0 if unknown
  int32_t reserved;  ///< zero
  int64_t expected;  ///< what was allowed or needed; meaning is in `message`
  int64_t actual;    ///< what was found
  const char *op;    ///< "llm.begin_step", or null outside a program
  const char *file;  ///< source file or location name ("layer.attn"), or null
  char message[256]; ///< lower case, no full stop, both values in it
} llm_error;
#define LLM_ERROR_INIT                                                         \
  {(uint32_t)sizeof(llm_error), LLM_OK, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, {0}}

/// "out of blocks" for LLM_OUT_OF_BLOCKS, and so on; never null.
LLM_API const char *llm_code_name(llm_code code);
LLM_API uint32_t llm_abi_version(void);
/// The kernel level in use: "baseline", "x86-64-v3", "x86-64-v4",
/// "x86-64-v4+vnni", "x86-64-v4+bf16+vnni" or "x86-64-v4+amx". The environment
/// variable LLM_CPU_TARGET, read when this library is loaded, forces one.
LLM_API const char *llm_cpu_target(void);

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

typedef int32_t llm_dtype;
enum {
  LLM_F32 = 0,
  LLM_F16 = 1,
  LLM_BF16 = 2,
  LLM_I32 = 3,
  LLM_I64 = 4,
  /// In the pages of a cache alone, see llm_kv_storage.
  LLM_F8E4M3FN = 5,
  LLM_I8 = 6,
  /// Two to a byte.
  LLM_I4 = 7,
};

#define LLM_MAX_RANK 6
/// A strided view. `sizes` and `strides` beyond `rank` are ignored.
typedef struct llm_tensor {
  void *data;
  llm_dtype dtype;
  int32_t rank;
  int64_t sizes[LLM_MAX_RANK];
  int64_t strides[LLM_MAX_RANK]; ///< in elements
} llm_tensor;

//===----------------------------------------------------------------------===//
// Programs: what a compiled model exports
//===----------------------------------------------------------------------===//

/// Where an op came from: compiled code passes an index into a table of these.
typedef struct llm_site {
  const char *op;   ///< "llm.append_kv"
  const char *file; ///< file name, or the name of a NameLoc ("layer.attn")
  int32_t line;     ///< 0 for a NameLoc
  int32_t column;
} llm_site;

typedef int32_t llm_kv_strategy;
enum {
  /// `num_blocks` blocks, taken as sequences grow.
  LLM_KV_PAGED = 0,
  /// Every sequence can always reach max_seq_len: the pool holds
  /// max_sequences * ceil(max_seq_len / block_size) blocks.
  LLM_KV_STATIC = 1,
};

/// What a cache holds of K or of V. Quantized numbers have a scale of f32 for
/// each token and KV head, or a minimum and a step of bf16 for each group of
/// 32, which live in the page with them and share its fate. Appended tensors
/// are quantized and reads are rounded as #llm.kv_storage of the dialect
/// defines. K of LLM_KV_STORAGE_I4 needs blocks of a multiple of 32 tokens.
typedef int32_t llm_kv_storage;
enum {
  /// The cache's dtype.
  LLM_KV_STORAGE_DTYPE = 0,
  LLM_KV_STORAGE_F8E4M3FN = 1,
  LLM_KV_STORAGE_I8 = 2,
  LLM_KV_STORAGE_I4 = 3,
};

/// The static type of a cache: zero means "known only at run time" (`?`).
typedef struct llm_kv_group_desc {
  const char *name; ///< the argument's name, for messages
  int32_t layers;
  int32_t kv_heads;
  int32_t head_dim;
  llm_dtype dtype; ///< element type, -1 for `?`
  int32_t block_size;
  int32_t max_sequences;
  llm_kv_storage k_storage, v_storage; ///< unknown where dtype is `?`
  int64_t max_seq_len;
  int32_t window; ///< a query at p sees (p - window, p]; 0 = no window
  int32_t sinks;  ///< and positions below sinks, only with a window
  llm_kv_strategy strategy;
  /// Defaults for what the type leaves open; zero: the library's defaults.
  int32_t default_block_size;
  int32_t default_max_sequences;
  int64_t default_max_seq_len;
} llm_kv_group_desc;

typedef int32_t llm_file_format;
enum {
  LLM_FILE_F32 = 0,
  LLM_FILE_F16 = 1,
  LLM_FILE_BF16 = 2,
  /// ggml blocks of 32 weights: f16 scale, then the quants.
  LLM_FILE_Q8_0 = 3,
  LLM_FILE_Q4_0 = 4,
  /// ggml block of 32 weights: f16 scale, f16 minimum, then the quants.
  LLM_FILE_Q4_1 = 5,
  /// As Q4_0 and Q4_1, with four bytes of fifth bits before the quants.
  LLM_FILE_Q5_0 = 6,
  LLM_FILE_Q5_1 = 7,
  /// ggml blocks of 256 weights, with scales of their own for each 32 or 16.
  LLM_FILE_Q4_K = 8,
  LLM_FILE_Q5_K = 9,
  LLM_FILE_Q6_K = 10,
};

typedef int32_t llm_layout;
enum {
  /// Row-major, as in the logical shape.
  LLM_LAYOUT_PLAIN = 0,
  /// A logical [N, K] matrix as [ceil(N / 32)][K][32], padded with zeros. What
  /// llm_rt_linear reads.
  LLM_LAYOUT_PANEL32 = 1,
  /// A logical [N, K] matrix of bf16, K a multiple of 32, as
  /// [ceil(N / 32)][K / 32][2][16][16][2]: panels of 32 rows, of them steps of
  /// 32 columns, of them two tiles of 16 rows, as 16 pairs of columns of each
  /// row. Padded with zeros. What llm_rt_linear reads fastest of bf16.
  LLM_LAYOUT_TILES32 = 2,
  /// A logical [N, K] matrix of Q8_0, Q4_0 or Q4_1, as bytes [ceil(N / 32)]
  /// [K / 32][B]: panels of 32 rows, of them the blocks that stand below each
  /// other: 32 scales, of Q4_1 32 minimums, then two times, for 16 rows, four
  /// weights of each row after four of each row: pairs of nibbles as in the
  /// file, or bytes, the highest bit of them flipped. Padded with zeros. What
  /// llm_rt_linear reads.
  LLM_LAYOUT_BLOCKS32 = 3,
};

/// One weight argument. Several names are concatenated along `axis`.
typedef struct llm_weight_desc {
  const char *const *names;
  int32_t num_names;
  int32_t axis;
  /// What compiled code reads: LLM_F32 or LLM_BF16; of blocks LLM_I8.
  llm_dtype dtype;
  llm_layout layout;
  int32_t rank; ///< logical rank, 1 or 2
  /// Of blocks, LLM_FILE_Q8_0, Q4_0 or Q4_1: what the tensors are packed as,
  /// each of a format that llm_file_block_format fits into it. Else zero.
  llm_file_format format;
  int64_t sizes[2]; ///< logical sizes after concatenation
} llm_weight_desc;

/// A tensor input or output. Dimension i is `sizes[i]` if that is >= 0, else
/// the value of symbol `symbols[i]` plus `symbol_add[i]`; a symbol of -1 is
/// unconstrained. The first use of a symbol (inputs first) binds it.
typedef struct llm_value_desc {
  const char *name;
  llm_dtype dtype;
  int32_t rank;
  int64_t sizes[LLM_MAX_RANK];
  int32_t symbols[LLM_MAX_RANK];
  int32_t symbol_add[LLM_MAX_RANK];
  /// The elements of an i32 input are in [0, below), checked before the call;
  /// with `below_symbol` >= 0 the bound is that symbol's value instead. A
  /// negative `below` without a symbol: unchecked.
  int64_t below;
  int32_t below_symbol;
  int32_t reserved; ///< zero
} llm_value_desc;

typedef struct llm_call llm_call;
typedef llm_code (*llm_entry_fn)(llm_call *);

typedef struct llm_entry_desc {
  const char *name;
  llm_entry_fn fn;
  const llm_value_desc *inputs;
  const llm_value_desc *outputs;
  const int32_t *kv_groups; ///< group index of each cache argument
  int32_t num_inputs, num_outputs, num_kv, num_symbols;
  int32_t num_fresh; ///< of num_kv, the last ones: caches that the entry makes
  int32_t reserved;  ///< zero
} llm_entry_desc;

/// Everything a host can know of a compiled model.
typedef struct llm_program {
  uint32_t struct_size;
  uint32_t abi_version;
  const char *name;
  const char *triple;
  const char *cpu; ///< that the code was compiled for, by LLVM's name
  /// What it needs of a CPU, of CPUFeatures.def, separated by commas: null or
  /// empty where any CPU of the triple will do.
  const char *cpu_features;
  const char *metadata_json; ///< "{}" or what the importer left for the host
  const llm_kv_group_desc *groups;
  const llm_weight_desc *weights;
  const llm_entry_desc *entries;
  const llm_site *sites;
  int32_t num_groups, num_weights, num_entries, num_sites;
} llm_program;

//===----------------------------------------------------------------------===//
// Context and model
//===----------------------------------------------------------------------===//

typedef struct llm_context llm_context;
typedef struct llm_model llm_model;
typedef struct llm_kv_cache llm_kv_cache;

/// `num_threads` <= 0: one per available core. LLM_INVALID_ARGUMENT when
/// LLM_CPU_TARGET names no level that this CPU runs.
LLM_API llm_code llm_context_create(int32_t num_threads, llm_context **context,
                                    llm_error *error);
/// Models and caches keep what they need of it: destroy in any order.
LLM_API void llm_context_destroy(llm_context *context);

/// The program must outlive the model. LLM_ABI_MISMATCH: another version of the
/// ABI. LLM_UNSUPPORTED: code that needs what this CPU lacks, or a weight that
/// the runtime cannot pack.
LLM_API llm_code llm_model_create(llm_context *context,
                                  const llm_program *program, llm_model **model,
                                  llm_error *error);
LLM_API void llm_model_destroy(llm_model *model);
LLM_API const llm_program *llm_model_describe(const llm_model *model);

/// "q4_1"; null for a number that is no format.
LLM_API const char *llm_file_format_name(llm_file_format format);
/// Bytes of one row of `cols` weights, or -1 where a row does not consist of
/// whole blocks.
LLM_API int64_t llm_file_row_bytes(llm_file_format format, int64_t cols);

/// The smallest blocks of LLM_LAYOUT_BLOCKS32 that hold weights of `format`
/// without more loss than of a rounding to them: LLM_FILE_Q4_0, Q4_1 or Q8_0,
/// each of which holds what those before it do. -1 of what is not quantized.
LLM_API llm_file_format llm_file_block_format(llm_file_format format);

/// A tensor as it lies in a file: row-major, little-endian, any alignment.
typedef struct llm_weight_source {
  const void *data;
  llm_file_format format;
  int32_t rank;
  int64_t sizes[2];
} llm_weight_source;

/// Binds the named tensor to every weight that mentions it. The data must stay
/// valid until llm_model_finish returns. LLM_NOT_FOUND: no weight has that
/// name; LLM_INVALID_ARGUMENT: shape mismatch (both shapes in the message).
LLM_API llm_code llm_model_bind_weight(llm_model *model, const char *name,
                                       const llm_weight_source *source,
                                       llm_error *error);
/// Dequantizes and packs every bound weight in parallel. LLM_NOT_FOUND counts
/// the weights that are missing and names the first.
LLM_API llm_code llm_model_finish(llm_model *model, llm_error *error);
/// Bytes of all weights as llm_model_finish packs them, known before it.
LLM_API int64_t llm_model_weight_bytes(const llm_model *model);
/// What products with packed weights have cost in the invocations that have
/// ended, failed ones too. Times are those of whole products, in nanoseconds,
/// so that bytes / ns is GB/s.
typedef struct llm_model_work {
  int64_t linear_ns;
  int64_t linear_bytes; ///< of packed weights, once for each product
  int64_t linear_flops; ///< 2 for each row and weight
} llm_model_work;

/// Since the model was made. LLM_INVALID_ARGUMENT: a null argument.
LLM_API llm_code llm_model_get_work(llm_model *model, llm_model_work *work,
                                    llm_error *error);

/// Runs an entry (null: the only one) as one transaction over its caches:
/// on an error every cache is as it was before. Checks dtypes, shapes, symbols
/// and value ranges of inputs and outputs against the program first. The same
/// cache given twice is LLM_INVALID_ARGUMENT. Where the entry makes caches
/// (num_fresh), `caches` holds nulls, which on LLM_OK become objects that the
/// caller destroys.
LLM_API llm_code llm_model_invoke(llm_model *model, const char *entry,
                                  llm_kv_cache **caches, int32_t num_caches,
                                  const llm_tensor *inputs, int32_t num_inputs,
                                  const llm_tensor *outputs,
                                  int32_t num_outputs, llm_error *error);

//===----------------------------------------------------------------------===//
// The cache object
//===----------------------------------------------------------------------===//

typedef struct llm_kv_config {
  uint32_t struct_size;
  int32_t layers;
  int32_t kv_heads;
  int32_t head_dim;
  llm_dtype dtype;       ///< LLM_F32, LLM_F16 or LLM_BF16
  int32_t block_size;    ///< tokens of one block, any number >= 1
  int32_t max_sequences; ///< sequence ids are 0 .. max_sequences - 1
  int32_t window;        ///< 0: none
  int32_t sinks;         ///< 0: none; more only with a window
  int64_t max_seq_len;   ///< tokens a sequence may hold
  llm_kv_strategy strategy;
  llm_kv_storage k_storage, v_storage;
  int32_t poison; ///< nonzero: fill free blocks with NaN (tests)
  /// Blocks that sequences can use (the guard block comes on top).
  /// Paged: 0 means enough for every sequence; static: must be 0.
  int64_t num_blocks;
} llm_kv_config;

/// Defaults: block_size 16 (32 where a program's K is i4), max_sequences 1,
/// max_seq_len 4096, f16, paged; the model dimensions are the caller's. With a
/// program, what its group `group` fixes or suggests.
LLM_API llm_code llm_kv_config_init(const llm_program *program, int32_t group,
                                    llm_kv_config *config, llm_error *error);
/// Bytes of the pool that this configuration makes, guard block included.
LLM_API llm_code llm_kv_bytes(const llm_kv_config *config, int64_t *bytes,
                              llm_error *error);
/// Reserves the pool (address space: pages are touched as tokens arrive).
LLM_API llm_code llm_kv_create(llm_context *context,
                               const llm_kv_config *config,
                               llm_kv_cache **cache, llm_error *error);
LLM_API void llm_kv_destroy(llm_kv_cache *cache);
LLM_API llm_code llm_kv_get_config(const llm_kv_cache *cache,
                                   llm_kv_config *config, llm_error *error);
/// A second, independent cache object on the same pool with the same content.
LLM_API llm_code llm_kv_snapshot(llm_kv_cache *cache, llm_kv_cache **copy,
                                 llm_error *error);

/// Statistics of the pool, in the order of `llm.kv_stats`'s result.
typedef struct llm_kv_stats {
  int64_t total_blocks; ///< without the guard block
  int64_t free_blocks;
  int64_t live_blocks;    ///< referenced by some sequence of some version
  int64_t pending_blocks; ///< freed inside the running transaction
  int64_t peak_live_blocks;
  int64_t block_bytes;  ///< bytes of one block over all layers, K and V
  int64_t versions;     ///< live versions, the host's objects included
  int64_t snapshots;    ///< snapshots ever taken
  int64_t cow_blocks;   ///< blocks ever copied because they were shared
  int64_t copied_bytes; ///< bytes of K and V ever copied, scales included
  int64_t table_copies; ///< block tables ever copied because they were shared
  int64_t appended_tokens; ///< tokens ever committed to sequences
} llm_kv_stats;
#define LLM_KV_NUM_STATS 12

LLM_API llm_code llm_kv_get_stats(llm_kv_cache *cache, llm_kv_stats *stats,
                                  llm_error *error);
/// What append and attention have cost on this pool so far, kept or not. Times
/// are those of whole calls, in nanoseconds, so that bytes / ns is GB/s.
typedef struct llm_kv_work {
  int64_t append_ns;
  int64_t append_bytes; ///< of K and V written
  int64_t attention_ns;
  /// Of the K and V that some query of a row sees, once for each row of a call.
  int64_t attention_bytes;
  /// 4 * head_dim for each query, head of it and key that it sees.
  int64_t attention_flops;
} llm_kv_work;

LLM_API llm_code llm_kv_get_work(llm_kv_cache *cache, llm_kv_work *work,
                                 llm_error *error);
/// While on, everything that would change the cache fails with LLM_CANCELLED: a
/// running entry at its next call of the runtime, and is undone as after any
/// error; a step at its next function. From any thread at any time.
LLM_API llm_code llm_kv_cancel(llm_kv_cache *cache, int32_t on,
                               llm_error *error);
/// Verifies every invariant of pool, tables and versions; LLM_INTERNAL names
/// the first that is broken.
LLM_API llm_code llm_kv_check(llm_kv_cache *cache, llm_error *error);

//===----------------------------------------------------------------------===//
// Sequences, outside a call; each function is its own transaction
//===----------------------------------------------------------------------===//

/// The lowest empty sequence id. It stays empty until something is appended.
LLM_API llm_code llm_kv_acquire_sequence(llm_kv_cache *cache, int32_t *id,
                                         llm_error *error);
/// The `n` children (empty sequences, distinct) share the parent's first
/// `length` tokens; nothing is copied until somebody writes.
LLM_API llm_code llm_kv_fork(llm_kv_cache *cache, int32_t parent,
                             const int32_t *children, int32_t n, int64_t length,
                             llm_error *error);
/// Cuts sequence ids[i] back to lengths[i] tokens.
LLM_API llm_code llm_kv_trim(llm_kv_cache *cache, const int32_t *ids,
                             const int64_t *lengths, int32_t n,
                             llm_error *error);
/// Gives sequences back: they are empty afterwards. Empty ones are allowed.
LLM_API llm_code llm_kv_release(llm_kv_cache *cache, const int32_t *ids,
                                int32_t n, llm_error *error);
LLM_API llm_code llm_kv_length(llm_kv_cache *cache, int32_t id, int64_t *length,
                               llm_error *error);
/// Would a step with new_tokens[i] tokens for ids[i] get its blocks? LLM_OK,
/// LLM_OUT_OF_BLOCKS or LLM_NEVER_FITS; the error names the first sequence
/// that does not fit. Changes nothing.
LLM_API llm_code llm_kv_reserve_check(llm_kv_cache *cache, const int32_t *ids,
                                      const int64_t *new_tokens, int32_t n,
                                      llm_error *error);

//===----------------------------------------------------------------------===//
// The data plane without a compiler: one step, bracketed
//===----------------------------------------------------------------------===//

typedef struct llm_kv_step llm_kv_step;

/// Attention parameters. `scale` NaN: 1 / sqrt(head_dim).
typedef struct llm_attention_params {
  float scale;
  float softcap;  ///< 0: none; else s -> softcap * tanh(s / softcap)
  int32_t window; ///< 0: the cache's; else narrows it to (p - window, p]
  int32_t causal; ///< nonzero: a query at p sees keys at positions <= p
} llm_attention_params;

typedef int32_t llm_rope_pairing;
enum {
  /// Lanes i and i + D / 2 rotate together.
  LLM_ROPE_HALF = 0,
  /// Lanes 2 i and 2 i + 1.
  LLM_ROPE_ADJACENT = 1,
};

/// Optional tensors of attention, the first of lookup too, the last of append;
/// absent ones are null, and so are those behind `struct_size`. A score is
/// scaled, then softly capped, then moved by alibi.
typedef struct llm_extras {
  uint32_t struct_size;
  llm_rope_pairing rope_pairing; ///< of rope_table; else zero
  /// i32 [B, W]: physical blocks. Token j of row i is slot j mod block_size of
  /// block table[i][j div block_size]; row i's length is sequence i's.
  const llm_tensor *block_indices;
  /// f32 [Hq]: slopes; the score of key j for position p grows by
  /// slope * (j - p).
  const llm_tensor *alibi;
  /// f32 [Hq]: one more logit of each head, without a value; lse contains it.
  const llm_tensor *head_sink;
  /// Like q, in its place for the sinks of the cache, which must have some.
  const llm_tensor *sink_query;
  /// f32 [T, D]: the cosines, then the sines, by which append rotates the D / 2
  /// pairs of lanes of k, which is f32: (a, b) to (a cos - b sin,
  /// a sin + b cos), two products and one sum, each rounded.
  const llm_tensor *rope_table;
} llm_extras;

/// Begins a step: tokens cu_seqlens[i] .. cu_seqlens[i + 1] - 1 of the batch
/// belong to sequence ids[i] (distinct). Takes every block the step needs, or
/// fails for the batch as a whole and names the first sequence that did not
/// fit. The step ends with commit or abort, which destroy it.
LLM_API llm_code llm_kv_begin(llm_kv_cache *cache, const int32_t *ids,
                              const int32_t *cu_seqlens, int32_t n,
                              llm_kv_step **step, llm_error *error);
/// k, v: [T, Hkv, D], f32, f16 or bf16, rounded once to what the cache stores.
LLM_API llm_code llm_kv_append(llm_kv_step *step, int32_t layer,
                               const llm_tensor *k, const llm_tensor *v,
                               llm_error *error);
/// q, out: [T, Hq, D] (one dtype: f32, f16 or bf16), Hq a multiple of Hkv.
/// lse: null or f32 [T, Hq], the natural log of the sum of exponentials; a row
/// that sees no key gets out = 0 and lse = -inf. params and extras may be null.
LLM_API llm_code llm_kv_attention(llm_kv_step *step, int32_t layer,
                                  const llm_tensor *q,
                                  const llm_attention_params *params,
                                  const llm_extras *extras,
                                  const llm_tensor *out, const llm_tensor *lse,
                                  llm_error *error);
/// Ends the step: every layer that was ever appended to must have been
/// appended in it (LLM_WRONG_STATE names the layer, and the step goes on).
LLM_API llm_code llm_kv_commit(llm_kv_step *step, llm_error *error);
/// Ends the step as if it had never begun.
LLM_API void llm_kv_abort(llm_kv_step *step);
/// K and V of sequences ids[i] at one layer as dense tensors [B, C, Hkv, D] of
/// the cache's dtype: the first min(C, length) tokens, then zeros.
LLM_API llm_code llm_kv_lookup(llm_kv_cache *cache, int32_t layer,
                               const int32_t *ids, int32_t n,
                               const llm_tensor *k, const llm_tensor *v,
                               llm_error *error);

//===----------------------------------------------------------------------===//
// Called by compiled code
//===----------------------------------------------------------------------===//

/// What compiled code sees of a call. The runtime's own data follows it.
struct llm_call {
  uint32_t struct_size;
  uint32_t abi_version;
  const llm_tensor *inputs;
  const llm_tensor *outputs;
  void *const *weights; ///< packed data, in the order of the program's weights
  const uint64_t *kv;   ///< a handle for each cache argument
};

// A kv handle is (generation << 32 | index) into the call's table of versions;
// a step adds the layer in its top 16 bits (layer + 1). 0 is no handle and no
// step. Each function sets the call's error on failure; the code it returns is
// what the entry returns.

LLM_API llm_code llm_rt_create_kv_cache(llm_call *, int32_t site,
                                        const llm_kv_group_desc *type,
                                        int64_t blocks, uint64_t *kv);
/// Checks the cache against a more static (or less static) type.
LLM_API llm_code llm_rt_cast_kv(llm_call *, int32_t site, uint64_t kv,
                                const llm_kv_group_desc *type);
/// seq_ids: i32 [B], cu_seqlens: i32 [B + 1].
LLM_API llm_code llm_rt_begin_step(llm_call *, int32_t site, uint64_t kv,
                                   const llm_tensor *seq_ids,
                                   const llm_tensor *cu_seqlens,
                                   uint64_t *step);
/// Number of tokens (T) and of sequences (B) of a step.
LLM_API llm_code llm_rt_step_size(llm_call *, int32_t site, uint64_t step,
                                  int64_t *tokens, int64_t *sequences);
/// out: i32 [T].
LLM_API llm_code llm_rt_positions(llm_call *, int32_t site, uint64_t step,
                                  const llm_tensor *out);
LLM_API llm_code llm_rt_at_layer(llm_call *, int32_t site, uint64_t step,
                                 int64_t layer, uint64_t *at);
/// With a step: k, v [T, Hkv, D]. Without (at = 0): [B, S, Hkv, D], row i is
/// sequence i, layer 0, blocks are taken on the fly, and extras have no
/// rope_table. extras may be null.
LLM_API llm_code llm_rt_append_kv(llm_call *, int32_t site, uint64_t kv,
                                  uint64_t at, const llm_tensor *k,
                                  const llm_tensor *v,
                                  const llm_extras *extras);
/// With a step: q, out [T, Hq, D], lse [T, Hq]. Without: q, out [B, S, Hq, D],
/// lse [B, S, Hq], the queries are the last S positions of sequence i, layer 0.
/// lse may be null.
LLM_API llm_code llm_rt_paged_attention(llm_call *, int32_t site, uint64_t kv,
                                        uint64_t at, const llm_tensor *q,
                                        const llm_tensor *out,
                                        const llm_tensor *lse,
                                        const llm_attention_params *params,
                                        const llm_extras *extras);
/// k, v: [B, C, Hkv, D] of the cache's dtype, C a bound: the first
/// min(C, length) tokens, then zeros. Row i is the step's i-th sequence, or
/// sequence i without a step.
LLM_API llm_code llm_rt_lookup_kv(llm_call *, int32_t site, uint64_t kv,
                                  uint64_t at, const llm_tensor *k,
                                  const llm_tensor *v,
                                  const llm_extras *extras);
/// out = x * transpose(w), all of f32 but w: x [M, K], out [M, N], and the
/// [N, K] matrix w, of `format` LLM_FILE_BF16 in LLM_LAYOUT_TILES32 as bf16
/// [ceil(N / 32), K / 32, 1024], of LLM_FILE_F32 or LLM_FILE_BF16 in
/// LLM_LAYOUT_PANEL32 as f32 or bf16 [ceil(N / 32), K, 32], of LLM_FILE_Q8_0,
/// Q4_0 or Q4_1 in LLM_LAYOUT_BLOCKS32 as i8 [ceil(N / 32), K / 32, 1088, 576
/// or 640].
///
/// x is rounded to `activations` first: LLM_F32, LLM_BF16 beside tiles and
/// blocks, or LLM_I8 beside blocks alone. Beside the first two weights of
/// blocks are rounded to bf16. LLM_I8 takes the blocks as they are: each 32
/// numbers of a row of x become integers times their largest magnitude / 127,
/// and a row with a number that is not finite gives NaN. With AMX it is
/// LLM_BF16 of more than 32 rows.
///
/// Sums are of f32. Beside tiles and blocks subnormal numbers may count as
/// zero, and of an infinite weight beside f32 activations NaN may come.
/// LLM_INVALID_ARGUMENT: x or out not rows of f32, K of tiles or blocks not a
/// multiple of 32, or w not whole; LLM_UNSUPPORTED: another format or other
/// activations.
LLM_API llm_code llm_rt_linear(llm_call *, int32_t site, const llm_tensor *x,
                               const llm_tensor *w, llm_file_format format,
                               llm_dtype activations, const llm_tensor *out);
/// children[i] shares the first lengths[i] tokens of parents[i]; i32 [N] each.
LLM_API llm_code llm_rt_fork_kv(llm_call *, int32_t site, uint64_t kv,
                                const llm_tensor *parents,
                                const llm_tensor *children,
                                const llm_tensor *lengths);
LLM_API llm_code llm_rt_trim_kv(llm_call *, int32_t site, uint64_t kv,
                                const llm_tensor *seq_ids,
                                const llm_tensor *lengths);
LLM_API llm_code llm_rt_release_kv(llm_call *, int32_t site, uint64_t kv,
                                   const llm_tensor *seq_ids);
/// out: i32 [B], the lengths of seq_ids (i32 [B]): inside a step, of the layer
/// that is furthest.
LLM_API llm_code llm_rt_seq_lens(llm_call *, int32_t site, uint64_t kv,
                                 const llm_tensor *seq_ids,
                                 const llm_tensor *out);
/// Blocks of the longest of these sequences.
LLM_API llm_code llm_rt_block_table_width(llm_call *, int32_t site, uint64_t kv,
                                          const llm_tensor *seq_ids,
                                          int64_t *width);
/// out: i32 [B, W], -1 after a sequence's last block; a sequence with more than
/// W blocks is LLM_INVALID_ARGUMENT.
LLM_API llm_code llm_rt_block_table(llm_call *, int32_t site, uint64_t kv,
                                    const llm_tensor *seq_ids,
                                    const llm_tensor *out);
/// out: i64 [LLM_KV_NUM_STATS], in the order of llm_kv_stats.
LLM_API llm_code llm_rt_kv_stats(llm_call *, int32_t site, uint64_t kv,
                                 const llm_tensor *out);
/// Of handle 0, a version on a path that no one takes, handle 0.
LLM_API llm_code llm_rt_snapshot_kv(llm_call *, int32_t site, uint64_t kv,
                                    uint64_t *copy);
/// End of a version. Does nothing for handle 0 and for the host's own object,
/// which keeps its content until llm_rt_replace_kv.
LLM_API llm_code llm_rt_drop_kv(llm_call *, int32_t site, uint64_t kv);
/// The host's object behind `host` becomes the version `kv`, whose handle ends
/// here. The same handle twice is a no-op.
LLM_API llm_code llm_rt_replace_kv(llm_call *, int32_t site, uint64_t host,
                                   uint64_t kv);
/// Memory of the call's arena, aligned to 64 bytes.
LLM_API llm_code llm_rt_workspace(llm_call *, int32_t site, int64_t bytes,
                                  void **data);
/// A mark of the arena, and the release of everything taken since.
LLM_API llm_code llm_rt_workspace_mark(llm_call *, int32_t site, int64_t *mark);
LLM_API llm_code llm_rt_workspace_release(llm_call *, int32_t site,
                                          int64_t mark);
/// LLM_INVALID_ARGUMENT unless actual == expected; `what` belongs to the
/// program.
LLM_API llm_code llm_rt_check_size(llm_call *, int32_t site, const char *what,
                                   int64_t actual, int64_t expected);
/// Fails with `code`; `message` belongs to the program.
LLM_API llm_code llm_rt_fail(llm_call *, int32_t site, llm_code code,
                             const char *message, int64_t expected,
                             int64_t actual);

#ifdef __cplusplus
} // extern "C"

static_assert(sizeof(llm_tensor) == 112, "llm_tensor is part of the ABI");
static_assert(sizeof(llm_extras) == 48, "llm_extras is part of the ABI");
static_assert(sizeof(llm_kv_stats) == LLM_KV_NUM_STATS * sizeof(int64_t),
              "statistics are an array of i64");
#endif

#endif // LLM_RUNTIME_CAPI_H
