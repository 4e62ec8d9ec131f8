// What all kernels share. The files of this folder are one program: they are joined, this one first, and compiled for the
// device at hand; on a machine without one the same text is compiled as C++ behind tests/kernels/emulation.h.
//
// A matrix holds a unit a row and an example a column, row by row, `stride` elements from one row to the next, so that
// neighbouring threads take neighbouring examples. Sums that are results are formed in a fixed order: a grid that depends on
// sizes alone, a tree in every block, the blocks' parts added by a kernel of their own. There is no atomic on a result.

typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;

/// Threads of every block.
#define THREADS 256
#define WARP 32
#define ALL_LANES 0xffffffffu

/// A `rows x columns` matrix, `stride` elements from row to row.
struct Matrix {
  float *values;
  i64 rows, columns, stride;
};

/// The element in a row and a column.
__device__ float &at(Matrix m, i64 row, i64 column) { return m.values[row * m.stride + column]; }

/// This thread's place among all of the grid's first dimension, and how many those are.
__device__ i64 thread_index() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ i64 thread_count() { return (i64)gridDim.x * blockDim.x; }

/// Visits the elements of a flat array.
#define FOR_FLAT(i, count) for (i64 i = thread_index(); i < (count); i += thread_count())
/// Visits the columns of a matrix.
#define FOR_COLUMNS(c, m) for (i64 c = thread_index(); c < (m).columns; c += thread_count())
/// Visits the rows of a matrix, one for each block of the grid's second dimension.
#define FOR_ROWS(r, m) for (i64 r = blockIdx.y; r < (m).rows; r += gridDim.y)
/// Visits the elements of a matrix.
#define FOR_ELEMENTS(r, c, m) FOR_ROWS(r, m) FOR_COLUMNS(c, m)

/// This block's number among all of the grid, and how many those are.
__device__ i64 block_index() { return (i64)blockIdx.y * gridDim.x + blockIdx.x; }
__device__ i64 block_count() { return (i64)gridDim.x * gridDim.y; }

__device__ float larger(float a, float b) { return a > b ? a : b; }

/// The larger of two numbers; a NaN is the largest of all.
__device__ double larger_or_nan(double a, double b) {
  if (a != a) return a;
  if (b != b) return b;
  return a > b ? a : b;
}

/// The sum over the lanes of a warp, for every lane, in the order of a tree.
__device__ double warp_sum(double value) {
  for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
  return value;
}

__device__ float warp_sum(float value) {
  for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
  return value;
}

/// The largest over the lanes of a warp, for every lane; a NaN is not passed over.
__device__ float warp_largest(float value) {
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(ALL_LANES, value, distance);
    value = (other > value || other != other) ? other : value;
  }
  return value;
}

/// The sum over the threads of a block, for its first thread, in the order of a tree. All threads call it.
__device__ double block_sum(double value) {
  __shared__ double parts[THREADS / WARP];
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < (int)(blockDim.x / WARP); ++warp) sum += parts[warp];
  return sum;
}

/// The largest over the threads of a block, for its first thread. All threads call it.
__device__ double block_largest(double value) {
  __shared__ double parts[THREADS / WARP];
  for (int distance = WARP / 2; distance > 0; distance /= 2)
    value = larger_or_nan(value, __shfl_xor_sync(ALL_LANES, value, distance));
  __syncthreads();
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int warp = 1; warp < (int)(blockDim.x / WARP); ++warp) value = larger_or_nan(value, parts[warp]);
  return value;
}

/// Adds a block's part to the parts of sum `which`; the block's other threads have nothing to say.
__device__ void put_part(double *parts, int which, double value) {
  const double sum = block_sum(value);
  if (threadIdx.x == 0) parts[which * block_count() + block_index()] = sum;
}
