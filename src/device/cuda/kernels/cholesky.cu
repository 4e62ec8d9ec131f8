// Cholesky factors and inverses of symmetric positive-definite matrices, many of any sizes at once: the blocked algorithm that
// looks right (Golub and Van Loan 2013, section 4.2), in f64 throughout.
//
// With the matrix `A` in tiles of CHOLESKY_TILE rows and columns, step `k` is
//
//   A_kk = L_kk L_kk'   (cholesky_tile),   L_ik = A_ik L_kk'^-1, i > k   (cholesky_panel),
//   A_ij -= L_ik L_jk', i >= j > k   (cholesky_update).
//
// For the inverse the same steps are done to `B = I`, whose place `U = L'^-1` takes: `U_rk = B_rk L_kk'^-1`, `r <= k`, and
// `B_ri -= U_rk L_ik'`, `i > k`. These are the formulas of `L` for rows above the tile; as `U` is upper triangular and `L` lower,
// both lie in one square. They share its diagonal: `U_rr = 1/L_rr`. Then `A^-1 = U U'` (cholesky_inverse).
//
// A matrix is a block of the grid's second dimension. Only its lower triangle is read. A matrix that is not positive definite
// is marked and fills with numbers that mean nothing.

#define CHOLESKY_TILE 32

/// A matrix: its `size x size` numbers, `stride` from row to row, what is added to its diagonal, room for as many numbers in f64,
/// and where the result goes.
struct PositiveMatrix {
  const float *from;
  double *room;
  float *to;
  double ridge;
  i64 size, stride;
};

/// The lower triangle of every matrix with the ridge on its diagonal, zeros above; no matrix is marked.
extern "C" __global__ void cholesky_read(const PositiveMatrix *matrices, u32 *marks) {
  const PositiveMatrix m = matrices[blockIdx.y];
  if (blockIdx.x == 0 && threadIdx.x == 0) marks[blockIdx.y] = 0;
  FOR_FLAT(e, m.size * m.size) {
    const i64 r = e / m.size, c = e % m.size;
    m.room[e] = c > r ? 0.0 : (double)m.from[r * m.stride + c] + (c == r ? m.ridge : 0.0);
  }
}

/// `L_kk` for the tile that begins at row and column `first`: outer products without roots, the roots at the end. A matrix with
/// a pivot that is not positive or not finite is marked.
extern "C" __global__ void cholesky_tile(const PositiveMatrix *matrices, i64 first, u32 *marks) {
  __shared__ double tile[CHOLESKY_TILE][CHOLESKY_TILE + 1];
  const PositiveMatrix m = matrices[blockIdx.y];
  const i64 rest = m.size - first;
  if (rest <= 0) return;
  const int width = rest < CHOLESKY_TILE ? (int)rest : CHOLESKY_TILE, column = threadIdx.x % CHOLESKY_TILE;
  const int above = threadIdx.x / CHOLESKY_TILE, step = THREADS / CHOLESKY_TILE;
  double *corner = m.room + first * (m.size + 1);
  if (column < width)
    for (int r = above; r < width; r += step) tile[r][column] = corner[r * m.size + column];
  bool is_positive = true;
  for (int k = 0; k < width; ++k) {
    __syncthreads();
    const double pivot = tile[k][k], factor = 1.0 / pivot;
    // Of an infinite pivot the factor is zero.
    is_positive = is_positive && pivot > 0.0 && factor > 0.0;
    if (column <= k || column >= width) continue;
    for (int r = above; r < width; r += step)
      if (r >= column) tile[r][column] -= tile[r][k] * (factor * tile[column][k]);
  }
  __syncthreads();
  if (threadIdx.x == 0 && !is_positive) marks[blockIdx.y] = 1;
  if (column >= width) return;
  const double root = sqrt(tile[column][column]);
  for (int r = above; r < width; r += step)
    if (r >= column) corner[r * m.size + column] = r == column ? root : tile[r][column] / root;
}

/// `W_rk = W_rk L_kk'^-1` for the rows below the tile, and with `inverse` for those above and of the tile too, where `W_kk`
/// begins as the identity: forward substitution, a warp a row, a lane a column.
extern "C" __global__ void cholesky_panel(const PositiveMatrix *matrices, i64 first, int inverse) {
  __shared__ double lower[CHOLESKY_TILE][CHOLESKY_TILE + 1];
  const PositiveMatrix m = matrices[blockIdx.y];
  const i64 rest = m.size - first;
  if (rest <= 0) return;
  const int width = rest < CHOLESKY_TILE ? (int)rest : CHOLESKY_TILE, lane = threadIdx.x % WARP;
  const double *corner = m.room + first * (m.size + 1);
  for (int r = threadIdx.x / WARP; r < CHOLESKY_TILE; r += THREADS / WARP) {
    const double value = r < width && lane <= r ? corner[r * m.size + lane] : r == lane ? 1.0 : 0.0;
    lower[r][lane] = r == lane ? 1.0 / value : value;
  }
  __syncthreads();
  const i64 warps = (i64)gridDim.x * (THREADS / WARP);
  for (i64 r = (inverse ? 0 : first + width) + thread_index() / WARP; r < m.size; r += warps) {
    const bool is_of_tile = r >= first && r < first + width;
    double *row = m.room + r * m.size + first;
    double x = lane >= width ? 0.0 : !is_of_tile ? row[lane] : r == first + lane ? 1.0 : 0.0;
    for (int k = 0; k < CHOLESKY_TILE; ++k) {
      const double found = __shfl_sync(ALL_LANES, x, k) * lower[k][k];
      if (lane == k) x = found;
      if (lane > k) x -= found * lower[lane][k];
    }
    // Of the tile only what lies above the diagonal, where no one reads L_kk.
    if (lane < width && (!is_of_tile || first + lane > r)) row[lane] = x;
  }
}

