// Activations with their slopes. The numbers of the kinds are those of `kind_of_activation` in arrays.rs.
//
// tanh, exp and erfc are the compiler's own, without fast approximations; Phi(z) is erfc(-z/sqrt 2)/2, exact also far below
// zero. A NaN stays a NaN.

#define IDENTITY 0
#define RELU 1
#define TANH 2
#define SIGMOID 3
#define GELU 4

/// `h(z)`.
__device__ float activation(int kind, float z) {
  switch (kind) {
    case RELU: return z < 0.0f ? 0.0f : z;
    case TANH: return tanhf(z);
    case SIGMOID: return 1.0f / (1.0f + expf(-z));
    case GELU: return z * (0.5f * erfcf(-0.70710678f * z));
    default: return z;
  }
}

/// `h'` from what was kept: the value, or the slope itself.
__device__ float kept_slope(int kind, float kept) {
  switch (kind) {
    case RELU: return kept > 0.0f ? 1.0f : 0.0f;
    case TANH: return 1.0f - kept * kept;
    case SIGMOID: return kept - kept * kept;
    case GELU: return kept;
    default: return 1.0f;
  }
}

/// `h'(z)`.
__device__ float slope_at(int kind, float z) {
  if (kind == GELU) return 0.5f * erfcf(-0.70710678f * z) + z * 0.39894228f * expf(-0.5f * z * z);
  return kept_slope(kind, activation(kind, z));
}

/// `a = h(a + bias)`, a bias for each row; slopes beside it if there is room for them.
extern "C" __global__ void activate(int kind, Matrix a, const float *bias, Matrix slope) {
  FOR_ELEMENTS(r, c, a) {
    const float z = at(a, r, c) + bias[r];
    if (slope.values) at(slope, r, c) = slope_at(kind, z);
    at(a, r, c) = activation(kind, z);
  }
}

/// `t = (t + bias) o h'`, the tangent of `activate`.
extern "C" __global__ void tangent(int kind, Matrix t, const float *bias, Matrix kept) {
  FOR_ELEMENTS(r, c, t) at(t, r, c) = (at(t, r, c) + bias[r]) * kept_slope(kind, at(kept, r, c));
}

/// `d = d o h'`, the adjoint of `activate`.
extern "C" __global__ void multiply_slopes(int kind, Matrix d, Matrix kept) {
  FOR_ELEMENTS(r, c, d) at(d, r, c) *= kept_slope(kind, at(kept, r, c));
}
