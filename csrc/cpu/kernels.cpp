// Attention of the runs of one item and one head, forward and backward; compiled once per instruction set.
//
// K and V of the item are packed once for all its queries (their rows lie far apart in memory), in the type T of the
// arithmetic whatever the type S of the tensors. Scores of a tile of queries lie side by side without gaps: the
// prefix, then the box row by row.

#include <type_traits>

#include "attention.h"
#include "boxes.h"
#include "products.h"
#include "rows.h"
#include "softmax.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

constexpr int TILE_QUERIES = 36, TILE_ROOM = 48;  // room: in whole vectors

// Rows of one head of a (rows, heads, width) tensor.
template <class S>
struct Rows {
  S* data;
  ptrdiff_t stride;
  S* operator[](int64_t row) const { return data + row * stride; }
};

template <class S>
Rows<const S> rows_of(const void* data, int64_t stride, int64_t head, int64_t head_stride) {
  return {static_cast<const S*>(data) + head * head_stride, static_cast<ptrdiff_t>(stride)};
}

template <class S>
Rows<S> dense_rows_of(void* data, const Call& call, int64_t head) {
  return {static_cast<S*>(data) + head * call.width, static_cast<ptrdiff_t>(call.heads * call.width)};
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
    return (4 * line_up(key_rows) + 3 * line_up(queries) + 3 * line_up(scores)) * sizeof(T);
  }
  static size_t line_up(size_t count) {
    constexpr size_t line = 64 / sizeof(T);
    return (count + line - 1) / line * line;
  }
};

// Keys or values of the item: the forward, which reads them about once, takes them as they lie where type and width
// allow; else they are packed.
template <class T, class S>
Rows<const T> keys_of(Rows<const S> x, const Item& item, int width, int padded, T* packed, bool in_place) {
  if constexpr (std::is_same_v<T, S>)
    if (in_place && width == padded) return {x[item.key_row], x.stride};
  for (int32_t i = 0; i < item.keys; ++i)
    pack_row(x[item.key_row + i], width, T(1), packed + ptrdiff_t(i) * padded);
  return {packed, padded};
}

// Where the gradient of keys or values is summed: likewise.
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
void pack_queries(Rows<const S> x, const int32_t* rows, int count, int width, int padded, T scale, T* to) {
  for (int i = 0; i < count; ++i) pack_row(x[rows[i]], width, scale, to + ptrdiff_t(i) * padded);
}

template <class T>
View view_of(const Plan& plan, const Run& run) {
  return {plan.keys + run.keys_begin, run.keys, run.prefix, round_up(run.keys, LANES<T>) + LANES<T>, run.mean};
}

Dropout dropout_of(const Call& call, const Item& item, int64_t head) {
  return {call.seed, call.drop_below, static_cast<uint32_t>(head), call.keep_scale, item.keys};
}

template <class S>
RELVLM_INLINE void prefetch(const S* row, int width) {
  for (int d = 0; d < width; d += 64 / int(sizeof(S))) __builtin_prefetch(row + d, 0, 2);
}

// Keys and values of the next head or item, asked of memory bit by bit during the work on this one: their rows lie
// so far apart that the processor does not foresee them.
template <class S>
struct Ahead {
  Rows<const S> k{}, v{};
  int64_t key_row = 0;
  int32_t keys = 0, asked = 0;

  Ahead(const Plan& plan, const Call& call, const Item& item, int64_t head) {
    const bool same = head + 1 < call.heads;
    const Item* const next = same ? &item : &item + 1;
    if (next == plan.items + plan.item_count || next->runs_begin == next->runs_end) return;
    k = rows_of<S>(call.k, call.k_row, same ? head + 1 : 0, call.k_head);
    v = rows_of<S>(call.v, call.v_row, same ? head + 1 : 0, call.v_head);
    key_row = next->key_row, keys = next->keys;
  }
  void ask(int32_t end, int width) {
    for (; asked < end; ++asked) {
      prefetch(k[key_row + asked], width);
      prefetch(v[key_row + asked], width);
    }
  }
};

// A tile of queries of a run: plan rows [rows, rows + count).
template <class Tile>
RELVLM_INLINE void for_tiles(const Plan& plan, const Run& run, Tile tile) {
  for (int32_t start = run.rows_begin; start < run.rows_end; start += TILE_QUERIES)
    tile(plan.rows + start, run.rows_end - start < TILE_QUERIES ? run.rows_end - start : TILE_QUERIES);
}

