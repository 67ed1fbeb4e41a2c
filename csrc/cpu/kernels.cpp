// Attention of the runs of one item and one head, forward and backward; compiled once per instruction set.
//
// K and V of the item are packed once for all its queries. Scores of a tile of queries lie side by side without
// gaps: the prefix, then the box row by row. A segment's last vector may write beyond its end; the next segment
// overwrites that, and the row has room for one vector more.

#include "attention.h"
#include "gemm.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

constexpr int TILE_QUERIES = 36;

// Rows of one head of a (rows, heads, width) tensor.
template <class T>
struct Rows {
  T* data;
  ptrdiff_t stride;
  T* operator[](int64_t row) const { return data + row * stride; }
};

template <class T>
Rows<const T> rows_of(const void* data, int64_t stride, int64_t head, int64_t head_stride) {
  return {static_cast<const T*>(data) + head * head_stride, static_cast<ptrdiff_t>(stride)};
}

template <class T>
Rows<T> output_of(void* data, const Call& call, int64_t head) {
  return {static_cast<T*>(data) + head * call.width, static_cast<ptrdiff_t>(call.heads * call.width)};
}

// Sizes of the packed buffers, and the buffers: cut from the scratch in the order of use.
template <class T>
struct Buffers {
  int width;          // of a head, in whole vectors
  ptrdiff_t columns;  // of K and V transposed: an odd number of cache lines, or all rows would share few sets
  size_t key_rows, transposed, queries, scores;
  T* next;

  Buffers(const Plan& plan, const Call& call, void* scratch) : next(static_cast<T*>(scratch)) {
    constexpr int line = 64 / sizeof(T);
    width = round_up(static_cast<int>(call.width), LANES<T>);
    const int lines = round_up(plan.most_keys + LANES<T>, line) / line;
    columns = (lines | 1) * line;
    key_rows = size_t(round_up(plan.most_keys, line)) * width;
    transposed = size_t(call.width) * columns;
    queries = size_t(round_up(TILE_QUERIES, line)) * width;
    scores = size_t(TILE_QUERIES) * round_up(plan.most_keys + 2 * LANES<T>, line);
  }

  T* take(size_t count) {
    T* const taken = next;
    constexpr size_t line = 64 / sizeof(T);
    next += (count + line - 1) / line * line;
    return taken;
  }
};

template <class T>
void transpose(const T* const from, ptrdiff_t stride, int rows, int width, T* to, ptrdiff_t columns) {
  constexpr int block = 8;  // eight rows at a time: their writes share a cache line
  for (int i = 0; i < rows; i += block) {
    const int n = rows - i < block ? rows - i : block;
    for (int d = 0; d < width; ++d)
      for (int j = 0; j < n; ++j) to[d * columns + i + j] = from[(i + j) * stride + d];
  }
}

template <class T>
RELVLM_INLINE void scale_row(const T* from, int width, T scale, T* to) {
  int d = 0;
  for (; d + LANES<T> <= width; d += LANES<T>) store(to + d, load(from + d) * scale);
  for (; d < width; ++d) to[d] = from[d] * scale;
}

template <class T>
RELVLM_INLINE void pack_row(const T* from, int width, int padded, T scale, T* to) {
  scale_row(from, width, scale, to);
  for (int d = width; d < padded; ++d) to[d] = 0;
}

template <class T>
void pack_keys(Rows<const T> x, const Item& item, int width, int padded, T* to) {
  for (int32_t i = 0; i < item.keys; ++i) pack_row(x[item.key_row + i], width, padded, T(1), to + i * padded);
}

template <class T>
void pack_queries(Rows<const T> x, const int32_t* rows, int count, int width, int padded, T scale, T* to) {
  for (int i = 0; i < count; ++i) pack_row(x[rows[i]], width, padded, scale, to + i * padded);
}

// A run's view of the item's keys, and how its scores lie.
struct View {
  const Segment *segments, *end;
  int keys, prefix, stride;
  bool mean;
};

