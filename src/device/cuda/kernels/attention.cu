// What attention does to its scores between two products; equations stand in cpu/tokens/attention.rs. Rows are those of all
// sequences, heads and queries, one after another; a warp takes a row.

#define SCORES_SOFTMAX 0
#define SCORES_TANGENT 1
#define SCORES_ADJOINT 2

/// The shape of an attention: distance `key - query` has its bucket at `key - query + queries - 1`.
struct AttentionShape {
  i64 queries, keys, heads;
  const u32 *buckets, *valid;
  i64 causal;
};

/// Adds the bias, hides keys and takes the softmax; or adds the bias's tangent and applies the derivative of the softmax `p`;
/// or applies its adjoint, which is the same without a bias.
extern "C" __global__ void finish_scores(int task, AttentionShape shape, Matrix scores, Matrix p, Matrix bias) {
  FOR_WARP_ROWS(r, scores) {
    const i64 query = r % shape.queries, head = r / shape.queries % shape.heads, sequence = r / shape.queries / shape.heads;
    const i64 seen = shape.causal && query + 1 < shape.keys ? query + 1 : shape.keys;
    const u32 *valid = shape.valid ? shape.valid + sequence * shape.keys : nullptr;
    float *row = &at(scores, r, 0);
    if (bias.values && task != SCORES_ADJOINT)
      FOR_LANES(k, seen) row[k] += at(bias, shape.buckets[k - query + shape.queries - 1], head);
    if (task == SCORES_SOFTMAX) {
      if (valid) FOR_LANES(k, seen) if (!valid[k]) row[k] = NOTHING;
      const float top = row_largest(row, seen);
      if (top == NOTHING) {
        // Nothing can be seen: nothing is attended to.
        FOR_LANES(k, seen) row[k] = 0.0f;
      } else {
        float sum = 0.0f;
        FOR_LANES(k, seen) {
          row[k] = expf(row[k] - top);
          sum += row[k];
        }
        sum = warp_sum(sum);
        FOR_LANES(k, seen) row[k] /= sum;
      }
    } else {
      row_tangent(row, &at(p, r, 0), seen, 1.0f);
    }
    FOR_LANES(k, scores.columns) if (k >= seen) row[k] = 0.0f;
  }
}

/// Sums of scores' derivatives along diagonals: a block for every head (`blockIdx.y`) and distance (`blockIdx.x`).
extern "C" __global__ void diagonal_sums(AttentionShape shape, Matrix scores, i64 sequences, double *sums) {
  const i64 head = blockIdx.y, distance = blockIdx.x;
  double sum = 0;
  for (i64 i = threadIdx.x; i < sequences * shape.queries; i += blockDim.x) {
    const i64 query = i % shape.queries, sequence = i / shape.queries, key = query + distance - (shape.queries - 1);
    if (key >= 0 && key < shape.keys) sum += (double)at(scores, (sequence * shape.heads + head) * shape.queries + query, key);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[head * gridDim.x + distance] = sum;
}

/// Adds the sums of every distance to its bucket of a head, in the order of distances; a thread takes a bucket of a head.
extern "C" __global__ void add_to_buckets(Matrix bias, const u32 *buckets, const double *sums, i64 distances) {
  FOR_FLAT(i, bias.rows * bias.columns) {
    const i64 bucket = i / bias.columns, head = i % bias.columns;
    double sum = at(bias, bucket, head);
    for (i64 d = 0; d < distances; ++d)
      if (buckets[d] == (u32)bucket) sum += sums[head * distances + d];
    at(bias, bucket, head) = (float)sum;
  }
}
