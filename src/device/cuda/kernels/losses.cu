// Losses of outputs, an example a column: their sum in f64, residuals `d loss/d o`, products with their Hessians, and
// residuals at targets that the model itself draws. The numbers of the kinds are those of `kind_of_loss` in arrays.rs;
// equations stand in cpu/losses.rs.

#define LOGISTIC 0
#define SOFTMAX 1
#define SQUARED 2
#define HINGE 3
#define UNIT_HINGE 4

#define LEAST -3.40282347e38f

/// A loss of one output, and its derivative.
struct LossAt {
  float loss, slope;
};

__device__ LossAt loss_at(int kind, float o, float y) {
  LossAt l;
  if (kind == LOGISTIC) {
    const float e = expf(-fabsf(o)), high = 1.0f / (1.0f + e), low = e * high;
    const float p = o > 0.0f ? high : low, q = o > 0.0f ? low : high;
    // 1 - y is exact where the target is a class: no cancellation near it.
    l.loss = ((o < 0.0f ? 0.0f : o) - y * o) + log1pf(e);
    l.slope = p * (1.0f - y) - q * y;
  } else if (kind == SQUARED) {
    l.loss = 0.5f * (o - y) * (o - y);
    l.slope = o - y;
  } else {
    const float sign = kind == HINGE ? 2.0f * y - 1.0f : (y > 0.5f ? 1.0f : -1.0f);
    // The margin that is wanted: 1 - y o for the hinge, 1 - o or o for the unit hinge.
    const float shortfall = kind == HINGE || y > 0.5f ? 1.0f - sign * o : o;
    l.loss = shortfall < 0.0f ? 0.0f : shortfall;
    l.slope = shortfall < 0.0f ? 0.0f : -sign;
  }
  return l;
}

/// The second derivative of a loss of one output.
__device__ float loss_curvature_at(int kind, float o) {
  if (kind == LOGISTIC) {
    const float e = expf(-fabsf(o)), high = 1.0f / (1.0f + e);
    return e * high * high;
  }
  return kind == SQUARED ? 1.0f : 0.0f;
}

/// Parts of the sum of losses of single outputs; `factor` times the derivatives into the residual if there is room for it.
extern "C" __global__ void single_loss(int kind, Matrix outputs, Matrix targets, Matrix residual, float factor, double *parts) {
  double sum = 0;
  FOR_ELEMENTS(r, c, outputs) {
    const LossAt l = loss_at(kind, at(outputs, r, c), at(targets, r, c));
    if (residual.values) at(residual, r, c) = factor * l.slope;
    sum += (double)l.loss;
  }
  put_part(parts, 0, sum);
}

/// The largest output of a column, a NaN not passed over, and the sum of exponentials of what lies below it.
struct Exponentials {
  float largest, sum;
};

__device__ Exponentials exponentials(Matrix o, i64 c) {
  Exponentials e;
  e.largest = LEAST;
  for (i64 k = 0; k < o.rows; ++k) {
    const float value = at(o, k, c);
    e.largest = value < e.largest ? e.largest : value;
  }
  e.sum = 0.0f;
  for (i64 k = 0; k < o.rows; ++k) e.sum += expf(at(o, k, c) - e.largest);
  return e;
}

/// Parts of the sum of `ln sum_k exp o_k - o_y`, a class for each column; residuals as in `single_loss`.
extern "C" __global__ void softmax_loss(Matrix o, const float *classes, Matrix residual, float factor, double *parts) {
  double sum = 0;
  FOR_COLUMNS(c, o) {
    const Exponentials e = exponentials(o, c);
    const float of_class = at(o, (i64)classes[c], c);
    sum += log((double)e.sum) + (double)(e.largest - of_class);
    if (residual.values)
      for (i64 k = 0; k < o.rows; ++k) {
        const float p = expf(at(o, k, c) - e.largest) / e.sum;
        at(residual, k, c) = factor * (p - (classes[c] == (float)k ? 1.0f : 0.0f));
      }
  }
  put_part(parts, 0, sum);
}

/// `t = factor h'' t` for losses of single outputs.
extern "C" __global__ void single_curvature(int kind, Matrix outputs, Matrix t, float factor) {
  FOR_ELEMENTS(r, c, t) at(t, r, c) *= factor * loss_curvature_at(kind, at(outputs, r, c));
}

/// `t = factor (diag(p) - p p') t` with the softmax `p` of every column.
extern "C" __global__ void softmax_curvature(Matrix o, Matrix t, float factor) {
  FOR_COLUMNS(c, o) {
    const Exponentials e = exponentials(o, c);
    float mean = 0.0f;
    for (i64 k = 0; k < o.rows; ++k) mean += expf(at(o, k, c) - e.largest) / e.sum * at(t, k, c);
    for (i64 k = 0; k < o.rows; ++k)
      at(t, k, c) = factor * (expf(at(o, k, c) - e.largest) / e.sum) * (at(t, k, c) - mean);
  }
}

/// `d loss/d o` at drawn targets: uniform numbers for the logistic loss, normal ones for the squared loss; hinges have none.
extern "C" __global__ void single_sampled(int kind, Matrix outputs, Matrix noise, Matrix residual) {
  FOR_ELEMENTS(r, c, residual) {
    const float u = at(noise, r, c), p = 1.0f / (1.0f + expf(-at(outputs, r, c)));
    at(residual, r, c) = kind == LOGISTIC ? (u < p ? p - 1.0f : p) : kind == SQUARED ? -u : 0.0f;
  }
}

/// The same for a softmax: the class at which the sum of probabilities passes a uniform number; by rounding the last one.
extern "C" __global__ void softmax_sampled(Matrix o, const float *uniform, Matrix residual) {
  FOR_COLUMNS(c, o) {
    const Exponentials e = exponentials(o, c);
    float rest = uniform[c];
    bool is_open = true;
    for (i64 k = 0; k < o.rows; ++k) {
      const float p = expf(at(o, k, c) - e.largest) / e.sum;
      rest -= p;
      const bool is_class = is_open && (rest < 0.0f || k + 1 == o.rows);
      is_open = is_open && !is_class;
      at(residual, k, c) = p - (is_class ? 1.0f : 0.0f);
    }
  }
}
