// Backward, in two passes without atomics. First blocks of threads that own queries, as in the forward: dq, and for
// each query what the second pass must know of its softmax. Then blocks that own 64 keys of one image and head, each
// warp 16 of them, and go through the image's queries: the products are those of the first pass with the roles
// of queries and keys exchanged, so weights come out transposed without any exchange.
//
// With weights p, scores s, o = sum_j f_j v_j, f = p with dropout and the mean token's p_m / n folded in:
//   delta = sum_j f_j (g.v_j) = g.o,   ds_j = p_j (keep_j g.v_j - delta) + [j in box] ds_m / n,
//   ds_m = p_m (keep_m mean over the box of g.v_j - delta),   dv_j = sum f_j g,   dk_j = scale sum ds_j q.
#pragma once

#include "dropout.cuh"
#include "queries.cuh"

namespace relvlm {

// Sum over the row of two (16, D) tiles' product, for the lane's two rows; `b` lies in global memory.
template <class T, int D>
__device__ __forceinline__ void row_products(const T* a, const View* views, const Head<T>& b, int held,
                                             float (&to)[2]) {
  using S = Shape<T, D>;
  const int row = lane_id() / 2;
  float sum = 0;
  if (row < held) {
    const T* const x = a + row * S::stride;
    const T* const y = b[views[row].row];
#pragma unroll 2
    for (int c = lane_id() % 2; c < S::chunks; c += 2) {
      const Chunk chunk = *reinterpret_cast<const Chunk*>(y + c * S::chunk);
      const T* const values = reinterpret_cast<const T*>(&chunk);
#pragma unroll
      for (int i = 0; i < S::chunk; ++i) sum += to_float(x[c * S::chunk + i]) * to_float(values[i]);
    }
  }
  sum += __shfl_xor_sync(ALL, sum, 1);
#pragma unroll
  for (int r = 0; r < 2; ++r) to[r] = __shfl_sync(ALL, sum, (block_row() + r * 8) * 2);
}

// Two products of the same 16 rows of the left and 16 of the right tiles: a b^T and c d^T.
template <class T, int D>
__device__ __forceinline__ void two_products(const T* a, const T* b, Block& ab, const T* c, const T* d, Block& cd) {
  constexpr int stride = Shape<T, D>::stride;
#pragma unroll Shape<T, D>::inner
  for (int i = 0; i < D / 16; ++i) {
    Left<T> left;
    Right<T> right;
    load(left, a + i * 16, stride);
    load_columns(right, b + i * 16, stride);
    multiply(ab, left, right);
    load(left, c + i * 16, stride);
    load_columns(right, d + i * 16, stride);
    multiply(cd, left, right);
  }
}

template <class T, int D, bool drops>
__global__ void __launch_bounds__(THREADS, (Blocks<T, D, drops>::queries)) backward_of_queries(Call call) {
  using S = Shape<T, D>;
  QueryTile<T, D> tile(call);
  if (!tile.count) return;
  const Dropout<drops> dropout(call);
  const float scale = call.scale * LOG2E;
  const View* const views = call.plan.views + tile.begin + warp_id() * WARP_ROWS;
  const Head<T> saved = head_of<T>(call.saved, int64_t(call.heads) * D, D, tile.head);
  float lse2[2], delta[2] = {0, 0}, box_scores[2] = {0, 0}, box_grads[2] = {0, 0};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float lse = tile.holds(r) ? call.lse[int64_t(tile.views[r].row) * call.heads + tile.head] : 0.f;
    lse2[r] = lse == -INFINITY ? 0.f : lse * LOG2E;
  }
  Block dq[D / 16] = {}, in_box_k[D / 16] = {};
  bool first = true;

