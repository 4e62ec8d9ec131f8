// Rows of tokens, `tokens x width`: gathering, adding back, combining, random factors, rounding. A warp takes a row.

#define NO_ROW 0xffffffffu

/// Visits the rows of a matrix, one for each warp.
#define FOR_WARP_ROWS(r, m) for (i64 r = thread_index() / WARP; r < (m).rows; r += thread_count() / WARP)
/// Visits places of a row, one for each lane of a warp.
#define FOR_LANES(c, count) for (i64 c = threadIdx.x % WARP; c < (count); c += WARP)

/// `out_i = from_(ids_i)`, zero where there is no row.
extern "C" __global__ void gather(Matrix out, Matrix from, const u32 *ids) {
  FOR_WARP_ROWS(i, out) {
    const u32 id = ids[i];
    FOR_LANES(j, out.columns) at(out, i, j) = id == NO_ROW ? 0.0f : at(from, id, j);
  }
}

/// `to_i += factor sum from_k` over the rows `k` in `order` from `ends_i` up to `ends_(i+1)`, in that order.
extern "C" __global__ void add_in_order(Matrix to, const u32 *ends, const u32 *order, Matrix from, float factor) {
  FOR_WARP_ROWS(i, to) {
    if (ends[i] == ends[i + 1]) continue;
    FOR_LANES(j, to.columns) {
      float sum = at(to, i, j);
      for (u32 k = ends[i]; k < ends[i + 1]; ++k) sum += factor * at(from, order[k], j);
      at(to, i, j) = sum;
    }
  }
}

/// `out_i = sum_j scale_ij from_(slots_ij)` over `each` slots of row `i`, those without a row apart; added with `keep`.
extern "C" __global__ void combine(Matrix out, int keep, Matrix from, const u32 *slots, const float *scale, i64 each) {
  FOR_WARP_ROWS(i, out) FOR_LANES(j, out.columns) {
    float sum = keep ? at(out, i, j) : 0.0f;
    for (i64 place = i * each; place < (i + 1) * each; ++place)
      if (slots[place] != NO_ROW) sum += (scale ? scale[place] : 1.0f) * at(from, slots[place], j);
    at(out, i, j) = sum;
  }
}

/// `<a_i, b_i>` for every row.
extern "C" __global__ void row_dots(Matrix a, Matrix b, float *out) {
  FOR_WARP_ROWS(i, a) {
    float sum = 0.0f;
    FOR_LANES(j, a.columns) sum += at(a, i, j) * at(b, i, j);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) out[i] = sum;
  }
}

/// `a_i = a_i / b_i`, 0 where `b_i` is not positive.
extern "C" __global__ void ratios(float *a, const float *b, i64 count) {
  FOR_FLAT(i, count) a[i] = b[i] > 0.0f ? a[i] / b[i] : 0.0f;
}

/// `a_i = by_i a_i`.
extern "C" __global__ void scale_rows(Matrix a, const float *by) {
  FOR_ELEMENTS(r, c, a) at(a, r, c) *= by[r];
}

/// A number uniform in `[0, 1)` from a seed and a place (the finalizer of MurmurHash3).
__device__ float uniform_at(u32 seed, u32 place) {
  u32 x = place * 0x9e3779b9u ^ seed;
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  x ^= x >> 16;
  return (float)(x >> 8) * (1.0f / 16777216.0f);
}

/// `a = a o noise`: zero with probability `size`, else `1 / (1 - size)`; or, as jitter, uniform within `1 - size` and
/// `1 + size`.
extern "C" __global__ void noise(Matrix a, int is_jitter, u32 seed, float size) {
  const float factor = 1.0f / (1.0f - size);
  FOR_ELEMENTS(r, c, a) {
    const float u = uniform_at(seed, (u32)(r * a.columns + c));
    at(a, r, c) *= is_jitter ? 1.0f + size * (2.0f * u - 1.0f) : u >= size ? factor : 0.0f;
  }
}

/// The nearest bf16, ties to even; a NaN stays one.
__device__ u16 half_bits(float value) {
  const u32 bits = __float_as_uint(value);
  return value == value ? (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16) : (u16)0x7fff;
}

/// Rounds to bf16.
extern "C" __global__ void round_half(Matrix a) {
  FOR_ELEMENTS(r, c, a) at(a, r, c) = __uint_as_float((u32)half_bits(at(a, r, c)) << 16);
}
