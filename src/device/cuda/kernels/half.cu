// Products of factors that hold bf16 numbers, on tensor cores. A tile is that of matrices.cu; its factors lie in shared memory
// as words of two numbers that follow one another along the inner dimension, the first in the lower half. A warp holds a
// 32 x 16 piece of the tile as 2 x 2 fragments of 16 x 8, eight warps lie 2 x 4.

#define HALF_DEPTH 32
/// Words of a row, and from one row to the next: the eight rows and four words of a warp's reads and writes fall into banks of
/// their own.
#define HALF_WORDS (HALF_DEPTH / 2)
#define HALF_STRIDE (HALF_WORDS + 4)
/// Inner size of one multiplication of fragments, in words.
#define FRAGMENT_WORDS 8

/// Two numbers rounded to bf16; nothing is lost of numbers that bf16 has.
__device__ u32 half_pair(float first, float second) { return (u32)half_bits(second) << 16 | half_bits(first); }

/// Numbers rounded to bf16, for a library; `stride` of them from row to row.
extern "C" __global__ void pack_half(u16 *to, i64 stride, Matrix from) {
  FOR_ELEMENTS(r, c, from) to[r * stride + c] = half_bits(at(from, r, c));
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800

/// Devices before sm_80 have no tensor cores for bf16: the same values in `f32`.
__device__ void half_tile(Matrix out, int keep, Matrix a, int a_transposed, Matrix b, int b_transposed, i64 row, i64 column) {
  product_tile(out, keep, a, a_transposed, b, b_transposed, row, column);
}

#else

#ifdef __CUDA_ARCH__
/// `sums += a b` for a 16 x 16 and a 16 x 8 matrix of bf16 numbers that a warp holds in fragments. With `g = lane / 4` and
/// `t = lane % 4`, words of `a` hold columns `2 t` and `2 t + 1` of rows `g` and `g + 8`, then the same of columns 8 further;
/// words of `b` rows `2 t` and `2 t + 1` of column `g`, then 8 further; sums are columns `2 t` and `2 t + 1` of row `g`, then
/// of row `g + 8`.
__device__ void mma_m16n8k16(float *sums, const u32 *a, const u32 *b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

/// `out = a b` or `out += a b` for the tile whose corner is `(row, column)`; factors are rounded to bf16.
__device__ void half_tile(Matrix out, int keep, Matrix a, int a_transposed, Matrix b, int b_transposed, i64 row, i64 column) {
  __shared__ u32 left[TILE][HALF_STRIDE];
  __shared__ u32 right[TILE][HALF_STRIDE];
  const i64 inner = a_transposed ? a.rows : a.columns;
  const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  const int i0 = warp / 4 * 32 + g, j0 = warp % 4 * 16;
  float sums[2][2][4];
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j)
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
  for (i64 start = 0; start < inner; start += HALF_DEPTH) {
    __syncthreads();
    // Four threads take a row of either factor: THREADS is four times TILE.
    const int along = threadIdx.x / 4;
    for (int first = 0; first < HALF_WORDS; first += 4) {
      const int word = first + t;
      const i64 k = start + 2 * word;
      left[along][word] =
          half_pair(factor_at(a, a_transposed, row + along, k), factor_at(a, a_transposed, row + along, k + 1));
      right[along][word] =
          half_pair(factor_at(b, b_transposed, k, column + along), factor_at(b, b_transposed, k + 1, column + along));
    }
    __syncthreads();
    for (int first = 0; first < HALF_WORDS; first += FRAGMENT_WORDS) {
      u32 own[2][4], other[2][2];
      for (int i = 0; i < 2; ++i)
        for (int e = 0; e < 4; ++e) own[i][e] = left[i0 + 16 * i + e % 2 * 8][first + t + e / 2 * 4];
      for (int j = 0; j < 2; ++j)
        for (int e = 0; e < 2; ++e) other[j][e] = right[j0 + 8 * j + g][first + t + 4 * e];
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) mma_m16n8k16(sums[i][j], own[i], other[j]);
    }
  }
  __syncthreads();
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j)
      for (int e = 0; e < 4; ++e) {
        const i64 r = row + i0 + 16 * i + e / 2 * 8, c = column + j0 + 8 * j + 2 * t + e % 2;
        if (r < out.rows && c < out.columns) at(out, r, c) = (keep ? at(out, r, c) : 0.0f) + sums[i][j][e];
      }
}

#endif
