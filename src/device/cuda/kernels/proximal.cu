// Proximal steps of losses and of a rectifier, an example a column and a thread. Equations stand in cpu/proximal.rs.

#define NEWTON_STEPS 30

/// `t` of `max(0, 1 - m)` at margin `m` in the metric `q`.
__device__ float hinge_step(float margin, float q) {
  const float shortfall = 1.0f - margin;
  if (shortfall < 0.0f) return 0.0f;
  if (shortfall > q) return 1.0f;
  return shortfall / (q > 0.0f ? q : 1.0f);
}

/// The root of the increasing `t + p(c + q t) - y`, which lies between `y - 1` and `y`, by Newton's method in a bracket.
__device__ float logistic_step(float c, float q, float y) {
  float low = y - 1.0f, high = y, t = 0.0f;
  for (int round = 0; round < NEWTON_STEPS; ++round) {
    const float s = c + q * t, excess = t + loss_at(LOGISTIC, s, y).slope;
    if (excess < 0.0f) low = t;
    if (excess > 0.0f) high = t;
    const float newton = t - excess / (1.0f + q * loss_curvature_at(LOGISTIC, s));
    const bool is_near = fabsf(newton - t) <= 1e-6f;
    // At an end of the bracket Newton's method has been before: halving keeps it from going in circles.
    const float next = !is_near && (newton <= low || newton >= high) ? 0.5f * (low + high) : newton;
    const float change = fabsf(next - t);
    t = next;
    if (!(change > 1e-6f)) break;
  }
  return t;
}

/// Steps of a loss of one output; parts of the sums of `l(c + q t)` and `q t^2`.
extern "C" __global__ void single_proximal(int kind, i64 count, const float *center, const float *metric,
                                           const float *targets, float *t, double *parts) {
  double loss = 0, quadratic = 0;
  FOR_FLAT(i, count) {
    const float c = center[i], q = metric[i], y = targets[i];
    float step;
    if (kind == LOGISTIC) {
      step = logistic_step(c, q, y);
    } else if (kind == SQUARED) {
      step = (y - c) / (1.0f + q);
    } else if (kind == HINGE) {
      const float sign = 2.0f * y - 1.0f;
      step = sign * hinge_step(sign * c, q);
    } else {
      step = y > 0.5f ? hinge_step(c, q) : -hinge_step(1.0f - c, q);
    }
    t[i] = step;
    const float move = q * step;
    loss += (double)loss_at(kind, c + move, y).loss;
    quadratic += (double)(move * step);
  }
  put_part(parts, 0, loss);
  put_part(parts, 1, quadratic);
}

// Several outputs: with Q = L L', argmin_u l(c + L u) + |u|^2/2 by Newton's method. What an example needs lies in `room`, a
// number a row, an example a column, so that neighbouring threads take neighbouring numbers.

/// Place of element `(i, j)`, `i >= j`, in a packed lower triangle.
__device__ i64 packed(i64 i, i64 j) { return i * (i + 1) / 2 + j; }

/// The numbers of one example.
struct Column {
  float *first;
  i64 stride;
};

__device__ float &of(Column v, i64 i) { return v.first[i * v.stride]; }

/// The Cholesky factor of a packed matrix in place; a pivot that has fallen to rounding leaves a zero column.
__device__ void factorize(Column a, i64 k) {
  for (i64 j = 0; j < k; ++j) {
    const float diagonal = of(a, packed(j, j));
    float pivot = diagonal;
    for (i64 i = 0; i < j; ++i) pivot -= of(a, packed(j, i)) * of(a, packed(j, i));
    const bool is_positive = pivot > 1e-6f * diagonal;
    const float root = is_positive ? sqrtf(pivot) : 0.0f, inverse = is_positive ? 1.0f / root : 0.0f;
    of(a, packed(j, j)) = root;
    for (i64 i = j + 1; i < k; ++i) {
      float sum = of(a, packed(i, j));
      for (i64 m = 0; m < j; ++m) sum -= of(a, packed(i, m)) * of(a, packed(j, m));
      of(a, packed(i, j)) = sum * inverse;
    }
  }
}

/// Solves `L L' x = b` in place for a factor without zero pivots.
__device__ void solve(Column l, Column x, i64 k) {
  for (i64 i = 0; i < k; ++i) {
    float sum = of(x, i);
    for (i64 j = 0; j < i; ++j) sum -= of(l, packed(i, j)) * of(x, j);
    of(x, i) = sum / of(l, packed(i, i));
  }
  for (i64 i = k - 1; i >= 0; --i) {
    float sum = of(x, i);
    for (i64 j = i + 1; j < k; ++j) sum -= of(l, packed(j, i)) * of(x, j);
    of(x, i) = sum / of(l, packed(i, i));
  }
}

/// The loss at the outputs `s`; its gradient into `g`, a softmax's probabilities into `p`.
__device__ float several_at(int kind, Column s, Matrix targets, i64 c, Column g, Column p, i64 k) {
  if (kind == SQUARED) {
    float loss = 0.0f;
    for (i64 i = 0; i < k; ++i) {
      const float residual = of(s, i) - at(targets, i, c);
      of(g, i) = residual;
      loss += 0.5f * residual * residual;
    }
    return loss;
  }
  float largest = LEAST, sum = 0.0f, of_class = 0.0f;
  for (i64 i = 0; i < k; ++i) largest = of(s, i) < largest ? largest : of(s, i);
  for (i64 i = 0; i < k; ++i) {
    of(p, i) = expf(of(s, i) - largest);
    sum += of(p, i);
  }
  for (i64 i = 0; i < k; ++i) {
    const bool is_class = targets.values[c] == (float)i;
    of(p, i) /= sum;
    of(g, i) = of(p, i) - (is_class ? 1.0f : 0.0f);
    if (is_class) of_class = of(s, i);
  }
  return (largest - of_class) + logf(sum);
}

