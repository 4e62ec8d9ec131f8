// Root-mean-square normalization of rows with its derivatives (Zhang and Sennrich 2019); equations stand in
// cpu/tokens/norm.rs. A warp takes a row.

/// `(mean x_i^2 + epsilon)^(-1/2)` of row `i`, for every lane.
__device__ float inverse_size(Matrix x, i64 i, float epsilon) {
  float sum = 0.0f;
  FOR_LANES(j, x.columns) sum += at(x, i, j) * at(x, i, j);
  return 1.0f / sqrtf(warp_sum(sum) / (float)x.columns + epsilon);
}

/// `out_i = w o x_i r_i`.
extern "C" __global__ void rms_norm(Matrix out, Matrix x, const float *w, float epsilon) {
  FOR_WARP_ROWS(i, x) {
    const float r = inverse_size(x, i, epsilon);
    FOR_LANES(j, x.columns) at(out, i, j) = w[j] * (r * at(x, i, j));
  }
}

/// Its tangent at `t` and `t_w`.
extern "C" __global__ void rms_norm_tangent(Matrix out, Matrix x, const float *w, Matrix t, const float *t_w, float epsilon) {
  FOR_WARP_ROWS(i, x) {
    const float r = inverse_size(x, i, epsilon);
    float sum = 0.0f;
    FOR_LANES(j, x.columns) sum += at(x, i, j) * at(t, i, j);
    const float c = r * r * r * warp_sum(sum) / (float)x.columns;
    FOR_LANES(j, x.columns) at(out, i, j) = w[j] * (r * at(t, i, j) - c * at(x, i, j)) + t_w[j] * (r * at(x, i, j));
  }
}

/// Its adjoint at `d`, added to `dx`; `r_i` of every row is left for the weights' part.
extern "C" __global__ void rms_norm_adjoint(Matrix dx, Matrix x, const float *w, Matrix d, float epsilon, float *sizes) {
  FOR_WARP_ROWS(i, x) {
    const float r = inverse_size(x, i, epsilon);
    float sum = 0.0f;
    FOR_LANES(j, x.columns) sum += w[j] * at(d, i, j) * at(x, i, j);
    const float c = r * r * r * warp_sum(sum) / (float)x.columns;
    FOR_LANES(j, x.columns) at(dx, i, j) += r * (w[j] * at(d, i, j)) - c * at(x, i, j);
    if (threadIdx.x % WARP == 0) sizes[i] = r;
  }
}

/// Parts of `sum_i r_i x_ij d_ij`: those of column `j` are `gridDim.y` numbers from `j gridDim.y` on.
extern "C" __global__ void rms_norm_weights(Matrix x, Matrix d, const float *sizes, double *parts) {
  FOR_COLUMNS(j, x) {
    double sum = 0;
    FOR_ROWS(i, x) sum += (double)(sizes[i] * at(x, i, j) * at(d, i, j));
    parts[j * gridDim.y + blockIdx.y] = sum;
  }
}
