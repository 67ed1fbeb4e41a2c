// Attention of the runs of one item and one head, forward and backward; compiled once per instruction set.
//
// Arithmetic is of type T, whatever the type S of the tensors. Queries are packed tile by tile; keys, values and their
// gradients are taken as they lie where type and width allow, else packed once for all queries of the item.

#include <type_traits>

#include "ahead.h"
#include "attention.h"
#include "bias.h"
#include "boxes.h"
#include "products.h"
#include "rows.h"
#include "softmax.h"
#include "tiles.h"
#include "transposed.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

template <class S>
Rows<const S> rows_of(const void* data, int64_t stride, int64_t head, int64_t head_stride) {
  return {static_cast<const S*>(data) + head * head_stride, static_cast<ptrdiff_t>(stride)};
}

template <class S>
Rows<S> rows_of(void* data, int64_t stride, int64_t head, int64_t head_stride) {
  return {static_cast<S*>(data) + head * head_stride, static_cast<ptrdiff_t>(stride)};
}

template <class S>
Rows<S> dense_rows_of(void* data, const Call& call, int64_t head) {
  return rows_of<S>(data, call.heads * call.width, head, call.width);
}

// Buffers cut from the scratch in the order of use, each on a cache line.
template <class T>
struct Buffers {
  int padded;  // width of a head, in whole vectors
  size_t key_rows, queries, scores;
  T* next;

  Buffers(const Plan& plan, const Call& call, void* scratch) : next(static_cast<T*>(scratch)) {
    padded = round_up(static_cast<int>(call.width), LANES<T>);
    const size_t keys = round_up(plan.most_keys, 16);
    key_rows = keys * padded;
    queries = size_t(TILE_QUERIES) * padded;
    scores = TILE_QUERIES * (keys + 2 * LANES<T>);
  }

  T* take(size_t count) {
    T* const taken = next;
    next += line_up(count);
    return taken;
  }
  size_t bytes() const {  // of all buffers of the backward
    return (6 * line_up(key_rows) + 3 * line_up(queries) + 3 * line_up(scores)) * sizeof(T);
  }
  static size_t line_up(size_t count) {
    constexpr size_t line = 64 / sizeof(T);
    return (count + line - 1) / line * line;
  }
};

// Keys or values of the item.
template <class T, class S>
Rows<const T> keys_of(Rows<const S> x, const Item& item, int width, int padded, T* packed) {
  if constexpr (std::is_same_v<T, S>)
    if (width == padded) return {x[item.key_row], x.stride};
  for (int32_t i = 0; i < item.keys; ++i)
    pack_row(x[item.key_row + i], width, T(1), packed + ptrdiff_t(i) * padded);
  return {packed, padded};
}

// Where the gradient of keys or values is summed.
template <class T, class S>
Rows<T> sums_of(Rows<S> x, const Item& item, int width, int padded, T* packed) {
  Rows<T> sums{packed, padded};
  if constexpr (std::is_same_v<T, S>)
    if (width == padded) sums = {x[item.key_row], x.stride};
  for (int32_t i = 0; i < item.keys; ++i) __builtin_memset(sums[i], 0, padded * sizeof(T));
  return sums;
}

template <class T, class S>
void write_sums(Rows<T> sums, const Item& item, int width, Rows<S> to) {
  if (static_cast<void*>(sums.data) == to[item.key_row]) return;
  for (int32_t i = 0; i < item.keys; ++i) write_row(sums[i], width, T(1), to[item.key_row + i]);
}

template <class T, class S>
void pack_queries(Rows<const S> x, const Tile& tile, int width, int padded, T scale, T* to) {
  for (int i = 0; i < tile.count; ++i) pack_row(x[tile.rows[i]], width, scale, to + ptrdiff_t(i) * padded);
}

// Dot products of the tile's packed rows with their keys.
template <class T, class Between>
void score(const Tile& tile, const T* rows, Rows<const T> keys, Transposed<T>& transposed, int padded, T* scores,
           Between& between) {
  for (const Part& part : tile) {
    if (transposed.takes(part))
      transposed.dots(part, rows, scores, between);
    else
      dots(part, rows, keys, padded, scores, between);
  }
}

Dropout dropout_of(const Call& call, const Item& item, int64_t head) {
  return {call.seed, call.drop_below, static_cast<uint32_t>(head), call.keep_scale, item.keys};
}