/// Steps of a loss of several outputs, for each of which `room` has two triangles and seven vectors; parts of the sums of `l(c + Q t)` and `t'Q t`.
extern "C" __global__ void several_proximal(int kind, Matrix center, Matrix metric, Matrix targets, Matrix t, float *room,
                                            double *parts) {
  const i64 k = center.rows, triangle = k * (k + 1) / 2, n = center.columns;
  double losses = 0, norms = 0;
  FOR_COLUMNS(c, center) {
    const Column l = {room + c, n}, m = {room + triangle * n + c, n};
    float *vectors = room + 2 * triangle * n + c;
    const Column s = {vectors, n}, u = {vectors + k * n, n}, step = {vectors + 2 * k * n, n};
    const Column gradient = {vectors + 3 * k * n, n}, tried = {vectors + 4 * k * n, n}, p = {vectors + 5 * k * n, n};
    const Column right = {vectors + 6 * k * n, n};
    for (i64 i = 0; i < triangle; ++i) of(l, i) = at(metric, i, c);
    factorize(l, k);
    for (i64 i = 0; i < k; ++i) of(u, i) = of(step, i) = of(gradient, i) = 0.0f;
    float value = -LEAST, best_loss = 0.0f, best_norm = 0.0f;
    for (int round = 0; round < NEWTON_STEPS; ++round) {
      float norm = 0.0f;
      for (i64 i = 0; i < k; ++i) {
        float sum = at(center, i, c);
        for (i64 j = 0; j <= i; ++j) sum += of(l, packed(i, j)) * (of(u, j) + of(step, j));
        of(s, i) = sum;
        norm += (of(u, i) + of(step, i)) * (of(u, i) + of(step, i));
      }
      const float loss = several_at(kind, s, targets, c, tried, p, k), now = loss + 0.5f * norm;
      // A rise within rounding is none.
      const bool is_accepted = now <= value + 1e-6f * fabsf(value);
      if (is_accepted) {
        value = now, best_loss = loss, best_norm = norm;
        for (i64 i = 0; i < k; ++i) {
          of(u, i) += of(step, i);
          of(gradient, i) = of(tried, i);
        }
        // Newton's step -(I + L'H L)^-1 (L'g + u); with v = L'p the matrix is I + sum_k p_k L_k'L_k - v v'.
        for (i64 j = 0; j < k; ++j) {
          float v = 0.0f, b = of(u, j);
          for (i64 i = j; i < k; ++i) {
            if (kind == SOFTMAX) v += of(l, packed(i, j)) * of(p, i);
            b += of(l, packed(i, j)) * of(gradient, i);
          }
          of(s, j) = v;
          of(right, j) = b;
        }
        for (i64 i = 0; i < k; ++i)
          for (i64 j = 0; j <= i; ++j) {
            float sum = i == j ? 1.0f : 0.0f;
            for (i64 row = i; row < k; ++row)
              sum += (kind == SOFTMAX ? of(p, row) : 1.0f) * of(l, packed(row, i)) * of(l, packed(row, j));
            of(m, packed(i, j)) = sum - of(s, i) * of(s, j);
          }
        factorize(m, k);
        solve(m, right, k);
      }
      float most = 0.0f, size = 1.0f;
      for (i64 i = 0; i < k; ++i) {
        of(step, i) = is_accepted ? -of(right, i) : 0.5f * of(step, i);
        most = larger(fabsf(of(step, i)), most);
        size = larger(fabsf(of(u, i)), size);
      }
      if (round > 0 && most <= 1e-5f * size) break;
    }
    losses += (double)best_loss;
    norms += (double)best_norm;
    for (i64 i = 0; i < k; ++i) at(t, i, c) = -of(gradient, i);
  }
  put_part(parts, 0, losses);
  put_part(parts, 1, norms);
}

/// `z = argmin gamma (a - max(z, 0))^2 + beta (z - m)^2`; parts of the sums of `(a - max(z, 0))^2`, `(z - m)^2` and of the
/// squared change of `z`.
extern "C" __global__ void rectifier_proximal(Matrix z, Matrix a, Matrix m, float gamma, float beta, double *parts) {
  const float share = gamma / (gamma + beta), rest = beta / (gamma + beta);
  double activations = 0, outputs = 0, changes = 0;
  FOR_ELEMENTS(r, c, z) {
    const float goal = at(a, r, c), linear = at(m, r, c);
    const float mean = share * goal + rest * linear, on = mean > 0.0f ? mean : 0.0f, off = linear < 0.0f ? linear : 0.0f;
    const float cost_on = gamma * (goal - on) * (goal - on) + beta * (on - linear) * (on - linear);
    const float cost_off = gamma * goal * goal + beta * (off - linear) * (off - linear);
    // A NaN stays one.
    const float next = cost_off < cost_on ? off : on + 0.0f * linear;
    const float gap = goal - (next > 0.0f ? next : 0.0f), output = next - linear, change = next - at(z, r, c);
    activations += (double)(gap * gap);
    outputs += (double)(output * output);
    changes += (double)(change * change);
    at(z, r, c) = next;
  }
  put_part(parts, 0, activations);
  put_part(parts, 1, outputs);
  put_part(parts, 2, changes);
}