template <class T>
View view_of(const Plan& plan, const Run& run) {
  return {plan.segments + run.segments_begin, plan.segments + run.segments_end, run.keys, run.prefix,
          round_up(run.keys, LANES<T>) + LANES<T>, run.mean};
}

// Products of `count` packed rows with the keys of the view: (count, view.keys) at stride view.stride.
template <class T>
void products(int count, const View& view, const T* rows, int padded, int width, const T* transposed,
              ptrdiff_t columns, T* to) {
  const Segment inner{0, width};
  const Operand<T> a{rows, padded, 1};
  for (const Segment* s = view.segments; s != view.end; to += s->count, ++s)
    gemm(count, s->count, a, transposed + s->from, columns, &inner, &inner + 1, to, view.stride, false);
}

// Sum of a row from `start`; its padding is zero.
template <class T>
RELVLM_INLINE T row_sum(const T* row, int start, int end) {
  Vector<T> total{};
  for (int j = start; j < end; j += LANES<T>) total += load(row + j);
  return sum<T>(total);
}

// exp(scores - largest) in place, and zero up to the next whole vector. `share` is what the mean token adds to each patch of the box, its
// own weight over their number (the mean token's value is the mean of theirs).
template <class T>
struct Weights {
  T total, share, peak;
};

template <class T>
RELVLM_INLINE Weights<T> exponentials(T* row, const View& view) {
  const int keys = view.keys, box = keys - view.prefix;
  T mean = 0;
  store(row + keys, Vector<T>{});
  if (view.mean) mean = row_sum(row, view.prefix, keys) / box;
  store(row + keys, splat(-static_cast<T>(__builtin_inf())));
  Vector<T> most = load(row);
  for (int j = LANES<T>; j < keys; j += LANES<T>) most = larger<T>(most, load(row + j));
  T peak = largest<T>(most);
  if (view.mean && mean > peak) peak = mean;  // by rounding only
  Vector<T> total{};
  const Vector<T> peaks = splat(peak);
  for (int j = 0; j < keys; j += LANES<T>) {
    const Vector<T> e = exponential(load(row + j) - peaks);
    store(row + j, e);
    total += e;
  }
  const T own = view.mean ? exponential(splat(mean - peak))[0] : T(0);
  return {sum<T>(total) + own, view.mean ? own / box : T(0), peak};
}

template <class T>
RELVLM_INLINE void add_share(T* row, const View& view, T share) {
  for (int j = view.prefix; j < view.keys; ++j) row[j] += share;
}

// dscores from the weights and their gradients `dweights` (in place); leaves the folded weights in `weights`.
template <class T>
RELVLM_INLINE void softmax_backward(T* weights, T* dweights, const View& view) {
  const Weights<T> w = exponentials(weights, view);
  const T norm = 1 / w.total, share = w.share * norm;
  const int keys = view.keys, box = keys - view.prefix;
  store(dweights + keys, Vector<T>{});
  Vector<T> dot{};
  for (int j = 0; j < keys; j += LANES<T>) {
    const Vector<T> p = load(weights + j) * norm;
    dot += p * load(dweights + j);
    store(weights + j, p);
  }
  T delta = sum<T>(dot), dmean = 0;
  if (view.mean) {
    dmean = row_sum(dweights, view.prefix, keys);
    delta += share * dmean;
    dmean = share * (dmean / box - delta);  // the mean token's dscore over the number of patches
  }
  for (int j = 0; j < keys; j += LANES<T>)
    store(dweights + j, load(weights + j) * (load(dweights + j) - delta));
  if (view.mean) {
    add_share(dweights, view, dmean);
    add_share(weights, view, share);
  }
}