// From peaks and totals to log-sum-exps and factors of the output; without keys (a total of 0) -inf and 0.
template <class T>
RELVLM_INLINE void finish(int count, Softmax<T>& of) {
  for (int i = 0; i < count; i += LANES<T>) {
    const Vector<T> total = load(of.totals + i);
    store(of.peaks + i, total == 0 ? splat(MINUS_INFINITY<T>) : load(of.peaks + i) + logarithm(total));
    store(of.totals + i, total == 0 ? Vector<T>{} : T(1) / total);
  }
}

template <class T, class S>
void forward_of(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  if (item.runs_begin == item.runs_end) return;
  Buffers<T> buffers(plan, call, scratch);
  const int width = static_cast<int>(call.width), padded = buffers.padded;
  const Rows<const S> q = rows_of<S>(call.q, call.q_row, head, call.q_head);
  const Rows<S> out = dense_rows_of<S>(call.out, call, head);
  T* const lse = static_cast<T*>(call.lse) + head;
  T *const packed_k = buffers.take(buffers.key_rows), *const packed_v = buffers.take(buffers.key_rows);
  T *const tile_q = buffers.take(buffers.queries), *const tile_out = buffers.take(buffers.queries);
  T *const scores = buffers.take(buffers.scores), *const mask = buffers.take(buffers.scores);
  const Rows<const S> k = rows_of<S>(call.k, call.k_row, head, call.k_head);
  const Rows<const S> v = rows_of<S>(call.v, call.v_row, head, call.v_head);
  const auto keys = keys_of(k, item, width, padded, packed_k);
  const auto values = keys_of(v, item, width, padded, packed_v);
  Transposed<T> transposed_k(keys, padded, buffers.take(buffers.key_rows));
  const Dropout dropout = dropout_of(call, item, head);
  const Bias<T> bias(plan, call, item, head);

  Ahead<S> ahead(plan, call, item, head);
  ahead.of_queries(q, call.q_head), ahead.of_queries(out, width);
  ahead.of_keys(k, call.k_head), ahead.of_keys(v, call.v_head);
  for_tiles<T>(plan, item, [&](const Tile& tile) {
    ahead.begin(tile, 1);
    pack_queries(q, tile, width, padded, T(call.scale), tile_q);
    score(tile, tile_q, keys, transposed_k, padded, scores, ahead);
    bias.add_to(tile, scores);
    Softmax<T> normal;
    softmax(tile, scores, dropout, mask, normal);
    finish(tile.count, normal);
    for (const Part& part : tile) gather(part, scores, values, tile_out, padded);
    for (int i = 0; i < tile.count; ++i) {
      write_row(tile_out + ptrdiff_t(i) * padded, width, normal.totals[i], out[tile.rows[i]]);
      lse[tile.rows[i] * call.heads] = normal.peaks[i];
    }
    ahead.end();
  });
}

