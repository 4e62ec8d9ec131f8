// Fused passes of generalized linear models over rows of data (equations: cpu/glm.rs): linear predictors, losses, residuals,
// weights, and the sums over rows that follow from them.
//
// A block takes ROW_TILE rows at a time, a thread each. The design's columns (standardized inputs, squares, products) are
// nowhere stored: each is made from the inputs as they lie in panels, where it is needed. The rows' residuals go to the block's
// own place in memory; then its warps take the columns in turn and add up residuals times column, in `T` over the eight rows of
// a lane and in f64 beyond. The numbers of the kinds are those of `kind_of` in regression.rs.

#define BINARY 0
#define GAUSSIAN 1
#define MULTINOMIAL 2
#define MULTINOMIAL_REFERENCE 3
#define PREDICTORS_ALONE 4

#define WANT_GRADIENT 1
#define WANT_SQUARES 2

/// What every pass adds up first: loss, rows classified rightly, largest predictor, smallest margin (its negative).
#define ROW_SUMS 4
#define LARGEST_PREDICTOR 2
#define SMALLEST_MARGIN 3

#define ROW_TILE THREADS
#define WARPS (THREADS / WARP)
#define ROWS_OF_LANE (ROW_TILE / WARP)
#define NO_INPUT 0xffffffffu

/// Rows of inputs, `inputs` columns in panels, and their targets; those named by `list`, or without it consecutive ones, counted
/// from `first`.
struct RegressionRows {
  const float *features, *targets;
  const u32 *list;
  i64 first, count, inputs;
};

/// The design's columns: two inputs behind each, the second or both missing; shift and factor of every input, then of every
/// column.
template <class T>
struct DesignColumns {
  const u32 *factors;
  const T *affine;
  i64 inputs, count;
};

/// Memory of a pass: for residuals ROW_TILE times `outputs` of every block; the others `outputs x count` or not there.
template <class T>
struct RegressionRoom {
  T *residuals_of_blocks, *predictors, *weights, *residuals;
  const T *old_residuals;
};

__device__ float exponential(float x) { return expf(x); }
__device__ double exponential(double x) { return exp(x); }
__device__ float logarithm(float x) { return logf(x); }
__device__ double logarithm(double x) { return log(x); }
__device__ float logarithm_beyond_one(float x) { return log1pf(x); }
__device__ double logarithm_beyond_one(double x) { return log1p(x); }

/// The number of the `i`-th row.
__device__ i64 row_number(RegressionRows rows, i64 i) { return rows.first + (rows.list ? (i64)rows.list[i] : i); }

/// Where the inputs of the `i`-th row begin; they lie PANEL_ROWS apart.
__device__ const float *inputs_of(RegressionRows rows, i64 i) {
  const i64 row = row_number(rows, i);
  return rows.features + row / PANEL_ROWS * PANEL_ROWS * rows.inputs + row % PANEL_ROWS;
}

/// A standardized input.
template <class T>
__device__ T input_at(const float *row, const T *affine, u32 j) {
  return ((T)row[(i64)j * PANEL_ROWS] - affine[2 * j]) * affine[2 * j + 1];
}

/// Column `j` of the design in a row.
template <class T>
__device__ T column_at(const float *row, DesignColumns<T> columns, i64 j) {
  const u32 first = columns.factors[2 * j], second = columns.factors[2 * j + 1];
  if (first == NO_INPUT) return (T)1;
  const T u = input_at(row, columns.affine, first);
  if (second == NO_INPUT) return u;
  const T *affine = columns.affine + 2 * (columns.inputs + j);
  return (u * input_at(row, columns.affine, second) - affine[0]) * affine[1];
}

/// `eta_c = sum_j theta_cj z_j` of a row for the outputs from `c` on, N at most, to places ROW_TILE apart.
template <int N, class T>
__device__ void predict_some(const float *row, DesignColumns<T> columns, const T *theta, i64 c, i64 outputs, T *eta) {
  T sums[N];
  for (int k = 0; k < N; ++k) sums[k] = 0;
  for (i64 j = 0; j < columns.count; ++j) {
    const T z = column_at(row, columns, j);
    for (int k = 0; k < N; ++k)
      if (c + k < outputs) sums[k] += theta[(c + k) * columns.count + j] * z;
  }
  for (int k = 0; k < N; ++k)
    if (c + k < outputs) eta[(c + k) * ROW_TILE] = sums[k];
}