/// An element of the columns that are done: of `L` below the tiles of the diagonal, of `U` in and above them; zero beyond the
/// edges.
__device__ double cholesky_at(PositiveMatrix m, i64 row, i64 column) {
  if (row >= m.size || column >= m.size) return 0.0;
  const double value = m.room[row * m.size + column];
  if (row / CHOLESKY_TILE != column / CHOLESKY_TILE || column > row) return value;
  return row == column ? 1.0 / value : 0.0;
}

/// Adds a tile of `a b'` to the sums of every thread; `a` are the rows from `row` on, `b` those from `other` on, both in the
/// columns of the tile that begins at `first`. All threads call it.
__device__ void cholesky_product(PositiveMatrix m, i64 row, i64 other, i64 first, double sums[2][2]) {
  __shared__ double left[CHOLESKY_TILE][CHOLESKY_TILE + 1];
  __shared__ double right[CHOLESKY_TILE][CHOLESKY_TILE + 1];
  const int i0 = threadIdx.x / (CHOLESKY_TILE / 2), j0 = threadIdx.x % (CHOLESKY_TILE / 2);
  __syncthreads();
  for (int e = threadIdx.x; e < CHOLESKY_TILE * CHOLESKY_TILE; e += THREADS) {
    const int r = e / CHOLESKY_TILE, c = e % CHOLESKY_TILE;
    left[r][c] = cholesky_at(m, row + r, first + c);
    right[r][c] = cholesky_at(m, other + r, first + c);
  }
  __syncthreads();
  for (int k = 0; k < CHOLESKY_TILE; ++k)
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j)
        sums[i][j] += left[i0 + i * (CHOLESKY_TILE / 2)][k] * right[j0 + j * (CHOLESKY_TILE / 2)][k];
}

/// `W_ri -= W_rk L_ik'` for the tiles right of column `first`, `across` side by side in the largest matrix: for `r >= i`, and
/// with `inverse` for `r <= k` too.
extern "C" __global__ void cholesky_update(const PositiveMatrix *matrices, i64 first, i64 across, int inverse) {
  const PositiveMatrix m = matrices[blockIdx.y];
  const i64 next = first + CHOLESKY_TILE, column = next + blockIdx.x % across * CHOLESKY_TILE;
  const i64 row = (inverse ? 0 : next) + blockIdx.x / across * CHOLESKY_TILE;
  if (row >= m.size || column >= m.size || (row > first && row < column)) return;
  double sums[2][2] = {{0.0, 0.0}, {0.0, 0.0}};
  cholesky_product(m, row, column, first, sums);
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      const i64 r = row + threadIdx.x / (CHOLESKY_TILE / 2) + i * (CHOLESKY_TILE / 2);
      const i64 c = column + threadIdx.x % (CHOLESKY_TILE / 2) + j * (CHOLESKY_TILE / 2);
      if (r < m.size && c < m.size) m.room[r * m.size + c] -= sums[i][j];
    }
}

/// The factor, zeros above its diagonal.
extern "C" __global__ void cholesky_factor(const PositiveMatrix *matrices) {
  const PositiveMatrix m = matrices[blockIdx.y];
  FOR_FLAT(e, m.size * m.size) m.to[e] = e % m.size > e / m.size ? 0.0f : (float)m.room[e];
}

/// `U U'`, for the largest matrix `across x across` tiles: those of the lower triangle, written to the upper one too.
extern "C" __global__ void cholesky_inverse(const PositiveMatrix *matrices, i64 across) {
  const PositiveMatrix m = matrices[blockIdx.y];
  const i64 row = blockIdx.x / across * CHOLESKY_TILE, column = blockIdx.x % across * CHOLESKY_TILE;
  if (row >= m.size || column > row) return;
  double sums[2][2] = {{0.0, 0.0}, {0.0, 0.0}};
  for (i64 first = row; first < m.size; first += CHOLESKY_TILE) cholesky_product(m, row, column, first, sums);
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      const i64 r = row + threadIdx.x / (CHOLESKY_TILE / 2) + i * (CHOLESKY_TILE / 2);
      const i64 c = column + threadIdx.x % (CHOLESKY_TILE / 2) + j * (CHOLESKY_TILE / 2);
      if (r < m.size && c <= r) m.to[r * m.size + c] = m.to[c * m.size + r] = (float)sums[i][j];
    }
}
