// Sums and largest values in two stages: every block leaves its part, a block for each sum adds the parts up.

/// Adds up the parts of sum `blockIdx.x`.
extern "C" __global__ void add_parts(const double *parts, i64 count, double *sums) {
  double sum = 0;
  for (i64 i = threadIdx.x; i < count; i += blockDim.x) sum += parts[blockIdx.x * count + i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/// The largest of the parts; NaN if any is.
extern "C" __global__ void largest_part(const double *parts, i64 count, double *largest) {
  double value = 0;
  for (i64 i = threadIdx.x; i < count; i += blockDim.x) value = larger_or_nan(value, parts[i]);
  value = block_largest(value);
  if (threadIdx.x == 0) *largest = value;
}

/// Parts of `<a, b>`.
extern "C" __global__ void dot(const float *a, const float *b, i64 count, double *parts) {
  double sum = 0;
  FOR_FLAT(i, count) sum += (double)a[i] * (double)b[i];
  put_part(parts, 0, sum);
}

/// Parts of the largest absolute value.
extern "C" __global__ void largest(const float *a, i64 count, double *parts) {
  double value = 0;
  FOR_FLAT(i, count) value = larger_or_nan(value, fabs((double)a[i]));
  value = block_largest(value);
  if (threadIdx.x == 0) parts[block_index()] = value;
}

/// Parts of the number of elements that are not zero.
extern "C" __global__ void nonzero(const float *a, i64 count, double *parts) {
  double sum = 0;
  FOR_FLAT(i, count) sum += a[i] != 0.0f ? 1 : 0;
  put_part(parts, 0, sum);
}

/// Parts of `sum_ij a_ij b_ij`.
extern "C" __global__ void inner(Matrix a, Matrix b, double *parts) {
  double sum = 0;
  FOR_ELEMENTS(r, c, a) sum += (double)at(a, r, c) * (double)at(b, r, c);
  put_part(parts, 0, sum);
}

/// Parts of the number of elements above zero.
extern "C" __global__ void count_positive(Matrix a, double *parts) {
  double sum = 0;
  FOR_ELEMENTS(r, c, a) sum += at(a, r, c) > 0.0f ? 1 : 0;
  put_part(parts, 0, sum);
}

/// Parts of the sums of rows: those of row `r` are `gridDim.x` numbers from `r gridDim.x` on.
extern "C" __global__ void row_sums(Matrix a, double *parts) {
  FOR_ROWS(r, a) {
    double sum = 0;
    FOR_COLUMNS(c, a) sum += (double)at(a, r, c);
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[r * gridDim.x + blockIdx.x] = sum;
  }
}

/// Adds up the parts of the sums of rows, each row by a thread; adds to what is there with `keep`.
extern "C" __global__ void add_row_parts(float *out, int keep, const double *parts, i64 rows, i64 per_row) {
  FOR_FLAT(r, rows) {
    double sum = keep ? (double)out[r] : 0.0;
    for (i64 i = 0; i < per_row; ++i) sum += parts[r * per_row + i];
    out[r] = (float)sum;
  }
}

/// `out_c = sum_r a_rc b_rc`, added with `keep`.
extern "C" __global__ void column_dots(float *out, int keep, Matrix a, Matrix b) {
  FOR_COLUMNS(c, a) {
    float sum = keep ? out[c] : 0.0f;
    for (i64 r = 0; r < a.rows; ++r) sum += at(a, r, c) * at(b, r, c);
    out[c] = sum;
  }
}
