// Forward: a block of threads owns 64 queries of one image and head, each warp 16 of them, and goes through the
// image's keys once, with a running largest score. The next keys are on their way while these are worked on.
//
// The mean token: its score is the mean of the scores in the box, known when all keys have passed; its value is the
// mean of the values, whose sum over the box is a second product of the same V with a mask of ones.
#pragma once

#include "dropout.cuh"
#include "queries.cuh"

namespace relvlm {

constexpr int PART = 32;  // keys whose scores a warp holds at a time

// The lane's two rows.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0, 0};
  float box_scores[2] = {0, 0};
};

// Scores of 16 queries with the step's keys, in log2 units: -inf where not seen. Bit i of `box` says whether the
// i-th of the lane's scores is in its query's box.
template <class T, int D>
__device__ __forceinline__ uint32_t scores_of(const QueryTile<T, D>& tile, const T* k, int key, float scale,
                                              uint32_t blocks, Block (&s)[PART / 16], Softmax& softmax) {
  using S = Shape<T, D>;
#pragma unroll Shape<T, D>::inner
  for (int d = 0; d < D / 16; ++d) {
    Left<T> a;
    load(a, tile.warp_q + d * 16, S::stride);
#pragma unroll
    for (int b = 0; b < PART / 16; ++b) {
      if (!(blocks >> b & 1)) continue;
      Right<T> right;
      load_columns(right, k + b * 16 * S::stride + d * 16, S::stride);
      multiply(s[b], a, right);
    }
  }
  uint32_t box = 0;
#pragma unroll
  for (int i = 0; i < PART / 4; ++i) {
    const int b = i / 4, half = i / 2 % 2, odd = i % 2;
    if (!(blocks >> b & 1)) continue;
    const Place place = place_of(tile.grid, key + b * 16 + half * 8 + block_column() + odd, tile.item.keys);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float& score = s[b][half][r * 2 + odd];
      score *= scale;
      const bool inside = in_box(tile.views[r], place);
      if (inside) box |= 1u << (b * 8 + half * 4 + r * 2 + odd);
      if (inside && tile.with_mean) softmax.box_scores[r] += score;
      if (!(inside || (place.prefix && tile.views[r].prefix))) score = -INFINITY;
    }
  }
  return box;
}

// Scores become weights relative to the largest so far; the sums so far are brought down to it.
template <int steps, int blocks_of_d>
__device__ __forceinline__ void weigh(Block (&s)[steps], uint32_t blocks, Softmax& softmax, Block (&out)[blocks_of_d]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float most = softmax.largest[r];
#pragma unroll
    for (int b = 0; b < steps; ++b)
      if (blocks >> b & 1)
        most = fmaxf(most, fmaxf(fmaxf(s[b][0][r * 2], s[b][0][r * 2 + 1]), fmaxf(s[b][1][r * 2], s[b][1][r * 2 + 1])));
    most = row_max(most);
    const float base = most == -INFINITY ? 0.f : most, rescale = exp2f(softmax.largest[r] - base);
    softmax.largest[r] = most;
    softmax.total[r] *= rescale;
#pragma unroll
    for (int d = 0; d < blocks_of_d * 4; ++d) out[d / 4][d / 2 % 2][r * 2 + d % 2] *= rescale;
#pragma unroll
    for (int i = 0; i < steps * 4; ++i) {
      if (!(blocks >> (i / 4) & 1)) continue;
      float& weight = s[i / 4][i / 2 % 2][r * 2 + i % 2];
      weight = exp2f(weight - base);
      softmax.total[r] += weight;
    }
  }
}

template <class T, int D, bool drops>
__device__ __forceinline__ void drop(Block (&weights)[PART / 16], const Dropout<drops>& dropout,
                                     const QueryTile<T, D>& tile, const Call& call, int key) {
  const int rows[2] = {tile.view(call, 0).row, tile.view(call, 1).row};
#pragma unroll
  for (int i = 0; i < PART / 2; ++i) {
    const int half = i / 4 % 2, e = i % 4, j = key + i / 8 * 16 + half * 8 + block_column() + e % 2;
    weights[i / 8][half][e] *= dropout.keep(j, rows[e / 2], tile.head);
    __syncwarp();  // one after another: all at once would take more registers than there are
  }
}

template <class T, int D, bool drops>
__global__ void __launch_bounds__(THREADS, (Blocks<T, D, drops>::forward)) attend(Call call) {
  QueryTile<T, D> tile(call);
  if (!tile.count) return;
  const Dropout<drops> dropout(call);
  const float scale = call.scale * LOG2E;
  Softmax softmax;
  Block out[D / 16] = {}, of_box[D / 16] = {};

  tile.through_keys(call, [&](const T* k, const T* v, int key) {
#pragma unroll 1
    for (int part = 0; part < Shape<T, D>::keys; part += PART) {
      const uint32_t blocks = tile.template blocks_met<PART / 16>(key + part);
      if (!blocks) continue;
      const int at = part * Shape<T, D>::stride;
      Block s[PART / 16] = {};
      const uint32_t box = scores_of(tile, k + at, key + part, scale, blocks, s, softmax);
      weigh(s, blocks, softmax, out);
      if (drops) drop(s, dropout, tile, call, key + part);
#pragma unroll
      for (int b = 0; b < PART / 16; ++b)
        if (blocks >> b & 1)
          add_rows<T, D>(s[b], box >> (b * 8), tile.with_mean, v + at + b * 16 * Shape<T, D>::stride, out, of_box);
    }
  });

  float norm[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const View view = tile.view(call, r);
    float total = row_sum(softmax.total[r]), fold = 0;
    const float mean = row_sum(softmax.box_scores[r]) * view.share;
    if (view.share > 0) {
      const float own = exp2f(mean - softmax.largest[r]);
      total += own;
      fold = own * view.share * dropout.keep(tile.item.keys, view.row, tile.head);
    }
    norm[r] = total > 0 ? 1 / total : 0;
    if (lane_id() % 4 == 0 && tile.holds(r))
      call.lse[int64_t(view.row) * call.heads + tile.head] =
          total > 0 ? (softmax.largest[r] + log2f(total)) / LOG2E : -INFINITY;
    if (tile.with_mean) add_scaled<D>(out, of_box, fold, r);
  }
  tile.store(call, out, norm[0], norm[1], call.out);
}

}  // namespace relvlm