// From peaks and totals to log-sum-exps and factors of the output; without keys -inf and 0.
template <class T>
RELVLM_INLINE void finish(bool keys, int count, T* peaks, T* totals) {
  for (int i = 0; i < count; i += LANES<T>) {
    const Vector<T> total = load(totals + i);
    store(peaks + i, keys ? load(peaks + i) + logarithm(total) : splat(-static_cast<T>(__builtin_inf())));
    store(totals + i, keys ? T(1) / total : Vector<T>{});
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
  const auto keys = keys_of(rows_of<S>(call.k, call.k_row, head, call.k_head), item, width, padded, packed_k, true);
  const auto values = keys_of(rows_of<S>(call.v, call.v_row, head, call.v_head), item, width, padded, packed_v, true);
  const Dropout dropout = dropout_of(call, item, head);

  Ahead<S> ahead(plan, call, item, head);
  for (int32_t r = item.runs_begin; r < item.runs_end; ++r) {
    const int32_t quota = int64_t(ahead.keys) * (r + 1 - item.runs_begin) / (item.runs_end - item.runs_begin);
    const auto ask = [&] { ahead.ask(quota - ahead.asked < 2 ? quota : ahead.asked + 2, width); };
    const View view = view_of<T>(plan, plan.runs[r]);
    for_tiles(plan, plan.runs[r], [&](const int32_t* rows, int count) {
      if (head + 1 < call.heads)
        for (int i = 0; i < count; ++i) {
          prefetch(q[rows[i]] + call.q_head, width);
          prefetch(out[rows[i]] + width, width);
        }
      pack_queries(q, rows, count, width, padded, T(call.scale), tile_q);
      dots(count, tile_q, keys.data, keys.stride, view.list, view.keys, padded, scores, view.stride, ask);
      T peaks[TILE_ROOM], totals[TILE_ROOM];
      for (int i = 0; i < count && view.keys; ++i) {
        const T mean_mask = dropout.below ? keep_row(view, rows[i], dropout, mask) : T(1);
        T* const row = scores + ptrdiff_t(i) * view.stride;
        const Softmax<T> s = softmax(row, view, dropout.below ? mask : nullptr, mean_mask);
        peaks[i] = s.peak, totals[i] = s.total;
      }
      finish(view.keys > 0, count, peaks, totals);
      product<T, GATHER>(count, view.keys, {scores, view.stride, 1}, values.data, values.stride, view.list, tile_out,
                         padded, padded);
      for (int i = 0; i < count; ++i) {
        write_row(tile_out + ptrdiff_t(i) * padded, width, totals[i], out[rows[i]]);
        lse[rows[i] * call.heads] = peaks[i];
      }
    });
    ahead.ask(quota, width);
  }
}

template <class T, class S>
void backward_of(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  Buffers<T> buffers(plan, call, scratch);
  const int width = static_cast<int>(call.width), padded = buffers.padded;
  const Rows<S> dk = dense_rows_of<S>(call.dk, call, head), dv = dense_rows_of<S>(call.dv, call, head);
  const Rows<const S> q = rows_of<S>(call.q, call.q_row, head, call.q_head);
  const Rows<const S> grad = rows_of<S>(call.grad, call.grad_row, head, call.grad_head);
  const Rows<S> out = dense_rows_of<S>(call.out, call, head), dq = dense_rows_of<S>(call.dq, call, head);
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
  const auto keys = keys_of(rows_of<S>(call.k, call.k_row, head, call.k_head), item, width, padded, packed_k, false);
  const auto values = keys_of(rows_of<S>(call.v, call.v_row, head, call.v_head), item, width, padded, packed_v, false);
  const Dropout dropout = dropout_of(call, item, head);

  Ahead<S> ahead(plan, call, item, head);
  for (int32_t r = item.runs_begin; r < item.runs_end; ++r) {
    const int32_t quota = int64_t(ahead.keys) * (r + 1 - item.runs_begin) / (item.runs_end - item.runs_begin);
    const auto ask = [&] { ahead.ask(quota - ahead.asked < 2 ? quota : ahead.asked + 2, width); };
    const View view = view_of<T>(plan, plan.runs[r]);
    for_tiles(plan, plan.runs[r], [&](const int32_t* rows, int count) {
      if (head + 1 < call.heads)
        for (int i = 0; i < count; ++i) {
          prefetch(q[rows[i]] + call.q_head, width);
          prefetch(grad[rows[i]] + call.grad_head, width);
          prefetch(out[rows[i]] + width, width);
        }
      pack_queries(q, rows, count, width, padded, T(call.scale), tile_q);
      pack_queries(grad, rows, count, width, padded, T(1), tile_grad);
      dots(count, tile_q, keys.data, keys.stride, view.list, view.keys, padded, weights, view.stride, ask);
      dots(count, tile_grad, values.data, values.stride, view.list, view.keys, padded, dscores, view.stride, ask);
      for (int i = 0; i < count && view.keys; ++i) {
        const T delta = dot_row(tile_grad + ptrdiff_t(i) * padded, out[rows[i]], width);
        const T mean_mask = dropout.below ? keep_row(view, rows[i], dropout, mask) : T(1);
        softmax_backward(weights + ptrdiff_t(i) * view.stride, dscores + ptrdiff_t(i) * view.stride, view,
                         lse[rows[i] * call.heads], delta, dropout.below ? mask : nullptr, mean_mask);
      }
      product<T, SCATTER>(view.keys, count, {weights, 1, view.stride}, tile_grad, padded, view.list, sum_dv.data,
                          sum_dv.stride, padded);
      product<T, SCATTER>(view.keys, count, {dscores, 1, view.stride}, tile_q, padded, view.list, sum_dk.data,
                          sum_dk.stride, padded);
      product<T, GATHER>(count, view.keys, {dscores, view.stride, 1}, keys.data, keys.stride, view.list, tile_dq,
                         padded, padded);
      for (int i = 0; i < count; ++i) write_row(tile_dq + ptrdiff_t(i) * padded, width, T(call.scale), dq[rows[i]]);
    });
    ahead.ask(quota, width);
  }
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