template <class T, class S>
void backward_of(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  Buffers<T> buffers(plan, call, scratch);
  const int width = static_cast<int>(call.width), padded = buffers.padded;
  const Rows<S> dk = rows_of<S>(call.dk, call.dk_row, head, call.dk_head);
  const Rows<S> dv = rows_of<S>(call.dv, call.dv_row, head, call.dv_head);
  const Rows<const S> q = rows_of<S>(call.q, call.q_row, head, call.q_head);
  const Rows<const S> grad = rows_of<S>(call.grad, call.grad_row, head, call.grad_head);
  const Rows<S> out = dense_rows_of<S>(call.out, call, head);
  const Rows<S> dq = rows_of<S>(call.dq, call.dq_row, head, call.dq_head);
  const T* const lse = static_cast<const T*>(call.lse) + head;
  T *const packed_dk = buffers.take(buffers.key_rows), *const packed_dv = buffers.take(buffers.key_rows);
  T *const packed_k = buffers.take(buffers.key_rows), *const packed_v = buffers.take(buffers.key_rows);
  T *const tile_q = buffers.take(buffers.queries), *const tile_grad = buffers.take(buffers.queries);
  T* const tile_dq = buffers.take(buffers.queries);
  T *const weights = buffers.take(buffers.scores), *const dscores = buffers.take(buffers.scores);
  T* const mask = buffers.take(buffers.scores);
  const Rows<T> sum_dk = sums_of(dk, item, width, padded, packed_dk);
  const Rows<T> sum_dv = sums_of(dv, item, width, padded, packed_dv);
  if (item.runs_begin == item.runs_end) return write_sums(sum_dk, item, width, dk), write_sums(sum_dv, item, width, dv);
  const Rows<const S> k = rows_of<S>(call.k, call.k_row, head, call.k_head);
  const Rows<const S> v = rows_of<S>(call.v, call.v_row, head, call.v_head);
  const auto keys = keys_of(k, item, width, padded, packed_k);
  const auto values = keys_of(v, item, width, padded, packed_v);
  Transposed<T> transposed_k(keys, padded, buffers.take(buffers.key_rows));
  Transposed<T> transposed_v(values, padded, buffers.take(buffers.key_rows));
  const Dropout dropout = dropout_of(call, item, head);
  const Bias<T> bias(plan, call, item, head);

  Ahead<S> ahead(plan, call, item, head);
  ahead.of_queries(q, call.q_head), ahead.of_queries(grad, call.grad_head);
  ahead.of_queries(out, width), ahead.of_queries(dq, call.dq_head);
  ahead.of_keys(k, call.k_head), ahead.of_keys(v, call.v_head);
  ahead.of_keys(dk, call.dk_head), ahead.of_keys(dv, call.dv_head);
  for_tiles<T>(plan, item, [&](const Tile& tile) {
    ahead.begin(tile, 2);
    pack_queries(q, tile, width, padded, T(call.scale), tile_q);
    pack_queries(grad, tile, width, padded, T(1), tile_grad);
    score(tile, tile_q, keys, transposed_k, padded, weights, ahead);
    score(tile, tile_grad, values, transposed_v, padded, dscores, ahead);
    bias.add_to(tile, weights);
    Partial<T> products;
    PerRow<T> deltas, row_lse;
    for (int i = 0; i < tile.count; ++i) {
      products[i] = row_products(tile_grad + ptrdiff_t(i) * padded, out[tile.rows[i]], width);
      row_lse[i] = lse[tile.rows[i] * call.heads];
    }
    reduce<T, Sum>(products, tile.count, deltas);
    softmax_backward(tile, weights, dscores, row_lse, deltas, dropout, mask);
    bias.add_gradient(tile, dscores);
    for (const Part& part : tile) {
      scatter(part, weights, tile_grad, sum_dv, padded, mask);
      scatter(part, dscores, tile_q, sum_dk, padded, mask);
      gather(part, dscores, keys, tile_dq, padded);
    }
    for (int i = 0; i < tile.count; ++i)
      write_row(tile_dq + ptrdiff_t(i) * padded, width, T(call.scale), dq[tile.rows[i]]);
    ahead.end();
  });
  write_sums(sum_dk, item, width, dk);
  write_sums(sum_dv, item, width, dv);
}

size_t bytes(const Plan& plan, const Call& call) {
  if (call.type == FLOAT64) return Buffers<double>(plan, call, nullptr).bytes();
  return Buffers<float>(plan, call, nullptr).bytes();
}

void forward(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  switch (call.type) {
    case FLOAT64: return forward_of<double, double>(plan, call, item, head, scratch);
    case BFLOAT16: return forward_of<float, Bfloat16>(plan, call, item, head, scratch);
    case FLOAT16: return forward_of<float, Float16>(plan, call, item, head, scratch);
    default: return forward_of<float, float>(plan, call, item, head, scratch);
  }
}

void backward(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  switch (call.type) {
    case FLOAT64: return backward_of<double, double>(plan, call, item, head, scratch);
    case BFLOAT16: return backward_of<float, Bfloat16>(plan, call, item, head, scratch);
    case FLOAT16: return backward_of<float, Float16>(plan, call, item, head, scratch);
    default: return backward_of<float, float>(plan, call, item, head, scratch);
  }
}

}  // namespace RELVLM_ISA

#define RELVLM_JOIN(a, b) a##b
#define RELVLM_TABLE(isa) RELVLM_JOIN(kernels_, isa)
#define RELVLM_QUOTE(isa) #isa
#define RELVLM_NAME(isa) RELVLM_QUOTE(isa)

const Kernels RELVLM_TABLE(RELVLM_ISA) = {RELVLM_NAME(RELVLM_ISA), RELVLM_ISA::bytes, RELVLM_ISA::forward,
                                          RELVLM_ISA::backward, RELVLM_ISA::box_bytes, RELVLM_ISA::box_mean,
                                          RELVLM_ISA::box_mean_backward};

}  // namespace relvlm