template <class T>
__device__ void predict(const float *row, DesignColumns<T> columns, const T *theta, i64 outputs, T *eta) {
  if (outputs == 1) predict_some<1>(row, columns, theta, 0, 1, eta);
  else
    for (i64 c = 0; c < outputs; c += 8) predict_some<8>(row, columns, theta, c, outputs, eta);
}

/// What a thread's rows add up to.
struct ThreadSums {
  double loss, correct, largest_predictor, smallest_margin;
};

/// A row of two classes, `y` 0 or 1: the predictor becomes the residual; answers the weight.
template <class T>
__device__ T visit_binary(T y, T *eta, ThreadSums &sums) {
  const T o = *eta;
  const T e = exponential(o > 0 ? -o : o), high = 1 / (1 + e), low = e * high;
  const T p = o > 0 ? high : low, q = o > 0 ? low : high;
  // y and 1 - y are 0 or 1: no cancellation where the probability is near its target.
  *eta = p * (1 - y) - q * y;
  sums.loss += (double)((o > 0 ? o : (T)0) - y * o + logarithm_beyond_one(e));
  sums.correct += (o > 0) == (y == 1) ? 1 : 0;
  const double margin = y == 1 ? o : -o;
  sums.smallest_margin = margin < sums.smallest_margin ? margin : sums.smallest_margin;
  return high * low;
}

/// A row of several classes: predictors become residuals; probabilities go to `weights`, `step` apart, if there is room.
template <class T>
__device__ void visit_multinomial(T y, int has_reference, i64 outputs, T *eta, T *weights, i64 step, ThreadSums &sums) {
  // The largest predictor, the first class that has it, the target's, and the largest of the others.
  T largest = has_reference ? (T)0 : (T)NOTHING, class_of_largest = 0, of_target = 0;
  T of_others = has_reference && y != 0 ? (T)0 : (T)NOTHING;
  for (i64 c = 0; c < outputs; ++c) {
    const T o = eta[c * ROW_TILE], of_class = (T)(c + has_reference);
    if (o > largest) class_of_largest = of_class;
    largest = o > largest ? o : largest;
    if (y == of_class) of_target = o;
    else of_others = o > of_others ? o : of_others;
  }
  T sum = has_reference ? exponential(-largest) : (T)0;
  for (i64 c = 0; c < outputs; ++c) {
    const T e = exponential(eta[c * ROW_TILE] - largest);
    eta[c * ROW_TILE] = e;
    sum += e;
  }
  for (i64 c = 0; c < outputs; ++c) {
    const T p = eta[c * ROW_TILE] / sum;
    if (weights) weights[c * step] = p;
    eta[c * ROW_TILE] = p - (y == (T)(c + has_reference) ? (T)1 : (T)0);
  }
  sums.loss += (double)(logarithm(sum) + (largest - of_target));
  sums.correct += class_of_largest == y ? 1 : 0;
  const double margin = (double)(of_target - of_others);
  sums.smallest_margin = margin < sums.smallest_margin ? margin : sums.smallest_margin;
}

/// Visits the `i`-th row: predictors in `eta` become residuals.
template <class T>
__device__ void visit(RegressionRows rows, i64 i, int kind, i64 outputs, T *eta, RegressionRoom<T> room, ThreadSums &sums) {
  for (i64 c = 0; c < outputs; ++c) {
    const T o = eta[c * ROW_TILE];
    if (room.predictors) room.predictors[c * rows.count + i] = o;
    sums.largest_predictor = larger_or_nan(sums.largest_predictor, fabs((double)o));
  }
  if (kind == PREDICTORS_ALONE) return;
  const T y = (T)rows.targets[row_number(rows, i)];
  T *weights = room.weights ? room.weights + i : 0;
  if (kind == BINARY) {
    const T weight = visit_binary(y, eta, sums);
    if (weights) *weights = weight;
  } else if (kind == GAUSSIAN) {
    const T residual = *eta - y;
    *eta = residual;
    sums.loss += (double)((T)0.5 * residual * residual);
    if (weights) *weights = 1;
  } else {
    visit_multinomial(y, kind == MULTINOMIAL_REFERENCE ? 1 : 0, outputs, eta, weights, rows.count, sums);
  }
  for (i64 c = 0; c < outputs; ++c) {
    if (room.residuals) room.residuals[c * rows.count + i] = eta[c * ROW_TILE];
    if (room.old_residuals) eta[c * ROW_TILE] -= room.old_residuals[c * rows.count + i];
  }
}

