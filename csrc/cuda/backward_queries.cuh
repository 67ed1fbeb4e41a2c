// The backward's first pass: dq, and what the second must know of each query.
#pragma once

#include "backward.cuh"
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

// Of the lane's two rows; the sums are over the box.
struct Gradients {
  float lse2[2], delta[2] = {0, 0}, box_scores[2] = {0, 0}, box_grads[2] = {0, 0};
};

template <class T, int D>
__device__ __forceinline__ Gradients gradients_of(const QueryTile<T, D>& tile, const Call& call) {
  Gradients rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float lse = tile.holds(r) ? call.lse[int64_t(tile.view(r).row) * call.heads + tile.head] : 0.f;
    rows.lse2[r] = lse == -INFINITY ? 0.f : lse * LOG2E;
  }
  return rows;
}

// Sums of products over the box, of the lane's two rows.
__device__ __forceinline__ void add_box_sums(const Block& s, const Block& dp, const uint32_t (&box)[2], float scale,
                                             Gradients& rows) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int half = i / 4, r = i / 2 % 2, odd = i % 2, e = r * 2 + odd;
    if (!(box[r] >> (half * 8 + odd) & 1)) continue;
    rows.box_scores[r] += s[half][e] * scale;
    rows.box_grads[r] += dp[half][e];
  }
}

// Products g.v: what dropout leaves of them.
template <class T, int D, bool drops>
__device__ __forceinline__ void drop(Block& dp, const Dropout<drops>& dropout, const QueryTile<T, D>& tile, int key) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    uint32_t words[4];
    dropout.draw(key / 4 + lane_id() % 4, tile.view(r).row, tile.head, words);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      float& grad = dp[w / 2][r * 2 + w % 2];
      grad *= words[w] >= dropout.threshold() ? dropout.scale() : 0.f;
    }
    __syncwarp();  // one after another, for want of registers
  }
}

// Products q.k in `s` become gradients of the scores, without the mean token's part.
__device__ __forceinline__ void through_softmax(Block& s, const Block& dp, const uint32_t (&seen)[2], float scale,
                                                const Gradients& rows) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int half = i / 4, r = i / 2 % 2, odd = i % 2, e = r * 2 + odd;
    const float p = power_of_2(s[half][e] * scale - rows.lse2[r]);
    s[half][e] = seen[r] >> (half * 8 + odd) & 1 ? p * (dp[half][e] - rows.delta[r]) : 0.f;
  }
}

// When all keys have passed.
template <class T, int D, bool drops>
__device__ __forceinline__ RowState state_of(const QueryTile<T, D>& tile, const View& view,
                                             const Dropout<drops>& dropout, const Gradients& rows, int r) {
  const float mean = row_sum(rows.box_scores[r]) * view.share, grad = row_sum(rows.box_grads[r]) * view.share;
  if (view.share == 0) return {rows.lse2[r], rows.delta[r], 0.f, 0.f};
  const float own = power_of_2(mean - rows.lse2[r]) * view.share;
  const float keep = dropout.keeps(tile.item.keys, view.row, tile.head) ? dropout.scale() : 0.f;
  return {rows.lse2[r], rows.delta[r], keep * own, own * (keep * grad - rows.delta[r])};
}

template <class T, int D, bool drops>
__global__ void __launch_bounds__(THREADS, (Blocks<T, D, drops>::queries)) backward_of_queries(Call call) {
  using S = Shape<T, D>;
  QueryTile<T, D> tile(call);
  if (!tile.count) return;
  const Dropout<drops> dropout(call);
  const float scale = call.scale * LOG2E;
  const Head<T> saved = head_of<T>(call.saved, int64_t(call.heads) * D, D, tile.head);
  Gradients rows = gradients_of(tile, call);
  Block dq[D / 16] = {}, of_box[D / 16] = {};
  bool first = true;

  tile.through_keys(call, [&](const T* k, const T* v, int key) {
    if (first) row_products<T, D>(tile.warp_g, tile.warp_views, saved, tile.count - warp_id() * WARP_ROWS, rows.delta);
    first = false;
    const uint32_t bits = tile.bits(key), met = tile.blocks_met(bits);
#pragma unroll 1
    for (int b = 0; b < S::keys / 16; ++b, key += 16) {
      if (!(met >> b & 1)) continue;
      Block s = {}, dp = {};
      const int at = b * 16 * S::stride;
      two_products<T, D>(tile.warp_q, k + at, s, tile.warp_g, v + at, dp);
      uint32_t seen[2];
      tile.own_bits(b % 2 ? bits >> 16 : bits, b / 2, seen);
      const uint32_t patches = ~prefix_bits(tile.grid, key) >> block_column();
      const uint32_t box[2] = {seen[0] & patches, seen[1] & patches};
      if (tile.with_mean) add_box_sums(s, dp, box, scale, rows);
      if constexpr (drops) drop(dp, dropout, tile, key);
      through_softmax(s, dp, seen, scale, rows);
      add_rows<T, D>(s, box, tile.with_mean, k + at, dq, of_box);
    }
  });

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const RowState state = state_of(tile, tile.view(r), dropout, rows, r);
    if (lane_id() % 4 == 0 && tile.holds(r))
      call.states[int64_t(tile.head) * call.queries + tile.begin + tile.place(r)] = state;
    if (tile.with_mean) add_scaled<D>(dq, of_box, state.dfold, r);
  }
  T* const to = static_cast<T*>(call.dq) + tile.head * call.dq_head;
  tile.store(dq, call.scale, call.scale, to, call.dq_row);
}

}  // namespace relvlm
