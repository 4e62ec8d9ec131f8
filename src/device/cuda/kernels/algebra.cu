// Algebra of flat arrays, among them Adam's update in one visit of its four arrays.

extern "C" __global__ void fill(float *a, i64 count, float value) { FOR_FLAT(i, count) a[i] = value; }

extern "C" __global__ void scale(float *a, i64 count, float factor) { FOR_FLAT(i, count) a[i] *= factor; }

/// `a = own a + factor b`; with `own` zero, what was in `a` does not count, were it NaN.
extern "C" __global__ void axpby(float own, float *a, float factor, const float *b, i64 count) {
  FOR_FLAT(i, count) {
    const float term = factor * b[i];
    a[i] = own == 0.0f ? term : own * a[i] + term;
  }
}

extern "C" __global__ void divide(float *a, const float *b, i64 count) { FOR_FLAT(i, count) a[i] /= b[i]; }

/// `a = max(a + shift, 1e-30)^exponent`.
extern "C" __global__ void shifted_power(float *a, i64 count, float shift, float exponent) {
  FOR_FLAT(i, count) {
    const float base = a[i] + shift;
    a[i] = powf(base > 1e-30f ? base : 1e-30f, exponent);
  }
}

/// The constants of Adam's update, as Backend::adam has them.
struct AdamStep {
  float beta1, rest1, beta2, rest2, root_factor, epsilon, step_size, keep;
};

/// Adam's update (Kingma and Ba 2015); without `m` the gradient itself takes the first moment's place.
extern "C" __global__ void adam(float *a, const float *g, float *m, float *v, i64 count, AdamStep step) {
  FOR_FLAT(i, count) {
    const float gradient = g[i];
    float first = gradient;
    if (m) {
      first = step.beta1 * m[i] + step.rest1 * gradient;
      m[i] = first;
    }
    const float second = step.beta2 * v[i] + step.rest2 * gradient * gradient;
    v[i] = second;
    a[i] = step.keep * a[i] - step.step_size * first / (step.root_factor * sqrtf(second) + step.epsilon);
  }
}
