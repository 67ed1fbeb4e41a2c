// The attention kernels of one element: compiled once for each (RELVLM_ELEMENT), for all widths of a head.

#include <algorithm>

#include "attention.h"
#include "backward_keys.cuh"
#include "backward_queries.cuh"
#include "forward.cuh"

namespace relvlm {
namespace {

template <class T, int D, bool drops>
int forward_of(const Call& call) {
  const dim3 grid(query_tiles_of(call), call.heads);
  return launch(attend<T, D, drops>, grid, THREADS, query_tile_bytes<T, D>(false), call.stream, call);
}

template <class T, int D, bool drops>
int backward_of(const Call& call) {
  const dim3 queries(query_tiles_of(call), call.heads), keys(key_tiles_of(call), call.heads);
  const size_t bytes = query_tile_bytes<T, D>(true);
  const int error = launch(backward_of_queries<T, D, drops>, queries, THREADS, bytes, call.stream, call);
  if (error) return error;
  return launch(backward_of_keys<T, D, drops>, keys, THREADS, KEY_TILE_BYTES<T, D>, call.stream, call);
}

}  // namespace

template <class T, int D>
int Attention<T, D>::forward(const Call& call) {
  return call.dropout > 0 ? forward_of<T, D, true>(call) : forward_of<T, D, false>(call);
}

template <class T, int D>
int Attention<T, D>::backward(const Call& call) {
  return call.dropout > 0 ? backward_of<T, D, true>(call) : backward_of<T, D, false>(call);
}

template <class T, int D>
int Attention<T, D>::shared_bytes() {
  return static_cast<int>(std::max(query_tile_bytes<T, D>(true), KEY_TILE_BYTES<T, D>));
}

#define RELVLM_COMPILED(width) template struct Attention<RELVLM_ELEMENT, width>;
RELVLM_WIDTHS(RELVLM_COMPILED)

}  // namespace relvlm
