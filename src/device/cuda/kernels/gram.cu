// Weighted Gram matrices `sum_i w_i z_i z_i'` of a design's columns: the information of a generalized linear model.
//
// The lower triangle is cut into GRAM_TILE x GRAM_TILE pieces (the grid's first dimension) and the rows into chunks (the
// second). A block makes the columns of its piece for GRAM_DEPTH rows at a time in shared memory; a thread multiplies
// GRAM_PIECE x GRAM_PIECE of them, in `T` over a panel of rows, and adds these sums up in f64.

#define GRAM_TILE 32
#define GRAM_DEPTH 32
#define GRAM_PIECE 2
#define GRAM_THREADS_ALONG (GRAM_TILE / GRAM_PIECE)

/// Weights of rows: one, `first_i`, or with `second` those of a block of a multinomial information,
/// `first_i ([is_same] - second_i)`.
template <class T>
struct GramWeights {
  const T *first, *second;
  i64 is_same;
};

template <class T>
__device__ T gram_weight(GramWeights<T> weights, i64 i) {
  if (!weights.first) return (T)1;
  if (!weights.second) return weights.first[i];
  return weights.first[i] * ((weights.is_same ? (T)1 : (T)0) - weights.second[i]);
}

/// Parts of the lower triangle, packed row by row, one for each chunk of `chunk_rows` rows (a multiple of PANEL_ROWS). `left`
/// and `right` are GRAM_DEPTH x (GRAM_TILE + 1) numbers of shared memory each.
template <class T>
__device__ void gram_over_rows(RegressionRows rows, DesignColumns<T> columns, GramWeights<T> weights, i64 chunk_rows, T *left,
                               T *right, double *parts) {
  i64 above = 0;
  while ((above + 1) * (above + 2) / 2 <= (i64)blockIdx.x) ++above;
  const i64 row0 = above * GRAM_TILE, column0 = ((i64)blockIdx.x - above * (above + 1) / 2) * GRAM_TILE;
  const i64 begin = (i64)blockIdx.y * chunk_rows, past = begin + chunk_rows, end = past < rows.count ? past : rows.count;
  const int depth = threadIdx.x % GRAM_DEPTH;
  const int i0 = threadIdx.x / GRAM_THREADS_ALONG * GRAM_PIECE, j0 = threadIdx.x % GRAM_THREADS_ALONG * GRAM_PIECE;
  double totals[GRAM_PIECE][GRAM_PIECE];
  T sums[GRAM_PIECE][GRAM_PIECE];
  for (int i = 0; i < GRAM_PIECE; ++i)
    for (int j = 0; j < GRAM_PIECE; ++j) totals[i][j] = sums[i][j] = 0;
  for (i64 start = begin; start < end; start += GRAM_DEPTH) {
    __syncthreads();
    // Neighbouring threads take neighbouring rows, of which a thread has one.
    const bool is_row = start + depth < end;
    const float *row = is_row ? inputs_of(rows, start + depth) : 0;
    const T weight = is_row ? gram_weight(weights, start + depth) : (T)0;
    for (int along = threadIdx.x / GRAM_DEPTH; along < GRAM_TILE; along += THREADS / GRAM_DEPTH) {
      const int place = depth * (GRAM_TILE + 1) + along;
      left[place] = is_row && row0 + along < columns.count ? weight * column_at(row, columns, row0 + along) : (T)0;
      right[place] = is_row && column0 + along < columns.count ? column_at(row, columns, column0 + along) : (T)0;
    }
    __syncthreads();
    for (int k = 0; k < GRAM_DEPTH; ++k)
      for (int i = 0; i < GRAM_PIECE; ++i)
        for (int j = 0; j < GRAM_PIECE; ++j)
          sums[i][j] += left[k * (GRAM_TILE + 1) + i0 + i] * right[k * (GRAM_TILE + 1) + j0 + j];
    if ((start + GRAM_DEPTH - begin) % PANEL_ROWS != 0 && start + GRAM_DEPTH < end) continue;
    for (int i = 0; i < GRAM_PIECE; ++i)
      for (int j = 0; j < GRAM_PIECE; ++j) {
        totals[i][j] += (double)sums[i][j];
        sums[i][j] = 0;
      }
  }
  for (int i = 0; i < GRAM_PIECE; ++i)
    for (int j = 0; j < GRAM_PIECE; ++j) {
      const i64 r = row0 + i0 + i, c = column0 + j0 + j;
      if (r < columns.count && c <= r) parts[(r * (r + 1) / 2 + c) * gridDim.y + blockIdx.y] = totals[i][j];
    }
}

extern "C" __global__ void weighted_gram(RegressionRows rows, DesignColumns<float> columns, GramWeights<float> weights,
                                         i64 chunk_rows, double *parts) {
  __shared__ float left[GRAM_DEPTH * (GRAM_TILE + 1)];
  __shared__ float right[GRAM_DEPTH * (GRAM_TILE + 1)];
  gram_over_rows(rows, columns, weights, chunk_rows, left, right, parts);
}

/// The same in f64 throughout.
extern "C" __global__ void weighted_gram_double(RegressionRows rows, DesignColumns<double> columns,
                                                GramWeights<double> weights, i64 chunk_rows, double *parts) {
  __shared__ double left[GRAM_DEPTH * (GRAM_TILE + 1)];
  __shared__ double right[GRAM_DEPTH * (GRAM_TILE + 1)];
  gram_over_rows(rows, columns, weights, chunk_rows, left, right, parts);
}
