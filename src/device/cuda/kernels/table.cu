// Rows of data, as they lie in panels (see src/device/panels.rs), to the columns or the rows of a matrix.

#define PANEL_ROWS 256

/// Where a row's first number lies in panels; the next is PANEL_ROWS further.
__device__ const float *row_in_panels(const float *panels, i64 columns, i64 row) {
  return panels + row / PANEL_ROWS * PANEL_ROWS * columns + row % PANEL_ROWS;
}

/// `out[j][i] = (x[row_i][j] - shift_j) factor_j` for the rows named by `list`, or without it for consecutive rows from
/// `first` on.
extern "C" __global__ void load(const float *panels, i64 columns, i64 first, const u32 *list, const float *shift,
                                const float *factor, Matrix out) {
  FOR_ELEMENTS(j, i, out) {
    const float *row = row_in_panels(panels, columns, first + (list ? (i64)list[i] : i));
    at(out, j, i) = (row[j * PANEL_ROWS] - shift[j]) * factor[j];
  }
}

/// The same with a row a row: `out[i][j]`.
extern "C" __global__ void load_rows(const float *panels, i64 columns, i64 first, const u32 *list, const float *shift,
                                     const float *factor, Matrix out) {
  FOR_ELEMENTS(i, j, out) {
    const float *row = row_in_panels(panels, columns, first + (list ? (i64)list[i] : i));
    at(out, i, j) = (row[j * PANEL_ROWS] - shift[j]) * factor[j];
  }
}
