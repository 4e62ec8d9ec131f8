// Products of segments of tokens with matrices of their own, and products of many matrices of one shape. A list names what each
// block works on, so that a matrix which no token meets is neither read nor written and costs nothing. Kernels whose names begin
// with `half` take factors that hold bf16 numbers.

/// What forms a tile of a product.
typedef void Tile(Matrix out, int keep, Matrix a, int a_transposed, Matrix b, int b_transposed, i64 row, i64 column);

/// A `rows x columns` matrix that lies among others of its shape, `step` numbers from one to the next.
__device__ Matrix nth(float *values, i64 index, i64 rows, i64 columns, i64 step) {
  Matrix m = {values + index * step, rows, columns, columns};
  return m;
}

/// Rows `first` to `end` of a matrix.
__device__ Matrix rows_of(Matrix m, i64 first, i64 end) {
  m.values += first * m.stride;
  m.rows = end - first;
  return m;
}

/// `out_s = x_s W_s'`, or with `adjoint` `out_s = x_s W_s`, for `count` pieces of at most TILE tokens, each three numbers of the
/// list: first token, end, matrix.
template <Tile tile>
__device__ void products_of_segments(Matrix out, int keep, Matrix x, float *weights, i64 rows, i64 columns, i64 step,
                                     int adjoint, const u32 *list, i64 count) {
  for (i64 piece = blockIdx.y; piece < count; piece += gridDim.y) {
    const u32 first = list[3 * piece], end = list[3 * piece + 1];
    const Matrix w = nth(weights, list[3 * piece + 2], rows, columns, step);
    for (i64 column = (i64)blockIdx.x * TILE; column < out.columns; column += (i64)gridDim.x * TILE)
      tile(rows_of(out, first, end), keep, rows_of(x, first, end), 0, w, !adjoint, 0, column);
  }
}

extern "C" __global__ void segment_products(Matrix out, int keep, Matrix x, float *weights, i64 rows, i64 columns, i64 step,
                                            int adjoint, const u32 *list, i64 count) {
  products_of_segments<product_tile>(out, keep, x, weights, rows, columns, step, adjoint, list, count);
}

extern "C" __global__ void half_segment_products(Matrix out, int keep, Matrix x, float *weights, i64 rows, i64 columns, i64 step,
                                                 int adjoint, const u32 *list, i64 count) {
  products_of_segments<half_tile>(out, keep, x, weights, rows, columns, step, adjoint, list, count);
}

/// `W_s += d_s' x_s` for `count` segments, each three numbers of the list.
extern "C" __global__ void segment_gradients(float *sum, i64 rows, i64 columns, i64 step, Matrix d, Matrix x, const u32 *list,
                                             i64 count) {
  const i64 tiles = (rows + TILE - 1) / TILE;
  for (i64 task = blockIdx.y; task < count * tiles; task += gridDim.y) {
    const i64 segment = task / tiles;
    const u32 first = list[3 * segment], end = list[3 * segment + 1];
    const Matrix w = nth(sum, list[3 * segment + 2], rows, columns, step);
    for (i64 column = (i64)blockIdx.x * TILE; column < columns; column += (i64)gridDim.x * TILE)
      product_tile(w, 1, rows_of(d, first, end), 1, rows_of(x, first, end), 0, task % tiles * TILE, column);
  }
}

/// Matrices of one shape: `outer` elements from one group to the next, `inner` from one matrix of a group to the next.
struct Stack {
  Matrix first;
  i64 outer, inner;
};

__device__ Matrix member(Stack stack, i64 group, i64 place) {
  stack.first.values += group * stack.outer + place * stack.inner;
  return stack.first;
}

/// `out = a b`, or with `keep` `out += a b`, for every one of `groups x each` matrices.
template <Tile tile>
__device__ void products_of_stacks(Stack out, int keep, Stack a, int a_transposed, Stack b, int b_transposed, i64 groups,
                                   i64 each) {
  const i64 tiles = (out.first.rows + TILE - 1) / TILE;
  for (i64 task = blockIdx.y; task < groups * each * tiles; task += gridDim.y) {
    const i64 group = task / tiles / each, place = task / tiles % each;
    for (i64 column = (i64)blockIdx.x * TILE; column < out.first.columns; column += (i64)gridDim.x * TILE)
      tile(member(out, group, place), keep, member(a, group, place), a_transposed, member(b, group, place), b_transposed,
           task % tiles * TILE, column);
  }
}

extern "C" __global__ void stacked_product(Stack out, int keep, Stack a, int a_transposed, Stack b, int b_transposed, i64 groups,
                                           i64 each) {
  products_of_stacks<product_tile>(out, keep, a, a_transposed, b, b_transposed, groups, each);
}

extern "C" __global__ void half_stacked_product(Stack out, int keep, Stack a, int a_transposed, Stack b, int b_transposed,
                                                i64 groups, i64 each) {
  products_of_stacks<half_tile>(out, keep, a, a_transposed, b, b_transposed, groups, each);
}