  tile.through_keys(call, [&](const T* k, const T* v, int key) {
    if (first) row_products<T, D>(tile.warp_g, views, saved, tile.count - warp_id() * WARP_ROWS, delta);
    first = false;
    const uint32_t blocks = tile.template blocks_met<S::keys / 16>(key);
#pragma unroll 1
    for (int b = 0; b < S::keys / 16; ++b) {
      if (!(blocks >> b & 1)) continue;
      Block s = {}, dp = {};
      const int at = b * 16 * S::stride;
      two_products<T, D>(tile.warp_q, k + at, s, tile.warp_g, v + at, dp);
      uint32_t box = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2, odd = i % 2, j = key + b * 16 + half * 8 + block_column() + odd;
        const Place place = place_of(tile.grid, j, tile.item.keys);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int e = r * 2 + odd;
          const View& view = tile.views[r];
          const float score = s[half][e] * scale, grad = dp[half][e];
          const bool inside = in_box(view, place), seen = inside || (place.prefix && view.prefix);
          if (inside && tile.with_mean) {
            box |= 1u << (half * 4 + e);
            box_scores[r] += score;
            box_grads[r] += grad;
          }
          const float keep = seen ? dropout.keep(j, view.row, tile.head) : 0.f;
          s[half][e] = seen ? exp2f(score - lse2[r]) * (keep * grad - delta[r]) : 0.f;
        }
      }
      const Left<T> ds = left_of<T>(s), ones = ones_of<T>(box);
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        Right<T> right;
        load_rows(right, k + at + d * 16, S::stride);
        multiply(dq[d], ds, right);
        if (tile.with_mean) multiply(in_box_k[d], ones, right);
          }
    }
  });

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const View view = tile.view(call, r);
    const float mean = row_sum(box_scores[r]) * view.share, grad = row_sum(box_grads[r]) * view.share;
    float fold = 0, dfold = 0;
    if (view.share > 0) {
      const float own = exp2f(mean - lse2[r]);
      const float keep = dropout.keep(tile.item.keys, view.row, tile.head);
      fold = keep * own * view.share;
      dfold = own * (keep * grad - delta[r]) * view.share;
    }
    if (lane_id() % 4 == 0 && tile.holds(r))
      call.states[int64_t(tile.head) * call.queries + tile.begin + tile.place(r)] = {lse2[r], delta[r], fold, dfold};
    if (tile.with_mean)
#pragma unroll
      for (int d = 0; d < D / 4; ++d)
        dq[d / 4][d / 2 % 2][r * 2 + d % 2] += dfold * in_box_k[d / 4][d / 2 % 2][r * 2 + d % 2];
  }
  tile.store(call, dq, call.scale, call.scale, call.dq);
}

// Shared memory of the second pass: keys, values, two steps of queries, gradients, views and states.
template <class T, int D>
constexpr size_t QUERY_STEP_BYTES =
    Shape<T, D>::queries * (2 * Shape<T, D>::row_bytes + sizeof(View) + sizeof(RowState));

template <class T, int D>
constexpr size_t KEY_TILE_BYTES = 2 * TILE_ROWS * Shape<T, D>::row_bytes + 2 * QUERY_STEP_BYTES<T, D>;

template <class T, int D>
struct QueryStep {
  using S = Shape<T, D>;
  T *q, *g;
  View* views;
  RowState* states;

  __device__ __forceinline__ explicit QueryStep(char* memory)
      : q(reinterpret_cast<T*>(memory)),
        g(q + S::queries * S::stride),
        views(reinterpret_cast<View*>(g + S::queries * S::stride)),
        states(reinterpret_cast<RowState*>(views + S::queries)) {}

  __device__ __forceinline__ void fetch(const Call& call, int head, int begin, int end) const {
    const Head<T> queries = head_of<T>(call.q, call.q_row, call.q_head, head);
    const Head<T> grads = head_of<T>(call.grad, call.grad_row, call.grad_head, head);
    copy_queries<T, D, S::queries>(q, queries, g, grads, call.plan.views, begin, end);
    const RowState* const of_head = call.states + int64_t(head) * call.queries;
    for (int i = threadIdx.x; i < S::queries * 3; i += THREADS) {
      const int place = i / 3, part = i % 3;
      const bool valid = begin + place < end;
      const int from = valid ? begin + place : 0;
      if (part < 2)
        copy_async(reinterpret_cast<Chunk*>(views + place) + part,
                   reinterpret_cast<const Chunk*>(call.plan.views + from) + part, valid);
      else
        copy_async(states + place, of_head + from, valid);
    }
  }
};

// to += weights (16, 16) rows (16, D).
template <class T, int D>
__device__ __forceinline__ void add_product(const Block& weights, const T* rows, Block (&to)[D / 16]) {
  const Left<T> left = left_of<T>(weights);
#pragma unroll
  for (int d = 0; d < D / 16; ++d) {
    Right<T> right;
    load_rows(right, rows + d * 16, Shape<T, D>::stride);
    multiply(to[d], left, right);
  }
}

