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

// Products of 16 queries with the keys of those blocks.
template <class T, int D>
__device__ __forceinline__ void products(const T* q, const T* k, uint32_t blocks, Block (&s)[PART / 16]) {
  using S = Shape<T, D>;
#pragma unroll Shape<T, D>::inner
  for (int d = 0; d < D / 16; ++d) {
    Left<T> a;
    load(a, q + d * 16, S::stride);
#pragma unroll
    for (int b = 0; b < PART / 16; ++b) {
      if (!(blocks >> b & 1)) continue;
      Right<T> right;
      load_columns(right, k + b * 16 * S::stride + d * 16, S::stride);
      multiply(s[b], a, right);
    }
  }
}

// Products become scores in log2 units: -inf where not seen.
__device__ __forceinline__ void mask(Block (&s)[PART / 16], const uint32_t (&seen)[2], float scale) {
#pragma unroll
  for (int i = 0; i < PART / 2; ++i) {
    const int b = i / 8, half = i / 4 % 2, r = i / 2 % 2, odd = i % 2;
    float& score = s[b][half][r * 2 + odd];
    score = seen[r] >> (b * 16 + half * 8 + odd) & 1 ? score * scale : -INFINITY;
  }
}

__device__ __forceinline__ void add_box_scores(const Block (&s)[PART / 16], const uint32_t (&box)[2],
                                               Softmax& softmax) {
#pragma unroll
  for (int i = 0; i < PART / 2; ++i) {
    const int b = i / 8, half = i / 4 % 2, r = i / 2 % 2, odd = i % 2;
    if (box[r] >> (b * 16 + half * 8 + odd) & 1) softmax.box_scores[r] += s[b][half][r * 2 + odd];
  }
}

// Scores become weights relative to the largest so far; the sums so far are brought down to it.
template <int blocks_of_d>
__device__ __forceinline__ void weigh(Block (&s)[PART / 16], Softmax& softmax, Block (&out)[blocks_of_d]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float most = softmax.largest[r];
#pragma unroll
    for (int i = 0; i < PART / 4; ++i) most = fmaxf(most, s[i / 4][i / 2 % 2][r * 2 + i % 2]);
    most = row_max(most);
    const float base = most == -INFINITY ? 0.f : most, rescale = power_of_2(softmax.largest[r] - base);
    softmax.largest[r] = most;
    softmax.total[r] *= rescale;
#pragma unroll
    for (int d = 0; d < blocks_of_d * 4; ++d) out[d / 4][d / 2 % 2][r * 2 + d % 2] *= rescale;
#pragma unroll
    for (int i = 0; i < PART / 4; ++i) {
      float& weight = s[i / 4][i / 2 % 2][r * 2 + i % 2];
      weight = power_of_2(weight - base);
      softmax.total[r] += weight;
    }
  }
}

// Of the four weights that a lane has of a row and 16 keys, each is kept or not by a word of one draw.
template <class T, int D, bool drops>
__device__ __forceinline__ void drop(Block (&weights)[PART / 16], const Dropout<drops>& dropout,
                                     const QueryTile<T, D>& tile, int key) {
#pragma unroll
  for (int i = 0; i < PART / 8; ++i) {
    const int b = i / 2, r = i % 2;
    uint32_t words[4];
    dropout.draw(key / 4 + b * 4 + lane_id() % 4, tile.view(r).row, tile.head, words);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      float& weight = weights[b][w / 2][r * 2 + w % 2];
      weight = words[w] >= dropout.threshold() ? weight : 0.f;
    }
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
    const uint32_t bits = tile.bits(key), met = tile.blocks_met(bits);
#pragma unroll 1
    for (int part = 0; part < Shape<T, D>::keys / PART; ++part) {
      const uint32_t blocks = met >> (part * PART / 16) & 3;
      if (!blocks) continue;
      const int at = part * PART * Shape<T, D>::stride;
      uint32_t seen[2];
      tile.own_bits(bits, part, seen);
      Block s[PART / 16] = {};
      products<T, D>(tile.warp_q, k + at, blocks, s);
      mask(s, seen, scale);
      const uint32_t patches = ~prefix_bits(tile.grid, key + part * PART) >> block_column();
      const uint32_t box[2] = {seen[0] & patches, seen[1] & patches};
      if (tile.with_mean) add_box_scores(s, box, softmax);
      weigh(s, softmax, out);
      if constexpr (drops) drop(s, dropout, tile, key + part * PART);
#pragma unroll
      for (int b = 0; b < PART / 16; ++b) {
        const uint32_t of_block[2] = {box[0] >> (b * 16), box[1] >> (b * 16)};
        if (blocks >> b & 1)
          add_rows<T, D>(s[b], of_block, tile.with_mean, v + at + b * 16 * Shape<T, D>::stride, out, of_box);
      }
    }
  });

  float norm[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const View& view = tile.view(r);
    float total = row_sum(softmax.total[r]), fold = 0;
    const float mean = row_sum(softmax.box_scores[r]) * view.share;
    if (view.share > 0) {
      const float own = power_of_2(mean - softmax.largest[r]);
      total += own;
      fold = dropout.keeps(tile.item.keys, view.row, tile.head) ? own * view.share : 0;
    }
    norm[r] = total > 0 ? dropout.scale() / total : 0;
    if (lane_id() % 4 == 0 && tile.holds(r))
      call.lse[int64_t(view.row) * call.heads + tile.head] =
          total > 0 ? (softmax.largest[r] + log2f(total)) / LOG2E : -INFINITY;
    if (tile.with_mean) add_scaled<D>(out, of_box, fold, r);
  }
  tile.store(out, norm[0], norm[1], static_cast<T*>(call.out) + tile.head * D, int64_t(call.heads) * D);
}

}  // namespace relvlm
