// Softmax of rows, its derivative, and cross-entropy. A warp takes a row.

#define NOTHING (-__uint_as_float(0x7f800000u))

/// The largest of the first `count` numbers of a row, for every lane.
__device__ float row_largest(const float *row, i64 count) {
  float value = NOTHING;
  FOR_LANES(j, count) value = larger(row[j], value);
  return warp_largest(value);
}

/// `t = factor p o (t - <p, t>)` for the first `count` numbers of a row: the tangent of softmax, and its adjoint.
__device__ void row_tangent(float *t, const float *p, i64 count, float factor) {
  float sum = 0.0f;
  FOR_LANES(j, count) sum += p[j] * t[j];
  const float mean = warp_sum(sum);
  FOR_LANES(j, count) t[j] = factor * (p[j] * (t[j] - mean));
}

/// The softmax of every row in place; `ln(sum exp)` of each beside it.
extern "C" __global__ void softmax_rows(Matrix a, float *log_sums) {
  FOR_WARP_ROWS(i, a) {
    float *row = &at(a, i, 0);
    const float top = row_largest(row, a.columns);
    float sum = 0.0f;
    FOR_LANES(j, a.columns) {
      row[j] = expf(row[j] - top);
      sum += row[j];
    }
    sum = warp_sum(sum);
    FOR_LANES(j, a.columns) row[j] /= sum;
    if (threadIdx.x % WARP == 0) log_sums[i] = top + logf(sum);
  }
}

/// `t_i = factor_i p_i o (t_i - <p_i, t_i>)`; rows with factor 0 become zero.
extern "C" __global__ void softmax_tangent(Matrix t, Matrix p, const float *factor) {
  FOR_WARP_ROWS(i, t) {
    if (factor[i] == 0.0f) {
      FOR_LANES(j, t.columns) at(t, i, j) = 0.0f;
    } else {
      row_tangent(&at(t, i, 0), &at(p, i, 0), t.columns, factor[i]);
    }
  }
}

/// For every row `ln(sum exp) - logit_target`, and whether no logit is above the target's; with `with_derivative` the logits
/// become `factor` times the derivative. Rows without a target lose nothing and become zero.
extern "C" __global__ void cross_entropy(Matrix logits, const u32 *targets, int with_derivative, float factor, float *losses,
                                         u32 *correct) {
  FOR_WARP_ROWS(i, logits) {
    float *row = &at(logits, i, 0);
    const bool is_first = threadIdx.x % WARP == 0;
    const u32 target = targets[i];
    if (target == NO_ROW) {
      FOR_LANES(j, logits.columns) row[j] = 0.0f;
      if (is_first) losses[i] = 0.0f, correct[i] = 0;
      continue;
    }
    const float top = row_largest(row, logits.columns), own = row[target];
    float sum = 0.0f;
    FOR_LANES(j, logits.columns) sum += expf(row[j] - top);
    sum = warp_sum(sum);
    if (is_first) {
      losses[i] = (top - own) + logf(sum);
      correct[i] = own >= top;
    }
    // All lanes have read the target's logit before one of them overwrites it.
    __syncwarp();
    if (with_derivative)
      FOR_LANES(j, logits.columns) row[j] = factor / sum * expf(row[j] - top) - (j == (i64)target ? factor : 0.0f);
  }
}