template <class T, int D, bool drops>
__global__ void __launch_bounds__(THREADS, (Blocks<T, D, drops>::keys)) backward_of_keys(Call call) {
  using S = Shape<T, D>;
  // From the last image to the first: what the first pass read last is still in the cache.
  const Tile tile = call.plan.key_tiles[gridDim.x - 1 - blockIdx.x];
  if (!tile.count) return;
  const int head = gridDim.y - 1 - blockIdx.y;
  const Item item = call.plan.items[tile.item];
  const Grid grid(call.index);
  const Dropout<drops> dropout(call);
  const float scale = call.scale * LOG2E;
  char* const memory = shared_memory();
  T *const k = reinterpret_cast<T*>(memory), *const v = k + TILE_ROWS * S::stride;
  char* const after = memory + 2 * TILE_ROWS * S::row_bytes;
  const auto step_at = [&](int stage) { return QueryStep<T, D>(after + stage * QUERY_STEP_BYTES<T, D>); };
  const int own = warp_id() * WARP_ROWS;  // this warp's first key of the tile
  T *const warp_k = k + own * S::stride, *const warp_v = v + own * S::stride;
  const int key = tile.begin - item.key_row + own;
  const Place places[2] = {place_of(grid, key + block_row(), item.keys), place_of(grid, key + block_row() + 8, item.keys)};
  Block dk[D / 16] = {}, dv[D / 16] = {};

  copy_keys<T, D, TILE_ROWS>(k, head_of<T>(call.k, call.k_row, call.k_head, head), tile.begin, tile.begin + tile.count);
  copy_keys<T, D, TILE_ROWS>(v, head_of<T>(call.v, call.v_row, call.v_head, head), tile.begin, tile.begin + tile.count);
  if (item.rows_begin < item.rows_end) step_at(0).fetch(call, head, item.rows_begin, item.rows_end);
  commit_copies();
  int stage = 0;
  for (int begin = item.rows_begin; begin < item.rows_end; begin += S::queries, stage ^= 1) {
    if (begin + S::queries < item.rows_end) step_at(stage ^ 1).fetch(call, head, begin + S::queries, item.rows_end);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    const QueryStep<T, D> step = step_at(stage);
    const bool met = own < tile.count && reach_of(step.views[lane_id()], grid).meets(key, WARP_ROWS, grid);
    const uint32_t meeting = __ballot_sync(ALL, met);
#pragma unroll 1
    for (int b = 0; b < S::queries / 16; ++b) {
      if (!(meeting >> (b * 16) & 0xffff)) continue;
      Block s = {}, dp = {};
      const int at = b * 16 * S::stride;
      two_products<T, D>(warp_k, step.q + at, s, warp_v, step.g + at, dp);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2, odd = i % 2, place = b * 16 + half * 8 + block_column() + odd;
        const View view = step.views[place];
        const RowState state = step.states[place];
    #pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int e = r * 2 + odd;
          const bool inside = in_box(view, places[r]), seen = inside || (places[r].prefix && view.prefix);
          const float p = seen ? exp2f(s[half][e] * scale - state.lse2) : 0.f;
          const float keep = seen ? dropout.keep(key + block_row() + r * 8, view.row, head) : 0.f;
          s[half][e] = p * keep + (inside ? state.fold : 0.f);
          dp[half][e] = p * (keep * dp[half][e] - state.delta) + (inside ? state.dfold : 0.f);
        }
      }
      add_product<T, D>(s, step.g + at, dv);
      add_product<T, D>(dp, step.q + at, dk);
    }
    __syncthreads();
  }
  wait_for_copies<0>();
  __syncthreads();
  const int64_t first = int64_t(tile.begin) + own, row = int64_t(call.heads) * D;
  const auto row_of = [&](int i) { return own + i < tile.count ? i : -1; };
  store_rows<T, D>(dk, call.scale, call.scale, warp_k, static_cast<T*>(call.dk) + first * row + head * D, row, row_of);
  store_rows<T, D>(dv, 1.f, 1.f, warp_v, static_cast<T*>(call.dv) + first * row + head * D, row, row_of);
}

}  // namespace relvlm
