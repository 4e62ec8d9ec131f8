// Functions of feed-forward layers with their derivatives; a gated one takes the left half of `u` for its gate. The numbers of
// the kinds are those of `kind_of_feed_forward` in tokens.rs; equations stand in cpu/tokens/feed_forward.rs.

#define FEED_RELU 0
#define FEED_GELU 1
#define FEED_GEGLU 2

struct ValueAndSlope {
  float value, slope;
};

/// GELU in the form with tanh.
__device__ ValueAndSlope gelu_by_tanh(float z) {
  const float c = 0.7978846f, s = z * z, t = tanhf(c * z * (1.0f + 0.044715f * s));
  ValueAndSlope g;
  g.value = 0.5f * z * (1.0f + t);
  g.slope = 0.5f * (1.0f + t) + 0.5f * z * (1.0f - t * t) * c * (1.0f + 0.134145f * s);
  return g;
}

__device__ int single_kind(int f) { return f == FEED_RELU ? RELU : GELU; }

/// `h = f(u)`.
extern "C" __global__ void feed_forward(int f, Matrix h, Matrix u) {
  FOR_ELEMENTS(r, c, h)
  at(h, r, c) = f == FEED_GEGLU ? gelu_by_tanh(at(u, r, c)).value * at(u, r, h.columns + c)
                                : activation(single_kind(f), at(u, r, c));
}

/// Its tangent at `t_u`.
extern "C" __global__ void feed_forward_tangent(int f, Matrix t_h, Matrix u, Matrix t_u) {
  FOR_ELEMENTS(r, c, t_h) {
    if (f == FEED_GEGLU) {
      const ValueAndSlope g = gelu_by_tanh(at(u, r, c));
      at(t_h, r, c) = g.slope * at(u, r, t_h.columns + c) * at(t_u, r, c) + g.value * at(t_u, r, t_h.columns + c);
    } else {
      at(t_h, r, c) = slope_at(single_kind(f), at(u, r, c)) * at(t_u, r, c);
    }
  }
}

/// Its adjoint at `d_h`.
extern "C" __global__ void feed_forward_adjoint(int f, Matrix d_u, Matrix u, Matrix d_h) {
  FOR_ELEMENTS(r, c, d_h) {
    const float d = at(d_h, r, c);
    if (f == FEED_GEGLU) {
      const ValueAndSlope g = gelu_by_tanh(at(u, r, c));
      at(d_u, r, c) = g.slope * at(u, r, d_h.columns + c) * d;
      at(d_u, r, d_h.columns + c) = g.value * d;
    } else {
      at(d_u, r, c) = slope_at(single_kind(f), at(u, r, c)) * d;
    }
  }
}
