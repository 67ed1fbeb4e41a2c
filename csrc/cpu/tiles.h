// Tiles: query rows of an item that are worked on together, and the rows of scores between them and their keys.
#pragma once

#include "attention.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

constexpr int TILE_QUERIES = 36, TILE_ROOM = 48;  // room: in whole vectors

// A number for each row of a tile.
template <class T>
using PerRow = T[TILE_ROOM];

// Rows [begin, end) of a tile, which see the same keys. Their scores lie from `scores` on, `stride` apart, with room
// for one vector beyond the keys: the prefix, then the box row by row.
struct Part {
  const int32_t* list;
  int keys, prefix, stride, begin, end;
  ptrdiff_t scores;
  bool mean;
  int box() const { return keys - prefix; }
  int count() const { return end - begin; }
  template <class T>
  T* row(T* of_tile, int i) const {
    return of_tile + scores + ptrdiff_t(i - begin) * stride;
  }
};

// Several runs, or a piece of a long one. One run of few rows at a time would have the processor wait at the end of
// every step.
struct Tile {
  const int32_t* rows;
  int count, part_count;
  Part parts[TILE_QUERIES];
  const Part* begin() const { return parts; }
  const Part* end() const { return parts + part_count; }
  bool any_mean() const {
    for (const Part& part : *this)
      if (part.mean) return true;
    return false;
  }
};

template <class T>
RELVLM_INLINE void add_part(Tile& tile, const Plan& plan, const Run& run, int rows) {
  const Part* const last = tile.part_count ? tile.end() - 1 : nullptr;
  const ptrdiff_t scores = last ? last->scores + ptrdiff_t(last->count()) * last->stride : 0;
  tile.parts[tile.part_count++] = {plan.keys + run.keys_begin, run.keys, run.prefix,
                                   round_up(run.keys, LANES<T>) + LANES<T>, tile.count, tile.count + rows, scores,
                                   run.mean};
  tile.count += rows;
}

// Calls `work` with each tile of an item. Only runs that no tile could hold are cut.
template <class T, class Work>
RELVLM_INLINE void for_tiles(const Plan& plan, const Item& item, Work work) {
  Tile tile{nullptr, 0, 0, {}};
  for (int32_t r = item.runs_begin; r < item.runs_end; ++r) {
    const Run& run = plan.runs[r];
    for (int32_t start = run.rows_begin; start < run.rows_end; start += TILE_QUERIES) {
      const int rows = run.rows_end - start < TILE_QUERIES ? run.rows_end - start : TILE_QUERIES;
      if (tile.count + rows > TILE_QUERIES) work(tile), tile.count = tile.part_count = 0;
      if (!tile.count) tile.rows = plan.rows + start;
      add_part<T>(tile, plan, run, rows);
    }
  }
  if (tile.count) work(tile);
}

// Calls `work` with each part, the number of each row in the tile, and its scores.
template <class T, class Work>
RELVLM_INLINE void for_rows(const Tile& tile, T* scores, Work work) {
  for (const Part& part : tile)
    for (int i = part.begin; i < part.end; ++i) work(part, i, part.row(scores, i));
}

// Calls `work` with each vector of a row of scores from key `begin` on, in which `rest` stands for what lies beyond the
// keys. That is put in within registers: a store just before a wider load of the same place would hold up every row.
template <class T, class Work>
RELVLM_INLINE void for_vectors(const T* row, int begin, int keys, T rest, Work work) {
  int j = begin;
  for (; j + LANES<T> <= keys; j += LANES<T>) work(j, load(row + j));
  if (j < keys) work(j, load_or(row + j, keys - j, rest));
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