// (keys of the view, width) += transpose of `scores` (count, keys) times `rows` (count, width).
template <class T>
void accumulate(int count, const View& view, const T* scores, const T* rows, int padded, T* to) {
  const Segment inner{0, count};
  for (const Segment* s = view.segments; s != view.end; scores += s->count, ++s)
    gemm(s->count, padded, Operand<T>{scores, 1, view.stride}, rows, padded, &inner, &inner + 1,
         to + ptrdiff_t(s->from) * padded, padded, true);
}

template <class T>
void zero(T* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = 0;
}

template <class T>
void forward_of(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  if (item.runs_begin == item.runs_end) return;
  Buffers<T> buffers(plan, call, scratch);
  const int width = static_cast<int>(call.width), padded = buffers.width;
  const Rows<const T> q = rows_of<T>(call.q, call.q_row, head, call.q_head);
  const Rows<const T> k = rows_of<T>(call.k, call.k_row, head, call.k_head);
  const Rows<T> out = output_of<T>(call.out, call, head);
  T* const lse = static_cast<T*>(call.lse) + head;
  T* const keys = buffers.take(buffers.transposed);
  T* const values = buffers.take(buffers.key_rows);
  T* const tile_q = buffers.take(buffers.queries);
  T* const tile_out = buffers.take(buffers.queries);
  T* const scores = buffers.take(buffers.scores);
  transpose(k[item.key_row], k.stride, item.keys, width, keys, buffers.columns);
  pack_keys(rows_of<T>(call.v, call.v_row, head, call.v_head), item, width, padded, values);

  for (int32_t r = item.runs_begin; r < item.runs_end; ++r) {
    const Run& run = plan.runs[r];
    const View view = view_of<T>(plan, run);
    for (int32_t start = run.rows_begin; start < run.rows_end; start += TILE_QUERIES) {
      const int32_t* const rows = plan.rows + start;
      const int count = run.rows_end - start < TILE_QUERIES ? run.rows_end - start : TILE_QUERIES;
      pack_queries(q, rows, count, width, padded, T(call.scale), tile_q);
      products(count, view, tile_q, padded, width, keys, buffers.columns, scores);
      T norm[TILE_QUERIES];
      for (int i = 0; i < count; ++i) {
        T* const row = scores + ptrdiff_t(i) * view.stride;
        const Weights<T> w = exponentials(row, view);
        if (view.mean) add_share(row, view, w.share);
        norm[i] = view.keys ? 1 / w.total : T(0);
        lse[rows[i] * call.heads] = view.keys ? w.peak + __builtin_log(w.total) : -__builtin_inf();
      }
      gemm(count, padded, Operand<T>{scores, view.stride, 1}, values, padded, view.segments, view.end, tile_out,
           padded, false);
      for (int i = 0; i < count; ++i) scale_row(tile_out + i * padded, width, norm[i], out[rows[i]]);
    }
  }
}

