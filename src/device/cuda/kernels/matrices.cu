// Element by element over matrices, and products.

extern "C" __global__ void copy(Matrix to, Matrix from) { FOR_ELEMENTS(r, c, to) at(to, r, c) = at(from, r, c); }

extern "C" __global__ void squares(Matrix out, Matrix a) {
  FOR_ELEMENTS(r, c, out) at(out, r, c) = at(a, r, c) * at(a, r, c);
}

/// `out = a diag(w)`.
extern "C" __global__ void scale_columns(Matrix out, Matrix a, const float *w) {
  FOR_ELEMENTS(r, c, out) at(out, r, c) = at(a, r, c) * w[c];
}

/// `a = own a + factor b`.
extern "C" __global__ void blend(float own, Matrix a, float factor, Matrix b) {
  FOR_ELEMENTS(r, c, a) at(a, r, c) = own * at(a, r, c) + factor * at(b, r, c);
}

// Products. A block makes a TILE x TILE piece of the result, a thread a 4 x 4 piece of that, from pieces of the factors that
// lie TILE x DEPTH in shared memory; what lies beyond the edges counts as zero and is not written.

#define TILE 64
#define DEPTH 16
#define PIECE 4

/// Element of a factor, transposed if asked, zero beyond its edges.
__device__ float factor_at(Matrix m, int transposed, i64 row, i64 column) {
  const i64 r = transposed ? column : row, c = transposed ? row : column;
  return r < m.rows && c < m.columns ? at(m, r, c) : 0.0f;
}

/// `out = a b` or `out += a b` for the tile whose corner is `(row, column)`.
__device__ void product_tile(Matrix out, int keep, Matrix a, int a_transposed, Matrix b, int b_transposed, i64 row, i64 column) {
  __shared__ float left[DEPTH][TILE + 1];
  __shared__ float right[DEPTH][TILE + 1];
  const i64 inner = a_transposed ? a.rows : a.columns;
  const int lane = threadIdx.x, i0 = lane / (TILE / PIECE) * PIECE, j0 = lane % (TILE / PIECE) * PIECE;
  float sums[PIECE][PIECE];
  for (int i = 0; i < PIECE; ++i)
    for (int j = 0; j < PIECE; ++j) sums[i][j] = 0.0f;
  for (i64 start = 0; start < inner; start += DEPTH) {
    __syncthreads();
    for (int e = lane; e < TILE * DEPTH; e += THREADS) {
      // Neighbouring threads read neighbouring elements of memory, whichever way the factor lies.
      const int along_a = a_transposed ? e % TILE : e / DEPTH, depth_a = a_transposed ? e / TILE : e % DEPTH;
      left[depth_a][along_a] = factor_at(a, a_transposed, row + along_a, start + depth_a);
      const int along_b = b_transposed ? e / DEPTH : e % TILE, depth_b = b_transposed ? e % DEPTH : e / TILE;
      right[depth_b][along_b] = factor_at(b, b_transposed, start + depth_b, column + along_b);
    }
    __syncthreads();
    for (int k = 0; k < DEPTH; ++k)
      for (int i = 0; i < PIECE; ++i)
        for (int j = 0; j < PIECE; ++j) sums[i][j] += left[k][i0 + i] * right[k][j0 + j];
  }
  __syncthreads();
  for (int i = 0; i < PIECE; ++i)
    for (int j = 0; j < PIECE; ++j) {
      const i64 r = row + i0 + i, c = column + j0 + j;
      if (r < out.rows && c < out.columns) at(out, r, c) = (keep ? at(out, r, c) : 0.0f) + sums[i][j];
    }
}

/// `out = a b`, or with `keep` `out += a b`: where no library multiplies.
extern "C" __global__ void product(Matrix out, int keep, Matrix a, int a_transposed, Matrix b, int b_transposed) {
  for (i64 row = (i64)blockIdx.y * TILE; row < out.rows; row += (i64)gridDim.y * TILE)
    for (i64 column = (i64)blockIdx.x * TILE; column < out.columns; column += (i64)gridDim.x * TILE)
      product_tile(out, keep, a, a_transposed, b, b_transposed, row, column);
}