/// The block's part of sum `which`; only the first lane of the warp that owns the sum touches it.
__device__ double &part_of(double *parts, i64 which) { return parts[which * gridDim.x + blockIdx.x]; }

/// Sets the block's parts of `outputs x columns` sums, `sets` of them, to zero.
template <class T>
__device__ void clear_columns(DesignColumns<T> columns, i64 outputs, int sets, double *parts) {
  if (threadIdx.x % WARP != 0) return;
  for (i64 j = threadIdx.x / WARP; j < columns.count; j += WARPS)
    for (i64 c = 0; c < sets * outputs; ++c) part_of(parts, c * columns.count + j) = 0;
}

/// Adds residuals of the tile's rows times columns to the block's parts, and with WANT_SQUARES the squares of these products to
/// the parts after them. All threads call it.
template <class T>
__device__ void add_columns(RegressionRows rows, DesignColumns<T> columns, i64 start, i64 outputs, int wanted,
                            const T *residuals, double *parts) {
  const int lane = threadIdx.x % WARP;
  const float *places[ROWS_OF_LANE];
  for (int s = 0; s < ROWS_OF_LANE; ++s) {
    const i64 i = start + s * WARP + lane;
    places[s] = i < rows.count ? inputs_of(rows, i) : 0;
  }
  const i64 size = outputs * columns.count;
  for (i64 j = threadIdx.x / WARP; j < columns.count; j += WARPS) {
    T z[ROWS_OF_LANE];
    for (int s = 0; s < ROWS_OF_LANE; ++s) z[s] = places[s] ? column_at(places[s], columns, j) : (T)0;
    for (i64 c = 0; c < outputs; ++c) {
      T sum = 0, squares = 0;
      for (int s = 0; s < ROWS_OF_LANE; ++s) {
        const T product = residuals[c * ROW_TILE + s * WARP + lane] * z[s];
        sum += product;
        squares += product * product;
      }
      const i64 which = c * columns.count + j;
      if (wanted & WANT_GRADIENT) {
        const double total = warp_sum((double)sum);
        if (lane == 0) part_of(parts, which) += total;
      }
      if (wanted & WANT_SQUARES) {
        const double total = warp_sum((double)squares);
        if (lane == 0) part_of(parts, which + (wanted & WANT_GRADIENT ? size : 0)) += total;
      }
    }
  }
}

/// Parts of ROW_SUMS sums, then of the gradient, then of squared gradients.
template <class T>
__device__ void pass_over_rows(RegressionRows rows, DesignColumns<T> columns, const T *theta, int kind, i64 outputs, int wanted,
                               RegressionRoom<T> room, double *parts) {
  T *residuals = room.residuals_of_blocks + (i64)blockIdx.x * outputs * ROW_TILE, *own = residuals + threadIdx.x;
  double *of_columns = parts + (i64)ROW_SUMS * gridDim.x;
  ThreadSums sums = {0, 0, 0, -(double)NOTHING};
  clear_columns(columns, outputs, (wanted & WANT_GRADIENT ? 1 : 0) + (wanted & WANT_SQUARES ? 1 : 0), of_columns);
  for (i64 start = (i64)blockIdx.x * ROW_TILE; start < rows.count; start += (i64)gridDim.x * ROW_TILE) {
    const i64 i = start + threadIdx.x;
    if (i < rows.count) {
      predict(inputs_of(rows, i), columns, theta, outputs, own);
      visit(rows, i, kind, outputs, own, room, sums);
    } else {
      for (i64 c = 0; c < outputs; ++c) own[c * ROW_TILE] = 0;
    }
    if (wanted) {
      __syncthreads();
      add_columns(rows, columns, start, outputs, wanted, residuals, of_columns);
      __syncthreads();
    }
  }
  put_part(parts, 0, sums.loss);
  put_part(parts, 1, sums.correct);
  const double largest = block_largest(sums.largest_predictor), margin = block_largest(-sums.smallest_margin);
  if (threadIdx.x == 0) {
    part_of(parts, LARGEST_PREDICTOR) = largest;
    part_of(parts, SMALLEST_MARGIN) = margin;
  }
}