template <class T>
void backward_of(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  const int width = static_cast<int>(call.width);
  const Rows<T> dk = output_of<T>(call.dk, call, head), dv = output_of<T>(call.dv, call, head);
  if (item.runs_begin == item.runs_end) {
    for (int32_t i = 0; i < item.keys; ++i) {
      zero(dk[item.key_row + i], width);
      zero(dv[item.key_row + i], width);
    }
    return;
  }
  Buffers<T> buffers(plan, call, scratch);
  const int padded = buffers.width;
  const Rows<const T> q = rows_of<T>(call.q, call.q_row, head, call.q_head);
  const Rows<const T> k = rows_of<T>(call.k, call.k_row, head, call.k_head);
  const Rows<const T> v = rows_of<T>(call.v, call.v_row, head, call.v_head);
  const Rows<const T> grad = rows_of<T>(call.grad, call.grad_row, head, call.grad_head);
  const Rows<T> dq = output_of<T>(call.dq, call, head);
  T* const keys_t = buffers.take(buffers.transposed);
  T* const values_t = buffers.take(buffers.transposed);
  T* const keys = buffers.take(buffers.key_rows);
  T* const sum_dk = buffers.take(buffers.key_rows);
  T* const sum_dv = buffers.take(buffers.key_rows);
  T* const tile_q = buffers.take(buffers.queries);
  T* const tile_grad = buffers.take(buffers.queries);
  T* const tile_dq = buffers.take(buffers.queries);
  T* const weights = buffers.take(buffers.scores);
  T* const dscores = buffers.take(buffers.scores);
  transpose(k[item.key_row], k.stride, item.keys, width, keys_t, buffers.columns);
  transpose(v[item.key_row], v.stride, item.keys, width, values_t, buffers.columns);
  pack_keys(k, item, width, padded, keys);
  zero(sum_dk, size_t(item.keys) * padded);
  zero(sum_dv, size_t(item.keys) * padded);

  for (int32_t r = item.runs_begin; r < item.runs_end; ++r) {
    const Run& run = plan.runs[r];
    const View view = view_of<T>(plan, run);
    for (int32_t start = run.rows_begin; start < run.rows_end; start += TILE_QUERIES) {
      const int32_t* const rows = plan.rows + start;
      const int count = run.rows_end - start < TILE_QUERIES ? run.rows_end - start : TILE_QUERIES;
      pack_queries(q, rows, count, width, padded, T(call.scale), tile_q);
      pack_queries(grad, rows, count, width, padded, T(1), tile_grad);
      products(count, view, tile_q, padded, width, keys_t, buffers.columns, weights);
      products(count, view, tile_grad, padded, width, values_t, buffers.columns, dscores);
      for (int i = 0; i < count && view.keys; ++i)
        softmax_backward(weights + ptrdiff_t(i) * view.stride, dscores + ptrdiff_t(i) * view.stride, view);
      accumulate(count, view, weights, tile_grad, padded, sum_dv);
      accumulate(count, view, dscores, tile_q, padded, sum_dk);
      gemm(count, padded, Operand<T>{dscores, view.stride, 1}, keys, padded, view.segments, view.end, tile_dq,
           padded, false);
      for (int i = 0; i < count; ++i) scale_row(tile_dq + i * padded, width, T(call.scale), dq[rows[i]]);
    }
  }
  for (int32_t i = 0; i < item.keys; ++i) {
    scale_row(sum_dk + ptrdiff_t(i) * padded, width, T(1), dk[item.key_row + i]);
    scale_row(sum_dv + ptrdiff_t(i) * padded, width, T(1), dv[item.key_row + i]);
  }
}

template <class T>
size_t bytes_of(const Plan& plan, const Call& call) {
  const Buffers<T> b(plan, call, nullptr);
  const size_t slack = 10 * 64 / sizeof(T);  // each of the ten buffers begins on a cache line
  return (2 * b.transposed + 3 * b.key_rows + 3 * b.queries + 2 * b.scores + slack) * sizeof(T);
}

size_t bytes(const Plan& plan, const Call& call) {
  return call.is_double ? bytes_of<double>(plan, call) : bytes_of<float>(plan, call);
}

void forward(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  (call.is_double ? forward_of<double> : forward_of<float>)(plan, call, item, head, scratch);
}

void backward(const Plan& plan, const Call& call, const Item& item, int64_t head, void* scratch) {
  (call.is_double ? backward_of<double> : backward_of<float>)(plan, call, item, head, scratch);
}

}  // namespace RELVLM_ISA

#define RELVLM_JOIN(a, b) a##b
#define RELVLM_TABLE(isa) RELVLM_JOIN(kernels_, isa)
#define RELVLM_QUOTE(isa) #isa
#define RELVLM_NAME(isa) RELVLM_QUOTE(isa)

const Kernels RELVLM_TABLE(RELVLM_ISA) = {RELVLM_NAME(RELVLM_ISA), RELVLM_ISA::bytes, RELVLM_ISA::forward,
                                          RELVLM_ISA::backward};

}  // namespace relvlm