extern "C" __global__ void regression_pass(RegressionRows rows, DesignColumns<float> columns, const float *theta, int kind,
                                           i64 outputs, int wanted, RegressionRoom<float> room, double *parts) {
  pass_over_rows(rows, columns, theta, kind, outputs, wanted, room, parts);
}

/// The same in f64 throughout.
extern "C" __global__ void regression_pass_double(RegressionRows rows, DesignColumns<double> columns, const double *theta,
                                                  int kind, i64 outputs, int wanted, RegressionRoom<double> room,
                                                  double *parts) {
  pass_over_rows(rows, columns, theta, kind, outputs, wanted, room, parts);
}

/// Brings the parts of `sums_count` sums together, a warp for each; with `has_row_sums` the first are those of a pass.
extern "C" __global__ void finish_sums(const double *parts, i64 count, i64 sums_count, int has_row_sums, double *sums) {
  const int lane = threadIdx.x % WARP;
  for (i64 which = thread_index() / WARP; which < sums_count; which += thread_count() / WARP) {
    const bool is_largest = has_row_sums && (which == LARGEST_PREDICTOR || which == SMALLEST_MARGIN);
    double value = is_largest ? (double)NOTHING : 0;
    for (i64 i = lane; i < count; i += WARP) {
      const double part = parts[which * count + i];
      value = is_largest ? larger_or_nan(value, part) : value + part;
    }
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
      const double other = __shfl_xor_sync(ALL_LANES, value, distance);
      value = is_largest ? larger_or_nan(value, other) : value + other;
    }
    if (lane == 0) sums[which] = value;
  }
}

/// Parts of `sum_i J_i' H_i J_i v` with the weights (or probabilities, `is_multinomial`) that a pass left.
template <class T>
__device__ void product_over_rows(RegressionRows rows, DesignColumns<T> columns, const T *v, int is_multinomial, i64 outputs,
                                  const T *weights, T *room, double *parts) {
  T *residuals = room + (i64)blockIdx.x * outputs * ROW_TILE, *own = residuals + threadIdx.x;
  clear_columns(columns, outputs, 1, parts);
  for (i64 start = (i64)blockIdx.x * ROW_TILE; start < rows.count; start += (i64)gridDim.x * ROW_TILE) {
    const i64 i = start + threadIdx.x;
    if (i < rows.count) {
      predict(inputs_of(rows, i), columns, v, outputs, own);
      // (diag(p) - p p') t is p_c (t_c - sum_k p_k t_k).
      T mean = 0;
      if (is_multinomial)
        for (i64 c = 0; c < outputs; ++c) mean += weights[c * rows.count + i] * own[c * ROW_TILE];
      for (i64 c = 0; c < outputs; ++c) own[c * ROW_TILE] = weights[c * rows.count + i] * (own[c * ROW_TILE] - mean);
    } else {
      for (i64 c = 0; c < outputs; ++c) own[c * ROW_TILE] = 0;
    }
    __syncthreads();
    add_columns(rows, columns, start, outputs, WANT_GRADIENT, residuals, parts);
    __syncthreads();
  }
}

extern "C" __global__ void regression_product(RegressionRows rows, DesignColumns<float> columns, const float *v,
                                              int is_multinomial, i64 outputs, const float *weights, float *room,
                                              double *parts) {
  product_over_rows(rows, columns, v, is_multinomial, outputs, weights, room, parts);
}

/// The same in f64 throughout.
extern "C" __global__ void regression_product_double(RegressionRows rows, DesignColumns<double> columns, const double *v,
                                                     int is_multinomial, i64 outputs, const double *weights, double *room,
                                                     double *parts) {
  product_over_rows(rows, columns, v, is_multinomial, outputs, weights, room, parts);
}
